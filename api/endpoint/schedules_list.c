/* GET /v1/schedules: the catalogue of learning-rate schedules. */
#include "api/catalogue_json.h"
#include "api/router.h"

static bool write_at(struct json_text *text, size_t index)
{
    const struct schedule *schedule = schedule_at(index);

    if (schedule != NULL)
        schedule_write(text, schedule);
    return schedule != NULL;
}

struct reply serve_schedules_list(struct engine *engine, struct request *request)
{
    (void)engine;
    return catalogue_reply(request, "schedules", write_at);
}
