/* Steps with compressed gradients, over every rule: the same bits as with the plain numbers they
 * stand for; and lazy rows, which move what was sent and leave all else as it was. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/packings.h"
#include "tests/lib/rules.h"
#include "tests/lib/tensors.h"
#include "tests/lib/testing.h"

/* Longer than a block; every kind of tensor. */
static const char tensors[] = "s[] w[37,211] e[3,0] v[1031] t[] m[3,7,101] z[0] one[1]";

static const int state[] = {TRIAL_PARAM,    TRIAL_AVERAGE,  TRIAL_SLOT,
                            TRIAL_SLOT + 1, TRIAL_SLOT + 2, TRIAL_SLOT + 3};

#define EACH(i, array) for (size_t i = 0; i < sizeof(array) / sizeof *(array); i++)

static const struct optimizer *rule_of(int index, enum dtype *dtype)
{
    *dtype = index % 2 == 0 ? DTYPE_F32 : DTYPE_F64;
    return optimizer_at((size_t)index / 2, *dtype);
}

static int rule_count(void)
{
    int count = 0;

    while (optimizer_at((size_t)count, DTYPE_F32) != NULL)
        count++;
    return count;
}

static void open_trial(struct trial *trial, const struct optimizer *rule, size_t form,
                       struct layout *layout)
{
    struct spec spec;

    rule_spec(&spec, rule, form);
    spec.ema.on = form % 2 == 0;
    spec.ema.decay = 0.75;
    trial_open(trial, &spec, layout, form);
    trial_fill(trial, TRIAL_PARAM, 11, 2);
    trial_fill(trial, TRIAL_BASE, 12, 2);
    if (spec.ema.on)
        trial_fill(trial, TRIAL_AVERAGE, 13, 2);
    if (rule->bases != NULL && rule->bases(spec.hyper) > 0)
        trial->advance.base = trial->vector[TRIAL_BASE].data;
    trial->advance.rescale = 0.7;
    trial->advance.clip_value = 0.9;
}

/* A step as the engine takes it. */
static struct measure take_step(struct trial *trial, const struct wire_gradient *gradient)
{
    struct measure measure = {.rescale = 0.7, .clip_value = 0.9, .norm_clipped = true};

    advances(trial->rule->dtype)->measure(gradient, &measure);
    trial->advance.gradient = *gradient;
    trial->advance.clip_scale = fmin(1, 5 / measure.clipped_norm);
    trial_step(trial);
    return measure;
}

static void same_trials(const struct trial *one, const struct trial *other, const char *what)
{
    EACH(i, state)
    {
        size_t size = one->vector[state[i]].size;
        if (size > 0 && memcmp(one->vector[state[i]].data, other->vector[state[i]].data, size) != 0)
            ck_abort_msg("%s, %s: vector %d differs", one->rule->name, what, state[i]);
    }
    if (memcmp(one->scalar, other->scalar, sizeof one->scalar) != 0 ||
        one->advance.update_norm != other->advance.update_norm ||
        one->advance.param_norm != other->advance.param_norm)
        ck_abort_msg("%s, %s: scalars or norms differ", one->rule->name, what);
}

/* Every form, as if its numbers had come plain. Lazy rules only see rows that are all there. */
START_TEST(compressed_steps_have_the_bits_of_plain_ones)
{
    static const enum dtype wires[] = {DTYPE_F32, DTYPE_F64, DTYPE_F16, DTYPE_BF16};
    enum dtype dtype;
    const struct optimizer *rule = rule_of(_i, &dtype);
    struct layout *layout = tensors_layout(tensors);

    for (int form = FORM_DENSE + 1; form < FORM_NONE; form++) {
        struct trial compressed, plain;
        char what[64];
        size_t rule_form_ = (size_t)form * 5 % rule_forms(rule);
        double density = form != FORM_ROWS ? 0.1 : rule->lazy_rows ? 1 : 0.3;
        open_trial(&compressed, rule, rule_form_, layout);
        open_trial(&plain, rule, rule_form_, layout);
        for (size_t step = 0; step < 3; step++) {
            struct packing packing = packing_random(
                layout, (enum gradient_form)form, wires[(step + (size_t)form) % 4], density, step);
            struct wire_gradient dense = packing_dense(&packing);
            struct measure one = take_step(&compressed, &packing.gradient);
            struct measure other = take_step(&plain, &dense);
            ck_assert(one.norm == other.norm && one.clipped_norm == other.clipped_norm);
            snprintf(what, sizeof what, "form %d, step %zu", form, step);
            same_trials(&compressed, &plain, what);
            packing_free(&packing);
        }
        ck_assert_uint_eq(trial_breaches(&compressed), 0);
        trial_close(&compressed);
        trial_close(&plain);
    }
    layout_release(layout);
}
END_TEST

/* --- lazy rows --- */

/* How many numbers of the slot each element has: 1, or one a row. */
static size_t slot_place(const struct trial *trial, size_t slot, size_t element)
{
    const struct layout *layout = trial->layout;
    size_t place = 0;

    if (trial->rule->slots[slot].extent == NULL)
        return element;
    for (size_t t = 0;; t++) {
        const struct tensor *tensor = &layout->tensors[t];
        if (element < tensor->offset + tensor->count)
            return place + (element - tensor->offset) /
                               (tensor->rank == 0 ? 1 : tensor->count / tensor->shape[0]);
        place += slot_extent(&trial->rule->slots[slot], tensor);
    }
}

static bool same_number(const struct trial *one, const struct trial *other, size_t which,
                        size_t place)
{
    size_t size = one->element;

    return memcmp(one->vector[which].data + place * size, other->vector[which].data + place * size,
                  size) == 0;
}

/* What was sent moves as in a plain step; what was not is as it was before. `last`: the trial as it
 * was. */
static void check_lazy(const struct trial *lazy, const struct trial *plain,
                       const struct trial *last, const bool *sent)
{
    for (size_t i = 0; i < lazy->count; i++) {
        const struct trial *wanted = sent[i] ? plain : last;
        bool same = same_number(lazy, wanted, TRIAL_PARAM, i);
        for (size_t k = 0; k < lazy->rule->slot_count; k++)
            if (lazy->vector[TRIAL_SLOT + k].data != NULL)
                same = same && same_number(lazy, wanted, TRIAL_SLOT + k, slot_place(lazy, k, i));
        if (!same)
            ck_abort_msg("%s: element %zu, which was%s sent", lazy->rule->name, i,
                         sent[i] ? "" : " not");
    }
}

/* The average goes on for all, and the norms are of all. */
static void check_rest(const struct trial *lazy, const struct trial *last)
{
    double *now = trial_numbers(lazy, TRIAL_PARAM, 0, lazy->count);
    double *before = trial_numbers(last, TRIAL_PARAM, 0, lazy->count);
    double fine = lazy->element == 4 ? 2e-7 : 1e-12;
    long double moved = 0, size = 0;

    for (size_t i = 0; i < lazy->count; i++) {
        moved += (long double)(now[i] - before[i]) * (long double)(now[i] - before[i]);
        size += (long double)now[i] * (long double)now[i];
    }
    ck_assert_double_le(fabs(lazy->advance.update_norm - (double)sqrtl(moved)),
                        1e-6 * (double)sqrtl(moved));
    ck_assert_double_le(fabs(lazy->advance.param_norm - (double)sqrtl(size)),
                        1e-12 * (double)sqrtl(size));
    if (lazy->vector[TRIAL_AVERAGE].data != NULL) {
        double *average = trial_numbers(lazy, TRIAL_AVERAGE, 0, lazy->count);
        double *old = trial_numbers(last, TRIAL_AVERAGE, 0, lazy->count);
        for (size_t i = 0; i < lazy->count; i++)
            if (!(fabs(average[i] - (0.75 * old[i] + 0.25 * now[i])) <= fine * 4))
                ck_abort_msg("%s: average %zu", lazy->rule->name, i);
        free(average);
        free(old);
    }
    free(now);
    free(before);
}

static void check_form(const struct optimizer *rule, struct layout *layout, size_t form,
                       double density)
{
    struct trial trials[3]; /* lazy, plain, as it was */

    for (size_t i = 0; i < 3; i++) {
        struct packing first = packing_random(layout, FORM_TOPK, DTYPE_F32, 0.9, 3);
        open_trial(&trials[i], rule, form, layout);
        take_step(&trials[i], &first.gradient); /* so that there is state */
        packing_free(&first);
    }
    struct packing packing = packing_random(layout, FORM_ROWS, DTYPE_F32, density, form);
    struct wire_gradient dense = packing_dense(&packing);
    take_step(&trials[0], &packing.gradient);
    take_step(&trials[1], &dense);
    check_lazy(&trials[0], &trials[1], &trials[2], packing.sent);
    check_rest(&trials[0], &trials[2]);
    ck_assert(memcmp(trials[0].scalar, trials[1].scalar, sizeof trials[0].scalar) == 0);
    packing_free(&packing);
    for (size_t i = 0; i < 3; i++) {
        ck_assert_uint_eq(trial_breaches(&trials[i]), 0);
        trial_close(&trials[i]);
    }
}

START_TEST(lazy_rows_move_alone)
{
    static const double densities[] = {0.05, 0.5, 0};
    enum dtype dtype;
    const struct optimizer *rule = rule_of(_i, &dtype);
    struct layout *layout = tensors_layout(tensors);

    size_t forms = rule->lazy_rows ? rule_forms(rule) : 0;

    for (size_t i = 0; i < 6 && i < forms; i++)
        check_form(rule, layout, i < 3 ? i : forms - 1 - i % 3 * (forms / 4), densities[i % 3]);
    layout_release(layout);
}
END_TEST

/* Longer than what is cut for threads, and than group_adagrad's tiles. */
START_TEST(long_lazy_rows_do_too)
{
    static const char *const names[] = {"adam", "group_adagrad"};
    enum dtype dtype = _i % 2 == 0 ? DTYPE_F32 : DTYPE_F64;
    struct layout *layout = tensors_layout("w[3,70001] b[3]");
    const struct optimizer *rule = optimizer_find(names[_i / 2], dtype);
    double hyper[HYPERS_MAX] = {0};
    size_t form = 0;

    /* With decay in the gradient, which a row that is not sent must not see. */
    while (hyper[HYPER_WEIGHT_DECAY] == 0 || hyper[HYPER_WEIGHT_DECAY_MODE] != DECAY_L2)
        rule_form(rule, form++, hyper);
    check_form(rule, layout, form - 1, 0.5);
    layout_release(layout);
}
END_TEST

/* Which rules are lazy: element by element but where noise or a macro-batch is every weight's. */
START_TEST(the_lazy_rules_are_these)
{
    static const char *const none[] = {"sgld", "lbsgd", "lars",     "lamb",
                                       "lans", "muon",  "adafactor"};
    const struct optimizer *rule;

    for (size_t k = 0; (rule = optimizer_at(k, DTYPE_F64)) != NULL; k++) {
        bool lazy = true;
        EACH(i, none)
        lazy = lazy && strcmp(rule->name, none[i]) != 0;
        if (rule->lazy_rows != lazy)
            ck_abort_msg("%s", rule->name);
    }
}
END_TEST

/* --- plain loops of four rules with sparse updates, after their papers --- */

struct plain {
    const char *rule;
    /* w, and two numbers of state */
    void (*step)(double t, double g, double *w, double *one, double *two);
    const char *slots[2];
};

enum { STEPS = 12 };

static void plain_sgd(double t, double g, double *w, double *v, double *none)
{
    (void)t;
    (void)none;
    *v = 0.9 * *v - 0.05 * (g + 0.1 * *w);
    *w += *v;
}

static void plain_momentum(double t, double g, double *w, double *v, double *none)
{
    (void)t;
    (void)none;
    *v = 0.9 * *v + (g + 0.1 * *w);
    *w -= 0.05 * *v;
}

static void plain_adam(double t, double g, double *w, double *m, double *v)
{
    double q = g + 0.1 * *w;

    *m = 0.9 * *m + 0.1 * q;
    *v = 0.999 * *v + 0.001 * q * q;
    *w -= 0.05 * (*m / (1 - pow(0.9, t))) / (sqrt(*v / (1 - pow(0.999, t))) + 1e-8);
}

static void plain_adagrad(double t, double g, double *w, double *h, double *none)
{
    double q = g + 0.1 * *w;

    (void)t;
    (void)none;
    *h += q * q;
    *w -= 0.05 * q / sqrt(*h + 1e-7);
}

static const struct plain plains[] = {{"sgd", plain_sgd, {"v", NULL}},
                                      {"momentum", plain_momentum, {"v", NULL}},
                                      {"adam", plain_adam, {"m", "v"}},
                                      {"adagrad", plain_adagrad, {"h", NULL}}};

/* The loops three times: with the gradients as they are, and with each a rounding larger or
 * smaller. Where gradient and decay nearly cancel, what is left of them is rounding, and adam's
 * quotient makes it whole again: how far the worlds then are apart is how far an exact rule may be
 * from a loop. */
enum { EXACT, LARGER, SMALLER, WORLDS };
struct world {
    double *w, *one, *two;
};

static void close_to(const struct trial *trial, size_t which, const double *wanted,
                     const double *larger, const double *smaller)
{
    double *got = trial_numbers(trial, which, 0, trial->count);
    double fine = trial->element == 4 ? 4e-5 : 1e-11;

    for (size_t i = 0; i < trial->count; i++) {
        double apart = fmax(fabs(larger[i] - wanted[i]), fabs(smaller[i] - wanted[i]));
        if (!(fabs(got[i] - wanted[i]) <= fine * fmax(1, fabs(wanted[i])) + 8 * apart))
            ck_abort_msg("%s: number %zu of vector %zu is %.17g, not %.17g", trial->rule->name, i,
                         which, got[i], wanted[i]);
    }
    free(got);
}

START_TEST(lazy_steps_are_the_plain_loops)
{
    const struct plain *plain = &plains[_i / 2];
    struct layout *layout = tensors_layout(tensors);
    struct trial trial;
    struct spec spec;

    spec_init(&spec);
    spec.dtype = _i % 2 == 0 ? DTYPE_F32 : DTYPE_F64;
    spec_set_rule(&spec, optimizer_find(plain->rule, spec.dtype));
    spec.hyper[HYPER_LR] = 0.05;
    spec.hyper[HYPER_WEIGHT_DECAY] = 0.1;
    if (optimizer_hyper(spec.rule, "momentum") < spec.rule->hyper_count)
        spec.hyper[optimizer_hyper(spec.rule, "momentum")] = 0.9;
    trial_open(&trial, &spec, layout, 0);
    trial_fill(&trial, TRIAL_PARAM, 3, 1);
    struct world worlds[WORLDS];
    double nudge = spec.dtype == DTYPE_F32 ? 0x1p-23 : 0x1p-52;
    double factor[WORLDS] = {1, 1 + nudge, 1 - nudge};
    for (size_t k = 0; k < WORLDS; k++) {
        worlds[k] = (struct world){.w = trial_numbers(&trial, TRIAL_PARAM, 0, layout->count),
                                   .one = calloc(layout->count, sizeof(double)),
                                   .two = calloc(layout->count, sizeof(double))};
        ck_assert(worlds[k].one != NULL && worlds[k].two != NULL);
    }
    for (size_t t = 1; t <= STEPS; t++) {
        struct packing packing = packing_random(layout, FORM_ROWS, DTYPE_F32, 0.3, 100 + t);
        trial.advance.gradient = packing.gradient;
        trial_step(&trial);
        for (size_t i = 0; i < layout->count; i++)
            for (size_t k = 0; k < WORLDS && packing.sent[i]; k++)
                plain->step((double)t, packing.values[i] * factor[k], &worlds[k].w[i],
                            &worlds[k].one[i], &worlds[k].two[i]);
        packing_free(&packing);
    }
    close_to(&trial, TRIAL_PARAM, worlds[EXACT].w, worlds[LARGER].w, worlds[SMALLER].w);
    for (size_t k = 0; k < trial.rule->slot_count; k++)
        for (size_t i = 0; i < 2; i++)
            if (plain->slots[i] != NULL && strcmp(trial.rule->slots[k].name, plain->slots[i]) == 0)
                close_to(&trial, TRIAL_SLOT + k, i == 0 ? worlds[EXACT].one : worlds[EXACT].two,
                         i == 0 ? worlds[LARGER].one : worlds[LARGER].two,
                         i == 0 ? worlds[SMALLER].one : worlds[SMALLER].two);
    trial_close(&trial);
    for (size_t k = 0; k < WORLDS; k++) {
        free(worlds[k].w);
        free(worlds[k].one);
        free(worlds[k].two);
    }
    layout_release(layout);
}
END_TEST

Suite *suite_compressed_steps(void);
Suite *suite_compressed_steps(void)
{
    Suite *suite = suite_create("compressed_steps");
    TCase *all = tcase_create("compressed_steps");
    int rules = 2 * rule_count();

    tcase_add_loop_test(all, compressed_steps_have_the_bits_of_plain_ones, 0, rules);
    tcase_add_loop_test(all, lazy_rows_move_alone, 0, rules);
    tcase_add_loop_test(all, long_lazy_rows_do_too, 0, 4);
    tcase_add_test(all, the_lazy_rules_are_these);
    tcase_add_loop_test(all, lazy_steps_are_the_plain_loops, 0,
                        2 * (int)(sizeof plains / sizeof *plains));
    suite_add_tcase(suite, all);
    return suite;
}
