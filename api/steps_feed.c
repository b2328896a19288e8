/* The steps of a session as server-sent events. */
#include "api/steps_feed.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/steps_json.h"
#include "service/core/clock.h"

enum {
    FEED_BYTES = 256 * 1024,
    FEED_EVENTS = 1024,
    PIECE_BYTES = 32 * 1024, /* what is read at once ends with the event that reaches it */
    ID_BYTES = 64,
};

/* Followers are not woken for every step of a fast session: each rests so long after it has been
 * told all, that all of them together wake at most 5,000 times a second. */
enum { REST_US_EACH = 200, REST_US_MIN = 5000, REST_US_MAX = 250000 };

/* The newest events, one after the other: that before event 0 leads from `first` to marks[0].at.
 * What is there is a matter of speed alone: a follower whose place it does not have reads the
 * ledger. */
struct feed {
    struct feed *next; /* and followers: under feeds_lock */
    unsigned followers;
    struct session *session; /* retained */
    bool tensors;
    pthread_mutex_t lock; /* guards what follows */
    struct moment first;
    size_t count;
    struct {
        struct moment at;
        size_t end; /* of its text */
    } marks[FEED_EVENTS];
    char *text;
    struct arena arena;
};

static pthread_mutex_t feeds_lock = PTHREAD_MUTEX_INITIALIZER;
static struct feed *feeds;

/* --- events --- */

void event_text(struct json_text *text, const char *words)
{
    size_t size = strlen(words);
    char *end = json_text_reserve(text, size);

    if (end == NULL)
        return;
    memcpy(end, words, size);
    text->used += size;
    text->comma = false;
}

void event_id(struct json_text *text, const struct session *session, const struct moment *at)
{
    char id[ID_BYTES];

    snprintf(id, sizeof id, "id: %" PRIu64 "-%" PRIu64 "-%" PRIx64 "\n", at->lineage, at->step,
             session_created_us(session));
    event_text(text, id);
}

struct writing {
    struct session *session;
    bool tensors;
    struct moment *at;
    struct json_text *text;
    struct feed *feed; /* that gets what is written; NULL: none */
    size_t begin;      /* of the event that is being written */
    bool full;
};

static void feed_add(struct feed *feed, const struct moment *at, const char *text, size_t size);

/* What is told of a follower's line itself: where it goes on. */
static void write_turn(const struct writing *writing, const char *name, const struct moment *at)
{
    struct json_text *text = writing->text;

    event_id(text, writing->session, at);
    event_text(text, "event: ");
    event_text(text, name);
    event_text(text, "\ndata: ");
    json_text_open(text, '{');
    json_text_member_u64(text, "lineage", at->lineage);
    json_text_member_u64(text, "step", at->step);
    json_text_close(text, '}');
    event_text(text, "\n\n");
}

/* An event is written that leads to this moment. */
static void wrote(struct writing *writing, struct moment at)
{
    struct json_text *text = writing->text;

    *writing->at = at;
    if (writing->feed != NULL && !text->failed)
        feed_add(writing->feed, &at, text->data + writing->begin, text->used - writing->begin);
    writing->begin = text->used;
}

static enum status write_step(void *context, const struct step_line *line)
{
    struct writing *writing = context;
    struct moment at = {line->receipt.lineage, line->receipt.step};

    writing->full = writing->text->used >= PIECE_BYTES || writing->text->failed;
    if (writing->full)
        return STATUS_TOO_LARGE; /* nobody's: `full` says that it was our own */
    if (at.step > writing->at->step + 1) {
        struct moment before = {at.lineage, at.step - 1};
        write_turn(writing, "gap", &before);
        wrote(writing, before);
    }
    event_id(writing->text, writing->session, &at);
    event_text(writing->text, "event: step\ndata: ");
    step_write(writing->text, session_layout(writing->session), line, writing->tensors);
    event_text(writing->text, "\n\n");
    wrote(writing, at);
    return STATUS_OK;
}

static enum status write_none(void *context, const struct step_line *line)
{
    (void)context;
    (void)line;
    return STATUS_OK;
}

static enum status write_steps(struct writing *writing, const struct moment *to,
                               struct fault *fault)
{
    const struct moment_query line = {.has_lineage = true, .lineage = to->lineage};
    enum status status = session_steps(writing->session, &line, writing->at->step + 1, to->step,
                                       write_step, writing, NULL, fault);

    if (writing->full)
        return STATUS_OK;
    if (status == STATUS_OK && writing->at->step < to->step) {
        write_turn(writing, "gap", to);
        wrote(writing, *to);
    }
    return status;
}

/* It goes on with the oldest line that is kept. */
static enum status write_lost(struct writing *writing, const struct moment *to, struct fault *fault)
{
    const struct moment_query line = {.has_lineage = true, .lineage = to->lineage};
    uint64_t oldest;
    enum status status = session_steps(writing->session, &line, to->step + 1, to->step, write_none,
                                       NULL, &oldest, fault);

    if (status != STATUS_OK)
        return status;
    struct moment before = {to->lineage, oldest - 1 < to->step ? oldest - 1 : to->step};
    write_turn(writing, "gap", &before);
    wrote(writing, before);
    return STATUS_OK;
}

/* The next events after *writing->at, which moves; none when there is nothing new. */
static enum status write_events(struct writing *writing, struct fault *fault)
{
    struct following following;
    enum status status = session_follow(writing->session, writing->at, 0, &following, fault);

    writing->begin = writing->text->used;
    if (status != STATUS_OK || following.kind == FOLLOW_NOTHING)
        return status;
    if (following.kind == FOLLOW_STEPS) {
        status = write_steps(writing, &following.to, fault);
    } else if (following.kind == FOLLOW_LOST) {
        status = write_lost(writing, &following.to, fault);
    } else {
        write_turn(writing, "rewind", &following.to);
        wrote(writing, following.to);
    }
    if (status == STATUS_OK && writing->text->failed)
        status = fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    return status;
}

/* --- the newest events, kept; lock held --- */

static size_t feed_used(const struct feed *feed)
{
    return feed->count > 0 ? feed->marks[feed->count - 1].end : 0;
}

/* The oldest half goes. */
static void feed_halve(struct feed *feed)
{
    size_t drop = feed->count / 2, used = feed_used(feed);

    while (drop < feed->count && feed->marks[drop].end < used / 2)
        drop++;
    if (drop == 0)
        return;
    size_t cut = feed->marks[drop - 1].end;
    feed->first = feed->marks[drop - 1].at;
    memmove(feed->text, feed->text + cut, used - cut);
    feed->count -= drop;
    memmove(feed->marks, feed->marks + drop, feed->count * sizeof *feed->marks);
    for (size_t i = 0; i < feed->count; i++)
        feed->marks[i].end -= cut;
}

static void feed_begin(struct feed *feed, const struct moment *at)
{
    feed->first = *at;
    feed->count = 0;
}

static void feed_add(struct feed *feed, const struct moment *at, const char *text, size_t size)
{
    while (feed->count > 0 && (feed->count == FEED_EVENTS || feed_used(feed) + size > FEED_BYTES)) {
        size_t before = feed->count;
        feed_halve(feed);
        if (feed->count == before) /* one alone */
            feed_begin(feed, &feed->marks[before - 1].at);
    }
    if (size > FEED_BYTES) {
        feed_begin(feed, at);
        return;
    }
    size_t used = feed_used(feed);
    memcpy(feed->text + used, text, size);
    feed->marks[feed->count].at = *at;
    feed->marks[feed->count++].end = used + size;
}

static bool same(const struct moment *a, const struct moment *b)
{
    return a->lineage == b->lineage && a->step == b->step;
}

/* The event that comes after that moment; false: it is not known. */
static bool feed_find(const struct feed *feed, const struct moment *at, size_t *index)
{
    for (*index = feed->count; *index > 0; --*index)
        if (same(&feed->marks[*index - 1].at, at))
            return true;
    return same(&feed->first, at);
}

/* Adds what is new. */
static enum status feed_extend(struct feed *feed, struct fault *fault)
{
    struct moment at = feed->count > 0 ? feed->marks[feed->count - 1].at : feed->first;
    struct json_text text;
    struct writing writing = {
        .session = feed->session, .tensors = feed->tensors, .at = &at, .text = &text, .feed = feed};

    arena_reset(&feed->arena);
    json_text_init(&text, &feed->arena);
    return write_events(&writing, fault);
}

/* Gives the events from that on. */
static void feed_take(const struct feed *feed, size_t index, struct follower *follower,
                      struct json_text *text)
{
    size_t begin = index > 0 ? feed->marks[index - 1].end : 0, end = begin, next = index;

    while (next < feed->count && end - begin < PIECE_BYTES)
        end = feed->marks[next++].end;
    char *out = json_text_reserve(text, end - begin);
    if (out == NULL || next == index)
        return;
    memcpy(out, feed->text + begin, end - begin);
    text->used += end - begin;
    follower->at = feed->marks[next - 1].at;
    uint64_t rest = (uint64_t)__atomic_load_n(&feed->followers, __ATOMIC_RELAXED) * REST_US_EACH;
    rest = rest > REST_US_MIN ? rest : REST_US_MIN;
    if (next == feed->count && end - begin < PIECE_BYTES) /* else there is more in the ledger */
        follower->rest_us = clock_monotonic_us() + (rest < REST_US_MAX ? rest : REST_US_MAX);
}

/* --- followers --- */

static void rest_until(uint64_t until_us)
{
    uint64_t now = clock_monotonic_us();

    if (now >= until_us)
        return;
    struct timespec pause = {.tv_nsec = (long)(until_us - now) * 1000};
    nanosleep(&pause, NULL);
}

/* From the ledger itself. */
static enum status read_ledger(struct follower *follower, struct json_text *text,
                               struct fault *fault)
{
    struct feed *feed = follower->feed;
    struct writing writing = {
        .session = feed->session, .tensors = feed->tensors, .at = &follower->at, .text = text};
    enum status status = write_events(&writing, fault);
    size_t index;

    if (status != STATUS_OK || text->used > 0)
        return status;
    /* It is where the session is, and the feed is not. */
    pthread_mutex_lock(&feed->lock);
    if (!feed_find(feed, &follower->at, &index))
        feed_begin(feed, &follower->at);
    pthread_mutex_unlock(&feed->lock);
    return STATUS_OK;
}

enum status follower_read(struct follower *follower, double wait_s, struct json_text *text,
                          struct fault *fault)
{
    struct feed *feed = follower->feed;
    struct following following;
    enum status status = STATUS_OK;
    size_t index;

    rest_until(follower->rest_us);
    pthread_mutex_lock(&feed->lock);
    bool found = feed_find(feed, &follower->at, &index);
    if (found && index == feed->count) {
        status = feed_extend(feed, fault);
        found = feed_find(feed, &follower->at, &index);
    }
    if (found && status == STATUS_OK)
        feed_take(feed, index, follower, text);
    pthread_mutex_unlock(&feed->lock);
    if (!found && status == STATUS_OK)
        status = read_ledger(follower, text, fault);
    if (status == STATUS_OK && text->failed)
        status = fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    if (status == STATUS_OK && text->used == 0)
        status = session_follow(feed->session, &follower->at, wait_s, &following, fault);
    return status;
}

static struct feed *feed_new(struct session *session, bool tensors, const struct moment *at)
{
    struct feed *feed = calloc(1, sizeof *feed);

    if (feed == NULL || (feed->text = malloc(FEED_BYTES)) == NULL) {
        free(feed);
        return NULL;
    }
    feed->session = session_retain(session);
    feed->tensors = tensors;
    feed->first = *at;
    pthread_mutex_init(&feed->lock, NULL);
    arena_init(&feed->arena);
    return feed;
}

static void feed_free(struct feed *feed)
{
    pthread_mutex_destroy(&feed->lock);
    arena_close(&feed->arena);
    session_release(feed->session);
    free(feed->text);
    free(feed);
}

bool follower_open(struct follower *follower, struct session *session, bool tensors,
                   const struct moment *at)
{
    pthread_mutex_lock(&feeds_lock);
    struct feed *feed = feeds;
    while (feed != NULL && (feed->session != session || feed->tensors != tensors))
        feed = feed->next;
    if (feed == NULL && (feed = feed_new(session, tensors, at)) != NULL) {
        feed->next = feeds;
        feeds = feed;
    }
    if (feed != NULL)
        __atomic_add_fetch(&feed->followers, 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&feeds_lock);
    *follower = (struct follower){.feed = feed, .at = *at};
    return feed != NULL;
}

void follower_close(struct follower *follower)
{
    struct feed *feed = follower->feed, **link = &feeds;

    pthread_mutex_lock(&feeds_lock);
    if (__atomic_sub_fetch(&feed->followers, 1, __ATOMIC_RELAXED) == 0) {
        while (*link != feed)
            link = &(*link)->next;
        *link = feed->next;
    } else {
        feed = NULL;
    }
    pthread_mutex_unlock(&feeds_lock);
    if (feed != NULL)
        feed_free(feed);
}
