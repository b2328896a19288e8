/* POST /v1/sessions: a new session under an id of the server's choice. */
#include "api/router.h"
#include "api/session_body.h"

struct reply serve_sessions_create(struct engine *engine, struct request *request)
{
    return session_create_reply(engine, request, NULL);
}
