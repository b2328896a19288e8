/* DELETE /v1/sessions/{id}/workers/{name}: forgets a worker, so that nobody waits for it. */
#include "api/json_body.h"
#include "api/router.h"
#include "api/session_json.h"

static enum status dismiss(struct request *request, struct session *session, struct reply *reply,
                           struct fault *fault)
{
    enum status status = promise_refuse(request, "If-Match", fault);

    if (status == STATUS_OK)
        status = request_query_end(request, fault);
    if (status == STATUS_OK)
        status = session_dismiss(session, request->path_parameters[1], fault);
    if (status == STATUS_OK)
        *reply = reply_empty(204);
    return status;
}

struct reply serve_workers_dismiss(struct engine *engine, struct request *request)
{
    return session_serve(engine, request, dismiss);
}
