/* The commit thread. */
#include "service/session/commit.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "service/core/clock.h"
#include "service/core/contract.h"
#include "service/core/log.h"
#include "service/core/metric.h"
#include "service/core/point.h"
#include "storage/store.h"

enum {
    GROUP_ITEMS_MAX = 4096,
    RETRY_US = 1000000,
    RETRY_MEMORY_US = 20000,
    REST_US = 5000000,  /* from a commit to the store's housekeeping */
    SLICE_US = 1000000, /* the same while there is space to give back */
    GATHER_US_MAX = 5000
};
#define GROUP_BYTES_MAX ((size_t)64 << 20)
#define LATER_BYTES_MAX ((size_t)256 << 20)

struct queue {
    struct commit_item *first, **end;
};

struct committer {
    struct store *store;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t work;  /* something to do */
    pthread_cond_t space; /* fewer bytes are waiting */
    struct queue queue;
    size_t later_bytes; /* of queued items that nobody waits for */
    size_t waiting;     /* queued items that somebody waits for */
    size_t last_group;  /* how many of them the last transaction had */
    uint64_t last_us;   /* how long it took */
    size_t gathering;   /* wake the thread when so many are waiting; 0: it does not gather */
    uint64_t wake_us;   /* how long the thread sleeps if nobody wakes it; 0: it is awake */
    bool stopping;
    uint64_t lsn;
    uint64_t retry_us;    /* when to try again after storage failed; 0: all is well */
    enum status last;     /* how the last transaction ended */
    struct fault trouble; /* the last failure */
    size_t trouble_bytes; /* of its item */
    uint64_t unrested_us; /* when the first commit since the last rest was; 0: none */
    bool more;            /* the store has more space to give back */
};

static void queue_add(struct queue *queue, struct commit_item *item)
{
    item->next = NULL;
    *queue->end = item;
    queue->end = &item->next;
}

static void queue_clear(struct queue *queue)
{
    queue->first = NULL;
    queue->end = &queue->first;
}

/* Puts `head` before what is in `queue`. */
static void queue_prepend(struct queue *queue, struct queue *head)
{
    if (head->first == NULL)
        return;
    *head->end = queue->first;
    if (queue->first == NULL)
        queue->end = head->end;
    queue->first = head->first;
    queue_clear(head);
}

/* One transaction over the items from `first` up to, not including, `end`. */
static enum status write_group(struct committer *committer, struct commit_item *first,
                               const struct commit_item *end, struct fault *fault)
{
    const struct store_backend *backend = committer->store->backend;
    struct commit_turn turn = {.store = committer->store, .lsn = committer->lsn};
    POINT(before_begin);
    enum status status = backend->begin(committer->store, fault);

    if (status != STATUS_OK)
        return status;
    POINT(after_begin);
    for (struct commit_item *item = first; item != end; item = item->next)
        if ((status = item->write(item, &turn, fault)) != STATUS_OK) {
            backend->rollback(committer->store);
            return status;
        }
    POINT(before_commit);
    status = backend->commit(committer->store, fault);
    POINT(after_commit);
    if (status == STATUS_OK) {
        committer->lsn = turn.lsn;
        if (committer->unrested_us == 0)
            committer->unrested_us = clock_monotonic_us();
        size_t count = 0;
        for (const struct commit_item *item = first; item != end; item = item->next)
            count++;
        metric_observe(HISTOGRAM_COMMIT_GROUP, 0, count);
    }
    return status;
}

/* Tells the outcome. After it the item may be gone. */
static void finish(struct committer *committer, struct commit_item *item, enum status status)
{
    bool waited = item->waited;
    size_t bytes = item->bytes;

    if (item->done != NULL)
        item->done(item, status);
    if (waited) {
        item->status = status;
        sem_post(&item->finished);
        POINT(between_wakes);
        return;
    }
    pthread_mutex_lock(&committer->mutex);
    committer->later_bytes -= bytes;
    pthread_cond_broadcast(&committer->space);
    pthread_mutex_unlock(&committer->mutex);
}

/* Whether an item of the order is among those kept for another try. */
static bool keeps(const struct queue *kept, const struct commit_order *order)
{
    for (const struct commit_item *item = kept->first; item != NULL; item = item->next)
        if (item->order == order && order != NULL)
            return true;
    return false;
}

static void note_outcome(struct committer *committer, const struct commit_item *item,
                         enum status status)
{
    bool storage = status == STATUS_STORAGE_FAILED || status == STATUS_STORAGE_FULL;

    metric_count(COUNTER_COMMIT_FAILURES, 0, storage);
    pthread_mutex_lock(&committer->mutex);
    if (status != STATUS_OK && item->waited && item->order != NULL) {
        item->order->broken = !BUG(build_on_failure);
        item->order->status = status;
    }
    if (status == STATUS_OK || storage)
        committer->last = status;
    if (status != STATUS_OK && (storage || !item->waited)) {
        committer->trouble = item->fault;
        committer->trouble_bytes = item->bytes;
    }
    if (status == STATUS_STORAGE_FAILED || (status != STATUS_OK && !item->waited)) {
        log_error("a write failed: %s", item->fault.detail);
        if (committer->retry_us == 0) /* else clients that hurry would put it off for ever */
            committer->retry_us =
                clock_monotonic_us() + (status == STATUS_INTERNAL ? RETRY_MEMORY_US : RETRY_US);
        pthread_cond_broadcast(&committer->space); /* let them see the trouble */
    }
    pthread_mutex_unlock(&committer->mutex);
}

/* An item alone, after its group failed: fails it, or keeps it if nobody waits, to be tried again.
 * What stands behind a kept item of its order is not written before it. */
static void write_single(struct committer *committer, struct commit_item *item, struct queue *kept)
{
    bool behind = keeps(kept, item->order);
    enum status status = STATUS_OK;

    if (behind && !item->waited) {
        queue_add(kept, item);
        return;
    }
    pthread_mutex_lock(&committer->mutex);
    if (behind)
        status = committer->trouble.status;
    else if (item->waited && item->order != NULL && item->order->broken)
        status = item->order->status;
    pthread_mutex_unlock(&committer->mutex);
    if (status != STATUS_OK)
        fault_set(&item->fault, status, "",
                  "a write of this session before this one failed; send it again");
    else
        status = write_group(committer, item, item->next, &item->fault);
    note_outcome(committer, item, status);
    if (status == STATUS_OK || item->waited)
        finish(committer, item, status);
    else
        queue_add(kept, item);
}

/* Whether the group may go as one: nobody in it stands behind a failure. */
static bool all_sound(struct committer *committer, const struct commit_item *first)
{
    bool sound = true;

    pthread_mutex_lock(&committer->mutex);
    for (; first != NULL; first = first->next)
        sound &= !first->waited || first->order == NULL || !first->order->broken;
    pthread_mutex_unlock(&committer->mutex);
    return sound;
}

/* False when something is left for another try. */
static bool write_all(struct committer *committer, struct commit_item *first)
{
    struct queue kept;
    struct fault fault;
    struct commit_item *next;

    queue_clear(&kept);
    if (all_sound(committer, first) && write_group(committer, first, NULL, &fault) == STATUS_OK) {
        pthread_mutex_lock(&committer->mutex);
        committer->last = STATUS_OK;
        committer->retry_us = 0; /* what had failed stood first: it is written */
        pthread_mutex_unlock(&committer->mutex);
        for (struct commit_item *item = first; item != NULL; item = next) {
            next = item->next;
            finish(committer, item, STATUS_OK);
        }
        return true;
    }
    for (struct commit_item *item = first; item != NULL; item = next) {
        next = item->next;
        write_single(committer, item, &kept);
    }
    bool all = kept.first == NULL;
    pthread_mutex_lock(&committer->mutex);
    queue_prepend(&committer->queue, &kept);
    if (all && committer->last == STATUS_OK)
        committer->retry_us = 0;
    pthread_mutex_unlock(&committer->mutex);
    return all;
}

/* Cuts a group off the queue. Call with the mutex held. */
static struct commit_item *take_group(struct committer *committer)
{
    struct commit_item *first = committer->queue.first;
    struct commit_item *last = first;
    size_t bytes = first->bytes;

    for (int count = 1; last->next != NULL && count < GROUP_ITEMS_MAX; count++) {
        if (bytes + last->next->bytes > GROUP_BYTES_MAX)
            break;
        last = last->next;
        bytes += last->bytes;
    }
    committer->queue.first = last->next;
    committer->last_group = 0;
    for (const struct commit_item *item = first; item != last->next; item = item->next)
        committer->last_group += item->waited;
    committer->waiting -= committer->last_group;
    if (last->next == NULL)
        queue_clear(&committer->queue);
    last->next = NULL;
    return first;
}

/* When the thread must wake: now (0), at a time, or never (UINT64_MAX). */
static uint64_t due(const struct committer *committer)
{
    uint64_t when = UINT64_MAX;

    if (committer->queue.first != NULL &&
        (committer->stopping || committer->later_bytes > LATER_BYTES_MAX / 2))
        when = 0;
    for (const struct commit_item *item = committer->queue.first; item != NULL && when > 0;
         item = item->next)
        if (item->due_us < when)
            when = item->due_us;
    if (committer->retry_us > 0 && !committer->stopping) {
        /* In trouble: waiters are served at once, the rest when it is time to try again. */
        bool waiters = false;
        for (const struct commit_item *item = committer->queue.first; item != NULL;
             item = item->next)
            waiters |= item->waited;
        when = waiters ? 0 : committer->retry_us;
    }
    return when;
}

static void wait_for_work(struct committer *committer, uint64_t until_us)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    uint64_t now = clock_monotonic_us();
    uint64_t wait = until_us > now ? until_us - now : 0;
    time.tv_sec += (time_t)(wait / 1000000);
    time.tv_nsec += (long)(wait % 1000000) * 1000;
    if (time.tv_nsec >= 1000000000) {
        time.tv_sec++;
        time.tv_nsec -= 1000000000;
    }
    committer->wake_us = until_us;
    pthread_cond_timedwait(&committer->work, &committer->mutex, &time);
    committer->wake_us = 0;
}

/* The clients of the last group are about to come back, all but at once. A transaction for the
 * first of them alone would make the others wait for two; so wait for them, no longer than half a
 * transaction. One client never waits. */
static void gather(struct committer *committer)
{
    uint64_t half = committer->last_us / 2;
    uint64_t until = clock_monotonic_us() + (half < GATHER_US_MAX ? half : GATHER_US_MAX);

    if (committer->waiting == 0)
        return; /* what is due is due to its delay */
    committer->gathering = committer->last_group;
    while (committer->waiting < committer->gathering && !committer->stopping &&
           clock_monotonic_us() < until)
        wait_for_work(committer, until);
    committer->gathering = 0;
}

/* When the store's housekeeping is due, as due(). Space goes back slice by slice while nobody
 * writes; while somebody does, a slice now and then, so that it takes nothing from the steps. */
static uint64_t rest_due(const struct committer *committer)
{
    if (committer->stopping || committer->retry_us > 0)
        return UINT64_MAX;
    if (committer->unrested_us == 0)
        return committer->more ? 0 : UINT64_MAX;
    return committer->unrested_us + (committer->more ? SLICE_US : REST_US);
}

/* With `more` NULL nothing is given back: the store is only made whole. */
static void maintain(struct committer *committer, bool *more)
{
    struct fault fault;

    pthread_mutex_unlock(&committer->mutex);
    if (committer->store->backend->maintain(committer->store, more, &fault) != STATUS_OK)
        log_error("storage: %s", fault.detail);
    pthread_mutex_lock(&committer->mutex);
}

static void rest(struct committer *committer)
{
    bool more = false;

    committer->unrested_us = 0;
    maintain(committer, &more);
    committer->more = more;
}

static void *run(void *context)
{
    struct committer *committer = context;

    pthread_mutex_lock(&committer->mutex);
    for (int attempts = 0;;) {
        uint64_t now = clock_monotonic_us();
        uint64_t when = due(committer);
        if (committer->stopping && (committer->queue.first == NULL || attempts > 3))
            break;
        uint64_t pause = rest_due(committer);
        if (pause <= now && (when > now || pause > 0)) { /* 0: after what is due */
            rest(committer);
            continue;
        }
        if (when > now) {
            uint64_t until = when < pause ? when : pause;
            wait_for_work(committer, until < now + REST_US ? until : now + REST_US);
            continue;
        }
        if (committer->retry_us > 0 && (committer->retry_us <= now || committer->stopping)) {
            committer->retry_us = 0;
            maintain(committer, NULL); /* after an I/O error this reopens the store */
            if (committer->queue.first == NULL)
                continue;
        }
        gather(committer);
        struct commit_item *group = take_group(committer);
        pthread_mutex_unlock(&committer->mutex);
        uint64_t begun = clock_monotonic_us();
        bool all = write_all(committer, group);
        pthread_mutex_lock(&committer->mutex);
        committer->last_us = clock_monotonic_us() - begun;
        metric_observe(HISTOGRAM_COMMIT_TIME, 0, committer->last_us);
        attempts = all || !committer->stopping ? 0 : attempts + 1;
    }
    pthread_mutex_unlock(&committer->mutex);
    return NULL;
}

enum status committer_start(struct store *store, uint64_t lsn, struct committer **out,
                            struct fault *fault)
{
    struct committer *committer = calloc(1, sizeof *committer);
    pthread_condattr_t monotonic;

    if (committer == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    committer->store = store;
    committer->lsn = lsn;
    committer->unrested_us = clock_monotonic_us(); /* who closed may have left space to give back */
    queue_clear(&committer->queue);
    pthread_mutex_init(&committer->mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&committer->work, &monotonic);
    pthread_cond_init(&committer->space, NULL);
    pthread_condattr_destroy(&monotonic);
    if (pthread_create(&committer->thread, NULL, run, committer) != 0) {
        free(committer);
        return fault_set(fault, STATUS_INTERNAL, "", "cannot start the commit thread");
    }
    *out = committer;
    return STATUS_OK;
}

void committer_stop(struct committer *take_committer)
{
    struct committer *committer = take_committer;

    pthread_mutex_lock(&committer->mutex);
    committer->stopping = true;
    pthread_cond_signal(&committer->work);
    pthread_mutex_unlock(&committer->mutex);
    pthread_join(committer->thread, NULL);
    for (struct commit_item *item = committer->queue.first, *next; item != NULL; item = next) {
        next = item->next;
        log_error("a deferred write was lost: %s", committer->trouble.detail);
        finish(committer, item, STATUS_STORAGE_FAILED);
    }
    pthread_mutex_destroy(&committer->mutex);
    pthread_cond_destroy(&committer->work);
    pthread_cond_destroy(&committer->space);
    free(committer);
}

static void enqueue(struct committer *committer, struct commit_item *item)
{
    queue_add(&committer->queue, item);
    committer->waiting += item->waited;
    if (committer->gathering > 0 ? committer->waiting == committer->gathering
                                 : item->due_us < committer->wake_us)
        pthread_cond_signal(&committer->work);
}

void commit_enqueue(struct committer *committer, struct commit_item *item)
{
    item->waited = true;
    item->due_us = 0;
    sem_init(&item->finished, 0, 0);
    pthread_mutex_lock(&committer->mutex);
    PRE(!committer->stopping);
    enqueue(committer, item);
    pthread_mutex_unlock(&committer->mutex);
}

enum status commit_wait(struct commit_item *item, struct fault *fault)
{
    while (sem_wait(&item->finished) != 0)
        continue; /* a signal */
    sem_destroy(&item->finished);
    if (item->status != STATUS_OK && fault != NULL)
        *fault = item->fault;
    return item->status;
}

void commit_later(struct committer *committer, struct commit_item *item, uint64_t delay_us)
{
    item->waited = false;
    item->due_us = clock_monotonic_us() + delay_us;
    pthread_mutex_lock(&committer->mutex);
    committer->later_bytes += item->bytes;
    enqueue(committer, item);
    if (committer->later_bytes > LATER_BYTES_MAX / 2)
        pthread_cond_signal(&committer->work);
    pthread_mutex_unlock(&committer->mutex);
}

void commit_await_space(struct committer *committer)
{
    pthread_mutex_lock(&committer->mutex);
    while (committer->later_bytes > LATER_BYTES_MAX && committer->retry_us == 0)
        pthread_cond_wait(&committer->space, &committer->mutex);
    pthread_mutex_unlock(&committer->mutex);
}

enum status commit_health(struct committer *committer, struct fault *fault)
{
    enum status status = STATUS_OK;

    pthread_mutex_lock(&committer->mutex);
    if (committer->retry_us > 0) {
        *fault = committer->trouble;
        status = fault->status;
    }
    pthread_mutex_unlock(&committer->mutex);
    return status;
}

enum status commit_trouble(struct committer *committer, size_t *bytes, struct fault *fault)
{
    enum status status;

    pthread_mutex_lock(&committer->mutex);
    status = committer->last;
    *bytes = committer->trouble_bytes;
    if (status != STATUS_OK)
        *fault = committer->trouble;
    pthread_mutex_unlock(&committer->mutex);
    return status;
}

void commit_order_mend(struct committer *committer, struct commit_order *order)
{
    pthread_mutex_lock(&committer->mutex);
    order->broken = false;
    pthread_mutex_unlock(&committer->mutex);
}
