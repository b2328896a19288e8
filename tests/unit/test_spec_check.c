/* What of a configuration does not go together, and that no record of it is read either. */
#include <check.h>
#include <math.h>
#include <string.h>

#include "service/session/spec.h"
#include "tests/lib/engines.h"
#include "tests/lib/rounds.h"

/* Sound in all. */
static struct spec make_sound(void)
{
    struct spec spec = rounds_spec(DTYPE_F32, "adam", 4);

    spec.aggregation.quorum = 2;
    spec.aggregation.timeout_s = 1;
    return spec;
}

static void quorum_of_more_than_all(struct spec *spec)
{
    spec->aggregation.quorum = 5;
}

static void no_workers(struct spec *spec)
{
    spec->aggregation.workers = 0;
}

static void quorum_without_timeout(struct spec *spec)
{
    spec->aggregation.timeout_s = (double)NAN;
}

static void sum_of_votes(struct spec *spec)
{
    spec->aggregation.vote = true;
    spec->aggregation.reduction = REDUCTION_SUM;
}

static void rounds_without_journal(struct spec *spec)
{
    spec->durability.mode = DURABILITY_CHECKPOINT;
}

static void snapshots_without_journal(struct spec *spec)
{
    *spec = engines_spec(DTYPE_F32, "adam");
    spec->svrg.on = true;
    spec->durability.mode = DURABILITY_CHECKPOINT;
}

static void endless_timeout(struct spec *spec)
{
    spec->aggregation.timeout_s = 1e300;
}

static void negative_timeout(struct spec *spec)
{
    spec->aggregation.timeout_s = -1;
}

static void huge_lead(struct spec *spec)
{
    spec->aggregation.staleness = UINT64_MAX;
}

static void huge_age(struct spec *spec)
{
    spec->aggregation.max_staleness = UINT64_MAX - 1; /* one more says: of any */
}

static void huge_frequency(struct spec *spec)
{
    spec->svrg.update_freq = UINT64_MAX;
}

static void any_age(struct spec *spec)
{
    spec->aggregation.max_staleness = UINT64_MAX;
}

static void alone_without_journal(struct spec *spec)
{
    *spec = engines_spec(DTYPE_F32, "adam");
    spec->durability.mode = DURABILITY_CHECKPOINT;
}

static const struct configuration {
    void (*make)(struct spec *spec);
    const char *where; /* that a request would be told of; NULL: no request could say it */
    bool sound;
} configurations[] = {
    {quorum_of_more_than_all, "/aggregation/quorum", false},
    {no_workers, "/aggregation/workers", false},
    {quorum_without_timeout, "/aggregation/timeout_s", false},
    {sum_of_votes, "/aggregation/reduction", false},
    {rounds_without_journal, "/aggregation", false},
    {snapshots_without_journal, "/svrg", false},
    {endless_timeout, NULL, false},
    {negative_timeout, NULL, false},
    {huge_lead, NULL, false},
    {huge_age, NULL, false},
    {huge_frequency, NULL, false},
    {any_age, NULL, true},
    {alone_without_journal, NULL, true},
};

START_TEST(what_does_not_go_together_is_neither_taken_nor_read)
{
    const struct configuration *configuration = &configurations[_i];
    struct spec spec = make_sound(), read;
    struct packer packer = {0};
    struct fault fault;

    configuration->make(&spec);
    enum status status = spec_check(&spec, &fault);
    ck_assert_int_eq(status, configuration->where == NULL ? STATUS_OK : STATUS_INVALID_FIELD);
    if (configuration->where != NULL)
        ck_assert_str_eq(fault.where, configuration->where);
    spec_pack(&packer, &spec);
    struct unpacker unpacker = {.data = packer.data, .size = packer.used};
    status = spec_unpack(&unpacker, &read, &fault);
    ck_assert_int_eq(status, configuration->sound ? STATUS_OK : STATUS_STORAGE_FAILED);
    packer_close(&packer);
}
END_TEST

Suite *suite_spec_check(void);
Suite *suite_spec_check(void)
{
    Suite *suite = suite_create("spec_check");
    TCase *cases = tcase_create("configurations");

    tcase_add_loop_test(cases, what_does_not_go_together_is_neither_taken_nor_read, 0,
                        (int)(sizeof configurations / sizeof *configurations));
    suite_add_tcase(suite, cases);
    return suite;
}
