/* GET /v1/sessions/{id}/state: a session at one moment, whole, as a file that restores it. */
#include "api/codec.h"
#include "api/moment.h"
#include "api/router.h"
#include "api/session_json.h"
#include "api/state_file.h"

static enum status export_state(struct request *request, struct session *session,
                                struct reply *reply, struct fault *fault)
{
    const struct codec *const offers[] = {codec_find("application/vnd.safetensors")};
    const struct moment_query *query;
    struct moment_choice choice;
    struct image *image;
    bool named;
    enum status status;

    if (media_negotiate(request_list(request, "Accept"), offers, 1, &named) == 1)
        return fault_set(fault, STATUS_NOT_ACCEPTABLE, "", "a state is served as %s",
                         offers[0]->media_type);
    if ((status = moment_read(request, &choice, &query, fault)) != STATUS_OK ||
        (status = request_query_end(request, fault)) != STATUS_OK ||
        (status = session_export(session, query, &image, fault)) != STATUS_OK)
        return status;
    return state_reply(request, image, reply, fault);
}

struct reply serve_state_export(struct engine *engine, struct request *request)
{
    return session_serve(engine, request, export_state);
}
