/* GET /v1/sessions/{id}/parameters: the weights of now or of a past step, straight from the
 * revision's memory, or their moving average. */
#include <inttypes.h>
#include <string.h>

#include "api/average.h"
#include "api/config.h"
#include "api/fields.h"
#include "api/moment.h"
#include "api/router.h"
#include "api/session_json.h"
#include "api/tensors_body.h"

/* The average has a tag of its own, which is no revision's: what is derived from one is not it. */
static const char *tag_of(struct arena *arena, const struct revision *revision, bool average)
{
    return average ? arena_format(arena, "\"%" PRIu64 "-%" PRIu64 "-ema\"", revision->lineage,
                                  revision->step)
                   : etag_text(arena, revision->lineage, revision->step);
}

static enum status answer(struct request *request, struct session *session,
                          const struct answer_form *form, const struct revision *revision,
                          struct reply *reply, struct fault *fault)
{
    struct buffer *values = NULL;
    char *opening = arena_format(
        request->arena,
        "{\"step\":%" PRIu64 ",\"lineage\":%" PRIu64 ",%s\"parameters\":", revision->step,
        revision->lineage, form->average ? "\"average\":\"ema\"," : "");
    enum status status = STATUS_OK;

    if (opening == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    if (form->average)
        status = average_values(session, revision, &values, fault);
    else
        values = buffer_retain(revision->weights);
    if (status == STATUS_OK)
        status = answer_weights(request, session, form, revision, values, span_text(opening), reply,
                                fault);
    buffer_release(values);
    return status;
}

/* ?after= and ?wait= */
struct newer {
    uint64_t after;
    double wait_s;
    bool given, has_wait;
};

static enum status read_newer(struct request *request, const struct moment_query *query,
                              struct newer *out, struct fault *fault)
{
    const double max = (double)request->config->wait_s_max;
    const struct field fields[] = {
        {"after", FIELD_U64, .offset = offsetof(struct newer, after), .max = 9007199254740991,
         .present = offsetof(struct newer, given)},
        {"wait", FIELD_F64, .offset = offsetof(struct newer, wait_s), .max = max,
         .present = offsetof(struct newer, has_wait)},
        {.name = NULL},
    };

    *out = (struct newer){.given = false};
    enum status status = fields_read_query(request, fields, out, fault);
    if (status != STATUS_OK)
        return status;
    if (out->has_wait && !out->given)
        return fault_set(fault, STATUS_INVALID_FIELD, "/wait",
                         "wait goes with after: say which step the new one is to come after");
    if (out->given && query != NULL)
        return fault_set(fault, STATUS_INVALID_FIELD, "/after",
                         "after waits for what is to come and step asks for what was; leave one "
                         "out");
    return STATUS_OK;
}

/* The revision that is asked for. */
static enum status find_revision(struct session *session, const struct moment_query *query,
                                 const struct newer *newer, struct revision **out, bool *old,
                                 struct fault *fault)
{
    enum status status = STATUS_OK;
    bool moved = false;

    *old = false;

    if (query != NULL)
        return session_revision_at(session, query, out, fault);
    if (newer->given && newer->wait_s > 0)
        status = session_await_step(session, newer->after, newer->wait_s, &moved, fault);
    if (status == STATUS_OK)
        status = session_revision(session, out, fault);
    if (status == STATUS_OK) /* who goes back has a newer revision of an earlier step */
        *old = newer->given && !moved && (*out)->step <= newer->after;
    return status;
}

static enum status fetch(struct request *request, struct session *session,
                         const struct answer_form *form, const struct moment_query *query,
                         const struct newer *newer, struct reply *reply, struct fault *fault)
{
    struct revision *revision;
    bool old;
    enum status status = find_revision(session, query, newer, &revision, &old, fault);

    if (status != STATUS_OK)
        return status;

    const char *etag = tag_of(request->arena, revision, form->average);
    const char *known = etag != NULL ? etag_none_match(request, etag) : NULL;
    bool there = !form->average || revision->average != NULL;
    *reply = reply_empty(200);
    if (etag == NULL)
        status = fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    else if (there)
        status = etag_match(request, etag, revision->step, fault);
    if (status == STATUS_OK && there && (old || known != NULL))
        reply->http = 304;
    else if (status == STATUS_OK)
        status = answer(request, session, form, revision, reply, fault);
    if (reply->http == 304 && known != NULL)
        etag = known;
    reply_header(reply, "ETag", etag);
    reply_header(reply, "Vary", "Accept");
    reply_header(reply, "Cache-Control", "no-cache");
    revision_release(revision);
    return status;
}

struct reply serve_parameters_fetch(struct engine *engine, struct request *request)
{
    const struct moment_query *query;
    struct moment_choice choice;
    struct newer newer;
    struct session *session;
    struct answer_form form;
    struct reply reply;
    struct fault fault;
    enum status status = request_session(engine, request, &session, &fault);

    if (status != STATUS_OK)
        return reply_fault(request, &fault);
    if ((status = answer_form_read(request, session, true, &form, &fault)) == STATUS_OK &&
        (status = moment_read(request, &choice, &query, &fault)) == STATUS_OK &&
        (status = read_newer(request, query, &newer, &fault)) == STATUS_OK &&
        (status = request_query_end(request, &fault)) == STATUS_OK)
        status = fetch(request, session, &form, query, &newer, &reply, &fault);
    session_release(session);
    return status == STATUS_OK ? reply : reply_fault(request, &fault);
}
