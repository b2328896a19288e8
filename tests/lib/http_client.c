/* A small blocking HTTP/1.1 client over a raw socket. */
#include "tests/lib/http_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { READ_BYTES = 65536 };

struct http_client {
    int fd;
    char *data; /* received, not yet taken */
    size_t used, capacity;
};

static int dial(unsigned port, unsigned timeout_s)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval timeout = {.tv_sec = (time_t)timeout_s};
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    close(fd);
    return -1;
}

struct http_client *http_client_open(unsigned port, unsigned timeout_s)
{
    struct http_client *client = calloc(1, sizeof *client);

    if (client == NULL || (client->fd = dial(port, timeout_s)) < 0) {
        perror("http_client_open");
        abort();
    }
    return client;
}

void http_client_take_little(struct http_client *client, int bytes)
{
    if (setsockopt(client->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes) != 0)
        perror("http_client_take_little");
}

void http_client_close(struct http_client *take_client)
{
    close(take_client->fd);
    free(take_client->data);
    free(take_client);
}

bool http_client_can_connect(unsigned port)
{
    int fd = dial(port, 2);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

bool http_client_send(struct http_client *client, const void *data, size_t size)
{
    for (const char *at = data; size > 0;) {
        ssize_t sent = send(client->fd, at, size, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        at += sent;
        size -= (size_t)sent;
    }
    return true;
}

bool http_client_send_text(struct http_client *client, const char *text)
{
    return http_client_send(client, text, strlen(text));
}

void http_client_finish(struct http_client *client)
{
    shutdown(client->fd, SHUT_WR);
}

/* Reads some more; 0: closed, -1: an error or silence. The data stays NUL-terminated. */
static ssize_t more(struct http_client *client)
{
    if (client->capacity - client->used < READ_BYTES + 1) {
        client->capacity = client->capacity * 2 + READ_BYTES + 1;
        client->data = realloc(client->data, client->capacity);
        if (client->data == NULL)
            abort();
    }
    ssize_t got = recv(client->fd, client->data + client->used, READ_BYTES, 0);
    if (got > 0)
        client->used += (size_t)got;
    client->data[client->used] = '\0';
    return got;
}

/* Cuts `size` bytes off the front of what was received. */
static char *take(struct http_client *client, size_t size)
{
    char *piece = malloc(size + 1);

    if (piece == NULL)
        abort();
    memcpy(piece, client->data, size);
    piece[size] = '\0';
    client->used -= size;
    memmove(client->data, client->data + size, client->used + 1);
    return piece;
}

/* Reads until `size` bytes are there. */
static bool await_bytes(struct http_client *client, size_t size)
{
    while (client->used < size)
        if (more(client) <= 0)
            return false;
    return true;
}

/* A body in chunks, without trailers. */
static bool receive_chunks(struct http_client *client, struct http_response *out)
{
    for (;;) {
        char *end = NULL;
        while (client->data == NULL || (end = strstr(client->data, "\r\n")) == NULL)
            if (more(client) <= 0)
                return false;
        size_t line = (size_t)(end + 2 - client->data);
        size_t size = (size_t)strtoull(client->data, NULL, 16);
        if (!await_bytes(client, line + size + 2))
            return false;
        char *piece = take(client, line + size + 2);
        out->body = realloc(out->body, out->body_size + size + 1);
        if (out->body == NULL)
            abort();
        memcpy(out->body + out->body_size, piece + line, size);
        out->body_size += size;
        out->body[out->body_size] = '\0';
        free(piece);
        if (size == 0)
            return true;
    }
}

bool http_client_receive(struct http_client *client, bool to_head, struct http_response *out)
{
    char value[32];
    char *end = NULL;

    *out = (struct http_response){.status = 0};
    while (client->data == NULL || (end = strstr(client->data, "\r\n\r\n")) == NULL)
        if (more(client) <= 0)
            return false;
    out->head = take(client, (size_t)(end + 4 - client->data));
    if (sscanf(out->head, "HTTP/1.1 %3u ", &out->status) != 1)
        return false;
    size_t size = 0;
    if (http_response_header(out, "Content-Length", value, sizeof value) != NULL)
        size = (size_t)strtoull(value, NULL, 10);
    if (to_head || out->status < 200 || out->status == 204 || out->status == 304)
        size = 0;
    else if (http_response_header(out, "Transfer-Encoding", value, sizeof value) != NULL)
        return receive_chunks(client, out);
    if (!await_bytes(client, size))
        return false;
    out->body = take(client, size);
    out->body_size = size;
    return true;
}

void http_response_free(struct http_response *response)
{
    free(response->head);
    free(response->body);
    *response = (struct http_response){.status = 0};
}

bool http_client_at_end(struct http_client *client)
{
    errno = 0;
    if (client->used > 0)
        return false;
    /* A reset is an end as well: the other side closed with bytes of ours unread. Silence is not.
     */
    return more(client) <= 0 && errno != EAGAIN;
}

char *http_client_take_until(struct http_client *client, const char *end)
{
    char *at = NULL;

    while (client->data == NULL || (at = strstr(client->data, end)) == NULL)
        if (more(client) <= 0)
            return NULL;
    return take(client, (size_t)(at - client->data) + strlen(end));
}

bool http_client_request(struct http_client *client, const char *method, const char *path,
                         const char *headers, const void *body, size_t body_size,
                         struct http_response *out)
{
    char length[48] = "";
    size_t size = strlen(method) + strlen(path) + strlen(headers) + 128;
    char *head = malloc(size);

    if (head == NULL)
        abort();
    if (body != NULL)
        snprintf(length, sizeof length, "Content-Length: %zu\r\n", body_size);
    snprintf(head, size, "%s %s HTTP/1.1\r\nHost: test\r\n%s%s\r\n", method, path, length, headers);
    bool good = http_client_send_text(client, head);
    free(head);
    if (good && body != NULL)
        http_client_send(client, body, body_size); /* refused early: the answer says why */
    *out = (struct http_response){.status = 0};
    do {
        http_response_free(out);
        good = http_client_receive(client, strcmp(method, "HEAD") == 0, out);
    } while (good && out->status == 100);
    return good;
}

const char *http_response_header(const struct http_response *response, const char *name, char *out,
                                 size_t size)
{
    size_t length = strlen(name);

    for (const char *line = strstr(response->head, "\r\n"); line != NULL;
         line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, length) != 0 || line[length] != ':')
            continue;
        line += length + 1;
        line += strspn(line, " \t");
        snprintf(out, size, "%.*s", (int)strcspn(line, "\r\n"), line);
        return out;
    }
    return NULL;
}
