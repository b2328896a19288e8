/* GET /openapi.json: the description of the whole surface, as it is in the source. */
#include <stddef.h>

#include "api/router.h"
#include "service/core/embed.h"

EMBED(openapi, "api/openapi.json");

struct reply serve_openapi(struct engine *engine, struct request *request)
{
    struct fault fault;

    (void)engine;
    if (request_query_end(request, &fault) != STATUS_OK)
        return reply_fault(request, &fault);
    return reply_json(200, span_of(openapi_begin, (size_t)(openapi_end - openapi_begin)));
}
