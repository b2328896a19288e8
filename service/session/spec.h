/* A session's configuration: everything that GET shows and PATCH changes, fully expanded. A plain
 * value. */
#ifndef DESCENT_SESSION_SPEC_H
#define DESCENT_SESSION_SPEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/core/pack.h"
#include "service/core/status.h"
#include "service/optim/optimizer.h"
#include "service/optim/schedule.h"
#include "service/tensor/dtype.h"

enum nonfinite { NONFINITE_REJECT, NONFINITE_SKIP, NONFINITE_ZERO };
enum durability { DURABILITY_STEP, DURABILITY_INTERVAL, DURABILITY_CHECKPOINT };
enum aggregation { AGGREGATION_ASYNC, AGGREGATION_SYNC, AGGREGATION_SSP };
enum stale { STALE_REJECT, STALE_SCALE };
enum reduction { REDUCTION_MEAN, REDUCTION_SUM };

enum { LABELS_MAX = 32, LABEL_BYTES_MAX = 2048, GROUPS_MAX = 32, PATTERN_BYTES_MAX = 2048 };

/* Contributions of one round: all are in memory until it closes. */
enum { ROUND_MAX = 4096 };

/* What the average is divided by at step 0 must be more than 0 when rounded to either dtype. */
#define EMA_EPS_MIN 1e-12

/* Tensors that are treated apart: those whose names match one of the patterns. */
struct group {
    size_t pattern_count; /* > 0 */
    double lr_mult, weight_decay_mult;
    bool adapt; /* false: no layer-wise rate (LARS, LAMB ...) */
};

struct spec {
    enum dtype dtype; /* f32 or f64: what weights and state are kept and computed in */
    const struct optimizer *rule;
    double hyper[HYPERS_MAX];
    struct schedule_setting schedule;
    struct {
        double rescale;
        double clip_value, clip_norm; /* NaN: none */
        double max_norm_ratio; /* to the moving average of norms; more is refused. NaN: none */
        int nonfinite;         /* enum nonfinite */
    } gradient;
    struct {
        int mode;               /* enum aggregation */
        uint64_t max_staleness; /* async: steps; UINT64_MAX: any */
        int stale;              /* async: enum stale, of what is older */
        uint64_t workers;       /* sync: contributions of a round; > 0 in that mode */
        uint64_t quorum;        /* sync: enough of them after timeout_s; 0: workers */
        double timeout_s;       /* sync: from a round's first contribution; NaN: none */
        int reduction;          /* enum reduction */
        bool vote;              /* sync: the sign that most of them have */
        uint64_t staleness;     /* ssp: how many rounds a worker may be ahead */
        double lease_s;         /* a worker not heard of for so long holds up nobody */
        uint64_t accumulate;    /* async, ssp: contributions of a step; > 0 */
    } aggregation;
    struct {
        bool on;
        uint64_t update_freq; /* receipts tell when a snapshot is due; 0: never */
        double coefficient;
    } svrg;
    struct {
        int mode;       /* enum durability */
        double seconds; /* interval: at most so much is lost in a crash */
        uint64_t steps; /* checkpoint: state is saved every so many steps */
    } durability;
    struct {
        bool on;
        double decay, eps;
        bool debias;
    } ema;               /* a moving average of the weights; fixed for a session's life */
    uint64_t keep_steps; /* how much history is wanted */
    uint64_t hash_every; /* receipts of every so many steps have the state's hash; 0: none */
    uint64_t seed;
    size_t label_count;
    size_t label_bytes;
    char labels[LABEL_BYTES_MAX]; /* name NUL value NUL ..., label_bytes of it in use */
    struct {
        size_t count;
        struct group group[GROUPS_MAX];
        size_t pattern_bytes;
        char patterns[PATTERN_BYTES_MAX]; /* pattern NUL ..., those of each group in turn */
    } groups;                             /* the first that matches wins; fixed likewise */
};

/* The defaults of everything but the rule. */
void spec_init(struct spec *spec);

/* Sets the rule with its default hyperparameters. spec->dtype comes first. */
void spec_set_rule(struct spec *spec, const struct optimizer *rule);

/* Adds a label. INVALID_FIELD over LABELS_MAX or LABEL_BYTES_MAX. */
enum status spec_add_label(struct spec *spec, const char *name, const char *value,
                           struct fault *fault);

/* Adds a group without patterns, then patterns to the last group. INVALID_FIELD over GROUPS_MAX or
 * PATTERN_BYTES_MAX, where = "/groups". */
enum status spec_add_group(struct spec *spec, const struct group *group, struct fault *fault);
enum status spec_add_pattern(struct spec *spec, const char *pattern, struct fault *fault);

/* How many contributions make a step: 1 where each is one. */
uint64_t spec_round_size(const struct spec *spec);

/* INVALID_FIELD naming what does not go together: a quorum without all it needs, rounds or
 * snapshots without a journal. */
enum status spec_check(const struct spec *spec, struct fault *fault);

/* Whether a step may be of several contributions, or is not what its contribution says. */
bool spec_gathers(const struct spec *spec);

/* What the moving average is divided by to be served after so many updates: 1, or, with debias,
 * 1 - (1 - eps) decay^updates. More than 0. */
double spec_average_divisor(const struct spec *spec, uint64_t updates);

void spec_pack(struct packer *packer, const struct spec *spec);
/* STORAGE_FAILED for a record that cannot be read or names a rule this program does not have. */
enum status spec_unpack(struct unpacker *unpacker, struct spec *out, struct fault *fault);

#endif
