/* What the stages of an exchange need of each other; for api/exchange*.c only. */
#ifndef DESCENT_API_EXCHANGE_STAGES_H
#define DESCENT_API_EXCHANGE_STAGES_H

#include "api/exchange.h"

/* --- exchange.c --- */

/* The monotonic time in so many seconds, microseconds. */
uint64_t exchange_seconds(uint64_t seconds);

/* The same for a body or a reply of `size` bytes that began at `start_us`. */
uint64_t exchange_deadline(const struct exchange *exchange, uint64_t start_us, uint64_t size);

/* --- exchange_tell.c --- */

/* The answer is ready to go, its body having so many bytes (0: a stream, which tells as it goes). */
void exchange_answered(struct exchange *exchange, uint64_t bytes, uint64_t now_us);

/* So many bytes of a stream more. */
void exchange_streamed(struct exchange *exchange, uint64_t bytes);

/* It has gone, or was cut off. Before what belonged to the request is freed. */
void exchange_told(struct exchange *exchange, bool sent, uint64_t now_us);

/* --- exchange_admit.c --- */

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
