/* GET /v1/schedules: the catalogue of learning-rate schedules. */
#include "api/catalogue_json.h"
#include "api/router.h"

struct reply serve_schedules_list(struct engine *engine, struct request *request)
{
    const struct schedule *schedule;
    struct json_text text;
    struct fault fault;

    (void)engine;
    if (request_query_end(request, &fault) != STATUS_OK)
        return reply_fault(request, &fault);
    json_text_init(&text, request->arena);
    json_text_open(&text, '{');
    json_text_key(&text, "schedules");
    json_text_open(&text, '[');
    for (size_t i = 0; (schedule = schedule_at(i)) != NULL; i++)
        schedule_write(&text, schedule);
    json_text_close(&text, ']');
    json_text_close(&text, '}');
    return reply_json(200, json_text_end(&text));
}
