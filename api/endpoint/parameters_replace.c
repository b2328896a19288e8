/* PUT /v1/sessions/{id}/parameters: new weights, the optimizer's state kept. */
#include "api/json_body.h"
#include "api/router.h"
#include "api/session_json.h"
#include "api/tensors_body.h"

struct body {
    const json_t *parameters;
    uint64_t step, lineage;
    const char *average;
};

/* What GET answers can be put back as it is: its other members are read and left alone. */
static const struct field fields[] = {
    {"parameters", FIELD_VALUE, .offset = offsetof(struct body, parameters)},
    {"step", FIELD_U64, .offset = offsetof(struct body, step), .max = 9007199254740991,
     .json_only = true},
    {"lineage", FIELD_U64, .offset = offsetof(struct body, lineage), .max = 9007199254740991,
     .json_only = true},
    {"average", FIELD_TEXT, .offset = offsetof(struct body, average), .max = 64, .json_only = true},
    {.name = NULL},
};

/* The tensors as a buffer of the session's own dtype that starts at 0. Takes tensors->buffer. */
static enum status own_weights(const struct session *session, struct tensors *tensors,
                               struct buffer **out, struct fault *fault)
{
    enum dtype dtype = session_dtype(session);
    size_t count = session_layout(session)->count;

    if (tensors->form != FORM_DENSE) {
        buffer_release(tensors->buffer);
        return fault_set(fault, STATUS_INVALID_FIELD, "/parameters/__metadata__/codec",
                         "weights cannot be compressed, only gradients; send them plain, without "
                         "__metadata__.codec");
    }
    if (tensors->dtype == dtype && tensors->offset == 0) {
        *out = tensors->buffer;
        return STATUS_OK;
    }
    *out = buffer_new(count * dtype_size(dtype));
    if (*out != NULL)
        dtype_convert(dtype, (*out)->data, tensors->dtype, tensors->buffer->data + tensors->offset,
                      count);
    buffer_release(tensors->buffer);
    return *out != NULL ? STATUS_OK : fault_set(fault, STATUS_INTERNAL, "", "out of memory");
}

static enum status replace(struct request *request, struct session *session,
                           struct outcome *outcome, struct fault *fault)
{
    struct body body = {.parameters = NULL};
    struct precondition match;
    struct tensors tensors;
    struct buffer *weights;
    enum status status = promise_refuse(request, "Idempotency-Key", fault);

    if (status != STATUS_OK ||
        (status = tensors_read(request, session, fields, &body, "parameters", &body.parameters,
                               &tensors, fault)) != STATUS_OK ||
        (status = own_weights(session, &tensors, &weights, fault)) != STATUS_OK)
        return status;
    precondition_read(request, &match);
    status = session_replace(session, weights, &match, outcome, fault);
    buffer_release(weights);
    return status;
}

struct reply serve_parameters_replace(struct engine *engine, struct request *request)
{
    struct session *session;
    struct outcome outcome;
    struct fault fault;
    enum status status = request_session(engine, request, &session, &fault);

    if (status != STATUS_OK)
        return reply_fault(request, &fault);
    status = replace(request, session, &outcome, &fault);
    struct reply reply = status == STATUS_OK
                             ? outcome_reply(request, session, &outcome, false, NULL)
                             : reply_fault(request, &fault);
    session_release(session);
    return reply;
}
