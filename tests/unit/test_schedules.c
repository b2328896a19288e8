/* What holds for all learning-rate schedules: declared in full, total, exact at their ends, and bad
 * settings refused by field. Their rates: test_schedule_rates.c. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "service/optim/schedule.h"
#include "tests/lib/settings.h"
#include "tests/lib/testing.h"

#define LAST ((uint64_t)1 << 63)

/* --- what holds for every schedule --- */

START_TEST(schedules_are_declared_in_full)
{
    const struct schedule *schedule, *other;

    ck_assert_uint_ge(hyper_find(schedule_find("constant")->hypers, SCHEDULE_OWN, "lr"),
                      SCHEDULE_OWN);
    for (size_t s = 0; (schedule = schedule_at(s)) != NULL; s++) {
        for (size_t i = 0; i < s && (other = schedule_at(i)) != NULL; i++)
            ck_assert_str_ne(schedule->name, other->name);
        ck_assert_ptr_eq(schedule_find(schedule->name), schedule);
        ck_assert(schedule->summary[0] != '\0' && schedule->formula[0] != '\0' &&
                  schedule->source[0] != '\0' && schedule->rate != NULL);
        ck_assert(schedule->hyper_count >= SCHEDULE_OWN && schedule->hyper_count <= HYPERS_MAX);
        ck_assert_str_eq(schedule->hypers[SCHEDULE_WARMUP_STEPS].name, "warmup_steps");
        size_t lists = 0;
        for (size_t k = 0; k < schedule->hyper_count; k++) {
            const struct hyper *hyper = &schedule->hypers[k];
            ck_assert(hyper->name[0] != '\0' && hyper->meaning[0] != '\0' && hyper->unit != NULL);
            ck_assert_uint_eq(hyper_find(schedule->hypers, schedule->hyper_count, hyper->name), k);
            ck_assert(isnan(hyper->initial) || hyper->kind == HYPER_CHOICE ||
                      (hyper->initial >= hyper->min && hyper->initial <= hyper->max));
            lists += hyper->kind == HYPER_STEPS;
        }
        ck_assert_uint_le(lists, 1);
    }
    ck_assert_ptr_null(schedule_find("Cosine"));
    ck_assert_ptr_null(schedule_find(""));
}
END_TEST

/* A number from min to max, its size spread over all powers of ten, ends included. */
static double spread(uint64_t *random, double min, double max)
{
    double pick = testing_uniform(random);

    if (pick < 0.1)
        return min;
    if (pick < 0.2)
        return max;
    double low = min > 0 ? min : max * 1e-40;
    double value = low * pow(max / low, testing_uniform(random));
    return value > max ? max : value;
}

static double whole_number(uint64_t *random, double min, double max)
{
    double value = floor(spread(random, min, testing_uniform(random) < 0.5 ? fmin(max, 100) : max));

    return value < min ? min : value;
}

/* Any value that hyper_allows; some of them do not go together. */
static void draw_settings(uint64_t *random, const struct schedule *schedule,
                          struct schedule_setting *setting)
{
    schedule_set(setting, schedule);
    for (size_t k = 0; k < schedule->hyper_count; k++) {
        const struct hyper *hyper = &schedule->hypers[k];
        double *value = &setting->value[k], step = 0;
        bool keep = !isnan(hyper->initial) || hyper->nullable;
        if (keep && testing_uniform(random) < 0.4)
            continue;
        if (hyper->kind == HYPER_FLAG || hyper->kind == HYPER_CHOICE)
            *value = floor(testing_uniform(random) * 2);
        else if (hyper->kind == HYPER_WHOLE)
            *value = whole_number(random, hyper->min, hyper->max);
        else if (hyper->kind == HYPER_NUMBER)
            *value = spread(random, hyper->min_open ? hyper->max * 1e-20 : hyper->min, hyper->max);
        else
            for (*value = 0; *value < SCHEDULE_STEPS_MAX && step < hyper->max; *value += 1) {
                step += whole_number(random, 1, hyper->max - step);
                setting->steps[(size_t)*value] = step;
            }
    }
}

/* Steps around what the settings name, small ones, and any power of two. */
static uint64_t draw_step(uint64_t *random, const struct schedule_setting *setting)
{
    size_t k = (size_t)(testing_uniform(random) * (double)setting->schedule->hyper_count);
    double near = setting->value[k], pick = testing_uniform(random);

    if (pick < 0.4 && near >= 3 && near < 0x1p62)
        return (uint64_t)near + testing_random(random) % 5 - 2;
    if (pick < 0.6)
        return 1 + testing_random(random) % 100;
    uint64_t n = testing_random(random) >> (testing_random(random) % 64);
    return n == 0 ? 1 : n > LAST ? LAST : n;
}

START_TEST(every_rate_is_finite_and_not_negative)
{
    const struct schedule *schedule = schedule_at((size_t)_i);
    struct schedule_setting setting;
    uint64_t random = testing_seed() ^ 0x5c4ed01e;
    size_t good = 0;
    char why[256];
    const char *at;

    for (int i = 0; i < 20000; i++) {
        draw_settings(&random, schedule, &setting);
        if (schedule_check(&setting, &at, why, sizeof why) != NULL)
            continue;
        good++;
        double lr = spread(&random, 0, SCHEDULE_LR_MAX), highest = lr;
        /* Every number that is a rate is called so. */
        for (size_t k = 0; k < schedule->hyper_count; k++)
            if (strstr(schedule->hypers[k].name, "lr") != NULL && !isnan(setting.value[k]))
                highest = fmax(highest, setting.value[k]);
        for (int j = 0; j < 20; j++) {
            uint64_t n = draw_step(&random, &setting);
            double rate = schedule_rate(&setting, lr, n);
            if (!(rate >= 0 && rate <= highest * (1 + 0x1p-48)))
                ck_abort_msg("%s: rate %a of lr %a at step %llu (draw %d)", schedule->name, rate,
                             lr, (unsigned long long)n, i);
        }
    }
    ck_assert_msg(good >= 2000, "%s: only %zu of the settings drawn were good", schedule->name,
                  good);
}
END_TEST

/* --- ends, to the bit --- */

static double rate_of(const char *name, const char *fields, double lr, uint64_t n)
{
    struct schedule_setting setting;
    char text[256], why[256], *rest = text, *word;
    const char *at;

    schedule_set(&setting, schedule_find(name));
    snprintf(text, sizeof text, "%s", fields);
    while ((word = strsep(&rest, " ")) != NULL && *word != '\0') {
        char *equals = strchr(word, '=');
        *equals = '\0';
        settings_set(&setting, word, equals + 1);
    }
    ck_assert_ptr_null(schedule_check(&setting, &at, why, sizeof why));
    return schedule_rate(&setting, lr, n);
}

START_TEST(ends_are_exact)
{
    const double lr = 0.3;
    const char *const curves[] = {"poly", "cosine"};
    const char *const fields = "max_steps=37 final_lr=0.7 warmup_steps=5 warmup_begin_lr=0.1";

    for (size_t i = 0; i < 2; i++) {
        ck_assert(rate_of(curves[i], fields, lr, 5) == lr);
        ck_assert(rate_of(curves[i], fields, lr, 37) == 0.7);
        ck_assert(rate_of(curves[i], fields, lr, 38) == 0.7);
        ck_assert(rate_of(curves[i], fields, lr, LAST) == 0.7);
        ck_assert(rate_of(curves[i], "max_steps=1 final_lr=0.7", lr, 1) == 0.7);
    }
    ck_assert(rate_of("linear_annealing", "max_steps=37 min_lr=0.7", lr, 37) == 0.7);
    ck_assert(rate_of("linear_annealing", "max_steps=37 min_lr=0.7 cycle=true", lr, 37) == lr);
    ck_assert(rate_of("exponential", "gamma=0.7", lr, 1) == lr);
    ck_assert(rate_of("exponential", "gamma=0.7", lr, LAST) == 0);
    ck_assert(rate_of("cosine_restarts", "first=4 mult=3 final_lr=0.1", lr, 17) == lr);
    ck_assert(rate_of("one_cycle", "max_steps=20 pct_start=0.25 div_factor=8", lr, 1) == lr / 8);
    ck_assert(rate_of("one_cycle", "max_steps=20 pct_start=0.25", lr, 5) == lr);
    ck_assert(rate_of("one_cycle", "max_steps=40 pct_start=0.025", lr, 1) == lr);
    ck_assert(rate_of("one_cycle", "max_steps=1 pct_start=1", lr, 1) == lr);
    ck_assert(rate_of("one_cycle", "max_steps=20 max_lr=0.5 div_factor=4 final_div_factor=2", lr,
                      20) == 0.5 / 8);
    ck_assert(rate_of("factor", "step=10 factor=0.5", lr, 10) == lr);
    ck_assert(rate_of("factor", "step=10 factor=0.5", lr, 11) == lr / 2);
    ck_assert(rate_of("multi_factor", "steps=10 factor=0.5", lr, 10) == lr);
    ck_assert(rate_of("step_decay", "step_size=10 gamma=0.5", lr, 10) == lr / 2);
    ck_assert(rate_of("step_decay", "steps=10 gamma=0.5", lr, 10) == lr / 2);
    ck_assert(rate_of("constant", "warmup_steps=4 warmup_mode=constant", lr, 3) == 0);
    ck_assert(rate_of("constant", "warmup_steps=4 warmup_mode=constant", lr, 4) == lr);
}
END_TEST

/* An lr of 0 must stay 0 where nothing names another rate: it freezes a session. */
START_TEST(an_lr_of_0_stays_0)
{
    ck_assert(rate_of("factor", "step=1 factor=0.5 stop_factor_lr=0.1", 0, 1000) == 0);
    ck_assert(rate_of("factor", "step=1 factor=0.5 stop_factor_lr=0.1", 0.01, 1000) == 0.01);
    ck_assert(rate_of("linear_annealing", "max_steps=9", 0, 4) == 0);
    ck_assert(rate_of("one_cycle", "max_steps=9", 0, 4) == 0);
    ck_assert(rate_of("cosine", "max_steps=9 warmup_steps=3", 0, 1) == 0);
}
END_TEST

/* --- bad settings --- */

static void check_refused(const struct schedule_setting *setting, const char *name,
                          const char *word)
{
    char why[256];
    const char *at = "", *sentence = schedule_check(setting, &at, why, sizeof why);

    ck_assert_msg(sentence != NULL, "%s: %s is not refused", setting->schedule->name, name);
    ck_assert_str_eq(at, name);
    ck_assert_msg(strstr(sentence, word) != NULL, "%s: \"%s\" does not say %s", name, sentence,
                  word);
}

/* What must be given, in its range; the first and the last step of a list of three. */
static void fill(struct schedule_setting *setting, const struct schedule *schedule)
{
    bool listed = false;

    schedule_set(setting, schedule);
    for (size_t k = 0; k < schedule->hyper_count; k++) {
        const struct hyper *hyper = &schedule->hypers[k];
        if (hyper->kind == HYPER_STEPS) {
            listed = true;
            setting->value[k] = 3;
            for (int i = 0; i < 3; i++)
                setting->steps[i] = 10 * (i + 1);
        } else if (isnan(hyper->initial) && !hyper->nullable) {
            setting->value[k] = hyper->max < 20 ? hyper->max : 20;
        }
    }
    char why[256];
    const char *at, *sentence = schedule_check(setting, &at, why, sizeof why);
    ck_assert_msg(sentence == NULL, "%s%s: %s", schedule->name, listed ? " (list)" : "", sentence);
}

START_TEST(numbers_outside_their_ranges_are_refused)
{
    const struct schedule *schedule = schedule_at((size_t)_i);
    struct schedule_setting setting;

    for (size_t k = 0; k < schedule->hyper_count; k++) {
        const struct hyper *hyper = &schedule->hypers[k];
        if (hyper->kind != HYPER_NUMBER && hyper->kind != HYPER_WHOLE)
            continue;
        const double bad[] = {hyper->min_open ? hyper->min : hyper->min - 0.5,
                              hyper->max * (1 + 0x1p-50),
                              -1,
                              -1e30,
                              (double)INFINITY,
                              -(double)INFINITY,
                              hyper->kind == HYPER_WHOLE ? hyper->min + 0.5 : -2,
                              hyper->nullable ? -3 : (double)NAN};
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            fill(&setting, schedule);
            setting.value[k] = bad[i];
            check_refused(&setting, hyper->name, hyper->name);
        }
    }
}
END_TEST

START_TEST(bad_lists_are_refused)
{
    static const struct {
        double length, steps[3];
        const char *word;
    } bad[] = {
        {0, {0}, "1 to 64"},
        {SCHEDULE_STEPS_MAX + 1, {0}, "1 to 64"},
        {-1, {0}, "1 to 64"},
        {3, {10, 30, 20}, "steps[2] is 20 after 30"},
        {3, {10, 10, 20}, "steps[1] is 10 after 10"},
        {3, {0, 10, 20}, "steps[0] is 0"},
        {3, {-5, 10, 20}, "steps[0] is -5"},
        {3, {5, 10.5, 20}, "steps[1] is 10.5; it must be a whole number"},
        {3, {5, 10, 1e16}, "steps[2] is 1"},
        {2, {5, (double)NAN, 0}, "steps[1] is "},
        {2, {5, (double)INFINITY, 0}, "steps[1] is inf"},
    };
    const struct schedule *schedule;
    size_t lists = 0;

    for (size_t s = 0; (schedule = schedule_at(s)) != NULL; s++)
        for (size_t k = 0; k < schedule->hyper_count; k++) {
            if (schedule->hypers[k].kind != HYPER_STEPS)
                continue;
            lists++;
            for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
                struct schedule_setting setting;
                fill(&setting, schedule);
                setting.value[k] = bad[i].length;
                memcpy(setting.steps, bad[i].steps, sizeof bad[i].steps);
                check_refused(&setting, schedule->hypers[k].name, bad[i].word);
            }
        }
    ck_assert_uint_eq(lists, 2);
}
END_TEST

START_TEST(what_must_be_given_is_asked_for)
{
    static const char *const missing[][2] = {
        {"factor", "step"},          {"multi_factor", "steps"},  {"poly", "max_steps"},
        {"cosine", "max_steps"},     {"exponential", "gamma"},   {"linear_annealing", "max_steps"},
        {"step_decay", "step_size"}, {"one_cycle", "max_steps"}, {"cosine_restarts", "first"},
    };
    struct schedule_setting setting;

    for (size_t i = 0; i < sizeof missing / sizeof *missing; i++) {
        schedule_set(&setting, schedule_find(missing[i][0]));
        check_refused(&setting, missing[i][1], "needs");
    }
}
END_TEST

START_TEST(settings_that_do_not_go_together_are_refused)
{
    static const char *const outlasting[] = {"poly", "cosine", "linear_annealing", "one_cycle"};
    struct schedule_setting setting;
    char why[256];
    const char *at;

    for (size_t i = 0; i < sizeof outlasting / sizeof *outlasting; i++) {
        fill(&setting, schedule_find(outlasting[i]));
        settings_set(&setting, "max_steps", "50");
        settings_set(&setting, "warmup_steps", "50");
        check_refused(&setting, "max_steps", "lower warmup_steps");
        settings_set(&setting, "warmup_steps", "49");
        ck_assert_ptr_null(schedule_check(&setting, &at, why, sizeof why));
    }
    fill(&setting, schedule_find("linear_annealing"));
    settings_set(&setting, "warmup_steps", "50");
    settings_set(&setting, "cycle", "true");
    ck_assert_ptr_null(schedule_check(&setting, &at, why, sizeof why));
    fill(&setting, schedule_find("step_decay"));
    settings_set(&setting, "step_size", "7");
    check_refused(&setting, "step_size", "either step_size or steps");
    settings_set(&setting, "step_size", "null");
    ck_assert_ptr_null(schedule_check(&setting, &at, why, sizeof why));
}
END_TEST

Suite *suite_schedules(void);
Suite *suite_schedules(void)
{
    Suite *suite = suite_create("schedules");
    TCase *all = tcase_create("all"), *bad = tcase_create("bad");
    int count = 0;

    while (schedule_at((size_t)count) != NULL)
        count++;
    tcase_set_timeout(all, 60);
    tcase_add_test(all, schedules_are_declared_in_full);
    tcase_add_loop_test(all, every_rate_is_finite_and_not_negative, 0, count);
    tcase_add_test(all, ends_are_exact);
    tcase_add_test(all, an_lr_of_0_stays_0);
    tcase_add_loop_test(bad, numbers_outside_their_ranges_are_refused, 0, count);
    tcase_add_test(bad, bad_lists_are_refused);
    tcase_add_test(bad, what_must_be_given_is_asked_for);
    tcase_add_test(bad, settings_that_do_not_go_together_are_refused);
    suite_add_tcase(suite, all);
    suite_add_tcase(suite, bad);
    return suite;
}
