/* The memory of exactly once: which idempotency keys the last steps had and how far each worker is,
 * each with the receipt it got. Part of a session's state: checkpointed, and rebuilt from the
 * journal. */
#ifndef DESCENT_SESSION_LEDGER_H
#define DESCENT_SESSION_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/core/hash.h"
#include "service/core/pack.h"
#include "service/session/engine.h"

/* Keys of that many steps are kept, as long as there are no more of them than that. */
enum { LEDGER_STEPS = 1000, LEDGER_KEYS_MAX = 1 << 16, LEDGER_WORKERS_MAX = 4096 };

#define COUNT_MAX (UINT64_C(1) << 53) /* of what is counted one by one */

struct ledger_key {
    struct digest key, payload;
    struct receipt receipt;
};

/* A worker: of every contribution that names one. */
struct ledger_worker {
    char name[WORKER_BYTES + 1];
    uint64_t seq;           /* the last; 0: it counts none */
    struct digest payload;  /* of that seq */
    struct receipt receipt; /* of that seq; RECEIPT_NONE: it is not known any more */
    uint64_t clock;         /* contributions, from where it joined */
    uint64_t base_step;     /* of the last */
    uint64_t step;          /* that the last led to, or leads to */
    uint64_t seen_us;       /* unix time of the last */
};

struct ledger {
    struct ledger_key *keys; /* a ring, oldest at key_start */
    uint64_t *marks;         /* the first eight bytes of each key: what a search reads */
    size_t key_start, key_count, key_capacity;
    struct ledger_worker *workers;
    size_t worker_count, worker_capacity;
};

void ledger_close(struct ledger *ledger);

/* The entry of that key among the last LEDGER_STEPS steps before `step`, or NULL. */
const struct ledger_key *ledger_find_key(const struct ledger *ledger, const struct digest *key,
                                         uint64_t step);
const struct ledger_worker *ledger_find_worker(const struct ledger *ledger, const char *name);

/* Makes room, before steps are journaled, for so many more of each: false when memory is out. After
 * it the adds cannot fail. Keys that no step looks for any more make room first. */
bool ledger_reserve(struct ledger *ledger, size_t more);
void ledger_add_key(struct ledger *ledger, const struct digest *key, const struct digest *payload,
                    const struct receipt *receipt);
/* Of what was admitted as about->name: with seq 0 the last seq and its receipt stay. */
void ledger_add_worker(struct ledger *ledger, const struct ledger_worker *about);
/* The round of what was admitted so has its receipt. worker "" or seq 0: none; key NULL: none. */
void ledger_settle(struct ledger *ledger, const char *worker, uint64_t seq,
                   const struct digest *key, const struct receipt *receipt);
/* What was admitted so was not taken after all: its number and its key are free. */
void ledger_forget(struct ledger *ledger, const char *worker, uint64_t seq,
                   const struct digest *key);
/* A copy with memory of its own: false when that is out. */
bool ledger_copy(const struct ledger *ledger, struct ledger *out);
/* Forgets it. */
void ledger_remove_worker(struct ledger *ledger, const char *name);

void receipt_pack(struct packer *packer, const struct receipt *receipt);
/* unpacker->format: of the record that it stands in. */
void receipt_unpack(struct unpacker *unpacker, struct receipt *out);
void ledger_pack(struct packer *packer, const struct ledger *ledger);
/* False: damaged (unpacker->failed) or out of memory. */
bool ledger_unpack(struct unpacker *unpacker, struct ledger *out);

#endif
