/* A single byte range of a reply (RFC 9110, 14). */
#ifndef DESCENT_API_RANGE_H
#define DESCENT_API_RANGE_H

#include <stddef.h>
#include <stdint.h>

#include "api/endpoint.h"
#include "service/core/span.h"

enum range_kind {
    RANGE_WHOLE, /* none asked for, several, or not understood: the whole is a right answer to each
                  */
    RANGE_PART,  /* first .. first + size - 1 */
    RANGE_OUTSIDE, /* 416 */
};

struct range {
    enum range_kind kind;
    uint64_t first, size;
};

enum { RANGE_PARTS = 3 };

/* `range` and `if_range` are the fields' values or NULL, `etag` the strong ETag of the reply or
 * NULL, `total` its bytes. */
struct range range_find(const char *range, const char *if_range, const char *etag, uint64_t total);

/* Turns a reply that has `ranges` into the 206 or 416 that the request asks for, and says which of
 * its bytes to send. */
struct range range_apply(const struct request *request, struct reply *reply);

/* The pieces of head, buffer and tail that lie in the range, none of them empty; returns how many.
 */
size_t range_cut(const struct reply *reply, const struct range *range,
                 struct span parts[RANGE_PARTS]);

#endif
