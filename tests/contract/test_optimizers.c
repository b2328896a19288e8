/* Every line of optimizers.def, none by name: declared in full, the same bits however the work is
 * cut and placed, nothing written beside what is its own. Whole sessions are held by test_updates.c
 * and test_update_numbers.c, what the numbers are exactly by test_golden.c. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/testing.h"
#include "tests/lib/trials.h"

/* --- declarations --- */

static void check_hyper(const struct optimizer *rule, size_t index)
{
    const struct hyper *hyper = &rule->hypers[index];
    bool number = hyper->kind == HYPER_NUMBER || hyper->kind == HYPER_WHOLE;
    char why[160];

    ck_assert(hyper->name[0] && hyper->meaning[0] && hyper->unit != NULL);
    ck_assert_msg(optimizer_hyper(rule, hyper->name) == index, "%s twice", hyper->name);
    ck_assert_msg(hyper_allows(hyper, hyper->initial, why, sizeof why), "%s", why);
    ck_assert_msg(number || !hyper->nullable, "%s is no number and may be null", hyper->name);
    ck_assert_int_ne(hyper->kind, HYPER_STEPS);
    if (number)
        ck_assert_msg(hyper->min < hyper->max, "%s: %g to %g", hyper->name, hyper->min, hyper->max);
    if (hyper->kind == HYPER_WHOLE) {
        ck_assert(hyper->min == floor(hyper->min) && hyper->max == floor(hyper->max));
        ck_assert_msg(hyper->unit[0], "%s counts what?", hyper->name);
    }
    if (hyper->kind == HYPER_FLAG)
        ck_assert(hyper->initial == 0 || hyper->initial == 1);
    if (hyper->kind == HYPER_CHOICE) {
        size_t count = 0;
        while (hyper->choices[count] != NULL)
            ck_assert(hyper->choices[count++][0] != '\0');
        ck_assert_uint_gt(count, 1);
        ck_assert(hyper->initial >= 0 && hyper->initial < (double)count);
        ck_assert(hyper->initial == floor(hyper->initial));
    }
}

static void check_state(const struct optimizer *rule)
{
    for (size_t k = 0; k < rule->slot_count; k++) {
        const struct slot *slot = &rule->slots[k];
        ck_assert(slot->name[0] && slot->meaning[0]);
        ck_assert_msg((slot->extent != NULL) == (slot->per != NULL),
                      "%s %s: an extent without words, or words without", rule->name, slot->name);
        ck_assert_uint_lt(slot->initial, rule->hyper_count);
        ck_assert(slot->initial == 0 || rule->hypers[slot->initial].kind == HYPER_NUMBER);
        ck_assert(!slot->starts_as_weights || (slot->initial == 0 && slot->extent == NULL));
        for (size_t i = 0; i < k; i++)
            ck_assert_str_ne(slot->name, rule->slots[i].name);
    }
    for (size_t k = 0; k < rule->scalar_count; k++)
        ck_assert(rule->scalars[k].name[0] && rule->scalars[k].meaning[0] &&
                  isfinite(rule->scalars[k].initial));
    ck_assert_msg(rule->begin != NULL || rule->scalar_count == 0, "%s never changes its scalars",
                  rule->name);
}

static void check_twins(const struct optimizer *rule, const struct optimizer *twin)
{
    ck_assert_ptr_ne(rule, twin);
    ck_assert_str_eq(rule->name, twin->name);
    ck_assert_str_eq(rule->formula, twin->formula);
    ck_assert_uint_eq(rule->hyper_count, twin->hyper_count);
    ck_assert_uint_eq(rule->slot_count, twin->slot_count);
    ck_assert_uint_eq(rule->scalar_count, twin->scalar_count);
    for (size_t i = 0; i < rule->hyper_count; i++) {
        const struct hyper *one = &rule->hypers[i], *other = &twin->hypers[i];
        ck_assert_str_eq(one->name, other->name);
        ck_assert(one->initial == other->initial || (isnan(one->initial) && isnan(other->initial)));
        ck_assert(one->min == other->min && one->max == other->max);
    }
    for (size_t k = 0; k < rule->slot_count; k++)
        ck_assert_str_eq(rule->slots[k].name, twin->slots[k].name);
}

START_TEST(every_rule_declares_itself)
{
    const struct optimizer *rule = trials_rule(_i);
    bool whole = rule->update_tensor != NULL;

    ck_assert_ptr_eq(optimizer_find(rule->name, rule->dtype), rule);
    ck_assert_int_eq(rule->dtype, _i % 2 == 0 ? DTYPE_F32 : DTYPE_F64);
    ck_assert(rule->name[0] && rule->summary[0] && rule->formula[0] && rule->source[0]);
    ck_assert_uint_le(rule->hyper_count, HYPERS_MAX);
    ck_assert_uint_le(rule->slot_count, SLOTS_MAX);
    ck_assert_uint_le(rule->scalar_count, SCALARS_MAX);
    ck_assert_str_eq(rule->hypers[HYPER_LR].name, "lr");
    ck_assert_str_eq(rule->hypers[HYPER_WEIGHT_DECAY].name, "weight_decay");
    ck_assert_str_eq(rule->hypers[HYPER_WEIGHT_DECAY_MODE].name, "weight_decay_mode");
    for (size_t i = 0; i < rule->hyper_count; i++)
        check_hyper(rule, i);
    check_state(rule);
    ck_assert_msg((rule->update == NULL) == whole, "%s has not one way to update", rule->name);
    ck_assert_str_eq(optimizer_grain(rule), whole ? "tensor" : "element");
    ck_assert((rule->propose == NULL) == (rule->proposal_extent == NULL));
    ck_assert(whole || (rule->propose == NULL && rule->workspace == NULL));
    for (size_t k = 0; k < rule->slot_count; k++)
        ck_assert(whole || rule->slots[k].extent == NULL);
    check_twins(rule, trials_rule(_i ^ 1));
}
END_TEST

START_TEST(forms_take_every_hyperparameter_through_its_values)
{
    const struct optimizer *rule = trials_rule(_i);
    char why[160];

    for (size_t i = 0; i < rule->hyper_count; i++)
        for (size_t k = 0; k < rule_values(rule, i); k++) {
            double value = rule_value(rule, i, k), hyper[HYPERS_MAX];
            size_t seen = 0;
            ck_assert_msg(hyper_allows(&rule->hypers[i], value, why, sizeof why), "%s", why);
            for (size_t form = 0; form < rule_forms(rule); form++) {
                rule_form(rule, form, hyper);
                seen += hyper[i] == value || (isnan(hyper[i]) && isnan(value));
                ck_assert(rule->bases == NULL || rule->bases(hyper) <= BASES_MAX);
            }
            ck_assert_msg(seen > 0, "%s: no form has %s %g", rule->name, rule->hypers[i].name,
                          value);
        }
}
END_TEST

static void refused(const struct hyper *hyper, double value)
{
    char why[160] = "";

    ck_assert_msg(!hyper_allows(hyper, value, why, sizeof why), "%s allows %g", hyper->name, value);
    ck_assert_msg(strstr(why, hyper->name) == why, "%s", why);
}

START_TEST(numbers_outside_their_range_are_refused_with_a_sentence)
{
    const struct optimizer *rule = trials_rule(_i);
    char why[160];

    for (size_t i = 0; i < rule->hyper_count; i++) {
        const struct hyper *hyper = &rule->hypers[i];
        if (hyper->kind != HYPER_NUMBER && hyper->kind != HYPER_WHOLE)
            continue;
        if (hyper->nullable)
            ck_assert(hyper_allows(hyper, (double)NAN, why, sizeof why));
        else
            refused(hyper, (double)NAN);
        refused(hyper, HUGE_VAL);
        refused(hyper, -HUGE_VAL);
        refused(hyper, hyper->min - 1);
        refused(hyper, hyper->max + fabs(hyper->max) + 1);
        if (hyper->kind == HYPER_WHOLE)
            refused(hyper, hyper->min + 0.5);
        ck_assert(hyper_allows(hyper, hyper->min, why, sizeof why) == !hyper->min_open);
        ck_assert(hyper_allows(hyper, hyper->max, why, sizeof why) == !hyper->max_open);
    }
}
END_TEST

START_TEST(values_are_read_from_words)
{
    const struct optimizer *rule = trials_rule(_i);
    double value;

    for (size_t i = 0; i < rule->hyper_count; i++) {
        const struct hyper *hyper = &rule->hypers[i];
        ck_assert(!hyper_parse(hyper, "", &value));
        ck_assert(!hyper_parse(hyper, "1x", &value));
        ck_assert_msg(hyper_parse(hyper, "null", &value) == hyper->nullable, "%s %s", rule->name,
                      hyper->name);
        ck_assert(!hyper->nullable || isnan(value));
        ck_assert(hyper_parse(hyper, "true", &value) == (hyper->kind == HYPER_FLAG));
        for (size_t k = 0; hyper->kind == HYPER_CHOICE && hyper->choices[k] != NULL; k++)
            ck_assert(hyper_parse(hyper, hyper->choices[k], &value) && value == (double)k);
    }
}
END_TEST

START_TEST(an_unknown_rule_is_not_found)
{
    ck_assert_ptr_null(optimizer_find("", DTYPE_F32));
    ck_assert_ptr_null(optimizer_find("no such rule", DTYPE_F64));
    ck_assert_ptr_null(optimizer_at((size_t)trials_loops() / 2, DTYPE_F32));
    ck_assert_int_gt(trials_loops(), 0);
}
END_TEST

/* --- one step after another --- */

/* A step by the rule alone, in pieces of lengths drawn up to `cut`. */
static void step_in_pieces(struct trial *trial, size_t cut)
{
    static const struct conditioning nothing = {
        .rescale = 1, .clip_value = HUGE_VAL, .clip_scale = 1};
    const struct optimizer *rule = trial->rule;
    uint64_t step = ++trial->advance.update, state = testing_seed() ^ step;

    if (step == 1)
        trial_start(trial);
    if (rule->begin != NULL)
        rule->begin(trial->hyper, step, trial->scalar);
    for (size_t start = 0, count; start < trial->count; start += count) {
        size_t offset = start * trial->element;
        void *slot[SLOTS_MAX] = {NULL};
        count = 1 + (size_t)(testing_random(&state) % cut);
        if (count > trial->count - start)
            count = trial->count - start;
        for (size_t k = 0; k < rule->slot_count; k++)
            if (trial->vector[TRIAL_SLOT + k].data != NULL)
                slot[k] = trial->vector[TRIAL_SLOT + k].data + offset;
        rule->update(&(struct piece){.count = count,
                                     .start = start,
                                     .step = step,
                                     .hyper = trial->hyper,
                                     .scalar = trial->scalar,
                                     .seed = trial->advance.seed,
                                     .conditioning = &nothing,
                                     .grad = trial->vector[TRIAL_GRADIENT].data + offset,
                                     .param = trial->vector[TRIAL_PARAM].data + offset,
                                     .last = trial->vector[TRIAL_PARAM].data + offset,
                                     .next_param = trial->vector[TRIAL_NEXT].data + offset,
                                     .slot = slot});
    }
    memcpy(trial->vector[TRIAL_PARAM].data, trial->vector[TRIAL_NEXT].data,
           trial->vector[TRIAL_PARAM].size);
}

/* The pipeline cuts into blocks of its own and knows the tensors; with nothing for it to do (no
 * decay but the rule's own, no clipping) it is the rule, to the bit. */
START_TEST(however_it_is_cut_the_bits_are_the_pipelines)
{
    static const size_t cuts[] = {1, 5, 64, 1000, WHOLE_BLOCK};
    const struct optimizer *rule = trials_rule(_i);

    for (size_t form = 0; rule->update != NULL && form < rule_forms(rule); form++) {
        size_t cut = cuts[form % 5];
        const char *model = cut < 64 ? "a[31,33] b[] c[0,3] d[7]" : "a[131,151] b[] c[0,3] d[7]";
        struct trial piped, pieces;
        struct spec spec;
        rule_spec(&spec, rule, form);
        if (!rule->decays || spec.hyper[HYPER_WEIGHT_DECAY_MODE] != DECAY_L2)
            spec.hyper[HYPER_WEIGHT_DECAY] = 0;
        trials_open(&piped, &spec, model, 0);
        trials_open(&pieces, &spec, model, 0);
        for (int step = 0; step < 3; step++) {
            trials_inputs(&piped);
            trials_inputs(&pieces);
            trial_step(&piped);
            step_in_pieces(&pieces, cut);
        }
        trials_same(&piped, &pieces, "cut");
        trial_close(&piped);
        trial_close(&pieces);
    }
}
END_TEST

START_TEST(alignment_changes_no_bit_and_nothing_outside_is_written)
{
    static const char *const models[] = {"s[]", "v[7]", "m[31,33] v[8] e[0] k[2,3,5]",
                                         "m[151,131] s[1]"};
    const struct optimizer *rule = trials_rule(_i);

    for (size_t form = 0; form < rule_forms(rule); form++) {
        const char *model = models[form % 4];
        struct trial aligned, shifted;
        struct spec spec;
        rule_spec(&spec, rule, form);
        spec.ema.on = true;
        trials_open(&aligned, &spec, model, 0);
        trials_open(&shifted, &spec, model, 1 + form % 15);
        for (int step = 0; step < 2; step++) {
            trials_inputs(&aligned);
            trials_inputs(&shifted);
            /* A number that is not written keeps what was there, and what was differs. */
            memset(aligned.vector[TRIAL_NEXT].data, 0x00, aligned.vector[TRIAL_NEXT].size);
            memset(shifted.vector[TRIAL_NEXT].data, 0xFF, shifted.vector[TRIAL_NEXT].size);
            memset(aligned.vector[TRIAL_WORKSPACE].data, 0x00, aligned.plan->workspace);
            memset(shifted.vector[TRIAL_WORKSPACE].data, 0xFF, shifted.plan->workspace);
            trial_step(&aligned);
            trial_step(&shifted);
        }
        trials_same(&aligned, &shifted, "alignment");
        ck_assert_uint_eq(trial_breaches(&aligned) + trial_breaches(&shifted), 0);
        trial_close(&aligned);
        trial_close(&shifted);
    }
}
END_TEST

START_TEST(what_a_step_is_given_it_only_reads)
{
    static const size_t read[] = {TRIAL_GRADIENT, TRIAL_NEXT /* the weights before */, TRIAL_BASE,
                                  TRIAL_PROPOSAL, TRIAL_NEXT_AVERAGE /* likewise */};
    static const char model[] = "m[31,33] v[8] k[2,3,5]";
    const struct optimizer *rule = trials_rule(_i);

    for (size_t form = 0; form < rule_forms(rule); form++) {
        struct trial used, fresh;
        struct spec spec;
        rule_spec(&spec, rule, form);
        spec.ema.on = true;
        trials_open(&used, &spec, model, 3);
        trials_open(&fresh, &spec, model, 3);
        trials_inputs(&used);
        trials_inputs(&fresh);
        trial_fill(&used, TRIAL_BASE, testing_seed() + 7, 2);
        trial_fill(&fresh, TRIAL_BASE, testing_seed() + 7, 2);
        used.advance.base = used.vector[TRIAL_BASE].data;
        trial_step(&used);
        for (size_t i = 0; i < sizeof read / sizeof *read; i++) {
            size_t was = read[i] == TRIAL_NEXT           ? TRIAL_PARAM
                         : read[i] == TRIAL_NEXT_AVERAGE ? TRIAL_AVERAGE
                                                         : read[i];
            ck_assert(memcmp(used.vector[read[i]].data, fresh.vector[was].data,
                             used.vector[read[i]].size) == 0);
        }
        ck_assert(memcmp(used.hyper, spec.hyper, sizeof used.hyper) == 0);
        trial_close(&used);
        trial_close(&fresh);
    }
}
END_TEST

Suite *suite_optimizers(void);
Suite *suite_optimizers(void)
{
    Suite *suite = suite_create("optimizers");
    TCase *cases = tcase_create("every rule");
    int count = trials_loops();

    tcase_set_timeout(cases, 120);
    tcase_add_test(cases, an_unknown_rule_is_not_found);
    tcase_add_loop_test(cases, every_rule_declares_itself, 0, count);
    tcase_add_loop_test(cases, forms_take_every_hyperparameter_through_its_values, 0, count);
    tcase_add_loop_test(cases, numbers_outside_their_range_are_refused_with_a_sentence, 0, count);
    tcase_add_loop_test(cases, values_are_read_from_words, 0, count);
    tcase_add_loop_test(cases, however_it_is_cut_the_bits_are_the_pipelines, 0, count);
    tcase_add_loop_test(cases, alignment_changes_no_bit_and_nothing_outside_is_written, 0, count);
    tcase_add_loop_test(cases, what_a_step_is_given_it_only_reads, 0, count);
    suite_add_tcase(suite, cases);
    return suite;
}
