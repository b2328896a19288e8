/* GET /v1/sessions/{id}/steps: the ledger, page by page, or all of it as lines that are read while
 * they are sent, or what is to come of it as events. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "api/codec.h"
#include "api/fields.h"
#include "api/router.h"
#include "api/session_json.h"
#include "api/steps_events.h"
#include "api/steps_json.h"

enum {
    PAGE_MAX = 1000,
    PAGE_BYTES = 4 << 20,    /* a page ends with the line that reaches it */
    PIECE_BYTES = 256 * 1024 /* likewise of what is read at once for a stream */
};
#define STEP_MAX UINT64_C(9007199254740991)

static const struct codec lines = {.media_type = "application/x-ndjson",
                                   .alias = "application/jsonl"};
static const struct codec document = {.media_type = "application/json"};
static const struct codec events = {.media_type = EVENTS_MEDIA_TYPE};
static const struct codec *const offers[] = {&document, &lines, &events};

struct listing {
    uint64_t from, page_size, lineage;
    bool has_from, has_page_size, has_lineage, tensors;
    const char *token;
};

#define PLACE(member) .offset = offsetof(struct listing, member)
static const struct field fields[] = {
    {"from", FIELD_U64, PLACE(from), .min = 1, .max = 9007199254740991,
     .present = offsetof(struct listing, has_from)},
    {"page_size", FIELD_U64, PLACE(page_size), .min = 1, .max = PAGE_MAX,
     .present = offsetof(struct listing, has_page_size)},
    {"page_token", FIELD_TEXT, PLACE(token)},
    {"lineage", FIELD_U64, PLACE(lineage), .max = 9007199254740991,
     .present = offsetof(struct listing, has_lineage)},
    {"tensors", FIELD_FLAG, PLACE(tensors)},
    {.name = NULL},
};

/* Lines as they are read: of a page, or of a piece of a stream. */
struct reading {
    struct session *session; /* of a stream: retained */
    struct moment_query line;
    uint64_t next, oldest;
    bool exact;             /* from `next` on or not at all; else from the oldest that is kept */
    const char *from_where; /* for faults */
    bool tensors, as_lines;
    bool full; /* there are more lines, from `next` on */
    size_t count, count_max, bytes_max;
    struct json_text text;
    /* Of a stream. */
    struct arena arena;
    struct span piece;
};

/* The status that ends a walk is nobody's: `full` says that it was our own. */
static enum status visit(void *context, const struct step_line *line)
{
    struct reading *reading = context;

    if (reading->count == reading->count_max || reading->text.used >= reading->bytes_max) {
        reading->next = line->receipt.step;
        reading->full = true;
        return STATUS_TOO_LARGE;
    }
    step_write(&reading->text, session_layout(reading->session), line, reading->tensors);
    if (reading->as_lines)
        json_text_line(&reading->text);
    reading->count++;
    return STATUS_OK;
}

static enum status check_kept(const struct reading *reading, uint64_t from, struct fault *fault)
{
    if (!reading->exact || from >= reading->oldest)
        return STATUS_OK;
    fault_set(
        fault, STATUS_HISTORY_GONE, reading->from_where,
        "the line of step %llu is not kept any more; the oldest is that of step %llu. Without "
        "from the listing begins there",
        (unsigned long long)from, (unsigned long long)reading->oldest);
    return fault_extra(fault, "oldest_step", reading->oldest);
}

static enum status read_lines(struct reading *reading, struct fault *fault)
{
    uint64_t from = reading->next;

    reading->full = false;
    reading->count = 0;
    enum status status = session_steps(reading->session, &reading->line, reading->next, STEP_MAX,
                                       visit, reading, &reading->oldest, fault);
    if (status != STATUS_OK && !reading->full)
        return status;
    if ((status = check_kept(reading, from, fault)) != STATUS_OK)
        return status;
    reading->exact = true; /* a stream goes on without a gap, or is cut off */
    return reading->text.failed ? fault_set(fault, STATUS_INTERNAL, "", "out of memory")
                                : STATUS_OK;
}

/* --- a page --- */

static enum status read_token(struct listing *listing, struct fault *fault)
{
    const char *token = listing->token;

    if (token == NULL)
        return STATUS_OK;
    if (listing->has_from)
        return fault_set(fault, STATUS_INVALID_FIELD, "/page_token",
                         "page_token goes on with an earlier listing; leave out from");
    if (*token == '\0' || strlen(token) > 16 || strspn(token, "0123456789") != strlen(token))
        return fault_set(fault, STATUS_INVALID_FIELD, "/page_token",
                         "page_token must be the next_page_token of the page before");
    listing->from = strtoull(token, NULL, 10);
    return STATUS_OK;
}

static enum status page(struct request *request, struct reading *reading, struct reply *reply,
                        struct fault *fault)
{
    json_text_init(&reading->text, request->arena);
    json_text_open(&reading->text, '{');
    json_text_key(&reading->text, "steps");
    json_text_open(&reading->text, '[');
    enum status status = read_lines(reading, fault);
    if (status != STATUS_OK)
        return status;
    json_text_close(&reading->text, ']');
    json_text_member_u64(&reading->text, "oldest_step", reading->oldest);
    json_text_member_string(&reading->text, "next_page_token",
                            reading->full ? arena_format(request->arena, "%" PRIu64, reading->next)
                                          : NULL);
    json_text_close(&reading->text, '}');
    *reply = reply_json(200, json_text_end(&reading->text));
    return STATUS_OK;
}

/* --- a stream --- */

static enum status next_piece(struct reading *reading, struct fault *fault)
{
    arena_reset(&reading->arena);
    json_text_init(&reading->text, &reading->arena);
    enum status status = read_lines(reading, fault);
    reading->piece = json_text_end(&reading->text);
    return status;
}

static ptrdiff_t read_stream(void *context, uint64_t at, void *out, size_t capacity)
{
    struct reading *reading = context;
    struct fault fault;

    (void)at;
    if (reading->piece.size == 0 && reading->full && next_piece(reading, &fault) != STATUS_OK)
        return -1;
    size_t size = reading->piece.size < capacity ? reading->piece.size : capacity;
    if (size > 0) { /* of no lines there are no data to add 0 to */
        memcpy(out, reading->piece.data, size);
        reading->piece = span_of(reading->piece.data + size, reading->piece.size - size);
    }
    return (ptrdiff_t)size;
}

static void close_stream(void *context)
{
    struct reading *reading = context;

    arena_close(&reading->arena);
    session_release(reading->session);
}

/* Takes the session's reference when it succeeds. */
static enum status stream(struct request *request, const struct reading *start, struct reply *reply,
                          struct fault *fault)
{
    struct reading *reading = arena_take(request->arena, sizeof *reading);

    if (reading == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    *reading = *start;
    arena_init(&reading->arena);
    reading->as_lines = true;
    reading->count_max = SIZE_MAX;
    reading->bytes_max = PIECE_BYTES;
    /* The first piece now: what is wrong with the request shows before anything is sent. */
    enum status status = next_piece(reading, fault);
    if (status != STATUS_OK) {
        arena_close(&reading->arena);
        return status;
    }
    *reply = (struct reply){.http = 200,
                            .media_type = lines.media_type,
                            .stream = {.context = reading,
                                       .size = reading->full ? STREAM_OPEN : reading->piece.size,
                                       .read = read_stream,
                                       .close = close_stream}};
    return STATUS_OK;
}

/* --- the endpoint --- */

/* A stream stays on the line on which it began, whatever happens to the session meanwhile. */
static enum status fix_line(struct request *request, struct reading *reading, struct fault *fault)
{
    struct session_view *view = arena_take(request->arena, sizeof *view);

    if (view == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    enum status status = session_view(reading->session, true, view, fault);
    if (status == STATUS_OK) {
        reading->line.has_lineage = true;
        reading->line.lineage = view->lineage;
    }
    return status;
}

/* Events have no pages, and are of the line that the session is on. */
static enum status follow(struct request *request, struct session *session,
                          const struct listing *listing, struct reply *reply, struct fault *fault)
{
    const char *where = listing->has_lineage     ? "/lineage"
                        : listing->token != NULL ? "/page_token"
                        : listing->has_page_size ? "/page_size"
                                                 : NULL;

    if (where != NULL)
        return fault_set(fault, STATUS_INVALID_FIELD, where,
                         "%s does not go with Accept: " EVENTS_MEDIA_TYPE "; leave it out",
                         where + 1);
    return steps_events(request, session, listing->has_from ? listing->from : 0, listing->tensors,
                        reply, fault);
}

/* *streams: the reply has the session's reference. */
static enum status list(struct request *request, struct session *session, bool *streams,
                        struct reply *reply, struct fault *fault)
{
    struct listing listing = {.from = 1, .page_size = 100, .tensors = true};
    bool named;
    enum status status;

    *streams = false;
    size_t form = media_negotiate(request_list(request, "Accept"), offers,
                                  sizeof offers / sizeof *offers, &named);
    if (form == sizeof offers / sizeof *offers)
        return fault_set(fault, STATUS_NOT_ACCEPTABLE, "", "steps are served as %s, %s, %s",
                         document.media_type, lines.media_type, events.media_type);
    if ((status = fields_read_query(request, fields, &listing, fault)) != STATUS_OK ||
        (status = read_token(&listing, fault)) != STATUS_OK ||
        (status = request_query_end(request, fault)) != STATUS_OK)
        return status;
    if (offers[form] == &events) {
        if ((status = follow(request, session, &listing, reply, fault)) == STATUS_OK)
            reply_header(reply, "Vary", "Accept");
        return status;
    }
    struct reading reading = {
        .session = session,
        .line = {.has_lineage = listing.has_lineage, .lineage = listing.lineage},
        .next = listing.from,
        .exact = listing.has_from || listing.token != NULL,
        .from_where = listing.token != NULL ? "/page_token" : "/from",
        .tensors = listing.tensors,
        .count_max = listing.page_size,
        .bytes_max = PAGE_BYTES};
    if (!listing.has_lineage && (status = fix_line(request, &reading, fault)) != STATUS_OK)
        return status;
    *streams = offers[form] == &lines;
    status =
        *streams ? stream(request, &reading, reply, fault) : page(request, &reading, reply, fault);
    *streams &= status == STATUS_OK;
    if (status == STATUS_OK)
        reply_header(reply, "Vary", "Accept");
    return status;
}

struct reply serve_steps_list(struct engine *engine, struct request *request)
{
    struct session *session;
    struct reply reply;
    struct fault fault;
    bool streams;

    if (request_session(engine, request, &session, &fault) != STATUS_OK)
        return reply_fault(request, &fault);
    if (list(request, session, &streams, &reply, &fault) != STATUS_OK)
        reply = reply_fault(request, &fault);
    if (!streams)
        session_release(session);
    return reply;
}
