/* The revision that a request asks for: ?step= and ?lineage=, or members of these names. */
#ifndef DESCENT_API_MOMENT_H
#define DESCENT_API_MOMENT_H

#include "api/endpoint.h"
#include "api/fields.h"
#include "service/session/engine.h"

struct moment_choice {
    struct moment_query query;
    bool has_step, has_lineage;
};

/* Fields of a table for a struct that has a moment_choice as its member. */
#define MOMENT_FIELDS(type, member)                                                                \
    {"step", FIELD_U64, .offset = offsetof(type, member.query.step), .max = 9007199254740991,      \
     .present = offsetof(type, member.has_step)},                                                  \
    {                                                                                              \
        "lineage", FIELD_U64, .offset = offsetof(type, member.query.lineage),                      \
                              .max = 9007199254740991,                                             \
                              .present = offsetof(type, member.has_lineage)                        \
    }

/* Makes what was read whole; *out: the query for the engine, in *choice, NULL for the current
 * revision. INVALID_FIELD for a lineage without a step. */
enum status moment_settle(struct moment_choice *choice, const struct moment_query **out,
                          struct fault *fault);

/* Reads both from the query of a request. */
enum status moment_read(struct request *request, struct moment_choice *choice,
                        const struct moment_query **out, struct fault *fault);

#endif
