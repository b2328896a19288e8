/* A live server and a client for tests of content codings: bodies that travel coded, answers that
 * come coded. */
#include "tests/lib/coded.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

#include "api/base64.h"
#include "api/crypto.h"
#include "tests/lib/codings.h"
#include "tests/lib/testing.h"

enum { WAIT_S = 30, LINE_BYTES = 512, PLAIN_BYTES_MAX = 1 << 20 };

struct live_server coded_server;
static struct http_client *client;

void coded_start(const char *const *options)
{
    live_server_start(&coded_server, testing_folder(), options);
    client = http_client_open(coded_server.port, WAIT_S);
}

void coded_stop(void)
{
    http_client_close(client);
    ck_assert_int_eq(live_server_stop(&coded_server), 0);
}

/* --- bodies --- */

static void send_chunked(struct span bytes)
{
    size_t size = 1; /* then more and more */

    for (size_t at = 0; at < bytes.size; at += size, size = size * 3 + 1) {
        char line[32];
        size = size < bytes.size - at ? size : bytes.size - at;
        snprintf(line, sizeof line, "%zx\r\n", size);
        ck_assert(http_client_send_text(client, line));
        ck_assert(http_client_send(client, bytes.data + at, size));
        ck_assert(http_client_send_text(client, "\r\n"));
    }
    ck_assert(http_client_send_text(client, "0\r\n\r\n"));
}

/* "Content-Digest: sha-256=:...:" of what is sent. */
static void digest_line(char *out, size_t size, struct span bytes)
{
    unsigned char digest[SHA256_BYTES];
    char text[BASE64_SIZE(SHA256_BYTES) + 1] = "";

    ck_assert(crypto_sha256(bytes, digest));
    base64_write(digest, sizeof digest, text);
    snprintf(out, size, "Content-Digest: sha-256=:%s:\r\n", text);
}

struct http_response coded_send_bytes(const char *method, const char *path, const char *type,
                                      const char *headers, struct span bytes, struct travel travel)
{
    char head[4 * LINE_BYTES], digest[LINE_BYTES], length[LINE_BYTES];
    struct http_response response;

    digest_line(digest, sizeof digest, bytes);
    snprintf(length, sizeof length, "Content-Length: %zu\r\n", bytes.size);
    snprintf(head, sizeof head,
             "%s %s HTTP/1.1\r\nHost: test\r\nContent-Type: %s\r\n%s%s%s%s%s%s\r\n", method, path,
             type, headers, digest, travel.coding != NULL ? "Content-Encoding: " : "",
             travel.coding != NULL ? travel.coding : "", travel.coding != NULL ? "\r\n" : "",
             travel.framing == CHUNKED ? "Transfer-Encoding: chunked\r\n" : length);
    ck_assert(http_client_send_text(client, head));
    if (travel.framing == CHUNKED)
        send_chunked(bytes);
    else
        ck_assert(http_client_send(client, bytes.data, bytes.size));
    ck_assert_msg(http_client_receive(client, false, &response), "%s %s: no answer", method, path);
    if (travel.framing == CHUNKED) { /* its answer closes the connection */
        http_client_close(client);
        client = http_client_open(coded_server.port, WAIT_S);
    }
    return response;
}

struct http_response coded_send(const char *method, const char *path, const char *type,
                                const char *headers, struct span plain, struct travel travel)
{
    if (travel.coding == NULL)
        return coded_send_bytes(method, path, type, headers, plain, travel);
    struct buffer *coded = codings_encode(travel.coding, plain);
    struct http_response response =
        coded_send_bytes(method, path, type, headers, span_of(coded->data, coded->size), travel);
    buffer_release(coded);
    return response;
}

/* --- answers --- */

struct http_response coded_ask(const char *method, const char *path, const char *headers,
                               const void *body, size_t size)
{
    struct http_response response;

    ck_assert_msg(http_client_request(client, method, path, headers, body, size, &response),
                  "%s %s: no answer", method, path);
    return response;
}

struct http_response coded_get(const char *path, const char *headers)
{
    return coded_ask("GET", path, headers, NULL, 0);
}

struct http_response coded_head(const char *path, const char *headers)
{
    char request[LINE_BYTES];
    struct http_response response;

    snprintf(request, sizeof request, "HEAD %s HTTP/1.1\r\nHost: test\r\n%s\r\n", path, headers);
    ck_assert(http_client_send_text(client, request));
    ck_assert(http_client_receive(client, true, &response));
    return response;
}

const char *coded_field(const struct http_response *response, const char *name)
{
    static char values[8][LINE_BYTES];
    static size_t next;
    char *value = values[next++ % 8];

    value[0] = '\0';
    return http_response_header(response, name, value, LINE_BYTES) != NULL ? value : "";
}

struct buffer *coded_plain(const struct http_response *response)
{
    const char *coding = coded_field(response, "Content-Encoding");
    struct span body = span_of(response->body, response->body_size);
    struct buffer *plain;

    if (coding[0] != '\0') {
        plain = codings_decode(coding, body, PLAIN_BYTES_MAX);
        ck_assert_msg(plain != NULL, "it is no %s", coding);
        return plain;
    }
    plain = buffer_new(body.size);
    ck_assert_ptr_nonnull(plain);
    memcpy(plain->data, body.data, body.size);
    return plain;
}
