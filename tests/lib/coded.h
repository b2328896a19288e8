/* A live server and a client for tests of content codings: bodies that travel coded, answers that
 * come coded. One at a time; what should work and does not fails the test. */
#ifndef DESCENT_TESTS_CODED_H
#define DESCENT_TESTS_CODED_H

#include "service/core/buffer.h"
#include "service/core/span.h"
#include "tests/lib/http_client.h"
#include "tests/lib/live_server.h"

extern struct live_server coded_server;

void coded_start(const char *const *options);
void coded_stop(void);

enum coded_framing { LENGTH, CHUNKED };

/* How a body travels. `coding` NULL: plain. */
struct travel {
    const char *coding;
    enum coded_framing framing;
};

/* Sends these bytes as they are, whatever `travel` says they are, with their Content-Digest. */
struct http_response coded_send_bytes(const char *method, const char *path, const char *type,
                                      const char *headers, struct span bytes, struct travel travel);

/* Sends these bytes in the coding. */
struct http_response coded_send(const char *method, const char *path, const char *type,
                                const char *headers, struct span plain, struct travel travel);

struct http_response coded_ask(const char *method, const char *path, const char *headers,
                               const void *body, size_t size);
struct http_response coded_get(const char *path, const char *headers);
struct http_response coded_head(const char *path, const char *headers);

/* The value of a field, "" when it is not there. Lives for the next few calls. */
const char *coded_field(const struct http_response *response, const char *name);

/* The answer with its coding taken off. */
struct buffer *coded_plain(const struct http_response *response);

#endif
