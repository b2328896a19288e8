/* PUT /v1/sessions/{id}: a new session under an id of the client's choice; safe to repeat. */
#include "api/router.h"
#include "api/session_body.h"
#include "service/session/engine.h"

struct reply serve_sessions_put(struct engine *engine, struct request *request)
{
    const char *id = request->path_parameters[0];
    struct fault fault;

    if (session_id_valid(id))
        return session_create_reply(engine, request, id);
    fault_set(&fault, STATUS_INVALID_REQUEST, "",
              "\"%.80s\" cannot be a session's id; use 1 to 64 of a-z, 0-9, _ and -, beginning "
              "with a letter or digit",
              id);
    return reply_fault(request, &fault);
}
