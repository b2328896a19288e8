/* GET /v1/sessions/{id}/snapshots/{number} */
#include "api/router.h"
#include "api/session_json.h"
#include "api/snapshot_json.h"

static enum status get(struct request *request, struct session *session, struct reply *reply,
                       struct fault *fault)
{
    struct snapshot_view view;
    uint64_t number;
    enum status status;

    if ((status = request_query_end(request, fault)) != STATUS_OK ||
        (status = snapshot_number(request, &number, fault)) != STATUS_OK ||
        (status = session_snapshot_view(session, number, &view, fault)) != STATUS_OK)
        return status;
    *reply = snapshot_reply(request, &view, 200);
    return STATUS_OK;
}

struct reply serve_snapshots_get(struct engine *engine, struct request *request)
{
    return session_serve(engine, request, get);
}
