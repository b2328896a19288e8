/* POST /v1/sessions/{id}/snapshots: freezes the weights. */
#include <math.h>

#include "api/fields.h"
#include "api/json_body.h"
#include "api/router.h"
#include "api/session_json.h"
#include "api/snapshot_json.h"

struct body {
    uint64_t workers;
    double examples;
};

static const struct field fields[] = {
    {"workers", FIELD_U64, .offset = offsetof(struct body, workers), .min = 1,
     .max = SNAPSHOT_PARTS_MAX, .nullable = true},
    {"examples", FIELD_F64, .offset = offsetof(struct body, examples), .min_open = true,
     .max = 1e15, .nullable = true},
    {.name = NULL},
};

static enum status create(struct request *request, struct session *session, struct reply *reply,
                          struct fault *fault)
{
    struct body body = {.examples = (double)NAN};
    struct json_document document;
    struct snapshot_view view;
    enum status status = json_body_read(request, "{\"workers\": 4}, or {}", &document, fault);

    if (status != STATUS_OK)
        return status;
    status = fields_read(request->arena, &document, document.root, fields, &body, fault);
    if (status == STATUS_OK && body.workers > 0 && !isnan(body.examples))
        status = fault_set(fault, STATUS_INVALID_FIELD, "/examples",
                           "announce workers or examples, not both: the snapshot is ready when "
                           "what was announced has come");
    if (status == STATUS_OK)
        status = session_snapshot(session, body.workers, body.examples, &view, fault);
    json_close(&document);
    if (status == STATUS_OK)
        *reply = snapshot_reply(request, &view, 201);
    return status;
}

struct reply serve_snapshots_create(struct engine *engine, struct request *request)
{
    return session_serve(engine, request, create);
}
