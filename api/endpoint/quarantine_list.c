/* GET /v1/sessions/{id}/quarantine: gradients that were refused for their norm and kept. */
#include "api/router.h"
#include "api/session_json.h"
#include "service/core/clock.h"

static void write_one(struct json_text *text, const struct quarantined *one)
{
    char time[32];

    json_text_open(text, '{');
    json_text_member_u64(text, "number", one->number);
    json_text_member_u64(text, "step", one->step);
    json_text_member_string(text, "created_at", clock_format(time, one->created_us));
    json_text_member_string(text, "dtype", dtype_name(one->dtype));
    json_text_member_f64(text, "grad_norm", one->grad_norm);
    json_text_member_f64(text, "loss", one->loss);
    json_text_member_string(text, "worker", one->worker[0] != '\0' ? one->worker : NULL);
    json_text_close(text, '}');
}

static enum status list(struct request *request, struct session *session, struct reply *reply,
                        struct fault *fault)
{
    struct quarantined kept[QUARANTINE_MAX];
    struct json_text text;
    size_t count;
    enum status status;

    if ((status = request_query_end(request, fault)) != STATUS_OK ||
        (status = session_quarantine(session, kept, &count, fault)) != STATUS_OK)
        return status;
    json_text_init(&text, request->arena);
    json_text_open(&text, '{');
    json_text_key(&text, "quarantine");
    json_text_open(&text, '[');
    for (size_t i = 0; i < count; i++)
        write_one(&text, &kept[i]);
    json_text_close(&text, ']');
    json_text_close(&text, '}');
    *reply = reply_json(200, json_text_end(&text));
    return STATUS_OK;
}

struct reply serve_quarantine_list(struct engine *engine, struct request *request)
{
    return session_serve(engine, request, list);
}
