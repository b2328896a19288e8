/* GET /v1/presets: optimizers of other frameworks by their names there. */
#include "api/catalogue_json.h"
#include "api/router.h"

struct reply serve_presets_list(struct engine *engine, struct request *request)
{
    const struct preset *preset;
    struct json_text text;
    struct fault fault;

    (void)engine;
    if (request_query_end(request, &fault) != STATUS_OK)
        return reply_fault(request, &fault);
    json_text_init(&text, request->arena);
    json_text_open(&text, '{');
    json_text_key(&text, "presets");
    json_text_open(&text, '[');
    for (size_t i = 0; (preset = preset_at(i)) != NULL; i++)
        preset_write(&text, preset);
    json_text_close(&text, ']');
    json_text_close(&text, '}');
    return reply_json(200, json_text_end(&text));
}
