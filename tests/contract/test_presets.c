/* Every preset of the table: it says all about its rule, and over 200 steps it gives the numbers of
 * the framework's own optimizer (tests/golden/presets/, which PyTorch itself or a transcription of
 * MXNet's and objax's code wrote: tests/golden/presets.py).
 *
 * Two programs in double that order their operations differently come apart by roundings, which are
 * shares of what is added up: a weight near 0 is the sum of larger ones. So the bound is 1e-12 of
 * the weight, or of 2^-6 where it is smaller: 1.6e-14, while the weights are up to 1 in size and
 * each of 200 steps may round by 1.1e-16 of that. The files give 45 bits of each, 2.8e-14. */
#include <check.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/optim/preset.h"
#include "tests/lib/rules.h"
#include "tests/lib/tensors.h"

/* Stochastic: its numbers are not MXNet's, whose generator is another. tests/unit/test_noise.c
 * holds its rule to the distribution. */
static const char *const without_golden[] = {"mxnet.SGLD"};

enum { STEPS = 200, LINE_BYTES = 16384, SHAPES_BYTES = 256 };

static const double factors[] = {1, 1, 0.5, 2, 1.25, 0.1};

/* --- the table --- */

struct tally {
    const struct optimizer *rule;
    const char *preset;
    int given[HYPERS_MAX];
};

static void count_field(void *context, const char *name, const char *value)
{
    struct tally *tally = context;
    size_t index = optimizer_hyper(tally->rule, name);
    double number;

    ck_assert_msg(index < tally->rule->hyper_count, "%s: %s has no %s", tally->preset,
                  tally->rule->name, name);
    ck_assert_msg(hyper_parse(&tally->rule->hypers[index], value, &number), "%s: %s cannot be %s",
                  tally->preset, name, value);
    tally->given[index]++;
}

START_TEST(presets_say_all_about_their_rule)
{
    const struct preset *preset = preset_at((size_t)_i);

    for (size_t i = 0; i < (size_t)_i; i++)
        ck_assert_str_ne(preset_at(i)->name, preset->name);
    ck_assert_ptr_eq(preset_find(preset->name), preset);
    for (enum dtype dtype = DTYPE_F32; dtype <= DTYPE_F64; dtype++) {
        struct tally tally = {optimizer_find(preset->rule, dtype), preset->name, {0}};
        ck_assert_msg(tally.rule != NULL, "%s: there is no rule %s", preset->name, preset->rule);
        preset_each(preset->fields, count_field, &tally);
        for (size_t k = 0; k < tally.rule->hyper_count; k++)
            ck_assert_int_eq(preset_has(preset, tally.rule->hypers[k].name), tally.given[k] == 1);
        preset_each(preset->fixed, count_field, &tally);
        for (size_t k = 0; k < tally.rule->hyper_count; k++)
            ck_assert_msg(tally.given[k] == 1, "%s: %s stands %d times, not once, in its lists",
                          preset->name, tally.rule->hypers[k].name, tally.given[k]);
    }
    ck_assert(!preset_has(preset, "weight_decay_mode")); /* a form, which is fixed */
    ck_assert(!preset_has(preset, "") && !preset_has(preset, "l"));
}
END_TEST

START_TEST(presets_are_found_by_their_names_alone)
{
    ck_assert_ptr_null(preset_find("torch.optim.adam"));
    ck_assert_ptr_null(preset_find("Adam"));
    ck_assert_ptr_null(preset_find(""));
    size_t count = 0;
    while (preset_at(count) != NULL)
        count++;
    ck_assert_ptr_null(preset_at(count + 1));
}
END_TEST

/* --- golden runs --- */

struct run {
    const struct preset *preset;
    const struct optimizer *rule;
    struct layout *layout;
    struct spec spec;
    struct trial trial;
    char label[64], shapes[SHAPES_BYTES];
    double rate; /* lr before its factors */
    bool constant;
    size_t taken, variants, checks;
    double worst;
};

/* What follows the word in the line, or NULL. */
static const char *after(const char *line, const char *word)
{
    size_t length = strlen(word);

    return strncmp(line, word, length) == 0 && line[length] == ' ' ? line + length + 1 : NULL;
}

static void end_variant(struct run *run)
{
    if (run->label[0] == '\0')
        return;
    ck_assert_msg(run->taken == STEPS, "%s %s: the file ends at step %zu", run->preset->name,
                  run->label, run->taken);
    trial_close(&run->trial);
    run->taken = 0;
}

static void begin_variant(struct run *run, const char *label)
{
    end_variant(run);
    ck_assert_int_eq(sscanf(label, "%63s", run->label), 1);
    run->variants++;
    run->constant = false;
    spec_init(&run->spec);
    run->spec.dtype = DTYPE_F64;
    spec_set_rule(&run->spec, run->rule);
    preset_apply(run->preset, run->rule, run->spec.hyper);
}

/* A field as a client would give it; one that is fixed may be given as what it is. */
static void set_field(struct run *run, const char *text)
{
    char name[32], value[40];
    double number;

    ck_assert_int_eq(sscanf(text, "%31s %39s", name, value), 2);
    size_t index = optimizer_hyper(run->rule, name);
    ck_assert_msg(index < run->rule->hyper_count, "%s has no %s", run->rule->name, name);
    ck_assert(hyper_parse(&run->rule->hypers[index], value, &number));
    ck_assert_msg(preset_has(run->preset, name) || number == run->spec.hyper[index],
                  "%s does not let %s be set", run->preset->name, name);
    run->spec.hyper[index] = number;
}

static void set_gradient(struct run *run, const char *text)
{
    char name[32];
    double value;

    ck_assert_int_eq(sscanf(text, "%31s %la", name, &value), 2);
    if (strcmp(name, "rescale") == 0)
        run->spec.gradient.rescale = value;
    else if (strcmp(name, "clip_value") == 0)
        run->spec.gradient.clip_value = value;
    else
        ck_abort_msg("unknown setting: %s", name);
}

/* The weights before the first step. */
static void start_run(struct run *run)
{
    trial_open(&run->trial, &run->spec, run->layout, 0);
    double *w = (double *)(void *)run->trial.vector[TRIAL_PARAM].data;
    for (size_t i = 0; i < run->trial.count; i++)
        w[i] = ((double)((i * 57 + 11) % 129) - 64) / 64;
    run->rate = run->spec.hyper[HYPER_LR];
    run->trial.advance.rescale = run->spec.gradient.rescale;
    if (!isnan(run->spec.gradient.clip_value))
        run->trial.advance.clip_value = run->spec.gradient.clip_value;
}

static void run_to(struct run *run, size_t step)
{
    struct trial *trial = &run->trial;

    for (size_t t = run->taken + 1; t <= step; t++) {
        double *g = (double *)(void *)trial->vector[TRIAL_GRADIENT].data;
        for (size_t i = 0; i < trial->count; i++)
            g[i] = ldexp((double)((i * 31 + t * 17 + (i * t) % 13) % 257) - 128, -8 - (int)(i % 4));
        trial->hyper[HYPER_LR] = run->rate * (run->constant ? 1 : factors[(t - 1) % 6]);
        trial_step(trial);
    }
    run->taken = step;
}

static void check_weights(struct run *run, const char *text)
{
    char *at;
    size_t step = strtoull(text, &at, 10);

    if (run->taken == 0)
        start_run(run);
    ck_assert(step > run->taken && step <= STEPS);
    run_to(run, step);
    const double *w = (const double *)(const void *)run->trial.vector[TRIAL_PARAM].data;
    for (size_t i = 0; i < run->trial.count; i++) {
        char *end;
        double expected = strtod(at, &end);
        ck_assert_msg(end != at, "%s %s: too few weights", run->preset->name, run->label);
        at = end;
        double off = fabs(w[i] - expected) / fmax(fabs(expected), 0x1p-6);
        ck_assert_msg(off <= 1e-12, "%s %s: weight %zu is %a after step %zu, not %a (%.1e)",
                      run->preset->name, run->label, i, w[i], step, expected, off);
        run->worst = fmax(run->worst, off);
    }
    ck_assert_msg(at[strspn(at, "\n")] == '\0', "%s %s: too many weights", run->preset->name,
                  run->label);
    run->checks++;
}

/* "9 3" as one more tensor of the layout. */
static void add_shape(struct run *run, char *text)
{
    size_t used = strlen(run->shapes);

    for (char *at = text; *at != '\0'; at++)
        *at = *at == ' ' ? ',' : *at == '\n' ? '\0' : *at;
    int size = snprintf(run->shapes + used, sizeof run->shapes - used, "%st%zu[%s]",
                        used > 0 ? " " : "", used, text);
    ck_assert(size > 0 && (size_t)size < sizeof run->shapes - used);
}

static void take_line(struct run *run, char *line)
{
    const char *at;

    if ((at = after(line, "shape")) != NULL) {
        add_shape(run, line + (at - line));
    } else if ((at = after(line, "variant")) != NULL) {
        if (run->layout == NULL)
            run->layout = tensors_layout(run->shapes);
        line[strcspn(line, "\n")] = '\0';
        begin_variant(run, at);
    } else if ((at = after(line, "field")) != NULL) {
        set_field(run, at);
    } else if ((at = after(line, "gradient")) != NULL) {
        set_gradient(run, at);
    } else if ((at = after(line, "weights")) != NULL) {
        check_weights(run, at);
    } else if ((at = after(line, "rates")) != NULL) {
        ck_assert_str_eq(at, "constant\n");
        run->constant = true;
    } else {
        ck_assert_msg((at = after(line, "preset")) != NULL, "unknown line: %.40s", line);
        ck_assert(strncmp(at, run->preset->name, strlen(run->preset->name)) == 0);
    }
}

static bool needs_no_golden(const char *name)
{
    for (size_t i = 0; i < sizeof without_golden / sizeof *without_golden; i++)
        if (strcmp(name, without_golden[i]) == 0)
            return true;
    return false;
}

START_TEST(presets_give_the_numbers_of_their_frameworks)
{
    static struct run run;
    static char line[LINE_BYTES];
    char path[128];

    run = (struct run){.preset = preset_at((size_t)_i)};
    run.rule = optimizer_find(run.preset->rule, DTYPE_F64);
    ck_assert_msg(run.rule != NULL, "there is no rule %s", run.preset->rule);
    snprintf(path, sizeof path, "tests/golden/presets/%s.golden", run.preset->name);
    FILE *file = fopen(path, "r");
    if (needs_no_golden(run.preset->name)) {
        ck_assert_ptr_null(file);
        return;
    }
    ck_assert_msg(file != NULL, "%s is missing: every preset has a golden run (make golden)", path);
    while (fgets(line, sizeof line, file) != NULL) {
        ck_assert_ptr_nonnull(strchr(line, '\n'));
        if (line[0] != '#')
            take_line(&run, line);
    }
    fclose(file);
    end_variant(&run);
    layout_release(run.layout);
    ck_assert(run.variants > 0 && run.checks >= 8 * run.variants);
    printf("%s: at worst %.1e off in %zu runs\n", run.preset->name, run.worst, run.variants);
}
END_TEST

START_TEST(every_golden_run_has_its_preset)
{
    static const char suffix[] = ".golden";
    DIR *folder = opendir("tests/golden/presets");
    size_t count = 0;

    ck_assert_ptr_nonnull(folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        size_t length = strlen(entry->d_name), end = sizeof suffix - 1;
        if (length <= end || strcmp(entry->d_name + length - end, suffix) != 0)
            continue;
        entry->d_name[length - end] = '\0';
        ck_assert_msg(preset_find(entry->d_name) != NULL, "%s is no preset", entry->d_name);
        count++;
    }
    closedir(folder);
    ck_assert_uint_gt(count, 0);
}
END_TEST

Suite *suite_presets(void);
Suite *suite_presets(void)
{
    Suite *suite = suite_create("presets");
    TCase *cases = tcase_create("presets");
    int count = 0;

    while (preset_at((size_t)count) != NULL)
        count++;
    tcase_set_timeout(cases, 60);
    tcase_add_loop_test(cases, presets_say_all_about_their_rule, 0, count);
    tcase_add_test(cases, presets_are_found_by_their_names_alone);
    tcase_add_loop_test(cases, presets_give_the_numbers_of_their_frameworks, 0, count);
    tcase_add_test(cases, every_golden_run_has_its_preset);
    suite_add_tcase(suite, cases);
    return suite;
}
