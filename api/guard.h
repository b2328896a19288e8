/* What is refused before anything else looks at a request: everything that two HTTP implementations
 * could read in two ways (request smuggling), and everything that is beyond a limit. Pure: it sees
 * text, no socket. */
#ifndef DESCENT_API_GUARD_H
#define DESCENT_API_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/endpoint.h"
#include "service/core/status.h"

enum { TARGET_BYTES_MAX = 8192 };

/* The request line and the shape of the header block, as they came. */
struct envelope {
    const char *method;
    const char *target;  /* path and query, raw */
    const char *version; /* "HTTP/1.1" */
    bool plain;          /* every line ends with CRLF, no line is folded, no NUL anywhere */
    size_t header_count; /* of all; request->headers has the first HEADERS_MAX */
};

/* How the body is framed. */
struct framing {
    bool chunked;
    uint64_t length; /* Content-Length; 0 when there is none */
    bool expects_continue;
};

/* Looks at the envelope and request->headers. Any fault here means that the end of the body cannot
 * be trusted: answer and close. INVALID_REQUEST, URI_TOO_LONG, HEADERS_TOO_LARGE,
 * EXPECTATION_FAILED. */
enum status guard_check(const struct envelope *envelope, const struct request *request,
                        struct framing *out, struct fault *fault);

/* Cuts the query (what follows `?`, may be empty) into request->query. INVALID_REQUEST: a key
 * twice, a key without a name, too many, a broken escape. */
enum status guard_query(struct request *request, const char *query, struct fault *fault);

/* Whether text is one or more token characters (RFC 9110, 5.6.2). */
bool guard_is_token(const char *text);

#endif
