/* The media type of a body, held against what an address takes. */
#ifndef DESCENT_API_MEDIA_H
#define DESCENT_API_MEDIA_H

#include "api/endpoint.h"

/* UNSUPPORTED_MEDIA_TYPE unless `known`, naming what is taken: "<what> as <types>", and in the
 * answer's Accept; also for JSON in another charset than UTF-8, which RFC 8259 does not have. */
enum status media_check(struct request *request, bool known, bool is_json, const char *what,
                        const char *types, struct fault *fault);

#endif
