/* GET /v1/sessions/{id}: configuration, position and last receipt. */
#include "api/router.h"
#include "api/session_json.h"

struct reply serve_sessions_get(struct engine *engine, struct request *request)
{
    struct session *session;
    struct fault fault;

    if (request_query_end(request, &fault) != STATUS_OK ||
        request_session(engine, request, &session, &fault) != STATUS_OK)
        return reply_fault(request, &fault);
    struct reply reply = session_reply(request, session, 200);
    session_release(session);
    return reply;
}
