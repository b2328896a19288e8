/* POST /v1/sessions/{id}/checkpoints: saves the state now. */
#include "api/json_body.h"
#include "api/router.h"
#include "api/session_json.h"

static enum status create(struct request *request, struct session *session, struct reply *reply,
                          struct fault *fault)
{
    struct json_text text;
    struct moment moment;
    enum status status;

    if ((status = promise_refuse(request, "If-Match", fault)) != STATUS_OK ||
        (status = request_query_end(request, fault)) != STATUS_OK ||
        (status = session_checkpoint_now(session, &moment, fault)) != STATUS_OK)
        return status;
    json_text_init(&text, request->arena);
    json_text_open(&text, '{');
    json_text_member_u64(&text, "step", moment.step);
    json_text_member_u64(&text, "lineage", moment.lineage);
    json_text_close(&text, '}');
    *reply = reply_json(201, json_text_end(&text));
    return STATUS_OK;
}

struct reply serve_checkpoints_create(struct engine *engine, struct request *request)
{
    return session_serve(engine, request, create);
}
