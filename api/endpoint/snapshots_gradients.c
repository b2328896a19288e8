/* POST /v1/sessions/{id}/snapshots/{number}/gradients: a shard's gradient at the frozen weights. */
#include <math.h>

#include "api/json_body.h"
#include "api/router.h"
#include "api/session_json.h"
#include "api/snapshot_json.h"
#include "api/tensors_body.h"

#define PLACE(member) .offset = offsetof(struct body, member)

enum { REDUCED_MEAN, REDUCED_SUM };

struct body {
    const json_t *gradients;
    double examples;
    int reduction;
    const char *worker, *part;
};

static const char *const reductions[] = {"mean", "sum", NULL};
static const struct field fields[] = {
    {"gradients", FIELD_VALUE, PLACE(gradients)},
    {"examples", FIELD_F64, PLACE(examples), .min_open = true, .max = 1e15},
    {"reduction", FIELD_CHOICE, PLACE(reduction), .choices = reductions},
    {"worker", FIELD_TEXT, PLACE(worker), .max = WORKER_BYTES},
    {"part", FIELD_TEXT, PLACE(part), .max = WORKER_BYTES},
    {.name = NULL},
};

static enum status check_name(const char *name, const char *where, struct fault *fault)
{
    bool good = name == NULL || *name != '\0';

    for (const char *c = name; good && c != NULL && *c != '\0'; c++)
        good = (unsigned char)*c >= 0x20 && *c != 0x7F;
    return good ? STATUS_OK
                : fault_set(fault, STATUS_INVALID_FIELD, where,
                            "%s must not be empty, nor hold control characters", where + 1);
}

static enum status check_body(const struct body *body, struct fault *fault)
{
    enum status status = check_name(body->worker, "/worker", fault);

    if (status == STATUS_OK)
        status = check_name(body->part, "/part", fault);
    if (status != STATUS_OK || !isnan(body->examples))
        return status;
    return fault_set(fault, STATUS_INVALID_FIELD, "/examples",
                     "say how many examples the shard has, for instance examples: 1000: it weighs "
                     "so much in the full gradient");
}

static enum status add(struct request *request, struct session *session, struct reply *reply,
                       struct fault *fault)
{
    struct body body = {.examples = (double)NAN};
    struct snapshot_view view;
    struct tensors tensors;
    uint64_t number;
    bool replayed;
    enum status status;

    if ((status = promises_refuse(request, fault)) != STATUS_OK ||
        (status = snapshot_number(request, &number, fault)) != STATUS_OK ||
        (status = tensors_read(request, session, fields, &body, "gradients", &body.gradients,
                               &tensors, fault)) != STATUS_OK)
        return status;
    struct shard shard = {.buffer = tensors.buffer,
                          .offset = tensors.offset,
                          .size = tensors.size,
                          .dtype = tensors.dtype,
                          .form = tensors.form,
                          .examples = body.examples,
                          .summed = body.reduction == REDUCED_SUM,
                          .worker = body.worker,
                          .part = body.part};
    status = check_body(&body, fault);
    if (status == STATUS_OK && (body.worker != NULL || body.part != NULL))
        status = request_digest(request, "", &shard.payload, fault);
    if (status == STATUS_OK)
        status = session_snapshot_add(session, number, &shard, &view, &replayed, fault);
    buffer_release(tensors.buffer);
    if (status != STATUS_OK)
        return status;
    *reply = snapshot_reply(request, &view, 200);
    if (replayed)
        reply_header(reply, "Idempotency-Replayed", "true");
    return STATUS_OK;
}

struct reply serve_snapshots_gradients(struct engine *engine, struct request *request)
{
    return session_serve(engine, request, add);
}
