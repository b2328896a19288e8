/* A client of a session's event stream. It speaks HTTP/1.0, so that events come without chunks
 * between them. */
#ifndef DESCENT_TESTS_EVENT_STREAM_H
#define DESCENT_TESTS_EVENT_STREAM_H

#include <stdbool.h>

#include "tests/lib/remote.h"

enum { EVENT_NAME_BYTES = 16, EVENT_ID_BYTES = 48 };

struct event_stream {
    struct http_client *client;
    struct http_response head;
    char id[EVENT_ID_BYTES];   /* the last, lineage-step; "": none */
    char life[EVENT_ID_BYTES]; /* the rest of it: "-" and of which session */
};

struct heard {
    char name[EVENT_NAME_BYTES]; /* "": a comment */
    char id[EVENT_ID_BYTES];     /* lineage-step; "": none */
    json_t *data;                /* owned */
};

/* Follows the session under a query ("" or "?..."), after `last` (NULL: no Last-Event-ID); reads
 * the block that says where it stands. Fails the test when it cannot. */
struct event_stream event_stream_open(const struct remote *remote, const char *query,
                                      const char *last);
void event_stream_close(struct event_stream *stream);

/* The next event, without comments unless these are wanted; false: the stream has ended. Fails the
 * test when nothing comes. Close what was heard. */
bool event_stream_next(struct event_stream *stream, bool comments, struct heard *out);
void heard_close(struct heard *heard);

/* The next event must be this one, with that id. */
void event_stream_expect(struct event_stream *stream, const char *name, const char *id);
/* The end must come. */
void event_stream_expect_end(struct event_stream *stream);

#endif
