/* SVRG's snapshot: weights that were frozen (w~) and the full gradient at them (mu), collected
 * shard by shard. A session has the newest one, as part of its state: checkpointed, and rebuilt
 * from the journal's EVENT_SNAPSHOT, EVENT_SHARD and EVENT_SNAPSHOT_CLOSE.
 *
 * Shards are added up in double in the order of the journal; when those that were announced are in,
 * or it is closed, mu = sum / examples is rounded to the session's dtype and the snapshot is ready.
 *
 * What an event makes of it is a pure function, live and in replay: snapshot_begin, or
 * snapshot_effect, snapshot_compute and snapshot_publish in turn. A shard that came before
 * changes nothing. */
#ifndef DESCENT_SESSION_SNAPSHOT_H
#define DESCENT_SESSION_SNAPSHOT_H

#include "service/core/hash.h"
#include "service/core/pack.h"
#include "service/session/engine.h"

struct event;
struct plan;
struct state;

/* A shard that came. */
struct snapshot_part {
    struct digest name;    /* of worker and part; of one that has neither, of its number */
    struct digest worker;  /* of its worker; of one that names none, as `name` */
    struct digest payload; /* zeros where it has no name */
};

/* Changed by the holder of the turn; all but `sum` under the session's mutex too. */
struct snapshot {
    uint64_t last;   /* the newest number that was given: it is never given again */
    uint64_t number; /* 0: there is none, and nothing below holds */
    uint64_t created_us;
    bool ready;
    uint64_t workers_expected; /* 0: not announced */
    double examples_expected;  /* NaN: not announced */
    uint64_t workers;          /* different ones that came */
    double examples;           /* that came */
    uint64_t arrivals;         /* numbers given to shards, admitted or not */
    struct snapshot_part *parts;
    size_t part_count, part_capacity;
    struct revision *weights; /* w~, a revision of its own */
    struct buffer *sum;       /* f64, [count]; NULL when ready */
    struct buffer *mean;      /* mu, in the session's dtype, [count]; undefined until ready */
};

/* Frees all but `last`. */
void snapshot_drop(struct snapshot *snapshot);

/* A configuration without SVRG keeps none. */
void snapshot_fit(struct snapshot *snapshot, const struct spec *spec);

/* Whether the mean is computed where the sum is: in double. */
static inline bool snapshot_shares_room(enum dtype dtype)
{
    return dtype == DTYPE_F64;
}

/* Bytes of a snapshot under a configuration, with or without one. */
uint64_t snapshot_bytes(const struct spec *spec, size_t count);

struct snapshot_view snapshot_view(const struct snapshot *snapshot);

/* What makes two shards the same one. arrival: what tells those without names apart. */
struct digest snapshot_name(const char *worker, const char *part, uint64_t arrival);

/* The shard of that name, or NULL. */
const struct snapshot_part *snapshot_find(const struct snapshot *snapshot,
                                          const struct digest *name);

/* --- events --- */

/* Memory for a snapshot, before its event is journaled. INTERNAL when there is none. */
struct snapshot_room {
    struct revision *weights;
    struct buffer *sum, *mean;
};
enum status snapshot_room(enum dtype dtype, size_t count, struct snapshot_room *out,
                          struct fault *fault);
void snapshot_room_release(struct snapshot_room *room);

/* EVENT_SNAPSHOT: a new one takes the place of the old. Takes the room in any case. */
void snapshot_begin(struct snapshot *snapshot, const struct revision *current,
                    const struct event *event, struct snapshot_room *take_room);

/* Room for so many parts more: false when memory is out. After it snapshot_publish cannot fail. */
bool snapshot_reserve(struct snapshot *snapshot, size_t more);

/* What an EVENT_SHARD or EVENT_SNAPSHOT_CLOSE does. */
enum snapshot_effect {
    SNAPSHOT_STAYS,     /* it is of another one, came before, or comes too late */
    SNAPSHOT_ADDS,      /* a part */
    SNAPSHOT_ADDS_LAST, /* a part, and then all are in */
    SNAPSHOT_CLOSES,
};
enum snapshot_effect snapshot_effect(const struct snapshot *snapshot, const struct event *event);

/* The number work. gradient: of an EVENT_SHARD, finite. */
void snapshot_compute(struct snapshot *snapshot, enum snapshot_effect effect,
                      const struct event *event, enum dtype dtype,
                      const struct wire_gradient *gradient);

/* What readers see of it. */
void snapshot_publish(struct snapshot *snapshot, enum snapshot_effect effect,
                      const struct event *event);

/* Whether that event is about snapshots. */
bool snapshot_is_event(uint32_t kind);

/* All of it, of an event that is read from the journal. STORAGE_FAILED for one that cannot follow,
 * HISTORY_MISMATCH for a shard that is not the one that was accepted. */
enum status snapshot_replay(struct state *state, const struct plan *plan, const struct event *event,
                            struct buffer *body, struct fault *fault);

/* --- in checkpoints --- */

/* All but weights, sum and mean. The sum's or mean's place is with the state's vectors. */
void snapshot_pack(struct packer *packer, const struct snapshot *snapshot);
/* Without room for them. False: damaged (unpacker->failed) or out of memory; nothing is left
 * allocated. unpacker->format below 4: there is none. */
bool snapshot_unpack(struct unpacker *unpacker, struct snapshot *out);

/* Gives one that was unpacked room for weights, and sum or mean, whose contents are undefined.
 * INTERNAL. */
enum status snapshot_make_room(struct snapshot *snapshot, enum dtype dtype, size_t count,
                               struct fault *fault);

/* INVALID_FIELD when the vectors of one that came from outside are not finite, or lead to what is
 * not. */
enum status snapshot_check(const struct snapshot *snapshot, const struct layout *layout,
                           enum dtype dtype, struct fault *fault);

/* Whether a shard of that norm (of all its numbers) keeps the sum and the mean finite, whatever the
 * others are. */
bool snapshot_allows(enum dtype dtype, double norm, double examples, bool summed);

/* SNAPSHOT_COLLECTING, saying what it waits for. */
enum status snapshot_collecting(const struct snapshot *snapshot, struct fault *fault);

/* --- steps --- */

/* Whether it is time for a new one after that step. Only with svrg.update_freq. */
bool snapshot_due(const struct snapshot *snapshot, const struct spec *spec, uint64_t step);

#endif
