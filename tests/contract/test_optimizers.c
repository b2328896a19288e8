/* Every line of optimizers.def, none by name: declared in full, the same bits however the work is
 * cut, placed or interrupted. What the numbers are is held by test_golden.c. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "service/session/advance.h"
#include "tests/lib/rules.h"
#include "tests/lib/testing.h"

enum { MARGIN = 64, CANARY = 0xA5, BUFFERS = 3 + SLOTS_MAX };
enum { GRAD, PARAM, NEXT, SLOT }; /* the buffers of a work */

static const size_t sizes[] = {1, 7, 1031, 100003};

/* One session's vectors, each between canaries and at its own distance from alignment. */
struct work {
    const struct optimizer *rule;
    const double *hyper;
    size_t count, size; /* elements, bytes */
    unsigned char *memory[BUFFERS];
    unsigned char *vector[BUFFERS]; /* NULL: a slot that is not needed */
};

static const struct optimizer *rule_at(int loop)
{
    return optimizer_at((size_t)loop / 2, loop % 2 == 0 ? DTYPE_F32 : DTYPE_F64);
}

static int loops(void)
{
    int count = 0;

    while (rule_at(count) != NULL)
        count++;
    return count;
}

static void work_init(struct work *work, const struct optimizer *rule, const double *hyper,
                      size_t count, size_t shift)
{
    size_t element = dtype_size(rule->dtype);

    *work = (struct work){.rule = rule, .hyper = hyper, .count = count, .size = count * element};
    for (size_t i = 0; i < SLOT + rule->slot_count; i++) {
        if (i >= SLOT && !slot_needed(&rule->slots[i - SLOT], hyper))
            continue;
        size_t before = MARGIN + (shift * (i + 1) % 16) * element;
        size_t whole = (before + work->size + MARGIN + 63) / 64 * 64;
        ck_assert_ptr_nonnull(work->memory[i] = aligned_alloc(64, whole));
        memset(work->memory[i], CANARY, whole);
        work->vector[i] = work->memory[i] + before;
        if (i >= SLOT)
            memset(work->vector[i], 0, work->size);
    }
}

static void work_close(struct work *work)
{
    for (size_t i = 0; i < BUFFERS; i++)
        free(work->memory[i]);
}

/* Fills a vector with numbers of both signs, the same for the same seed whatever the dtype. */
static void fill(const struct work *work, unsigned char *vector, uint64_t seed, double scale)
{
    double *values = malloc(work->count * sizeof *values);
    uint64_t state = seed;

    ck_assert_ptr_nonnull(values);
    for (size_t i = 0; i < work->count; i++)
        values[i] = scale * 4 * (testing_uniform(&state) - 0.5);
    dtype_convert(work->rule->dtype, vector, DTYPE_F64, values, work->count);
    free(values);
}

static void work_piece(const struct work *work, uint64_t step, size_t start, size_t count)
{
    size_t offset = start * dtype_size(work->rule->dtype);
    void *slot[SLOTS_MAX] = {NULL};

    for (size_t k = 0; k < work->rule->slot_count; k++)
        if (work->vector[SLOT + k] != NULL)
            slot[k] = work->vector[SLOT + k] + offset;
    work->rule->update(&(struct piece){.count = count,
                                       .step = step,
                                       .hyper = work->hyper,
                                       .grad = work->vector[GRAD] + offset,
                                       .param = work->vector[PARAM] + offset,
                                       .next_param = work->vector[NEXT] + offset,
                                       .slot = slot});
}

/* Step `step`: its gradient from the seed, in pieces of at most `cut` (0: whole; else lengths drawn
 * up to it), and the weights moved on. */
static void work_step(struct work *work, uint64_t seed, uint64_t step, size_t cut)
{
    uint64_t state = seed ^ 0xC07;

    fill(work, work->vector[GRAD], seed + step, 0.1);
    for (size_t start = 0, count; start < work->count; start += count) {
        count = cut == 0 ? work->count : 1 + (size_t)(testing_random(&state) % cut);
        if (count > work->count - start)
            count = work->count - start;
        work_piece(work, step, start, count);
    }
    memcpy(work->vector[PARAM], work->vector[NEXT], work->size);
}

static void same_vectors(const struct work *one, const struct work *other, const char *what)
{
    for (size_t i = NEXT; i < BUFFERS; i++)
        if (one->vector[i] != NULL)
            ck_assert_msg(memcmp(one->vector[i], other->vector[i], one->size) == 0,
                          "%s %s: %s differs at %zu elements", one->rule->name,
                          dtype_name(one->rule->dtype), what, one->count);
}

static void canaries_live(const struct work *work)
{
    for (size_t i = 0; i < BUFFERS; i++) {
        if (work->vector[i] == NULL)
            continue;
        size_t dead = 0;
        for (const unsigned char *at = work->memory[i]; at < work->vector[i]; at++)
            dead += *at != CANARY;
        for (size_t k = 0; k < MARGIN; k++)
            dead += work->vector[i][work->size + k] != CANARY;
        ck_assert_uint_eq(dead, 0);
    }
}

START_TEST(every_rule_declares_itself)
{
    const struct optimizer *rule = rule_at(_i), *twin = rule_at(_i ^ 1);
    char why[160];

    ck_assert_ptr_eq(optimizer_find(rule->name, rule->dtype), rule);
    ck_assert_int_eq(rule->dtype, _i % 2 == 0 ? DTYPE_F32 : DTYPE_F64);
    ck_assert(rule->name[0] && rule->summary[0] && rule->formula[0] && rule->source[0]);
    ck_assert_uint_le(rule->hyper_count, HYPERS_MAX);
    ck_assert_uint_le(rule->slot_count, SLOTS_MAX);
    ck_assert_str_eq(rule->hypers[HYPER_LR].name, "lr");
    ck_assert_str_eq(rule->hypers[HYPER_WEIGHT_DECAY].name, "weight_decay");
    ck_assert_str_eq(rule->hypers[HYPER_WEIGHT_DECAY_MODE].name, "weight_decay_mode");
    for (size_t i = 0; i < rule->hyper_count; i++) {
        const struct hyper *hyper = &rule->hypers[i];
        ck_assert(hyper->name[0] && hyper->meaning[0] && hyper->unit != NULL);
        ck_assert_msg(optimizer_hyper(rule, hyper->name) == i, "%s twice", hyper->name);
        ck_assert_msg(hyper_allows(hyper, hyper->initial, why, sizeof why), "%s", why);
        if (hyper->kind == HYPER_FLAG)
            ck_assert(hyper->initial == 0 || hyper->initial == 1);
        if (hyper->kind == HYPER_CHOICE) {
            size_t count = 0;
            while (hyper->choices[count] != NULL)
                ck_assert(hyper->choices[count++][0] != '\0');
            ck_assert_uint_gt(count, 1);
            ck_assert(hyper->initial >= 0 && hyper->initial < (double)count);
            ck_assert(hyper->initial == (double)(size_t)hyper->initial);
        }
    }
    for (size_t k = 0; k < rule->slot_count; k++)
        ck_assert(rule->slots[k].name[0] && rule->slots[k].meaning[0]);
    ck_assert_str_eq(rule->name, twin->name);
    ck_assert_ptr_ne(rule, twin);
    ck_assert_uint_eq(rule->hyper_count, twin->hyper_count);
    ck_assert_uint_eq(rule->slot_count, twin->slot_count);
}
END_TEST

START_TEST(numbers_outside_their_range_are_refused_with_a_sentence)
{
    const struct optimizer *rule = rule_at(_i);

    for (size_t i = 0; i < rule->hyper_count; i++) {
        const struct hyper *hyper = &rule->hypers[i];
        const double bad[] = {(double)NAN, HUGE_VAL, -HUGE_VAL, hyper->min - 1, hyper->max * 2 + 1};
        char why[160];
        if (hyper->kind != HYPER_NUMBER)
            continue;
        for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
            why[0] = '\0';
            ck_assert_msg(!hyper_allows(hyper, bad[k], why, sizeof why), "%s %s allows %g",
                          rule->name, hyper->name, bad[k]);
            ck_assert_msg(strstr(why, hyper->name) == why, "%s", why);
        }
        ck_assert(hyper_allows(hyper, hyper->min, why, sizeof why));
        ck_assert(hyper_allows(hyper, hyper->max, why, sizeof why) == !hyper->max_open);
    }
}
END_TEST

START_TEST(any_cut_gives_the_same_bits)
{
    const struct optimizer *rule = rule_at(_i);
    static const size_t cuts[] = {1, 5, 64, 1000, 40000};
    double hyper[HYPERS_MAX];

    for (size_t form = 0; form < rule_forms(rule); form++) {
        size_t cut = cuts[form % 5], count = cut < 64 ? 1031 : 100003;
        struct work whole, pieces;
        rule_form(rule, form, hyper);
        work_init(&whole, rule, hyper, count, 0);
        work_init(&pieces, rule, hyper, count, 0);
        fill(&whole, whole.vector[PARAM], testing_seed(), 1);
        fill(&pieces, pieces.vector[PARAM], testing_seed(), 1);
        for (uint64_t step = 1; step <= 3; step++) {
            work_step(&whole, testing_seed(), step, 0);
            work_step(&pieces, testing_seed(), step, cut);
        }
        same_vectors(&whole, &pieces, "cut");
        work_close(&whole);
        work_close(&pieces);
    }
}
END_TEST

START_TEST(alignment_changes_no_bit_and_nothing_outside_is_written)
{
    const struct optimizer *rule = rule_at(_i);
    double hyper[HYPERS_MAX];

    for (size_t form = 0; form < rule_forms(rule); form++)
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
            struct work aligned, shifted;
            rule_form(rule, form, hyper);
            work_init(&aligned, rule, hyper, sizes[k], 0);
            work_init(&shifted, rule, hyper, sizes[k], 1 + form % 15);
            fill(&aligned, aligned.vector[PARAM], testing_seed(), 1);
            fill(&shifted, shifted.vector[PARAM], testing_seed(), 1);
            for (uint64_t step = 1; step <= 2; step++) {
                /* An element that is not written keeps what was there: it differs between the two.
                 */
                memset(aligned.vector[NEXT], 0x00, aligned.size);
                memset(shifted.vector[NEXT], 0xFF, shifted.size);
                work_step(&aligned, testing_seed(), step, 0);
                work_step(&shifted, testing_seed(), step, 0);
            }
            same_vectors(&aligned, &shifted, "alignment");
            canaries_live(&aligned);
            canaries_live(&shifted);
            work_close(&aligned);
            work_close(&shifted);
        }
}
END_TEST

START_TEST(gradient_and_weights_are_only_read)
{
    const struct optimizer *rule = rule_at(_i);
    double hyper[HYPERS_MAX];

    for (size_t form = 0; form < rule_forms(rule); form++) {
        struct work work, copy;
        rule_form(rule, form, hyper);
        work_init(&work, rule, hyper, 1031, 3);
        work_init(&copy, rule, hyper, 1031, 3);
        for (size_t i = GRAD; i <= PARAM; i++) {
            fill(&work, work.vector[i], testing_seed() + i, 1);
            memcpy(copy.vector[i], work.vector[i], work.size);
        }
        work_piece(&work, 2, 0, work.count);
        for (size_t i = GRAD; i <= PARAM; i++)
            ck_assert(memcmp(copy.vector[i], work.vector[i], work.size) == 0);
        work_close(&work);
        work_close(&copy);
    }
}
END_TEST

/* Only from state zero: a velocity that has the rate in it goes on moving, and should. */
START_TEST(zero_lr_from_zero_state_is_the_identity)
{
    const struct optimizer *rule = rule_at(_i);
    double hyper[HYPERS_MAX];

    for (size_t form = 0; form < rule_forms(rule); form++) {
        struct work work;
        rule_form(rule, form, hyper);
        hyper[HYPER_LR] = 0;
        work_init(&work, rule, hyper, 1031, 0);
        unsigned char *start = malloc(work.size);
        ck_assert_ptr_nonnull(start);
        fill(&work, work.vector[PARAM], testing_seed(), 1);
        memcpy(start, work.vector[PARAM], work.size);
        for (uint64_t step = 1; step <= 5; step++) {
            work_step(&work, testing_seed(), step, 0);
            ck_assert_msg(memcmp(start, work.vector[NEXT], work.size) == 0,
                          "%s form %zu moves at step %u", rule->name, form, (unsigned)step);
        }
        free(start);
        work_close(&work);
    }
}
END_TEST

START_TEST(a_gradient_moves_the_weights)
{
    const struct optimizer *rule = rule_at(_i);
    double hyper[HYPERS_MAX];

    for (size_t form = 0; form < rule_forms(rule); form++) {
        struct work work;
        rule_form(rule, form, hyper);
        work_init(&work, rule, hyper, 7, 0);
        fill(&work, work.vector[PARAM], testing_seed(), 1);
        fill(&work, work.vector[GRAD], testing_seed() + 1, 1);
        work_piece(&work, 1, 0, work.count);
        size_t element = dtype_size(rule->dtype);
        for (size_t i = 0; i < work.count; i++)
            ck_assert(memcmp(work.vector[PARAM] + i * element, work.vector[NEXT] + i * element,
                             element) != 0);
        work_close(&work);
    }
}
END_TEST

/* Another session of the same rule steps in between: nothing may live outside the slots. */
START_TEST(saved_slots_continue_to_the_same_bits)
{
    const struct optimizer *rule = rule_at(_i);
    double hyper[HYPERS_MAX];

    for (size_t form = 0; form < rule_forms(rule); form++) {
        struct work straight, resumed, other;
        rule_form(rule, form, hyper);
        work_init(&straight, rule, hyper, 1031, 0);
        work_init(&resumed, rule, hyper, 1031, 5);
        work_init(&other, rule, hyper, 77, 0);
        fill(&straight, straight.vector[PARAM], testing_seed(), 1);
        fill(&other, other.vector[PARAM], testing_seed() + 9, 1);
        for (uint64_t step = 1; step <= 5; step++)
            work_step(&straight, testing_seed(), step, 0);
        for (size_t i = PARAM; i < BUFFERS; i++)
            if (straight.vector[i] != NULL)
                memcpy(resumed.vector[i], straight.vector[i], straight.size);
        for (uint64_t step = 6; step <= 10; step++) {
            work_step(&straight, testing_seed(), step, 0);
            work_step(&other, testing_seed() + 1, step - 5, 0);
        }
        for (uint64_t step = 6; step <= 10; step++)
            work_step(&resumed, testing_seed(), step, 0);
        same_vectors(&straight, &resumed, "resumed run");
        work_close(&straight);
        work_close(&resumed);
        work_close(&other);
    }
}
END_TEST

/* The pipeline cuts the vector into blocks of its own; with nothing for it to do (no decay, no
 * clipping) it is the rule, to the bit. */
START_TEST(the_pipeline_with_nothing_to_do_is_the_rule)
{
    const struct optimizer *rule = rule_at(_i);
    double hyper[HYPERS_MAX];

    for (size_t form = 0; form < rule_forms(rule); form++) {
        struct work direct, piped;
        rule_form(rule, form, hyper);
        if (hyper[HYPER_WEIGHT_DECAY] != 0)
            continue;
        work_init(&direct, rule, hyper, 100003, 0);
        work_init(&piped, rule, hyper, 100003, 7);
        for (size_t i = GRAD; i <= PARAM; i++) {
            fill(&direct, direct.vector[i], testing_seed() + i, 1);
            memcpy(piped.vector[i], direct.vector[i], direct.size);
        }
        work_piece(&direct, 1, 0, direct.count);
        struct advance advance = {
            .rule = rule,
            .hyper = hyper,
            .update = 1,
            .gradient = {piped.vector[GRAD], rule->dtype, piped.count},
            .rescale = 1,
            .clip_value = HUGE_VAL,
            .clip_scale = 1,
            .param = piped.vector[PARAM],
            .next_param = piped.vector[NEXT],
        };
        for (size_t k = 0; k < rule->slot_count; k++)
            advance.slot[k] = piped.vector[SLOT + k];
        advances(rule->dtype)->run(&advance);
        same_vectors(&direct, &piped, "pipeline");
        canaries_live(&piped);
        work_close(&direct);
        work_close(&piped);
    }
}
END_TEST

START_TEST(an_unknown_rule_is_not_found)
{
    ck_assert_ptr_null(optimizer_find("", DTYPE_F32));
    ck_assert_ptr_null(optimizer_find("no such rule", DTYPE_F64));
    ck_assert_ptr_null(optimizer_at((size_t)loops() / 2, DTYPE_F32));
    ck_assert_int_gt(loops(), 0);
}
END_TEST

Suite *suite_optimizers(void);
Suite *suite_optimizers(void)
{
    Suite *suite = suite_create("optimizers");
    TCase *cases = tcase_create("every rule");
    int count = loops();

    tcase_set_timeout(cases, 120);
    tcase_add_test(cases, an_unknown_rule_is_not_found);
    tcase_add_loop_test(cases, every_rule_declares_itself, 0, count);
    tcase_add_loop_test(cases, numbers_outside_their_range_are_refused_with_a_sentence, 0, count);
    tcase_add_loop_test(cases, any_cut_gives_the_same_bits, 0, count);
    tcase_add_loop_test(cases, alignment_changes_no_bit_and_nothing_outside_is_written, 0, count);
    tcase_add_loop_test(cases, gradient_and_weights_are_only_read, 0, count);
    tcase_add_loop_test(cases, zero_lr_from_zero_state_is_the_identity, 0, count);
    tcase_add_loop_test(cases, a_gradient_moves_the_weights, 0, count);
    tcase_add_loop_test(cases, saved_slots_continue_to_the_same_bits, 0, count);
    tcase_add_loop_test(cases, the_pipeline_with_nothing_to_do_is_the_rule, 0, count);
    suite_add_tcase(suite, cases);
    return suite;
}
