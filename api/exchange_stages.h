/* What the stages of an exchange need of each other; for api/exchange*.c only. */
#ifndef DESCENT_API_EXCHANGE_STAGES_H
#define DESCENT_API_EXCHANGE_STAGES_H

#include "api/exchange.h"

/* --- exchange.c --- */

/* The monotonic time in so many seconds, microseconds. */
uint64_t exchange_seconds(uint64_t seconds);

/* The same for a body or a reply of `size` bytes that began at `start_us`. */
uint64_t exchange_deadline(const struct exchange *exchange, uint64_t start_us, uint64_t size);

/* --- exchange_admit.c --- */

/* Gives the request its id. */
void exchange_choose_id(struct exchange *exchange);

/* Decides the reply before the body is there; `now`: without waiting for its end. */
void exchange_refuse(struct exchange *exchange, const struct fault *fault, const char *allow,
                     bool now);

/* --- exchange_body.c --- */

/* How many bytes of a refused body are read and dropped. */
uint64_t exchange_drop_max(const struct exchange *exchange);

/* Memory for a body of `size` bytes: exactly that when its length is known, else it grows
 * geometrically. TOO_LARGE, OVERLOADED. */
enum status exchange_reserve(struct exchange *exchange, uint64_t size, struct fault *fault);

/* Gives the body's memory back. */
void exchange_release_body(struct exchange *exchange);

#endif
