/* What the stages of an exchange need of each other; for api/exchange*.c only. */
#ifndef DESCENT_API_EXCHANGE_STAGES_H
#define DESCENT_API_EXCHANGE_STAGES_H

#include "api/exchange.h"

/* --- exchange.c --- */

/* The monotonic time, microseconds, until when a body or a reply may take that began at `start_us`:
 * `size` bytes that have come, or that are there to go; what a client says of a body earns no time.
 */
uint64_t exchange_deadline(const struct exchange *exchange, uint64_t start_us, uint64_t size);

/* Where memory ran out there may be no ETag, or a preference that nobody read: an answer that lacks
 * something is not sent, whatever it says. True: `reply` is another now. */
bool exchange_distrust(struct exchange *exchange);

/* Another reply in place of the one there is. */
void exchange_replace(struct exchange *exchange, const struct fault *fault);

/* The reply's bytes are no more in memory, or soon. */
void exchange_let_go(struct exchange *exchange);

/* From here on no stop waits for the request. */
void exchange_let_stop(struct exchange *exchange);

/* Leaves the target's path, which is all that logs may have of it, and gives the query, "" when it
 * has none, or was cut before. */
const char *exchange_cut_query(struct exchange *exchange);

/* --- exchange_tell.c --- */

/* The answer is ready to go, its body having so many bytes (0: a stream, which tells as it
 * goes). */
void exchange_answered(struct exchange *exchange, uint64_t bytes, uint64_t now_us);

/* So many bytes of a stream more. */
void exchange_streamed(struct exchange *exchange, uint64_t bytes);

/* It has gone, or was cut off. Before what belonged to the request is freed. */
void exchange_told(struct exchange *exchange, bool sent, uint64_t now_us);

/* --- exchange_admit.c --- */

/* Gives the request its id. */
void exchange_choose_id(struct exchange *exchange);

/* Decides the reply before the body is there; `now`: without waiting for its end. */
void exchange_refuse(struct exchange *exchange, const struct fault *fault, const char *allow,
                     bool now);

/* --- exchange_body.c --- */

/* How many bytes of a refused body are read and dropped. */
uint64_t exchange_drop_max(const struct exchange *exchange);

/* The route has been found: what the header says of the body, and memory for it where its size is
 * known. TOO_LARGE, OVERLOADED; UNSUPPORTED_MEDIA_TYPE: its coding; INVALID_REQUEST: its digest;
 * SESSION_NOT_FOUND: it is coded, and for a session that is not there. */
enum status exchange_body_begin(struct exchange *exchange, struct fault *fault);

/* All of it has come. INVALID_REQUEST: its coding is cut off, or its digest is another. */
enum status exchange_body_end(struct exchange *exchange, struct fault *fault);

/* Counts bytes of memory among inflight_bytes, and for this exchange; false: that would be too
 * many, and they are not counted. exchange_release_body gives all back. */
bool exchange_charge(struct exchange *exchange, uint64_t size);
void exchange_discharge(struct exchange *exchange, uint64_t size);

/* Gives the body's memory back, and what else was charged. */
void exchange_release_body(struct exchange *exchange);

/* --- exchange_coding.c --- */

/* NOT_ACCEPTABLE: the client takes no answer in any coding, and none without. */
enum status exchange_coding_check(const struct exchange *exchange, struct fault *fault);

/* Codes the reply as its request asks, and says what it depends on. */
void exchange_code(struct exchange *exchange);

#endif
