/* The moving average of a session's weights as it is served. */
#ifndef DESCENT_API_AVERAGE_H
#define DESCENT_API_AVERAGE_H

#include "service/session/engine.h"

/* The average of that revision, layout->count elements of the session's dtype, with one reference
 * for the caller: as it is kept or, where the session says debias, corrected for having started at
 * zeros. INVALID_FIELD (where = "/average") when the session keeps none. */
enum status average_values(const struct session *session, const struct revision *revision,
                           struct buffer **out, struct fault *fault);

#endif
