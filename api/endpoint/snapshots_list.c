/* GET /v1/sessions/{id}/snapshots: the newest one is the one that is kept. */
#include "api/router.h"
#include "api/session_json.h"
#include "api/snapshot_json.h"

static enum status list(struct request *request, struct session *session, struct reply *reply,
                        struct fault *fault)
{
    struct snapshot_view view;
    struct json_text text;
    enum status status = request_query_end(request, fault);

    if (status != STATUS_OK)
        return status;
    status = session_snapshot_view(session, 0, &view, fault);
    if (status != STATUS_OK && status != STATUS_SNAPSHOT_NOT_FOUND)
        return status;
    json_text_init(&text, request->arena);
    json_text_open(&text, '{');
    json_text_key(&text, "snapshots");
    json_text_open(&text, '[');
    if (status == STATUS_OK)
        snapshot_write(&text, &view);
    json_text_close(&text, ']');
    json_text_close(&text, '}');
    *reply = reply_json(200, json_text_end(&text));
    return STATUS_OK;
}

struct reply serve_snapshots_list(struct engine *engine, struct request *request)
{
    return session_serve(engine, request, list);
}
