/* A step with a pair of gradients of one batch, at the weights and at a snapshot's: from the door
 * on it is a step with the estimate
 *
 *     d = g - coefficient * (g~ - mu)
 *
 * in the session's dtype, which is what the journal keeps. So rounds, rules and replay know nothing
 * of snapshots. */
#include <math.h>

#include "service/core/contract.h"
#include "service/session/estimate.h"
#include "service/session/step.h"

static enum status check_pair(const struct step *step, const struct submission *given,
                              struct fault *fault)
{
    if (!step->spec.svrg.on)
        return fault_set(fault, STATUS_INVALID_FIELD, "/snapshot",
                         "this session does without SVRG; PATCH it with {\"svrg\": {}}, make a "
                         "snapshot, or leave snapshot out");
    if (given->delta)
        return fault_set(fault, STATUS_INVALID_FIELD, "/kind",
                         "a delta has no gradient at a snapshot's weights; send gradients");
    if (given->form != FORM_DENSE)
        return fault_set(fault, STATUS_INVALID_FIELD, "/snapshot",
                         "compressed gradients cannot be corrected by a snapshot: what compression "
                         "leaves out is larger than what they differ by; send both plain");
    return STATUS_OK;
}

/* The snapshot that the pair was computed at is the newest. Mutex held. */
static enum status check_snapshot(const struct snapshot *snapshot, uint64_t number,
                                  struct fault *fault)
{
    if (snapshot->number == 0)
        return fault_set(fault, STATUS_SNAPSHOT_NOT_FOUND, "/snapshot",
                         "this session has no snapshot; POST .../snapshots makes one");
    if (number == snapshot->number)
        return snapshot->ready ? STATUS_OK : snapshot_collecting(snapshot, fault);
    fault_set(fault, STATUS_SNAPSHOT_STALE, "/snapshot",
              "snapshot_gradients are of snapshot %llu, but the newest is %llu: fetch its "
              "parameters and compute them again",
              (unsigned long long)number, (unsigned long long)snapshot->number);
    return fault_extra(fault, "current_snapshot", snapshot->number);
}

enum status step_check_snapshot(const struct step *step, struct fault *fault)
{
    const struct submission *s = step->submission;

    return s == NULL || s->snapshot == 0
               ? STATUS_OK
               : check_snapshot(&step->session->state->snapshot, s->snapshot, fault);
}

enum status step_correct(struct step *step, struct fault *fault)
{
    struct session *session = step->session;
    const struct submission *given = step->submission;
    size_t count = session->layout->count;
    struct buffer *mean = NULL, *estimate;
    enum status status;

    if (given == NULL || given->snapshot == 0)
        return STATUS_OK;
    PRE(given->pair != NULL &&
        given->pair_offset + count * dtype_size(given->dtype) <= given->pair->size);
    if ((status = check_pair(step, given, fault)) != STATUS_OK)
        return status;
    pthread_mutex_lock(&session->mutex);
    if ((status = step_check_snapshot(step, fault)) == STATUS_OK)
        mean = buffer_retain(session->state->snapshot.mean);
    pthread_mutex_unlock(&session->mutex);
    if (status != STATUS_OK)
        return status;
    if ((estimate = buffer_new(count * dtype_size(session->dtype))) == NULL) {
        buffer_release(mean);
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory for a corrected gradient");
    }
    struct wire_gradient gradient =
        dense_gradient(given->buffer->data + given->offset, given->dtype, count);
    struct wire_gradient pair =
        dense_gradient(given->pair->data + given->pair_offset, given->dtype, count);
    estimates(session->dtype)
        ->correct(&gradient, &pair, mean->data, step->spec.svrg.coefficient, estimate->data);
    buffer_release(mean);
    step->given = given;
    step->corrected = *given;
    step->corrected.buffer = estimate;
    step->corrected.offset = 0;
    step->corrected.dtype = session->dtype;
    step->submission = &step->corrected;
    return STATUS_OK;
}

void step_uncorrect(struct step *step)
{
    if (step->given == NULL)
        return;
    buffer_release(step->corrected.buffer);
    step->submission = step->given;
    step->given = NULL;
}

const char *step_member_at_fault(const struct step *step)
{
    const struct submission *given = step->given;
    double value;

    if (given == NULL) /* it is no pair */
        return "gradients";
    size_t at = given->offset + step->bad_index * dtype_size(given->dtype);
    dtype_convert(DTYPE_F64, &value, given->dtype, given->buffer->data + at, 1);
    return isfinite(value) ? "snapshot_gradients" : "gradients";
}
