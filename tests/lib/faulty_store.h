/* A store over the memory store that fails when it is told to, that can hold a commit back, and
 * that can be opened again by another engine after the first was closed. */
#ifndef DESCENT_TESTS_FAULTY_STORE_H
#define DESCENT_TESTS_FAULTY_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "service/core/status.h"

struct store;

enum faulty_verb {
    FAULTY_BEGIN = 1,
    FAULTY_COMMIT = 2,
    FAULTY_EVENT_APPEND = 4,
    FAULTY_SESSION_PUT = 8,
    FAULTY_SESSION_DROP = 16,
    FAULTY_CHECKPOINT_PUT = 32,
    FAULTY_CHECKPOINT_SEAL = 64,
    FAULTY_ALL = 127,
};

struct faulty_plan {
    unsigned verbs;     /* of enum faulty_verb: which calls count */
    int64_t session;    /* 0: of any session; else only FAULTY_EVENT_APPEND of that key counts */
    unsigned skip;      /* so many calls go well */
    unsigned count;     /* then so many fail */
    unsigned one_in;    /* > 0: of those, one in so many, at random */
    enum status status; /* with this. STORAGE_FAILED: as after an I/O error, all writes fail until
                           maintain was called; without one_in also maintain fails, while `count`
                           lasts */
};

struct faulty_store;

/* A new one, empty. */
struct faulty_store *faulty_store_new(void);
void faulty_store_free(struct faulty_store *take_store);

/* The store to give to an engine. After that engine was closed, it may be asked for again and holds
 * what was committed. */
struct store *faulty_store_open(struct faulty_store *store);

void faulty_store_plan(struct faulty_store *store, struct faulty_plan plan);
unsigned faulty_store_failures(struct faulty_store *store); /* so far, since the plan was made */

/* Holds the next commit back until it is let go. */
void faulty_store_hold(struct faulty_store *store);
void faulty_store_await_held(struct faulty_store *store); /* until a commit stands there */
void faulty_store_let_go(struct faulty_store *store);

#endif
