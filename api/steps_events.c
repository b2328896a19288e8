/* GET .../steps as text/event-stream (WHATWG HTML, 9.2), which a browser reads by EventSource:
 *
 *     retry: 1000                  how soon to come back, in ms
 *     id: 0-12-62e2c7c9d3f40       where the client stands: lineage-step, and which session of this
 *                                  name it is of; from here it goes on
 *     id: 0-13-62e2c7c9d3f40
 *     event: step
 *     data: {"status":"applied","step":13, ...}    the line of the ledger
 *
 *     id: 1-4-62e2c7c9d3f40
 *     event: rewind                what was told after step 4 is left behind
 *     data: {"lineage":1,"step":4}
 *
 *     id: 0-90-62e2c7c9d3f40
 *     event: gap                   lines up to step 90 that were not told are not kept any more
 *     data: {"lineage":0,"step":90}
 *
 *     event: deleted               the session; the end
 *     data: {}
 *
 *     :                            a comment, when there is nothing else
 *
 * A client that comes back says its last id in Last-Event-ID. A step is told when it is on disk,
 * whatever the durability, so that only a rewind takes back what was told; nor has the first block
 * an id that a crash takes back. */
#include "api/steps_events.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "api/config.h"
#include "api/steps_feed.h"
#include "service/core/clock.h"
#include "service/core/log.h"

enum { WAIT_S = 2 };
#define NUMBER_MAX UINT64_C(9007199254740991)

struct events {
    struct follower follower;
    struct arena arena;
    struct span piece; /* still to be sent */
    uint64_t heartbeat_us, spoke_us;
    bool ended;
};

static enum status next_piece(struct events *events, struct json_text *text, struct fault *fault)
{
    enum status status = follower_read(&events->follower, WAIT_S, text, fault);

    if (status != STATUS_SESSION_NOT_FOUND)
        return status;
    arena_reset(&events->arena);
    json_text_init(text, &events->arena);
    event_text(text, "event: deleted\ndata: {}\n\n");
    events->ended = true;
    return text->failed ? fault_set(fault, STATUS_INTERNAL, "", "out of memory") : STATUS_OK;
}

static ptrdiff_t read_events(void *context, uint64_t at, void *out, size_t capacity)
{
    struct events *events = context;
    struct json_text text;
    struct fault fault;

    (void)at;
    if (events->piece.size == 0) {
        if (events->ended)
            return 0;
        arena_reset(&events->arena);
        json_text_init(&text, &events->arena);
        if (next_piece(events, &text, &fault) != STATUS_OK) {
            log_warning("an event stream is cut off: %s", fault.detail);
            return -1;
        }
        uint64_t now = clock_monotonic_us();
        if (text.used == 0 && now - events->spoke_us >= events->heartbeat_us)
            event_text(&text, ":\n\n");
        if (text.used == 0)
            return text.failed ? -1 : STREAM_LATER;
        events->spoke_us = now;
        events->piece = json_text_end(&text);
    }
    size_t size = events->piece.size < capacity ? events->piece.size : capacity;
    memcpy(out, events->piece.data, size);
    events->piece = span_of(events->piece.data + size, events->piece.size - size);
    return (ptrdiff_t)size;
}

static void close_events(void *context)
{
    struct events *events = context;

    follower_close(&events->follower);
    arena_close(&events->arena);
}

static bool read_number(const char **at, uint64_t *out)
{
    size_t size = strspn(*at, "0123456789");

    if (size == 0 || size > 16 || (size > 1 && **at == '0'))
        return false;
    *out = strtoull(*at, NULL, 10);
    *at += size;
    return *out <= NUMBER_MAX;
}

/* What an id ends in, which session it is of; it may be left out. */
static bool read_life(const char *at, uint64_t own, uint64_t *out)
{
    size_t size = strspn(at + (*at == '-'), "0123456789abcdef");

    *out = *at == '-' ? strtoull(at + 1, NULL, 16) : own;
    return *at == '\0' || (*at == '-' && size > 0 && size <= 16 && at[1 + size] == '\0');
}

/* Last-Event-ID, "0-13-62e2c7c9d3f40". *given: there is one that is not empty. */
static enum status read_last(const struct request *request, const struct session *session,
                             struct moment *out, bool *given, struct fault *fault)
{
    const char *text = request_header(request, "Last-Event-ID");
    const char *at = text;
    uint64_t own = session_created_us(session), life;

    *given = text != NULL && *text != '\0';
    if (!*given)
        return STATUS_OK;
    if (read_number(&at, &out->lineage) && *at++ == '-' && read_number(&at, &out->step) &&
        read_life(at, own, &life)) {
        if (life == own)
            return STATUS_OK;
        return fault_set(fault, STATUS_SESSION_NOT_FOUND, "",
                         "the session that Last-Event-ID is of was deleted, and another has its "
                         "name now; without Last-Event-ID that one is followed");
    }
    return fault_set(fault, STATUS_INVALID_REQUEST, "",
                     "Last-Event-ID is \"%.60s\"; it must be the id of an event of this stream, "
                     "for instance 0-13-62e2c7c9d3f40, or left out",
                     text);
}

/* A line is told under its own lineage. */
static enum status note_lineage(void *context, const struct step_line *line)
{
    ((struct moment *)context)->lineage = line->receipt.lineage;
    return STATUS_OK;
}

/* The place before that line; *now: the session's. */
static enum status find_from(struct session *session, uint64_t from, struct moment *now,
                             struct fault *fault)
{
    const struct moment_query line = {.has_lineage = true, .lineage = now->lineage};
    uint64_t oldest;

    if (from > now->step + 1)
        return fault_set(fault, STATUS_INVALID_FIELD, "/from",
                         "the session stands at step %" PRIu64 "; from may be at most %" PRIu64
                         ", the next one",
                         now->step, now->step + 1);
    enum status status =
        session_steps(session, &line, from, from, note_lineage, now, &oldest, fault);
    now->step = from - 1;
    if (status != STATUS_OK || from >= oldest)
        return status;
    fault_set(fault, STATUS_HISTORY_GONE, "/from",
              "the line of step %" PRIu64 " is not kept any more; the oldest is that of step "
              "%" PRIu64,
              from, oldest);
    return fault_extra(fault, "oldest_step", oldest);
}

/* Where the client stands, and the newest step on disk. */
static enum status find_start(struct request *request, struct session *session, uint64_t from,
                              struct moment *out, uint64_t *durable, struct fault *fault)
{
    bool given;
    enum status status = read_last(request, session, out, &given, fault);

    *durable = UINT64_MAX; /* of what was told all is */
    if (status != STATUS_OK || given)
        return status;
    struct session_view *view = arena_take(request->arena, sizeof *view);
    if (view == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    if ((status = session_view(session, true, view, fault)) != STATUS_OK)
        return status;
    *out = (struct moment){view->lineage, view->step};
    *durable = view->durable_step;
    if (from != 0)
        return find_from(session, from, out, fault);
    out->step = *durable; /* what comes after it is still to be told */
    return STATUS_OK;
}

enum status steps_events(struct request *request, struct session *session, uint64_t from,
                         bool tensors, struct reply *reply, struct fault *fault)
{
    struct events *events = arena_take(request->arena, sizeof *events);
    struct json_text text;
    struct moment start;
    uint64_t durable;
    enum status status;

    if (events == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    if ((status = find_start(request, session, from, &start, &durable, fault)) != STATUS_OK)
        return status;
    *events = (struct events){.heartbeat_us = request->config->heartbeat_s * 1000000,
                              .spoke_us = clock_monotonic_us()};
    arena_init(&events->arena);
    json_text_init(&text, &events->arena);
    event_text(&text, "retry: 1000\n");
    if (start.step <= durable) /* else a crash may take it back: who has no id asks again for it */
        event_id(&text, session, &start);
    event_text(&text, "\n");
    if (text.failed || !follower_open(&events->follower, session, tensors, &start)) {
        arena_close(&events->arena);
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    }
    events->piece = json_text_end(&text);
    *reply = (struct reply){.http = 200,
                            .media_type = EVENTS_MEDIA_TYPE,
                            .stream = {.context = events,
                                       .size = STREAM_OPEN,
                                       .follows = true,
                                       .read = read_events,
                                       .close = close_events}};
    reply_header(reply, "Cache-Control", "no-cache");
    reply_header(reply, "X-Accel-Buffering", "no"); /* nginx would keep it until it is full */
    return STATUS_OK;
}
