/* The moving average as it is served:
 *
 *     m                                  debias false
 *     m / (1 - (1 - eps) decay^t)        debias true, t = updates so far
 *
 * The divisor is computed in double and rounded once to the session's dtype. */
#include "api/average.h"

static void divide_f32(float *restrict out, const float *restrict in, size_t count, float divisor)
{
    for (size_t i = 0; i < count; i++)
        out[i] = in[i] / divisor;
}

static void divide_f64(double *restrict out, const double *restrict in, size_t count,
                       double divisor)
{
    for (size_t i = 0; i < count; i++)
        out[i] = in[i] / divisor;
}

static enum status divide(const struct session *session, const struct buffer *average,
                          double divisor, struct buffer **out, struct fault *fault)
{
    size_t count = session_layout(session)->count;

    if ((*out = buffer_new(average->size)) == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    if (session_dtype(session) == DTYPE_F64)
        divide_f64((double *)(void *)(*out)->data, (const double *)(const void *)average->data,
                   count, divisor);
    else
        divide_f32((float *)(void *)(*out)->data, (const float *)(const void *)average->data, count,
                   (float)divisor);
    return STATUS_OK;
}

enum status average_values(const struct session *session, const struct revision *revision,
                           struct buffer **out, struct fault *fault)
{
    if (revision->average == NULL)
        return fault_set(fault, STATUS_INVALID_FIELD, "/average",
                         "this session keeps no average of its weights; a new one does with "
                         "\"ema\": {\"decay\": 0.999}");
    if (revision->average_divisor != 1)
        return divide(session, revision->average, revision->average_divisor, out, fault);
    *out = buffer_retain(revision->average);
    return STATUS_OK;
}
