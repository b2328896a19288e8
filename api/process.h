/* What the system says of this process (Linux: /proc). */
#ifndef DESCENT_API_PROCESS_H
#define DESCENT_API_PROCESS_H

#include <stdint.h>

struct process {
    uint64_t cpu_us;     /* user and system */
    uint64_t started_us; /* since 1970; see process_started */
    uint64_t resident_bytes, virtual_bytes;
    uint64_t descriptors, descriptors_max;
    uint64_t threads;
};

/* Remembers that it starts now: /proc says it only of a whole system, and not to a sandbox. Before
 * any thread is started. */
void process_started(void);

/* What cannot be found out is 0. Thread safe. */
void process_look(struct process *out);

#endif
