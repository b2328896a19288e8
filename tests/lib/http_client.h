/* A small blocking HTTP/1.1 client over a raw socket, which can send anything, also what no decent
 * client would. */
#ifndef DESCENT_TESTS_HTTP_CLIENT_H
#define DESCENT_TESTS_HTTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

struct http_client;

struct http_response {
    unsigned status;
    char *head; /* status line and header lines, NUL after them */
    char *body; /* NUL after it */
    size_t body_size;
};

/* Connects to 127.0.0.1; aborts the test when it cannot. Every later wait gives up after timeout_s.
 */
struct http_client *http_client_open(unsigned port, unsigned timeout_s);

/* The system takes no more than about `bytes` of an answer that is not read. */
void http_client_take_little(struct http_client *client, int bytes);
void http_client_close(struct http_client *take_client);

/* Whether a connection can be made at all. */
bool http_client_can_connect(unsigned port);

/* Sends bytes as they are; false when the other side has closed. */
bool http_client_send(struct http_client *client, const void *data, size_t size);
bool http_client_send_text(struct http_client *client, const char *text);

/* Says that nothing more will be sent. */
void http_client_finish(struct http_client *client);

/* Reads the next response (also a 100). `to_head`: it answers HEAD and has no body. False: closed
 * or silent before it was complete. Free the response in any case. */
bool http_client_receive(struct http_client *client, bool to_head, struct http_response *out);
void http_response_free(struct http_response *response);

/* Whether the other side has closed and sent nothing more. Waits for it. */
bool http_client_at_end(struct http_client *client);

/* What comes up to `end` and with it, malloc'ed; NULL: closed or silent before. */
char *http_client_take_until(struct http_client *client, const char *end);

/* One request on an open connection: method, path, header lines ("Name: value\r\n" each, or ""),
 * body (NULL: none; else Content-Length is added). Skips 100s. */
bool http_client_request(struct http_client *client, const char *method, const char *path,
                         const char *headers, const void *body, size_t body_size,
                         struct http_response *out);

/* The value of a header in out[size], or NULL. */
const char *http_response_header(const struct http_response *response, const char *name, char *out,
                                 size_t size);

#endif
