/* GET /v1/sessions/{id}/workers: who contributes, how far each is, and the round that is open. */
#include <stdlib.h>

#include "api/router.h"
#include "api/session_json.h"
#include "api/waiting.h"
#include "service/core/clock.h"

static void write_worker(struct json_text *text, const struct worker_view *worker)
{
    char time[32];

    json_text_open(text, '{');
    json_text_member_string(text, "name", worker->name);
    json_text_key(text, "seq");
    if (worker->seq > 0)
        json_text_u64(text, worker->seq);
    else
        json_text_null(text);
    json_text_member_u64(text, "contributions", worker->contributions);
    json_text_member_u64(text, "base_step", worker->base_step);
    json_text_member_u64(text, "lag", worker->lag);
    json_text_member_string(text, "last_seen",
                            worker->seen_us > 0 ? clock_format(time, worker->seen_us) : NULL);
    json_text_member_bool(text, "live", worker->live);
    json_text_member_bool(text, "waiting", worker->waiting);
    json_text_close(text, '}');
}

static enum status list(struct request *request, struct session *session, struct reply *reply,
                        struct fault *fault)
{
    struct session_view *view = arena_take(request->arena, sizeof *view);
    struct worker_view *workers = NULL;
    struct json_text text;
    size_t count;
    enum status status;

    if (view == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    if ((status = request_query_end(request, fault)) != STATUS_OK ||
        (status = session_workers(session, &workers, &count, fault)) != STATUS_OK ||
        (status = session_view(session, false, view, fault)) != STATUS_OK)
        goto done;
    json_text_init(&text, request->arena);
    json_text_open(&text, '{');
    json_text_key(&text, "workers");
    json_text_open(&text, '[');
    for (size_t i = 0; i < count; i++)
        write_worker(&text, &workers[i]);
    json_text_close(&text, ']');
    round_write(&text, view);
    json_text_close(&text, '}');
    *reply = reply_json(200, json_text_end(&text));
done:
    free(workers);
    return status;
}

struct reply serve_workers_list(struct engine *engine, struct request *request)
{
    return session_serve(engine, request, list);
}
