/* GET /v1/optimizers: the catalogue of update rules. */
#include "api/catalogue_json.h"
#include "api/router.h"

static bool write_at(struct json_text *text, size_t index)
{
    const struct optimizer *rule = optimizer_at(index, DTYPE_F32);

    if (rule != NULL)
        optimizer_write(text, rule);
    return rule != NULL;
}

struct reply serve_optimizers_list(struct engine *engine, struct request *request)
{
    (void)engine;
    return catalogue_reply(request, "optimizers", write_at);
}
