/* Learning-rate schedules against rates that were computed apart from the program
 * (tests/golden/schedules.py: formulas to 60 digits, held against the frameworks' own classes).
 *
 * A rate may be off by so many units of 2^-53 of itself (units_allowed):
 *     3   constant: the line of a warm-up, see there
 *     6   a line: a quotient, a product and a sum (1 unit each, half a last place), and their like
 *     20  half a cosine: a quotient (1), times half, its sine (4), squared (twice 5, and 1), a
 *         product, a sum; up to 6 more where the ends are quotients themselves (one_cycle)
 *     66 + 6 |log(rate / lr)|  powers: 64 factors, or the bound that elementary_power states
 *     poly besides: its share is rounded next to 1, which in the rate weighs final_lr / rate */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "service/optim/schedule.h"
#include "tests/lib/settings.h"

enum { CASES_MAX = 256, RATES_MAX = 640 };

struct golden_case {
    char name[32], label[64];
    struct schedule_setting setting;
    double lr;
    size_t rate_count;
    struct {
        uint64_t n;
        double value;
    } rate[RATES_MAX];
};

static struct golden_case cases[CASES_MAX];
static size_t case_count;

static void read_line(struct golden_case *golden, const char *line)
{
    char name[32], value[512];
    unsigned long long n;
    double number;

    if (sscanf(line, "set %31s %511s", name, value) == 2) {
        settings_set(&golden->setting, name, value);
    } else if (sscanf(line, "rate %llu %la", &n, &number) == 2) {
        ck_assert_uint_lt(golden->rate_count, RATES_MAX);
        golden->rate[golden->rate_count].n = n;
        golden->rate[golden->rate_count++].value = number;
    } else {
        ck_assert_msg(sscanf(line, "lr %la", &golden->lr) == 1, "unknown line: %s", line);
    }
}

static void read_golden(void)
{
    FILE *file = fopen("tests/golden/schedules.golden", "r");
    struct golden_case *golden = NULL;
    char line[640];

    ck_assert_msg(file != NULL, "tests/golden/schedules.golden is missing (make golden)");
    case_count = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        if (line[0] == '#')
            continue;
        if (strncmp(line, "case ", 5) != 0) {
            ck_assert_ptr_nonnull(golden);
            read_line(golden, line);
            continue;
        }
        ck_assert_uint_lt(case_count, CASES_MAX);
        golden = &cases[case_count++];
        memset(golden, 0, sizeof *golden);
        ck_assert_int_eq(sscanf(line, "case %31s %63s", golden->name, golden->label), 2);
        const struct schedule *schedule = schedule_find(golden->name);
        ck_assert_msg(schedule != NULL, "there is no schedule %s", golden->name);
        schedule_set(&golden->setting, schedule);
    }
    fclose(file);
}

/* The value of a field, or `missing` when the schedule has none of that name. */
static double field(const struct schedule_setting *setting, const char *name, double missing)
{
    const struct schedule *schedule = setting->schedule;
    size_t index = hyper_find(schedule->hypers, schedule->hyper_count, name);

    return index < schedule->hyper_count ? setting->value[index] : missing;
}

static double units_allowed(const struct golden_case *golden, double rate)
{
    const char *name = golden->name;

    if (strcmp(name, "constant") == 0)
        return 3; /* the warm-up is a line */
    if (strcmp(name, "linear_annealing") == 0)
        return 6;
    if (strncmp(name, "cosine", 6) == 0)
        return 20;
    if (strcmp(name, "one_cycle") == 0)
        return 26;
    return 66 + 6 * fabs(log(rate / golden->lr)) +
           2 * field(&golden->setting, "final_lr", 0) / rate;
}

START_TEST(rates_are_the_golden_ones)
{
    char why[256];
    const char *at = "";
    double worst = 0;

    read_golden();
    for (size_t i = 0; i < case_count; i++) {
        const struct golden_case *golden = &cases[i];
        const char *fault = schedule_check(&golden->setting, &at, why, sizeof why);
        ck_assert_msg(fault == NULL, "%s %s: %s", golden->name, golden->label, fault);
        ck_assert_uint_ge(golden->rate_count, 30);
        for (size_t k = 0; k < golden->rate_count; k++) {
            double expected = golden->rate[k].value;
            double got = schedule_rate(&golden->setting, golden->lr, golden->rate[k].n);
            /* Below the normal doubles a unit is no longer a share of the number. */
            double unit = fmax(expected * 0x1p-53, 0x1p-1074);
            double units = fabs(got - expected) / unit;
            if (expected > 0)
                worst = fmax(worst, units / units_allowed(golden, expected));
            ck_assert_msg(
                got == expected || (expected > 0 && units <= units_allowed(golden, expected)),
                "%s %s: %a at step %llu, not %a (%.1f units)", golden->name, golden->label, got,
                (unsigned long long)golden->rate[k].n, expected, units);
        }
    }
    printf("schedules: at worst %.2f of the bound\n", worst);
}
END_TEST

/* Each warm-up, and each own field, choice and flag at something else than its default. */
START_TEST(every_schedule_and_field_has_golden_rates)
{
    const struct schedule *schedule;

    read_golden();
    for (size_t s = 0; (schedule = schedule_at(s)) != NULL; s++) {
        bool varied[HYPERS_MAX] = {false};
        size_t plain = 0, linear = 0, held = 0;
        for (size_t i = 0; i < case_count; i++) {
            const struct schedule_setting *setting = &cases[i].setting;
            if (setting->schedule != schedule)
                continue;
            bool warm = setting->value[SCHEDULE_WARMUP_STEPS] > 0;
            plain += !warm;
            linear += warm && setting->value[SCHEDULE_WARMUP_MODE] == 0;
            held += warm && setting->value[SCHEDULE_WARMUP_MODE] == 1;
            for (size_t k = 0; k < schedule->hyper_count; k++)
                varied[k] |=
                    !isnan(setting->value[k]) && setting->value[k] != schedule->hypers[k].initial;
        }
        ck_assert_msg(plain > 0 && linear > 0 && held > 0, "%s: %zu without warm-up, %zu, %zu",
                      schedule->name, plain, linear, held);
        for (size_t k = 0; k < schedule->hyper_count; k++)
            ck_assert_msg(varied[k], "%s: no golden rates with %s", schedule->name,
                          schedule->hypers[k].name);
    }
}
END_TEST

/* MXNet's schedulers remember: after a large n a small one no longer has its rate. */
START_TEST(rates_do_not_depend_on_what_was_asked_before)
{
    double rates[200];

    read_golden();
    for (size_t i = 0; i < case_count; i++) {
        for (uint64_t n = 200; n > 0; n--)
            rates[n - 1] = schedule_rate(&cases[i].setting, cases[i].lr, n);
        struct schedule_setting copy = cases[i].setting;
        for (uint64_t n = 1; n <= 200; n++)
            ck_assert(schedule_rate(&copy, cases[i].lr, n) == rates[n - 1]);
    }
}
END_TEST

Suite *suite_schedule_rates(void);
Suite *suite_schedule_rates(void)
{
    Suite *suite = suite_create("schedule_rates");
    TCase *golden = tcase_create("golden");

    tcase_add_test(golden, rates_are_the_golden_ones);
    tcase_add_test(golden, every_schedule_and_field_has_golden_rates);
    tcase_add_test(golden, rates_do_not_depend_on_what_was_asked_before);
    suite_add_tcase(suite, golden);
    return suite;
}
