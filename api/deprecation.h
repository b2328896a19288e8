/* What clients are told of operations that will go: Deprecation (RFC 9745), Sunset (RFC 8594) and a
 * link, by the table deprecations.def. */
#ifndef DESCENT_API_DEPRECATION_H
#define DESCENT_API_DEPRECATION_H

#include "api/endpoint.h"

struct deprecation {
    const char *operation;
    const char *since, *sunset; /* YYYY-MM-DD, midnight UTC; sunset "": not decided */
    const char *link;
};

/* Of an operation; NULL: it stays. */
const struct deprecation *deprecation_find(const char *operation);

/* Every line of the table; NULL past the end. */
const struct deprecation *deprecation_at(size_t index);

/* Unix time of YYYY-MM-DD; false: it is no date. */
bool deprecation_date(const char *text, int64_t *out);

/* Adds the fields to a reply; nothing when deprecation is NULL. */
void deprecation_tell(const struct deprecation *deprecation, struct arena *arena,
                      struct reply *reply);

#endif
