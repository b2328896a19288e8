/* GET /healthz: another name of /readyz. */
#include "api/router.h"

struct reply serve_healthz(struct engine *engine, struct request *request)
{
    return serve_readyz(engine, request);
}
