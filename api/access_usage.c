/* What a token has used of its quotas of time.
 *
 * The bucket of steps is one number: the time at which it will be full again (the generic cell rate
 * algorithm). A step moves that on by 1/rate; where it would be more than a second ahead of now,
 * the bucket is empty. */
#include "api/access_usage.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "service/core/clock.h"
#include "service/core/metric.h"

#define SECOND_NS ((uint64_t)1000000000)

struct access_usage {
    _Atomic uint64_t references;
    _Atomic uint64_t inflight;
    _Atomic uint64_t full_ns; /* monotonic */
};

struct access_usage *usage_new(void)
{
    struct access_usage *usage = calloc(1, sizeof *usage);

    if (usage != NULL)
        usage->references = 1;
    return usage;
}

struct access_usage *usage_retain(struct access_usage *usage)
{
    atomic_fetch_add(&usage->references, 1);
    return usage;
}

void usage_release(struct access_usage *usage)
{
    if (atomic_fetch_sub(&usage->references, 1) == 1)
        free(usage);
}

enum status usage_enter(struct access_usage *usage, const struct quotas *quotas,
                        struct fault *fault)
{
    uint64_t inflight = atomic_load(&usage->inflight);

    while (quotas->inflight == 0 || inflight < quotas->inflight)
        if (atomic_compare_exchange_weak(&usage->inflight, &inflight, inflight + 1))
            return STATUS_OK;
    metric_count(COUNTER_QUOTA_REFUSALS, METRIC_QUOTA_INFLIGHT, 1);
    fault_set(fault, STATUS_QUOTA_EXCEEDED, "",
              "%llu requests with this token are under way, as many as it may have at once",
              (unsigned long long)inflight);
    return fault_extra(fault, "retry_after_s", 1);
}

void usage_leave(struct access_usage *usage)
{
    atomic_fetch_sub(&usage->inflight, 1);
}

uint64_t usage_step_at(struct access_usage *usage, uint64_t steps_per_s, uint64_t now_ns)
{
    uint64_t step_ns = SECOND_NS / steps_per_s, full_ns = atomic_load(&usage->full_ns), next_ns;

    do {
        next_ns = (full_ns > now_ns ? full_ns : now_ns) + step_ns;
        if (next_ns > now_ns + SECOND_NS)
            return next_ns - SECOND_NS;
    } while (!atomic_compare_exchange_weak(&usage->full_ns, &full_ns, next_ns));
    return 0;
}

enum status usage_step(struct access_usage *usage, const struct quotas *quotas, struct fault *fault)
{
    if (quotas->steps_per_s == 0)
        return STATUS_OK;
    uint64_t now_ns = clock_monotonic_us() * 1000;
    uint64_t again_ns = usage_step_at(usage, quotas->steps_per_s, now_ns);
    if (again_ns == 0)
        return STATUS_OK;
    metric_count(COUNTER_QUOTA_REFUSALS, METRIC_QUOTA_STEPS_PER_S, 1);
    fault_set(fault, STATUS_QUOTA_EXCEEDED, "",
              "this token may take %llu steps a second; the next in %llu ms",
              (unsigned long long)quotas->steps_per_s,
              (unsigned long long)((again_ns - now_ns + 999999) / 1000000));
    return fault_extra(fault, "retry_after_s", (again_ns - now_ns + SECOND_NS - 1) / SECOND_NS);
}
