/* A single byte range of a reply (RFC 9110, 14). */
#ifndef DESCENT_API_RANGE_H
#define DESCENT_API_RANGE_H

#include <stdint.h>

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

/* `range` and `if_range` are the fields' values or NULL, `etag` the strong ETag of the reply or
 * NULL, `total` its bytes. */
struct range range_find(const char *range, const char *if_range, const char *etag, uint64_t total);

#endif
