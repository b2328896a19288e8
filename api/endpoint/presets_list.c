/* GET /v1/presets: optimizers of other frameworks by their names there. */
#include "api/catalogue_json.h"
#include "api/router.h"

static bool write_at(struct json_text *text, size_t index)
{
    const struct preset *preset = preset_at(index);

    if (preset != NULL)
        preset_write(text, preset);
    return preset != NULL;
}

struct reply serve_presets_list(struct engine *engine, struct request *request)
{
    (void)engine;
    return catalogue_reply(request, "presets", write_at);
}
