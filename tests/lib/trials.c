/* Trials for contract tests. */
#include "tests/lib/trials.h"

#include <check.h>
#include <string.h>

#include "tests/lib/tensors.h"
#include "tests/lib/testing.h"

const struct optimizer *trials_rule(int loop)
{
    return optimizer_at((size_t)loop / 2, loop % 2 == 0 ? DTYPE_F32 : DTYPE_F64);
}

int trials_loops(void)
{
    int count = 0;

    while (trials_rule(count) != NULL)
        count++;
    return count;
}

void trials_group(struct spec *spec, const char *pattern, struct group group)
{
    struct fault fault;

    ck_assert_int_eq(spec_add_group(spec, &group, &fault), STATUS_OK);
    ck_assert_int_eq(spec_add_pattern(spec, pattern, &fault), STATUS_OK);
}

void trials_open(struct trial *trial, const struct spec *spec, const char *model, size_t shift)
{
    struct layout *layout = tensors_layout(model);

    trial_open(trial, spec, layout, shift);
    layout_release(layout);
    trial->proposes = false;
    trial_fill(trial, TRIAL_PARAM, testing_seed(), 0.2);
}

void trials_inputs(struct trial *trial)
{
    uint64_t seed = testing_seed() + trial->advance.update;

    trial_fill(trial, TRIAL_GRADIENT, seed + 100, 0.2);
    trial_fill(trial, TRIAL_PROPOSAL, seed + 200, 0.1);
}

void trials_step(struct trial *trial)
{
    trials_inputs(trial);
    trial_step(trial);
}

void trials_same(const struct trial *one, const struct trial *other, const char *what)
{
    for (size_t i = TRIAL_PARAM; i < TRIAL_VECTORS; i++) {
        bool lasts = i == TRIAL_PARAM || i == TRIAL_AVERAGE || i >= TRIAL_SLOT;
        if (one->vector[i].data != NULL && lasts)
            ck_assert_msg(memcmp(one->vector[i].data, other->vector[i].data, one->vector[i].size) ==
                              0,
                          "%s %s: %s: vector %zu differs", one->rule->name,
                          dtype_name(one->rule->dtype), what, i);
    }
    ck_assert(memcmp(one->scalar, other->scalar, sizeof one->scalar) == 0);
}
