/* Counters, gauges and histograms. */
#include "service/core/metric.h"

#include <stdatomic.h>

#include "service/core/contract.h"

/* Threads that count the same thing at the same time do not wait for each other's cache line. */
enum { SHARDS = 8, LINE_BYTES = 64 };

/* 1, 2.5 and 5 a decade, from 10 us to 10 s. */
static const uint64_t bounds_times[] = {10,     25,      50,      100,     250,     500,    1000,
                                        2500,   5000,    10000,   25000,   50000,   100000, 250000,
                                        500000, 1000000, 2500000, 5000000, 10000000};
/* Up to what the committer takes at most into one transaction. */
static const uint64_t bounds_counts[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096};

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

/* Where the numbers of each family begin: an enumerator is one more than the one before it. */
enum {
#define PLACE(id, numbers) START_##id, LAST_##id = START_##id + (int)(numbers)-1,
#define COUNTER(id, first, second, unit, name, help)                                               \
    PLACE(id, METRIC_##first##_VALUES *METRIC_##second##_VALUES)
#define GAUGE(id, first, second, unit, name, help)                                                 \
    PLACE(id, METRIC_##first##_VALUES *METRIC_##second##_VALUES)
#define HISTOGRAM(id, label, buckets, unit, name, help)                                            \
    PLACE(id, METRIC_##label##_VALUES *(COUNT_OF(bounds_##buckets) + 2))
#include "service/core/metrics.def"
#undef PLACE
    NUMBERS
};

#define FAMILY(kind_, id, first, second, unit_, name_, help_, bounds_, bound_count_)               \
    {.kind = kind_,                                                                                \
     .unit = METRIC_##unit_,                                                                       \
     .name = name_,                                                                                \
     .help = help_,                                                                                \
     .labels = {METRIC_LABEL_##first, METRIC_LABEL_##second},                                      \
     .start = START_##id,                                                                          \
     .cells = (size_t)METRIC_##first##_VALUES * METRIC_##second##_VALUES,                          \
     .bounds = bounds_,                                                                            \
     .bound_count = bound_count_},

static const struct metric_family families[] = {
#define COUNTER(id, first, second, unit, name, help)                                               \
    FAMILY(METRIC_COUNTER, id, first, second, unit, name, help, NULL, 0)
#define GAUGE(id, first, second, unit, name, help)                                                 \
    FAMILY(METRIC_GAUGE, id, first, second, unit, name, help, NULL, 0)
#define HISTOGRAM(id, label, buckets, unit, name, help)                                            \
    FAMILY(METRIC_HISTOGRAM, id, label, NONE, unit, name, help, bounds_##buckets,                  \
           COUNT_OF(bounds_##buckets))
#include "service/core/metrics.def"
};

/* The texts of the labels that have a list: values_STAGE. */
#define LABEL(id, name) static const char *const values_##id[] = {
#define VALUE(label, id, text) text,
/* clang-format off */
#define LABEL_END(id) };
/* clang-format on */
#include "service/core/metrics.def"

static const struct metric_label labels[] = {
#define LABEL(id, name_) {.name = name_, .count = METRIC_##id##_VALUES, .values = values_##id},
#define LABEL_OPEN(id, name_, values_) {.name = name_, .count = METRIC_##id##_VALUES},
#include "service/core/metrics.def"
};

static struct {
    _Alignas(LINE_BYTES) _Atomic uint64_t numbers[NUMBERS];
} shards[SHARDS];

/* Threads take shards in turn, so that those which run together seldom share one. */
static _Atomic uint64_t *mine(size_t number)
{
    static _Atomic unsigned next;
    static _Thread_local unsigned shard; /* one more than it is; 0: none yet */

    if (shard == 0)
        shard = atomic_fetch_add_explicit(&next, 1, memory_order_relaxed) % SHARDS + 1;
    return &shards[shard - 1].numbers[number];
}

static void add(size_t number, uint64_t amount)
{
    atomic_fetch_add_explicit(mine(number), amount, memory_order_relaxed);
}

void metric_count(enum counter counter, size_t cell, uint64_t amount)
{
    PRE(cell < families[counter].cells);
    add(families[counter].start + cell, amount);
}

void metric_move(enum gauge gauge, size_t cell, int64_t by)
{
    PRE(cell < families[gauge].cells);
    add(families[gauge].start + cell, (uint64_t)by); /* shards may be negative; their sum is not */
}

void metric_set(enum gauge gauge, size_t cell, int64_t value)
{
    PRE(cell < families[gauge].cells);
    atomic_store_explicit(&shards[0].numbers[families[gauge].start + cell], (uint64_t)value,
                          memory_order_relaxed);
}

void metric_observe(enum histogram histogram, size_t cell, uint64_t value)
{
    const struct metric_family *family = &families[histogram];
    size_t start = family->start + cell * (family->bound_count + 2);
    size_t bucket = 0;

    PRE(cell < family->cells);
    while (bucket < family->bound_count && value > family->bounds[bucket])
        bucket++;
    add(start + bucket, 1);
    add(start + family->bound_count + 1, value);
}

static const char *_Atomic builds[METRIC_BUILD_VALUES];

void metric_build(size_t label, const char *text)
{
    PRE(label < METRIC_BUILD_VALUES);
    atomic_store(&builds[label], text);
}

const char *metric_build_text(size_t label)
{
    PRE(label < METRIC_BUILD_VALUES);
    const char *text = atomic_load(&builds[label]);
    return text != NULL ? text : "";
}

const struct metric_label *metric_label(enum metric_label_id id)
{
    PRE(id < METRIC_LABEL_COUNT);
    return &labels[id];
}

const struct metric_family *metric_family(enum family family)
{
    PRE(family < FAMILY_COUNT);
    return &families[family];
}

size_t metric_numbers(void)
{
    return NUMBERS;
}

void metric_read(uint64_t *out)
{
    for (size_t i = 0; i < NUMBERS; i++) {
        out[i] = 0;
        for (size_t shard = 0; shard < SHARDS; shard++)
            out[i] += atomic_load_explicit(&shards[shard].numbers[i], memory_order_relaxed);
    }
}
