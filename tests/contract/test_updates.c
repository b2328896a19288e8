/* Whole sessions of every line of optimizers.def, none by name, stepped through the plan and the
 * pipeline: the bits do not depend on threads, neighbours and pauses, and on groups as they should.
 * What the numbers may be is held by test_update_numbers.c. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/crew.h"
#include "tests/lib/trials.h"

/* --- what the bits do not depend on --- */

/* A vector and a matrix of several segments each, beside a small one, with the whole pipeline at
 * work. */
START_TEST(the_number_of_threads_changes_no_bit)
{
    enum { FORMS = 3 };
    const struct optimizer *rule = trials_rule(_i);
    struct trial trial[2];
    struct spec spec;

    for (size_t form = _i % 2 ? 0 : 1; form < rule_forms(rule);
         form += 1 + rule_forms(rule) / FORMS) {
        double norms[2][2];
        for (int threads = 0; threads < 2; threads++) {
            struct trial *mine = &trial[threads];
            rule_spec(&spec, rule, form);
            spec.ema.on = true;
            trials_open(mine, &spec, "v[140011] m[431,307] s[5]", 0);
            mine->advance.rescale = 0.7;
            mine->advance.clip_value = 0.1;
            mine->advance.clip_scale = 0.9;
            if (threads > 0)
                crew_start();
            trials_step(mine);
            trials_step(mine);
            if (threads > 0)
                crew_stop();
            norms[threads][0] = mine->advance.update_norm;
            norms[threads][1] = mine->advance.param_norm;
        }
        trials_same(&trial[0], &trial[1], "threads");
        ck_assert(memcmp(norms[0], norms[1], sizeof *norms) == 0);
        trial_close(&trial[0]);
        trial_close(&trial[1]);
    }
}
END_TEST

/* Another session of the same rule steps in between: nothing may live outside the state. */
START_TEST(saved_state_continues_to_the_same_bits)
{
    static const char model[] = "m[31,33] v[8] k[2,3,5] s[]";
    const struct optimizer *rule = trials_rule(_i);

    for (size_t form = 0; form < rule_forms(rule); form++) {
        struct trial straight, resumed, other;
        struct spec spec;
        rule_spec(&spec, rule, form);
        spec.ema.on = form % 2 == 0;
        trials_open(&straight, &spec, model, 0);
        trials_open(&resumed, &spec, model, 0);
        trials_open(&other, &spec, "other[7,11]", 0);
        for (int k = 0; k < 5; k++)
            trials_step(&straight);
        for (size_t i = TRIAL_PARAM; i < TRIAL_VECTORS; i++)
            if (straight.vector[i].data != NULL && i != TRIAL_WORKSPACE)
                memcpy(resumed.vector[i].data, straight.vector[i].data, straight.vector[i].size);
        memcpy(resumed.scalar, straight.scalar, sizeof straight.scalar);
        resumed.advance.update = straight.advance.update;
        for (int k = 0; k < 5; k++) {
            trials_step(&straight);
            trials_step(&other);
        }
        for (int k = 0; k < 5; k++)
            trials_step(&resumed);
        trials_same(&straight, &resumed, "resumed run");
        trial_close(&straight);
        trial_close(&resumed);
        trial_close(&other);
    }
}
END_TEST

/* The first tensor of a model steps as it would alone: norms and rates are its own. (The first, for
 * noise goes by the place in the model.) */
START_TEST(neighbours_change_no_bit)
{
    static const char *const models[][2] = {
        {"m[31,33]", "m[31,33] v[301] e[0] s[]"}, {"m[33,5]", "m[33,5] e[3,0] n[4,100]"},
        {"v[301]", "v[301] e[0,4] m[31,33]"},     {"k[5,3,7]", "k[5,3,7] m[31,33]"},
        {"s[]", "s[] v[301] k[5,3,7]"},           {"o[1,1]", "o[1,1] k[2,2,2,2]"},
    };
    const struct optimizer *rule = trials_rule(_i);

    for (size_t form = 0; form < rule_forms(rule); form++)
        for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
            struct trial alone, among;
            struct spec spec;
            rule_spec(&spec, rule, form);
            trials_open(&alone, &spec, models[i][0], 0);
            trials_open(&among, &spec, models[i][1], 0);
            for (int k = 0; k < 3; k++) {
                trials_step(&alone);
                trials_step(&among);
            }
            trials_same(&alone, &among, models[i][1]);
            trial_close(&alone);
            trial_close(&among);
        }
}
END_TEST

/* --- groups --- */

/* Three steps of a session with that group, and of one of the tensor `alone` with these factors in
 * its hyperparameters. */
static void check_group(const struct optimizer *rule, size_t form, const char *model,
                        const char *pattern, const char *alone, struct group group,
                        const struct group *factors)
{
    struct trial one, all;
    struct spec spec;

    rule_spec(&spec, rule, form);
    spec.hyper[HYPER_LR] *= factors->lr_mult;
    spec.hyper[HYPER_WEIGHT_DECAY] *= factors->weight_decay_mult;
    trials_open(&one, &spec, alone, 0);
    rule_spec(&spec, rule, form);
    trials_group(&spec, pattern, group);
    trials_open(&all, &spec, model, 0);
    for (int k = 0; k < 3; k++) {
        trials_step(&one);
        trials_step(&all);
    }
    trials_same(&one, &all, pattern);
    trial_close(&one);
    trial_close(&all);
}

START_TEST(a_group_is_as_if_its_factors_were_the_hyperparameters)
{
    static const struct group none = {.lr_mult = 1, .weight_decay_mult = 1, .adapt = true};
    static const struct group groups[] = {
        {.lr_mult = 0, .weight_decay_mult = 1, .adapt = true},
        {.lr_mult = 0.3, .weight_decay_mult = 3, .adapt = true},
        {.lr_mult = 1, .weight_decay_mult = 0, .adapt = true},
    };
    const struct optimizer *rule = trials_rule(_i);

    for (size_t form = 0; form < rule_forms(rule); form++)
        for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
            check_group(rule, form, "m.w[31,33] v[9]", "m.*", "m.w[31,33]", groups[i], &groups[i]);
            check_group(rule, form, "m.w[31,33] v[9] u[3,5]", "v", "m.w[31,33]", groups[i], &none);
        }
    for (size_t form = 0; form < rule_forms(rule); form++)
        check_group(rule, form, "m[31,33] v[9]", "v", "m[31,33]",
                    (struct group){.lr_mult = 1, .weight_decay_mult = 1, .adapt = false}, &none);
}
END_TEST

/* What one step moves the weights by, from weights that are `scale` times what they are. */
static void first_update(const struct spec *spec, double scale, double *update)
{
    enum { COUNT = 31 * 33 };
    static double before[COUNT];
    struct trial trial;

    trials_open(&trial, spec, "m[31,33]", 0);
    trial_get(&trial, TRIAL_PARAM, before);
    for (size_t i = 0; i < COUNT; i++)
        before[i] *= scale;
    trial_put(&trial, TRIAL_PARAM, before);
    trials_step(&trial);
    trial_get(&trial, TRIAL_PARAM, update);
    for (size_t i = 0; i < COUNT; i++)
        update[i] -= before[i];
    trial_close(&trial);
}

/* A rule has a layer-wise rate when adapt=false changes its bits. Without that rate (and decay) the
 * update is what the gradient makes it, whatever the weights are. */
START_TEST(without_layerwise_rates_the_update_does_not_know_the_weights)
{
    enum { COUNT = 31 * 33 };
    static const struct group plain = {.lr_mult = 1, .weight_decay_mult = 1, .adapt = false};
    static double adapted[COUNT], one[COUNT], eight[COUNT];
    const struct optimizer *rule;
    size_t layerwise = 0;

    for (size_t i = 0; (rule = optimizer_at(i, DTYPE_F64)) != NULL; i++)
        for (size_t form = 0; form < rule_forms(rule); form++) {
            struct spec spec;
            rule_spec(&spec, rule, form);
            spec.hyper[HYPER_WEIGHT_DECAY] = 0;
            first_update(&spec, 1, adapted);
            trials_group(&spec, "m", plain);
            first_update(&spec, 1, one);
            if (memcmp(adapted, one, sizeof one) == 0)
                continue;
            layerwise++;
            first_update(&spec, 8, eight);
            for (size_t k = 0; k < COUNT; k++) /* weights below 2 round to 2^-53 */
                if (!(fabs(eight[k] - one[k]) <= 0x1p-51))
                    ck_abort_msg("%s form %zu: update %zu is %a, and %a from weights times 8",
                                 rule->name, form, k, one[k], eight[k]);
        }
    ck_assert_uint_gt(layerwise, 0);
}
END_TEST

Suite *suite_updates(void);
Suite *suite_updates(void)
{
    Suite *suite = suite_create("updates");
    TCase *cases = tcase_create("every rule");
    int count = trials_loops();

    tcase_set_timeout(cases, 120);
    tcase_add_loop_test(cases, the_number_of_threads_changes_no_bit, 0, count);
    tcase_add_loop_test(cases, saved_state_continues_to_the_same_bits, 0, count);
    tcase_add_loop_test(cases, neighbours_change_no_bit, 0, count);
    tcase_add_loop_test(cases, a_group_is_as_if_its_factors_were_the_hyperparameters, 0, count);
    tcase_add_test(cases, without_layerwise_rates_the_update_does_not_know_the_weights);
    suite_add_tcase(suite, cases);
    return suite;
}
