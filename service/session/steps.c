/* Reading the ledger of steps: lines that checkpoints wrote to the journal, then those in
 * memory. */
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/session/past.h"
#include "service/session/replay.h"
#include "service/session/session.h"

/* Where lineages part, copied so that reading needs no lock. */
struct lines {
    struct rewinds rewinds;
    struct event_place *places; /* EVENT_RECEIPTS */
    size_t place_count;
    uint64_t lineage;
    struct packer tail; /* lines in memory */
};

static void lines_close(struct lines *lines)
{
    free(lines->rewinds.places);
    free(lines->places);
    packer_close(&lines->tail);
}

/* Mutex held. */
static enum status list_lines(const struct session *session, const struct moment_query *query,
                              struct lines *out, struct fault *fault)
{
    const struct receipts *tail = &session->state->receipts;
    size_t count = 1;

    *out = (struct lines){.lineage = query->has_lineage ? query->lineage : session->lineage};
    if (out->lineage > session->lineage)
        return fault_set(fault, STATUS_NOT_FOUND, "/lineage",
                         "session %s has no lineage %llu; the newest is %llu", session->id,
                         (unsigned long long)out->lineage, (unsigned long long)session->lineage);
    for (const struct event_place *at = session->receipts.first; at != NULL; at = at->next_alike)
        count++;
    enum status status = rewinds_list(session, &out->rewinds, fault);
    out->places = malloc(count * sizeof *out->places);
    pack_fixed(&out->tail, tail->lines.data, tail->lines.used);
    if (status != STATUS_OK || out->places == NULL || out->tail.failed) {
        lines_close(out);
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    }
    for (const struct event_place *at = session->receipts.first; at != NULL; at = at->next_alike)
        out->places[out->place_count++] = *at;
    return STATUS_OK;
}

/* Only those in memory, where they are all that is asked for. Mutex held. */
static bool list_recent(const struct session *session, const struct moment_query *query,
                        uint64_t from, struct lines *out)
{
    struct span tail;

    if ((query->has_lineage && query->lineage != session->lineage) ||
        !receipts_from(&session->state->receipts, from, &tail))
        return false;
    *out = (struct lines){.lineage = session->lineage}; /* which rewinds would not change */
    pack_fixed(&out->tail, tail.data, tail.size);
    if (out->tail.failed)
        lines_close(out);
    return !out->tail.failed;
}

struct visiting {
    struct lines *lines;
    uint64_t from, to;

    enum status (*visit)(void *context, const struct step_line *line);
    void *context;
    struct receipts_reader reader;
};

/* A block of lines that belong together. */
static enum status visit_block(struct visiting *work, const void *data, size_t size,
                               struct fault *fault)
{
    struct step_line line;
    enum status status = STATUS_OK;

    work->reader.unpacker = (struct unpacker){.data = data, .size = size};
    while (status == STATUS_OK && receipts_next(&work->reader, &line)) {
        uint64_t step = line.receipt.step;
        if (step >= work->from && step <= work->to &&
            rewinds_line(&work->lines->rewinds, work->lines->lineage, step) == line.receipt.lineage)
            status = work->visit(work->context, &line);
    }
    if (status == STATUS_OK && work->reader.unpacker.failed)
        status = fault_set(fault, STATUS_STORAGE_FAILED, "", "the ledger of steps is damaged");
    return status;
}

static enum status visit_all(struct session *session, struct visiting *work, struct fault *fault)
{
    unsigned char head[STORE_HEAD_BYTES];
    unsigned char *chunk = work->lines->place_count > 0 ? malloc(STORE_CHUNK_BYTES) : NULL;
    enum status status = STATUS_OK;

    if (chunk == NULL && work->lines->place_count > 0)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    for (size_t i = 0; i < work->lines->place_count && status == STATUS_OK; i++) {

        struct event event;
        struct buffer *body = NULL;
        status =
            session_read_event(session, &work->lines->places[i], head, chunk, &event, &body, fault);
        if (status == STATUS_OK)
            status = visit_block(work, body->data, body->size, fault);
        buffer_release(body);
    }
    free(chunk);
    if (status == STATUS_OK)
        status = visit_block(work, work->lines->tail.data, work->lines->tail.used, fault);
    return status;
}

struct first {
    bool found;
    uint64_t step;
};

/* The first line of all that is on the line ends the walk: they rise. */
static enum status note_first(void *context, const struct step_line *line)
{
    *(struct first *)context = (struct first){true, line->receipt.step};
    return STATUS_TOO_LARGE;
}

/* *oldest stays where there is none. */
static enum status find_oldest(struct session *session, struct lines *lines, struct visiting *work,
                               uint64_t *oldest, struct fault *fault)
{
    struct first first = {.found = false};

    work->lines = lines;
    work->from = 0;
    work->to = UINT64_MAX;
    work->visit = note_first;
    work->context = &first;
    enum status status = visit_all(session, work, fault);
    if (first.found)
        *oldest = first.step;
    return first.found ? STATUS_OK : status;
}

enum status session_steps(struct session *session, const struct moment_query *query, uint64_t from,
                          uint64_t to,
                          enum status (*visit)(void *context, const struct step_line *line),
                          void *context, uint64_t *oldest, struct fault *fault)
{
    struct moment_query current = {.has_lineage = false};
    struct lines lines;
    struct visiting *work;
    enum status status = session_enter(session, fault);

    if (status != STATUS_OK)
        return status;
    pthread_mutex_lock(&session->mutex);
    if ((status = session_start_reading(session, fault)) != STATUS_OK) {
        pthread_mutex_unlock(&session->mutex);
        session_leave(session);
        return status;
    }
    if (query == NULL)
        query = &current;
    if (oldest != NULL)
        *oldest = session->step + 1;
    if (oldest != NULL || !list_recent(session, query, from, &lines))
        status = list_lines(session, query, &lines, fault);
    pthread_mutex_unlock(&session->mutex);
    work = malloc(sizeof *work); /* most of it is never used */
    if (status == STATUS_OK && work == NULL) {
        lines_close(&lines);
        status = fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    } else if (status == STATUS_OK) {
        size_t before = 0;
        if (oldest != NULL)
            status = find_oldest(session, &lines, work, oldest, fault);
        work->lines = &lines;
        while (before < lines.place_count && lines.places[before].step < from)
            before++; /* blocks that end before it */
        lines.place_count -= before;
        if (before > 0)
            memmove(lines.places, lines.places + before, lines.place_count * sizeof *lines.places);
        work->from = from;
        work->to = to;
        work->visit = visit;
        work->context = context;
        if (status == STATUS_OK)
            status = visit_all(session, work, fault);
        lines_close(&lines);
    }
    free(work);
    pthread_mutex_lock(&session->mutex);
    session_end_reading(session);
    pthread_mutex_unlock(&session->mutex);
    session_leave(session);
    return status;
}
