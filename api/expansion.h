/* How large a coded body may become: what protects memory from a kilobyte that says it is a
 * gigabyte. */
#ifndef DESCENT_API_EXPANSION_H
#define DESCENT_API_EXPANSION_H

#include <stdbool.h>
#include <stdint.h>

#include "api/endpoint.h"

/* *out: the most bytes that a sensible body of this request has, at most body_bytes_max. What goes
 * to a session is bounded by its layout; what makes a session, by the `coded` bytes of it that have
 * come or are announced: *earns is set where they count. SESSION_NOT_FOUND: nothing is worth
 * decoding.
 *
 * Session-bound: 1 MiB for what is not numbers; 80 bytes a number in JSON (24 for the digits of a
 * double, 16 for comma, space and the brackets of 8 dimensions, and two gradients in the body of a
 * pair), 16 in the binary types (a pair of doubles, or an index and its value); 1 KiB a tensor and
 * 12 bytes for each of its name's (twice, six for an escaped one).
 *
 * By coded bytes: 16 MiB and a hundred for each. Weights as JSON or bytes become a tenth at best,
 * and who has zeros says `init`. */
enum status expansion_max(struct engine *engine, const struct request *request, uint64_t coded,
                          uint64_t *out, bool *earns, struct fault *fault);

#endif
