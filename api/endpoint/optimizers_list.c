/* GET /v1/optimizers: the catalogue of update rules. */
#include "api/catalogue_json.h"
#include "api/router.h"

struct reply serve_optimizers_list(struct engine *engine, struct request *request)
{
    const struct optimizer *rule;
    struct json_text text;
    struct fault fault;

    (void)engine;
    if (request_query_end(request, &fault) != STATUS_OK)
        return reply_fault(request, &fault);
    json_text_init(&text, request->arena);
    json_text_open(&text, '{');
    json_text_key(&text, "optimizers");
    json_text_open(&text, '[');
    for (size_t i = 0; (rule = optimizer_at(i, DTYPE_F32)) != NULL; i++)
        optimizer_write(&text, rule);
    json_text_close(&text, ']');
    json_text_close(&text, '}');
    return reply_json(200, json_text_end(&text));
}
