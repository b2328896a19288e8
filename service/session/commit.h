/* The one writer. Every write of every session is an item in one queue; the commit thread takes all
 * that is waiting into one transaction (group commit: sixty-four small steps cost one fsync) and
 * answers when it is on disk.
 *
 * Order: items are written in the order they came. When an item of an order (a session) fails, the
 * items after it in the same order would stand on something that never happened: those that
 * somebody waits for fail too until the order is mended (commit_order_mend), those that nobody
 * waits for are kept, in order, and tried again. Other orders do not notice: a transaction that
 * fails is tried again item by item. */
#ifndef DESCENT_SESSION_COMMIT_H
#define DESCENT_SESSION_COMMIT_H

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>

#include "service/core/status.h"

struct store;
struct committer;

struct commit_order {
    bool broken;        /* an item that was waited for failed; under the committer's mutex */
    enum status status; /* why */
};

/* What a write sees: the open transaction and the journal's position, which it moves on. */
struct commit_turn {
    struct store *store;
    uint64_t lsn; /* the last one used */
};

struct commit_item {
    struct commit_order *order; /* NULL: none */
    size_t bytes;               /* held in memory until it is written */
    /* Writes into the open transaction; may be called again after a rollback. */
    enum status (*write)(struct commit_item *item, struct commit_turn *turn, struct fault *fault);
    /* Called by the commit thread when the outcome is known, before any waiter wakes. NULL: nothing
     * to do. An item given to commit_later belongs to it from here on. */
    void (*done)(struct commit_item *item, enum status status);
    /* internal */
    struct commit_item *next;
    uint64_t due_us;
    bool waited;
    enum status status;
    struct fault fault;
    sem_t finished;
};

/* `lsn` is the last one in the journal. INTERNAL when a thread cannot be started. */
enum status committer_start(struct store *store, uint64_t lsn, struct committer **out,
                            struct fault *fault);
/* Writes what is waiting, stops. */
void committer_stop(struct committer *take_committer);

/* Queues an item: its place in the order is now fixed. Then commit_wait, from the same thread,
 * returns when it is on disk or has failed. */
void commit_enqueue(struct committer *committer, struct commit_item *item);
enum status commit_wait(struct commit_item *item, struct fault *fault);

/* Queues an item to be written within `delay_us` at the latest; nobody waits. If it fails it is
 * kept and tried again. */
void commit_later(struct committer *committer, struct commit_item *item, uint64_t delay_us);

/* Blocks while too many bytes wait for being written later. Call it before commit_later, holding
 * nothing. */
void commit_await_space(struct committer *committer);

/* OK, or why items of commit_later cannot be written at the moment. */
enum status commit_health(struct committer *committer, struct fault *fault);

/* OK when the last write worked, or why it did not, and how many bytes it had. */
enum status commit_trouble(struct committer *committer, size_t *bytes, struct fault *fault);

/* Lets items of the order pass again. Call when none that is waited for is queued. */
void commit_order_mend(struct committer *committer, struct commit_order *order);

#endif
