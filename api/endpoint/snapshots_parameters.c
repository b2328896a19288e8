/* GET /v1/sessions/{id}/snapshots/{number}/parameters: the weights that were frozen. */
#include <inttypes.h>

#include "api/router.h"
#include "api/session_json.h"
#include "api/snapshot_json.h"
#include "api/tensors_body.h"

static enum status answer(struct request *request, const struct session *session,
                          const struct answer_form *form, uint64_t number,
                          const struct revision *weights, struct reply *reply, struct fault *fault)
{
    const char *etag = etag_text(request->arena, weights->lineage, weights->step);
    const char *opening = arena_format(request->arena,
                                       "{\"snapshot\":%" PRIu64 ",\"step\":%" PRIu64
                                       ",\"lineage\":%" PRIu64 ",\"parameters\":",
                                       number, weights->step, weights->lineage);
    enum status status = STATUS_OK;

    if (etag == NULL || opening == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    if ((status = etag_match(request, etag, weights->step, fault)) != STATUS_OK)
        return status;
    const char *known = etag_none_match(request, etag);
    *reply = reply_empty(known != NULL ? 304 : 200);
    if (known != NULL)
        etag = known;
    else
        status = answer_weights(request, session, form, weights, weights->weights,
                                span_text(opening), reply, fault);
    reply_header(reply, "ETag", etag);
    reply_header(reply, "Vary", "Accept");
    reply_header(reply, "Cache-Control", "no-cache");
    return status;
}

static enum status fetch(struct request *request, struct session *session, struct reply *reply,
                         struct fault *fault)
{
    struct revision *weights;
    struct answer_form form;
    uint64_t number;
    enum status status;

    if ((status = answer_form_of_vector(request, session, &form, fault)) != STATUS_OK ||
        (status = request_query_end(request, fault)) != STATUS_OK ||
        (status = snapshot_number(request, &number, fault)) != STATUS_OK ||
        (status = session_snapshot_weights(session, number, &weights, fault)) != STATUS_OK)
        return status;
    status = answer(request, session, &form, number, weights, reply, fault);
    revision_release(weights);
    return status;
}

struct reply serve_snapshots_parameters(struct engine *engine, struct request *request)
{
    return session_serve(engine, request, fetch);
}
