/* GET /v1/sessions/{id}/snapshots/{number}/gradient: the full gradient at the frozen weights. */
#include <inttypes.h>

#include "api/router.h"
#include "api/session_json.h"
#include "api/snapshot_json.h"
#include "api/tensors_body.h"

static enum status answer(struct request *request, const struct session *session,
                          const struct answer_form *form, uint64_t number, struct buffer *mean,
                          struct reply *reply, struct fault *fault)
{
    struct tensors tensors = {.buffer = mean, .dtype = session_dtype(session)};
    const struct text_pair metadata[] = {
        {"session", request->path_parameters[0]},
        {"snapshot", arena_format(request->arena, "%" PRIu64, number)},
    };
    const char *opening =
        arena_format(request->arena, "{\"snapshot\":%" PRIu64 ",\"gradient\":", number);
    struct encoded encoded;

    if (metadata[1].value == NULL || opening == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    struct encode_request wanted = {.arena = request->arena,
                                    .layout = session_layout(session),
                                    .chosen = form->chosen,
                                    .chosen_count = form->chosen_count,
                                    .tensors = &tensors,
                                    .dtype = form->dtype,
                                    .metadata = metadata,
                                    .metadata_count = sizeof metadata / sizeof *metadata,
                                    .opening = span_text(opening)};
    enum status status = form->codec->encode(&wanted, &encoded, fault);
    if (status != STATUS_OK)
        return status;
    *reply = reply_empty(200);
    answer_encoded(reply, form->codec, &encoded);
    reply_header(reply, "Vary", "Accept");
    return STATUS_OK;
}

static enum status fetch(struct request *request, struct session *session, struct reply *reply,
                         struct fault *fault)
{
    struct answer_form form;
    struct buffer *mean;
    uint64_t number;
    enum status status;

    if ((status = answer_form_of_vector(request, session, &form, fault)) != STATUS_OK ||
        (status = request_query_end(request, fault)) != STATUS_OK ||
        (status = snapshot_number(request, &number, fault)) != STATUS_OK ||
        (status = session_snapshot_gradient(session, number, &mean, fault)) != STATUS_OK)
        return status;
    status = answer(request, session, &form, number, mean, reply, fault);
    buffer_release(mean);
    return status;
}

struct reply serve_snapshots_gradient(struct engine *engine, struct request *request)
{
    return session_serve(engine, request, fetch);
}
