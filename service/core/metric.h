/* Counters, gauges and histograms of the process: metrics.def lists them. Counting takes no lock
 * and a few nanoseconds: relaxed additions to one of several shards, which a thread chooses once.
 * Everything starts at 0. Thread safe.
 *
 *     metric_count(COUNTER_STEPS, METRIC_RESULT_APPLIED, 1);
 *     metric_move(GAUGE_SESSIONS, 0, +1);
 *     metric_observe(HISTOGRAM_FSYNC_TIME, 0, clock_monotonic_us() - begun_us);
 */
#ifndef DESCENT_CORE_METRIC_H
#define DESCENT_CORE_METRIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/core/status.h"

/* The values of each label: METRIC_STAGE_SEND; METRIC_STAGE_VALUES is how many there are. */
#define LABEL(id, name) enum {
#define VALUE(label, id, text) METRIC_##label##_##id,
/* clang-format off */
#define LABEL_END(id) METRIC_##id##_VALUES };
/* clang-format on */
#define LABEL_OPEN(id, name, values) enum { METRIC_##id##_VALUES = values };
#include "service/core/metrics.def"

/* The families in the order of the table. */
enum family {
#define COUNTER(id, first, second, unit, name, help) FAMILY_##id,
#define GAUGE(id, first, second, unit, name, help) FAMILY_##id,
#define HISTOGRAM(id, label, buckets, unit, name, help) FAMILY_##id,
#include "service/core/metrics.def"
    FAMILY_COUNT
};

/* The same once more, a type for each kind, so that none is taken for another. */
enum counter {
#define COUNTER(id, first, second, unit, name, help) COUNTER_##id = FAMILY_##id,
#include "service/core/metrics.def"
};
enum gauge {
#define GAUGE(id, first, second, unit, name, help) GAUGE_##id = FAMILY_##id,
#include "service/core/metrics.def"
};
enum histogram {
#define HISTOGRAM(id, label, buckets, unit, name, help) HISTOGRAM_##id = FAMILY_##id,
#include "service/core/metrics.def"
};

/* `cell` is the value of the family's label, 0 where it has none; of a family with two it is
 * metric_cell(first, values of the second, second). */
static inline size_t metric_cell(size_t first, size_t values, size_t second)
{
    return first * values + second;
}

void metric_count(enum counter counter, size_t cell, uint64_t amount);

/* A gauge is either moved, by anyone, or set, by one thread at a time. */
void metric_move(enum gauge gauge, size_t cell, int64_t by);
void metric_set(enum gauge gauge, size_t cell, int64_t value);

/* `value` is in the unit in which the family is counted. */
void metric_observe(enum histogram histogram, size_t cell, uint64_t value);

/* What this process is made of, for descent_build_info: `text` must be static. */
void metric_build(size_t label, const char *text);
const char *metric_build_text(size_t label); /* "": nobody has told */

/* --- reading --- */

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };
enum metric_unit { METRIC_ONE, METRIC_MICROSECONDS };

enum metric_label_id {
#define LABEL(id, name) METRIC_LABEL_##id,
#define LABEL_OPEN(id, name, values) METRIC_LABEL_##id,
#include "service/core/metrics.def"
    METRIC_LABEL_COUNT
};

struct metric_label {
    const char *name;
    size_t count;
    const char *const *values; /* [count]; NULL: another names them */
};

const struct metric_label *metric_label(enum metric_label_id id);

/* The numbers of a family begin at `start` in a reading: one a cell; of a histogram, for each cell,
 * bound_count + 1 counts, of what was at most bounds[i] and more than the bound before, the last
 * one of what was more than all, then the sum of what was observed. */
struct metric_family {
    enum metric_kind kind;
    enum metric_unit unit;
    const char *name, *help;
    enum metric_label_id labels[2];
    size_t start, cells;
    const uint64_t *bounds; /* rising */
    size_t bound_count;
};

const struct metric_family *metric_family(enum family family);

/* How many numbers there are of all. */
size_t metric_numbers(void);

/* All of them into out[metric_numbers()]; a gauge is an int64_t. What has happened before the call
 * is in it; no number of a counter or histogram is ever less than in a reading before. */
void metric_read(uint64_t *out);

#endif
