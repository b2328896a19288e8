/* GET /readyz: work is welcome: the engine has recovered, the store can be written, nobody asked us
 * to stop. */
#include "api/router.h"
#include "service/session/engine.h"

struct reply serve_readyz(struct engine *engine, struct request *request)
{
    struct fault fault;

    if (request_query_end(request, &fault) != STATUS_OK)
        return reply_fault(request, &fault);
    if (engine == NULL) {
        fault_set(&fault, STATUS_OVERLOADED, "",
                  "the server is recovering its sessions; try again");
        return reply_fault(request, &fault);
    }
    if (engine_ready(engine, &fault) != STATUS_OK) {
        /* Whatever the cause, also a full disk: 503 is what whoever routes requests here looks for.
         */
        fault.status = STATUS_STORAGE_FAILED;
        return reply_fault(request, &fault);
    }
    return reply_json(200, span_text("{\"status\":\"ready\"}"));
}
