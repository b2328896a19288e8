/* GET /v1/sessions/{id}/checkpoints: the newest first. */
#include "api/router.h"
#include "api/session_json.h"

enum { LISTED_MAX = 1000 };

static enum status list(struct request *request, struct session *session, struct reply *reply,
                        struct fault *fault)
{
    struct checkpoint_view *views = arena_take(request->arena, LISTED_MAX * sizeof *views);
    struct json_text text;
    enum status status = request_query_end(request, fault);

    if (status != STATUS_OK)
        return status;
    if (views == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    size_t count = session_checkpoints(session, views, LISTED_MAX);
    json_text_init(&text, request->arena);
    json_text_open(&text, '{');
    json_text_key(&text, "checkpoints");
    json_text_open(&text, '[');
    for (size_t i = 0; i < count && i < LISTED_MAX; i++) {
        json_text_open(&text, '{');
        json_text_member_u64(&text, "step", views[i].moment.step);
        json_text_member_u64(&text, "lineage", views[i].moment.lineage);
        json_text_member_u64(&text, "bytes", views[i].bytes);
        json_text_close(&text, '}');
    }
    json_text_close(&text, ']');
    json_text_close(&text, '}');
    *reply = reply_json(200, json_text_end(&text));
    return STATUS_OK;
}

struct reply serve_checkpoints_list(struct engine *engine, struct request *request)
{
    return session_serve(engine, request, list);
}
