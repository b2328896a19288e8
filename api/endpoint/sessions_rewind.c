/* POST /v1/sessions/{id}/rewind: back to a step, under the next lineage. */
#include "api/json_body.h"
#include "api/moment.h"
#include "api/router.h"
#include "api/session_json.h"

struct body {
    struct moment_choice at;
};

static const struct field fields[] = {
    MOMENT_FIELDS(struct body, at),
    {.name = NULL},
};

static enum status rewind_session(struct request *request, struct session *session,
                                  struct fault *fault)
{
    struct body body = {.at = {.has_step = false}};
    const struct moment_query *query;
    struct json_document document;
    enum status status = json_body_read(request, "{\"step\": 100}", &document, fault);

    if (status != STATUS_OK)
        return status;
    if ((status = fields_read(request->arena, &document, document.root, fields, &body, fault)) !=
        STATUS_OK)
        goto done;
    if (!body.at.has_step) {
        status = fault_set(fault, STATUS_INVALID_FIELD, "/step", "say which step to go back to");
        goto done;
    }
    if ((status = moment_settle(&body.at, &query, fault)) == STATUS_OK)
        status = session_rewind(session, query, fault);
done:
    json_close(&document);
    return status;
}

struct reply serve_sessions_rewind(struct engine *engine, struct request *request)
{
    struct session *session;
    struct fault fault;

    if (request_session(engine, request, &session, &fault) != STATUS_OK)
        return reply_fault(request, &fault);
    struct reply reply = rewind_session(request, session, &fault) == STATUS_OK
                             ? session_reply(request, session, 200)
                             : reply_fault(request, &fault);
    session_release(session);
    return reply;
}
