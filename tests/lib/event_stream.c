/* A client of a session's event stream. */
#include "tests/lib/event_stream.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATIENCE_S = 30, TEXT_BYTES = 512 };

/* The rest of the line that begins with `name`, in out[size]. */
static bool line_of(const char *block, const char *name, char *out, size_t size)
{
    for (const char *line = block; *line != '\0'; line += strcspn(line, "\n") + 1) {
        if (strncmp(line, name, strlen(name)) == 0) {
            line += strlen(name);
            ck_assert_uint_lt(strcspn(line, "\n"), size);
            snprintf(out, size, "%.*s", (int)strcspn(line, "\n"), line);
            return true;
        }
    }
    return false;
}

/* The id, and what follows it. */
static bool id_of(const char *block, char id[EVENT_ID_BYTES], char life[EVENT_ID_BYTES])
{
    if (!line_of(block, "id: ", id, EVENT_ID_BYTES))
        return false;
    char *rest = strchr(id, '-');
    ck_assert_ptr_nonnull(rest);
    rest = strchr(rest + 1, '-');
    ck_assert_ptr_nonnull(rest);
    snprintf(life, EVENT_ID_BYTES, "%s", rest);
    *rest = '\0';
    return true;
}

struct event_stream event_stream_open(const struct remote *remote, const char *query,
                                      const char *last)
{
    struct event_stream stream = {.client = http_client_open(remote->port, PATIENCE_S)};
    char text[TEXT_BYTES];

    snprintf(text, sizeof text,
             "GET %s/steps%s HTTP/1.0\r\nHost: test\r\nAccept: text/event-stream\r\n%s%s%s\r\n",
             remote->path, query, last != NULL ? "Last-Event-ID: " : "", last != NULL ? last : "",
             last != NULL ? "\r\n" : "");
    ck_assert(http_client_send_text(stream.client, text));
    ck_assert(http_client_receive(stream.client, true, &stream.head));
    ck_assert_msg(stream.head.status == 200, "%s", stream.head.head);
    char *block = http_client_take_until(stream.client, "\n\n");
    ck_assert_ptr_nonnull(block);
    ck_assert_msg(strncmp(block, "retry: 1000\n", 12) == 0, "it begins with %s", block);
    id_of(block, stream.id, stream.life);
    free(block);
    return stream;
}

void event_stream_close(struct event_stream *stream)
{
    http_client_close(stream->client);
    http_response_free(&stream->head);
}

bool event_stream_next(struct event_stream *stream, bool comments, struct heard *out)
{
    char *block;

    for (;;) {
        block = http_client_take_until(stream->client, "\n\n");
        if (block == NULL) {
            ck_assert_msg(http_client_at_end(stream->client), "nothing came after %s", stream->id);
            return false;
        }
        if (comments || block[0] != ':')
            break;
        free(block);
    }
    *out = (struct heard){.name = ""};
    const char *data = strstr(block, "data: ");
    line_of(block, "event: ", out->name, sizeof out->name);
    if (id_of(block, out->id, stream->life))
        memcpy(stream->id, out->id, sizeof stream->id);
    if (data != NULL) {
        data += strlen("data: ");
        out->data = json_loadb(data, strcspn(data, "\n"), JSON_REJECT_DUPLICATES, NULL);
        ck_assert_msg(out->data != NULL, "%s", block);
    }
    free(block);
    return true;
}

void heard_close(struct heard *heard)
{
    json_decref(heard->data);
}

void event_stream_expect(struct event_stream *stream, const char *name, const char *id)
{
    struct heard heard;

    ck_assert_msg(event_stream_next(stream, false, &heard), "the end, not %s %s", name, id);
    ck_assert_str_eq(heard.name, name);
    ck_assert_str_eq(heard.id, id);
    heard_close(&heard);
}

void event_stream_expect_end(struct event_stream *stream)
{
    struct heard heard;

    ck_assert(!event_stream_next(stream, false, &heard));
}
