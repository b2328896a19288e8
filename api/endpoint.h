/* A request and a reply by value: an endpoint never sees a socket. */
#ifndef DESCENT_API_ENDPOINT_H
#define DESCENT_API_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/core/arena.h"
#include "service/core/buffer.h"
#include "service/core/hash.h"
#include "service/core/span.h"
#include "service/core/status.h"

struct engine;
struct config;

enum method {
    METHOD_GET,
    METHOD_HEAD,
    METHOD_POST,
    METHOD_PUT,
    METHOD_PATCH,
    METHOD_DELETE,
    METHOD_OPTIONS,
    METHOD_OTHER
};

enum { QUERY_MAX = 32, HEADERS_MAX = 64, PATH_PARAMETERS_MAX = 4, REPLY_HEADERS_MAX = 56 };

/* What a token may do; each includes those before it. */
enum scope { SCOPE_NONE, SCOPE_READ, SCOPE_STEP, SCOPE_ADMIN };

/* What a token may take of the server; 0: no limit. */
struct quotas {
#define QUOTA(field, ...) uint64_t field;
#include "api/quotas.def"
#undef QUOTA
};

struct header {
    const char *name; /* as it came; compared without case */
    const char *value;
};

struct query_pair {
    const char *name; /* percent-decoded, UTF-8 */
    const char *value;
    bool used; /* an endpoint asked for it; unused ones are refused by name */
};

struct request {
    struct arena *arena; /* lives until the reply is sent */
    enum method method;  /* HEAD is served as GET; the server drops the body */
    const char *path;    /* raw, without the query */
    const char *id;      /* request id, for logs and problems */
    const char *path_parameters[PATH_PARAMETERS_MAX]; /* decoded, in order of the route */
    struct query_pair query[QUERY_MAX];
    size_t query_count;
    struct header headers[HEADERS_MAX];
    size_t header_count;
    struct buffer *body;  /* the whole body; NULL when there was none */
    const char *tenant;   /* whose sessions the request sees; "": the default one, without tokens */
    double receive_ms;    /* from the end of the header to the end of the body, decoding included */
    struct header taken;  /* of a 415: the field that lists what would be taken; name NULL: none */
    const char *token_id; /* of the token it came with, for logs; NULL: none was asked for */
    const struct quotas *quotas; /* of that token; NULL: none */
    const struct config *config;
    const struct route *route;
};

/* A body that is made while it is sent. `read` fills out with the bytes from `at` on, at most
 * `capacity`, in order and from one thread at a time; 0: that was all; negative: the reply is cut
 * off, so that the client sees that something is missing. `close` is called once, in any case.
 *
 * One that follows something may wait for it some seconds and then say STREAM_LATER: it is asked
 * again unless its client has gone. It has no end of its own, and no stop waits for it. */
struct stream {
    void *context;
    uint64_t size; /* bytes, STREAM_OPEN: not known before the end */
    bool follows;
    ptrdiff_t (*read)(void *context, uint64_t at, void *out, size_t capacity);
    void (*close)(void *context); /* NULL: there is no stream */
};
#define STREAM_OPEN UINT64_MAX
#define STREAM_LATER PTRDIFF_MIN

/* What to send: head, then size bytes of buffer from offset, then tail. Spans live in the request's
 * arena. */
struct reply {
    unsigned http;                            /* status */
    const char *media_type;                   /* NULL: no body */
    struct header headers[REPLY_HEADERS_MAX]; /* names static, values static or in the arena */
    size_t header_count;
    struct span head;
    struct buffer *buffer; /* owned reference or NULL */
    size_t offset, size;
    struct span tail;
    enum status problem;  /* that it tells of; STATUS_OK: none */
    bool stepped;         /* a step was taken, or a contribution to a round */
    bool ranges;          /* a single Range may be cut from it (Accept-Ranges: bytes) */
    struct stream stream; /* in place of head, buffer and tail, which are empty then */
};

struct route {
    enum method method;
    const char *pattern; /* "/v1/sessions/{id}/gradients" */
    struct reply (*serve)(struct engine *engine, struct request *request);
    const char *operation; /* file stem under api/endpoint and operationId in openapi.json */
    bool takes_body;       /* false: a body with bytes in it is refused */
    enum scope scope;      /* that a token must have, where tokens are asked for */
};

/* The value of a header (the last one wins where several came), or NULL. Name without case. */
const char *request_header(const struct request *request, const char *name);

/* How often a header is there; *value: the last one, or NULL. */
size_t request_header_count(const struct request *request, const char *name, const char **value);

/* The values of all fields of that name, which are one list, joined by ", "; NULL when there is
 * none. In the arena where there are several. */
const char *request_list(const struct request *request, const char *name);

/* The value of a query key, marking it used, or NULL. */
const char *request_query(struct request *request, const char *name);

/* INVALID_REQUEST naming the first query key that no one asked for. Call after the last
 * request_query. */
enum status request_query_end(const struct request *request, struct fault *fault);

/* Whether `Prefer` has that token, and its value ("return=representation": name "return"). NULL
 * when absent. */
const char *request_prefer(const struct request *request, const char *name);

/* What makes two requests the same: media type, query (but for the key `except`) and body; not what
 * the answer should look like, nor whether it was tried before. */
enum status request_digest(const struct request *request, const char *except, struct digest *out,
                           struct fault *fault);

/* Replies. */
struct reply reply_json(unsigned http, struct span json); /* NULL data: 500 */
struct reply reply_empty(unsigned http);
struct reply reply_fault(const struct request *request, const struct fault *fault); /* problem.c */
void reply_header(struct reply *reply, const char *name,
                  const char *value); /* NULL value: nothing */

/* The value of a field of the reply, the first of that name, or NULL. To be changed in place. */
const char **reply_find(struct reply *reply, const char *name);

/* Adds a request field to Vary, which then says of each once that the answer depends on it. */
void reply_vary(struct reply *reply, struct arena *arena, const char *name);

#endif
