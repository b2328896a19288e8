/* GET /v1/optimizers/{name}: one update rule. */
#include "api/catalogue_json.h"
#include "api/router.h"

struct reply serve_optimizers_get(struct engine *engine, struct request *request)
{
    const char *name = request->path_parameters[0];
    const struct optimizer *rule = optimizer_find(name, DTYPE_F32);
    struct json_text text;
    struct fault fault;

    (void)engine;
    if (request_query_end(request, &fault) != STATUS_OK)
        return reply_fault(request, &fault);
    if (rule == NULL) {
        fault_set(&fault, STATUS_OPTIMIZER_NOT_FOUND, "",
                  preset_find(name) == NULL
                      ? "there is no optimizer \"%.60s\"; GET /v1/optimizers lists them"
                      : "\"%.60s\" is a preset, not an optimizer; GET /v1/presets says which it is",
                  name);
        return reply_fault(request, &fault);
    }
    json_text_init(&text, request->arena);
    optimizer_write(&text, rule);
    return reply_json(200, json_text_end(&text));
}
