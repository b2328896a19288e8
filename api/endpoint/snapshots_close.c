/* POST /v1/sessions/{id}/snapshots/{number}/close: what came is all. */
#include "api/json_body.h"
#include "api/router.h"
#include "api/session_json.h"
#include "api/snapshot_json.h"

static enum status close_snapshot(struct request *request, struct session *session,
                                  struct reply *reply, struct fault *fault)
{
    struct snapshot_view view;
    uint64_t number;
    enum status status;

    if ((status = promise_refuse(request, "If-Match", fault)) != STATUS_OK ||
        (status = request_query_end(request, fault)) != STATUS_OK ||
        (status = snapshot_number(request, &number, fault)) != STATUS_OK ||
        (status = session_snapshot_close(session, number, &view, fault)) != STATUS_OK)
        return status;
    *reply = snapshot_reply(request, &view, 200);
    return STATUS_OK;
}

struct reply serve_snapshots_close(struct engine *engine, struct request *request)
{
    return session_serve(engine, request, close_snapshot);
}
