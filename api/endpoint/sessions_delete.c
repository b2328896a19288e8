/* DELETE /v1/sessions/{id}. */
#include "api/json_body.h"
#include "api/router.h"
#include "api/session_json.h"

struct reply serve_sessions_delete(struct engine *engine, struct request *request)
{
    struct session *session;
    struct fault fault;

    if (promise_refuse(request, "If-Match", &fault) != STATUS_OK ||
        request_query_end(request, &fault) != STATUS_OK ||
        request_session(engine, request, &session, &fault) != STATUS_OK)
        return reply_fault(request, &fault);
    enum status status = session_delete(engine, session, &fault);
    session_release(session);
    return status == STATUS_OK ? reply_empty(204) : reply_fault(request, &fault);
}
