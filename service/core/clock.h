/* Time. The only caller of clock_gettime in service/, storage/ and api/. */
#ifndef DESCENT_CORE_CLOCK_H
#define DESCENT_CORE_CLOCK_H

#include <stdint.h>

uint64_t clock_unix_us(
    void); /* microseconds since 1970, wall clock: stored, shown, never compared */
uint64_t clock_monotonic_us(void); /* microseconds since some start: timeouts, idle times */

/* RFC 3339 in UTC with microseconds into out[32], for instance 2026-01-31T12:00:00.000000Z. Returns
 * out. */
char *clock_format(char out[32], uint64_t unix_us);

#endif
