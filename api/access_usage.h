/* What a token has used of its quotas of time: requests in flight and steps a second. Atomic, no
 * lock. */
#ifndef DESCENT_API_ACCESS_USAGE_H
#define DESCENT_API_ACCESS_USAGE_H

#include <stdint.h>

#include "api/endpoint.h"
#include "service/core/status.h"

struct access_usage;

/* With one reference; NULL: memory is out. */
struct access_usage *usage_new(void);
struct access_usage *usage_retain(struct access_usage *usage);
void usage_release(struct access_usage *usage);

/* One request more, until usage_leave. QUOTA_EXCEEDED: it does not count. */
enum status usage_enter(struct access_usage *usage, const struct quotas *quotas,
                        struct fault *fault);
void usage_leave(struct access_usage *usage);

/* One step more. QUOTA_EXCEEDED with the time until the next may come. */
enum status usage_step(struct access_usage *usage, const struct quotas *quotas,
                       struct fault *fault);

/* The same at a time, ns: when it may be tried again if not now, else 0. */
uint64_t usage_step_at(struct access_usage *usage, uint64_t steps_per_s, uint64_t now_ns);

#endif
