/* POST /v1/sessions/{id}/gradients: one step. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/metrics_text.h"
#include "api/router.h"
#include "api/session_json.h"
#include "api/tensors_body.h"
#include "api/waiting.h"
#include "service/core/clock.h"

#define PLACE(member) .offset = offsetof(struct gradient_body, member)
#define DRY_RUN "dry_run"

struct gradient_body {
    uint64_t base_step;
    bool has_base_step, has_worker, has_seq;
    double loss, examples, lr, momentum, beta1, beta2;
    const char *worker, *cursor;
    uint64_t seq;
    int kind;
    const json_t *gradients, *snapshot_gradients;
    uint64_t snapshot;
};

static const char *const kinds[] = {"gradient", "delta", NULL};
enum { KIND_GRADIENT, KIND_DELTA };

/* Ranges of the overrides are the rule's own: the engine checks them. */
static const struct field fields[] = {
    {"gradients", FIELD_VALUE, PLACE(gradients)},
    {"snapshot_gradients", FIELD_VALUE, PLACE(snapshot_gradients)},
    {"snapshot", FIELD_U64, PLACE(snapshot), .min = 1, .max = 9007199254740991},
    {"base_step", FIELD_U64, PLACE(base_step), .max = 9007199254740991,
     .present = offsetof(struct gradient_body, has_base_step)},
    {"loss", FIELD_F64, PLACE(loss), .nullable = true},
    {"examples", FIELD_F64, PLACE(examples), .min_open = true, .max = 1e15},
    {"worker", FIELD_TEXT, PLACE(worker), .max = WORKER_BYTES,
     .present = offsetof(struct gradient_body, has_worker)},
    {"seq", FIELD_U64, PLACE(seq), .min = 1, .max = 9007199254740991,
     .present = offsetof(struct gradient_body, has_seq)},
    {"kind", FIELD_CHOICE, PLACE(kind), .choices = kinds},
    {"cursor", FIELD_TEXT, PLACE(cursor), .max = CURSOR_BYTES, .nullable = true},
    {"lr", FIELD_F64, PLACE(lr)},
    {"momentum", FIELD_F64, PLACE(momentum)},
    {"beta1", FIELD_F64, PLACE(beta1)},
    {"beta2", FIELD_F64, PLACE(beta2)},
    {.name = NULL},
};

static enum status check_body(const struct gradient_body *body, struct fault *fault)
{
    if (body->has_seq && !body->has_worker)
        return fault_set(fault, STATUS_INVALID_FIELD, "/worker",
                         "seq counts a worker's steps; say which worker");
    if (!body->has_worker)
        return STATUS_OK;
    for (const char *c = body->worker; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7F)
            return fault_set(fault, STATUS_INVALID_FIELD, "/worker",
                             "worker must not hold control characters");
    if (body->worker[0] == '\0')
        return fault_set(fault, STATUS_INVALID_FIELD, "/worker", "worker must not be empty");
    return STATUS_OK;
}

/* Idempotency-Key, with its optional quotes taken off. */
static enum status read_key(const struct request *request, const char **key, struct fault *fault)
{
    const char *header = request_header(request, "Idempotency-Key");
    size_t size = header == NULL ? 0 : strlen(header);

    *key = NULL;
    if (header == NULL)
        return STATUS_OK;
    if (size >= 2 && header[0] == '"' && header[size - 1] == '"') {
        header++;
        size -= 2;
    }
    if (size == 0 || size > KEY_BYTES)
        return fault_set(fault, STATUS_INVALID_REQUEST, "",
                         "Idempotency-Key has %zu characters; it must have 1 to %d", size,
                         KEY_BYTES);
    *key = arena_copy(request->arena, header, size);
    return *key != NULL ? STATUS_OK : fault_set(fault, STATUS_INTERNAL, "", "out of memory");
}

/* A query parameter beside a body of any type. */
static enum status read_dry_run(struct request *request, bool *dry_run, struct fault *fault)
{
    static const struct field about[] = {{DRY_RUN, FIELD_FLAG, .offset = 0}, {.name = NULL}};

    *dry_run = false;
    return fields_read_query(request, about, dry_run, fault);
}

/* What a request that may wait does not need any more goes first. */
static void drop_body(struct request *request, const struct tensors *tensors)
{
    if (request->body == tensors->buffer)
        return;
    buffer_release(request->body);
    request->body = NULL;
}

struct asked {
    bool dry_run;
    uint64_t wait_s;
    const char *worker; /* that the body names, or NULL */
};

static enum status submit(struct request *request, struct session *session, struct asked *asked,
                          struct outcome *outcome, struct fault *fault)
{
    uint64_t started_us = clock_monotonic_us();
    double nothing = (double)NAN;
    struct gradient_body body = {.loss = nothing,
                                 .examples = 1,
                                 .lr = nothing,
                                 .momentum = nothing,
                                 .beta1 = nothing,
                                 .beta2 = nothing};
    struct submission submission = {.dry_run = asked->dry_run,
                                    .wait_s = (double)asked->wait_s,
                                    .receive_ms = request->receive_ms};
    struct tensors tensors;
    struct pair_half pair = {.snapshot = &body.snapshot, .member_value = &body.snapshot_gradients};
    enum status status;

    if ((status = read_key(request, &submission.key, fault)) != STATUS_OK ||
        (status = tensors_read_pair(request, session, fields, &body, &body.gradients, &tensors,
                                    &pair, fault)) != STATUS_OK)
        return status;
    if ((status = check_body(&body, fault)) != STATUS_OK)
        goto done;
    if ((submission.key != NULL || body.has_seq) &&
        (status = request_digest(request, DRY_RUN, &submission.payload, fault)) != STATUS_OK)
        goto done;
    precondition_read(request, &submission.match);
    submission.buffer = tensors.buffer;
    submission.offset = tensors.offset;
    submission.dtype = tensors.dtype;
    submission.form = tensors.form;
    submission.size = tensors.size;
    submission.snapshot = body.snapshot;
    submission.pair = pair.tensors.buffer;
    submission.pair_offset = pair.tensors.offset;
    submission.has_base_step = body.has_base_step;
    submission.base_step = body.base_step;
    submission.loss = body.loss;
    submission.examples = body.examples;
    submission.worker = asked->worker = body.worker;
    submission.delta = body.kind == KIND_DELTA;
    submission.seq = body.seq;
    submission.cursor = body.cursor;
    submission.lr = body.lr;
    submission.momentum = body.momentum;
    submission.beta1 = body.beta1;
    submission.beta2 = body.beta2;
    submission.decode_ms = (double)(clock_monotonic_us() - started_us) / 1e3;
    drop_body(request, &tensors);
    status = session_submit(session, &submission, outcome, fault);
done:
    buffer_release(pair.tensors.buffer);
    buffer_release(tensors.buffer);
    return status;
}

/* Takes the outcome's revision. */
static struct reply answer(struct request *request, struct session *session,
                           const struct outcome *outcome, const struct asked *asked,
                           const struct answer_form *form)
{
    struct reply reply;

    if (outcome->receipt.kind == RECEIPT_WAITING) {
        reply = waiting_reply(request, outcome, asked->worker, asked->dry_run);
        revision_release(outcome->revision);
    } else {
        reply = outcome_reply(request, session, outcome, asked->dry_run, form);
    }
    if (outcome->receipt.expected > 1 && !asked->dry_run)
        waiting_applied(request, &reply, asked->wait_s);
    return reply;
}

struct reply serve_gradients_submit(struct engine *engine, struct request *request)
{
    const char *wanted = request_prefer(request, "return");
    bool weights = wanted != NULL && strcmp(wanted, "representation") == 0;
    struct session *session;
    struct answer_form form;
    struct outcome outcome;
    struct fault fault;
    struct asked asked = {.wait_s = waiting_preferred_s(request)};
    enum status status = request_session(engine, request, &session, &fault);

    if (status != STATUS_OK) {
        metric_count(COUNTER_STEPS_REFUSED, metrics_status(status), 1);
        return reply_fault(request, &fault);
    }
    if (weights)
        status = answer_form_read(request, session, false, &form, &fault);
    if (status == STATUS_OK)
        status = read_dry_run(request, &asked.dry_run, &fault);
    if (status == STATUS_OK)
        status = submit(request, session, &asked, &outcome, &fault);
    struct reply reply = status == STATUS_OK
                             ? answer(request, session, &outcome, &asked, weights ? &form : NULL)
                             : reply_fault(request, &fault);
    if (status != STATUS_OK && !asked.dry_run)
        metric_count(COUNTER_STEPS_REFUSED, metrics_status(status), 1);
    reply.stepped = status == STATUS_OK && !asked.dry_run && !outcome.replayed;
    session_release(session);
    return reply;
}
