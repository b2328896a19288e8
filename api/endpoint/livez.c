/* GET /livez: the process lives and answers. */
#include "api/router.h"

struct reply serve_livez(struct engine *engine, struct request *request)
{
    struct fault fault;

    (void)engine;
    if (request_query_end(request, &fault) != STATUS_OK)
        return reply_fault(request, &fault);
    return reply_json(200, span_text("{\"status\":\"ok\"}"));
}
