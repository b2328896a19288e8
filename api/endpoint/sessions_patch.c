/* PATCH /v1/sessions/{id}: other hyperparameters from the next step on. */
#include "api/codec.h"
#include "api/json_body.h"
#include "api/media.h"
#include "api/router.h"
#include "api/session_json.h"
#include "api/spec_json.h"

struct patch {
    struct arena *arena;
    const struct json_document *document;
};

static enum status change(void *context, struct spec *spec, struct fault *fault)
{
    const struct patch *patch = context;

    return spec_patch(patch->arena, patch->document, spec, fault);
}

static enum status patch_session(struct request *request, struct session *session,
                                 struct fault *fault)
{
    const char *type = request_header(request, "Content-Type");
    struct json_document document;
    enum status status;

    status = media_check(request,
                         type == NULL || media_type_is(type, "application/json") ||
                             media_type_is(type, "application/merge-patch+json"),
                         true, "a change comes", "application/json, application/merge-patch+json",
                         fault);
    if (status != STATUS_OK)
        return status;
    if (request->body == NULL)
        return fault_set(fault, STATUS_INVALID_REQUEST, "",
                         "the body is empty; send what to change, for instance {\"optimizer\": "
                         "{\"lr\": 0.001}}");
    if ((status = promise_refuse(request, "If-Match", fault)) != STATUS_OK ||
        (status = request_query_end(request, fault)) != STATUS_OK ||
        (status = json_read(request->arena, span_of(request->body->data, request->body->size),
                            &document, fault)) != STATUS_OK)
        return status;
    struct patch patch = {request->arena, &document};
    status = session_patch(session, change, &patch, fault);
    json_close(&document);
    return status;
}

struct reply serve_sessions_patch(struct engine *engine, struct request *request)
{
    struct session *session;
    struct fault fault;

    if (request_session(engine, request, &session, &fault) != STATUS_OK)
        return reply_fault(request, &fault);
    struct reply reply = patch_session(request, session, &fault) == STATUS_OK
                             ? session_reply(request, session, 200)
                             : reply_fault(request, &fault);
    session_release(session);
    return reply;
}
