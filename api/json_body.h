/* Bodies that are a JSON document and nothing else. */
#ifndef DESCENT_API_JSON_BODY_H
#define DESCENT_API_JSON_BODY_H

#include "api/endpoint.h"
#include "api/json_document.h"

/* Reads the body; the query must be empty, and If-Match and Idempotency-Key, which these endpoints
 * do not heed, not there. UNSUPPORTED_MEDIA_TYPE; INVALID_REQUEST, also when there is no body, with
 * `example` of one; INVALID_JSON. On OK the caller closes the document. */
enum status json_body_read(struct request *request, const char *example, struct json_document *out,
                           struct fault *fault);

/* INVALID_REQUEST for If-Match or Idempotency-Key: where something is done again when it is asked
 * for again under a key, or at any revision, who asks for it otherwise must hear so. */
enum status promises_refuse(const struct request *request, struct fault *fault);
/* The same for one of them: where twice is as once, a key is as good as kept. */
enum status promise_refuse(const struct request *request, const char *name, struct fault *fault);

#endif
