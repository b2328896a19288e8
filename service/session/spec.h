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
#include "service/tensor/dtype.h"

enum nonfinite { NONFINITE_REJECT, NONFINITE_SKIP, NONFINITE_ZERO };
enum durability { DURABILITY_STEP, DURABILITY_INTERVAL, DURABILITY_CHECKPOINT };

enum { LABELS_MAX = 32, LABEL_BYTES_MAX = 2048 };

struct spec {
    enum dtype dtype; /* f32 or f64: what weights and state are kept and computed in */
    const struct optimizer *rule;
    double hyper[HYPERS_MAX];
    struct {
        double rescale;
        double clip_value, clip_norm; /* NaN: none */
        int nonfinite;                /* enum nonfinite */
    } gradient;
    struct {
        int mode;       /* enum durability */
        double seconds; /* interval: at most so much is lost in a crash */
        uint64_t steps; /* checkpoint: state is saved every so many steps */
    } durability;
    uint64_t keep_steps; /* how much history is wanted */
    uint64_t seed;
    size_t label_count;
    size_t label_bytes;
    char labels[LABEL_BYTES_MAX]; /* name NUL value NUL ..., label_bytes of it in use */
};

/* The defaults of everything but the rule. */
void spec_init(struct spec *spec);

/* Sets the rule with its default hyperparameters. spec->dtype comes first. */
void spec_set_rule(struct spec *spec, const struct optimizer *rule);

/* Adds a label. INVALID_FIELD over LABELS_MAX or LABEL_BYTES_MAX. */
enum status spec_add_label(struct spec *spec, const char *name, const char *value,
                           struct fault *fault);

void spec_pack(struct packer *packer, const struct spec *spec);
/* STORAGE_FAILED for a record that cannot be read or names a rule this program does not have. */
enum status spec_unpack(struct unpacker *unpacker, struct spec *out, struct fault *fault);

#endif
