/* Measuring a gradient and the norms of a step, against plain long double arithmetic; and what is
 * not finite, at every edge of a block. */
#include <check.h>
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/crew.h"
#include "service/session/advance.h"
#include "tests/lib/testing.h"

enum { BLOCK = 8192, LARGE = 100003 }; /* BLOCK: WHOLE_BLOCK, whose edges are aimed at */

static const enum dtype wires[] = {DTYPE_F64, DTYPE_F32, DTYPE_F16, DTYPE_BF16};
static const enum dtype sessions[] = {DTYPE_F64, DTYPE_F32};
static const size_t sizes[] = {1, 7, 1031, BLOCK - 1, BLOCK, BLOCK + 1, LARGE};

#define EACH(item, array)                                                                          \
    for (size_t item##_ = 0, item##_more = 1; item##_ < sizeof(array) / sizeof *(array);           \
         item##_++, item##_more = 1)                                                               \
        for (__typeof__(*(array)) item = (array)[item##_]; item##_more == 1; item##_more = 0)

static double values[LARGE];
static _Alignas(64) unsigned char wire_bytes[LARGE * sizeof(double)];
static _Alignas(64) unsigned char copy_bytes[LARGE * sizeof(double)];

static void setup(void)
{
    uint64_t state = testing_seed();

    for (size_t i = 0; i < LARGE; i++)
        values[i] = testing_normal(&state) * pow(2, -(double)(testing_random(&state) % 10));
}

static struct wire_gradient on_wire(enum dtype wire, size_t count)
{
    dtype_convert(wire, wire_bytes, DTYPE_F64, values, count);
    return dense_gradient(wire_bytes, wire, count);
}

/* The norm of rescale * g as the wire carries g, elements bounded. */
static double plain_norm(const struct wire_gradient *gradient, double rescale, double bound)
{
    static double read[LARGE];
    long double sum = 0;

    dtype_convert(DTYPE_F64, read, gradient->wire, gradient->data, gradient->count);
    for (size_t i = 0; i < gradient->count; i++) {
        long double size = fabsl((long double)rescale * (long double)read[i]);
        if (size > (long double)bound)
            size = (long double)bound;
        sum += size * size;
    }
    return (double)sqrtl(sum);
}

static void close_to(double got, double expected, double relative)
{
    if (!(got == expected || fabs(got - expected) <= relative * expected))
        ck_abort_msg("%.17g is not within %g of %.17g", got, relative, expected);
}

START_TEST(norms_are_the_plain_sums)
{
    EACH(wire, wires)
    EACH(session, sessions)
    EACH(count, sizes)
    {
        struct wire_gradient gradient = on_wire(wire, count);
        struct measure measure = {.rescale = -0.7, .clip_value = 0.25, .norm_clipped = true};
        /* An f64 gradient is rounded to the session's f32 first; the clipped one is f32 work. */
        double fine = wire == DTYPE_F64 && session == DTYPE_F32 ? 1e-7 : 1e-13;
        advances(session)->measure(&gradient, &measure);
        ck_assert_uint_eq(measure.bad_count, 0);
        close_to(measure.norm, plain_norm(&gradient, -0.7, HUGE_VAL), fine);
        close_to(measure.clipped_norm, plain_norm(&gradient, -0.7, 0.25),
                 session == DTYPE_F32 ? 2e-7 : 1e-13);
        measure.clip_value = HUGE_VAL;
        advances(session)->measure(&gradient, &measure);
        ck_assert(measure.clipped_norm == measure.norm);
    }
}
END_TEST

static const struct {
    double scale, rescale;
} ranges[] = {{1e160, 1},      {1e300, 1},    {1e300, 1e-200}, {1e-20, 1},
              {1e-160, 1},     {1e-200, 3},   {1e-300, 1},     {1e-310, -1},
              {1e-310, 1e200}, {1e250, 1e50}, {1e-200, 1e-50}};

/* Values whose squares a double cannot hold, and subnormal ones. */
START_TEST(norms_of_huge_and_tiny_doubles_hold)
{
    double scale = ranges[_i].scale, rescale = ranges[_i].rescale;
    double bound = fabs(rescale) * scale * 0.25;

    for (size_t i = 0; i < LARGE; i++)
        values[i] *= scale;
    EACH(count, sizes)
    {
        struct wire_gradient gradient = on_wire(DTYPE_F64, count);
        struct measure measure = {.rescale = rescale, .clip_value = bound, .norm_clipped = true};
        double fine = scale < 1e-300 ? 1e-9 : 1e-12; /* a bound that is subnormal is coarse */
        advance_f64.measure(&gradient, &measure);
        ck_assert_uint_eq(measure.bad_count, 0);
        close_to(measure.norm, plain_norm(&gradient, rescale, HUGE_VAL), 1e-12);
        close_to(measure.clipped_norm, plain_norm(&gradient, rescale, bound), fine);
    }
}
END_TEST

START_TEST(a_norm_beyond_all_doubles_is_infinite_not_nan)
{
    for (size_t i = 0; i < LARGE; i++)
        values[i] = DBL_MAX;
    const double rescales[] = {1, 1e10};
    EACH(rescale, rescales)
    {
        struct wire_gradient gradient = on_wire(DTYPE_F64, LARGE);
        struct measure measure = {.rescale = rescale, .clip_value = 2, .norm_clipped = true};
        advance_f64.measure(&gradient, &measure);
        ck_assert_uint_eq(measure.bad_count, 0);
        ck_assert(isinf(measure.norm));
        close_to(measure.clipped_norm, 2 * sqrt((double)LARGE), 1e-12);
    }
}
END_TEST

START_TEST(the_norm_of_zeros_is_zero)
{
    memset(values, 0, sizeof values);
    EACH(session, sessions)
    {
        struct wire_gradient gradient = on_wire(DTYPE_F16, LARGE);
        struct measure measure = {.rescale = 2, .clip_value = 1, .norm_clipped = true};
        advances(session)->measure(&gradient, &measure);
        ck_assert(measure.norm == 0 && measure.clipped_norm == 0 && measure.bad_count == 0);
    }
}
END_TEST

static const double not_finite[] = {(double)NAN, HUGE_VAL, -HUGE_VAL};
static const size_t edges[] = {
    0, 1, 15, 16, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK, LARGE - 2, LARGE - 1};

START_TEST(one_bad_element_is_found_where_it_stands)
{
    EACH(wire, wires)
    EACH(session, sessions)
    EACH(edge, edges)
    EACH(bad, not_finite)
    {
        struct measure measure = {
            .rescale = 1, .clip_value = edge % 2 ? 1 : HUGE_VAL, .norm_clipped = edge % 2};
        double kept = values[edge];
        values[edge] = bad;
        struct wire_gradient gradient = on_wire(wire, LARGE);
        values[edge] = kept;
        advances(session)->measure(&gradient, &measure);
        ck_assert_msg(measure.bad_count == 1 && measure.bad_index == edge,
                      "%s: %zu bad, the first %zu, not %zu", dtype_name(wire), measure.bad_count,
                      measure.bad_index, edge);
    }
}
END_TEST

START_TEST(all_bad_elements_are_counted)
{
    uint64_t state = testing_seed() ^ 1;
    size_t count = 0, first = LARGE;

    for (size_t i = LARGE; i-- > 0;)
        if (testing_random(&state) % 1000 == 0) {
            values[i] = not_finite[i % 3];
            first = i;
            count++;
        }
    EACH(wire, wires)
    EACH(session, sessions)
    {
        struct wire_gradient gradient = on_wire(wire, LARGE);
        struct measure measure = {.rescale = 1, .clip_value = HUGE_VAL};
        advances(session)->measure(&gradient, &measure);
        ck_assert_uint_eq(measure.bad_count, count);
        ck_assert_uint_eq(measure.bad_index, first);
    }
}
END_TEST

START_TEST(a_double_beyond_f32_is_bad_in_an_f32_session_only)
{
    values[BLOCK] = 3.5e38;
    struct wire_gradient gradient = on_wire(DTYPE_F64, LARGE);
    struct measure measure = {.rescale = 1, .clip_value = HUGE_VAL};

    advance_f32.measure(&gradient, &measure);
    ck_assert_uint_eq(measure.bad_count, 1);
    ck_assert_uint_eq(measure.bad_index, BLOCK);
    advance_f64.measure(&gradient, &measure);
    ck_assert_uint_eq(measure.bad_count, 0);
    advance_f64.zero_nonfinite(&gradient);
    ck_assert_double_eq(((const double *)(const void *)wire_bytes)[BLOCK], 3.5e38);
    advance_f32.zero_nonfinite(&gradient);
    ck_assert_double_eq(((const double *)(const void *)wire_bytes)[BLOCK], 0);
}
END_TEST

START_TEST(zeroing_replaces_what_is_bad_and_nothing_else)
{
    for (size_t k = 0; k < sizeof edges / sizeof *edges; k++)
        values[edges[k]] = not_finite[k % 3];
    EACH(wire, wires)
    EACH(session, sessions)
    {
        struct wire_gradient gradient = on_wire(wire, LARGE);
        size_t size = dtype_size(wire), bad = 0;
        memcpy(copy_bytes, wire_bytes, LARGE * size);
        for (size_t k = 0; k < sizeof edges / sizeof *edges; k++, bad++)
            memset(copy_bytes + edges[k] * size, 0, size);
        ck_assert_int_ne(memcmp(copy_bytes, wire_bytes, LARGE * size), 0);
        advances(session)->zero_nonfinite(&gradient);
        ck_assert_int_eq(memcmp(copy_bytes, wire_bytes, LARGE * size), 0);
        struct measure measure = {.rescale = 1, .clip_value = HUGE_VAL};
        advances(session)->measure(&gradient, &measure);
        ck_assert_uint_eq(measure.bad_count, 0);
    }
}
END_TEST

/* sgd over one run of `count` elements. */
static const struct plan *plan_of(enum dtype session, size_t count)
{
    static struct part part;
    static struct plan plan;
    static struct tensor tensor;
    static struct layout layout = {.tensor_count = 1, .tensors = &tensor};

    tensor.count = layout.count = count;
    part = (struct part){
        .count = count, .tensor_count = 1, .lr_mult = 1, .weight_decay_mult = 1, .adapt = true};
    plan = (struct plan){
        .rule = optimizer_find("sgd", session), .layout = &layout, .part_count = 1, .parts = &part};
    ck_assert_ptr_nonnull(plan.rule);
    return &plan;
}

/* One step of sgd with rate 1 from zero weights shows q itself. */
static void take_step(enum dtype session, const struct wire_gradient *gradient, double clip_value,
                      double clip_norm, double *next, struct advance *out)
{
    static _Alignas(64) unsigned char zeros[LARGE * sizeof(double)];
    double hyper[HYPERS_MAX] = {0};
    struct measure measure = {.rescale = 3, .clip_value = clip_value, .norm_clipped = true};

    hyper[HYPER_LR] = 1;
    advances(session)->measure(gradient, &measure);
    *out = (struct advance){.plan = plan_of(session, gradient->count),
                            .hyper = hyper,
                            .update = 1,
                            .gradient = *gradient,
                            .rescale = 3,
                            .clip_value = clip_value,
                            .clip_scale = fmin(1, clip_norm / measure.clipped_norm),
                            .param = zeros,
                            .next_param = copy_bytes};
    advances(session)->run(out);
    dtype_convert(DTYPE_F64, next, session, copy_bytes, gradient->count);
}

START_TEST(both_clips_bound_elements_and_norm)
{
    static double next[LARGE], read[LARGE];
    const double clip_values[] = {0.5, HUGE_VAL}, clip_norms[] = {2, 1e6};

    EACH(session, sessions)
    EACH(count, sizes)
    EACH(clip_value, clip_values)
    EACH(clip_norm, clip_norms)
    {
        struct wire_gradient gradient = on_wire(DTYPE_F32, count);
        struct advance advance;
        double fine = session == DTYPE_F32 ? 3e-7 : 1e-13;
        take_step(session, &gradient, clip_value, clip_norm, next, &advance);
        dtype_convert(DTYPE_F64, read, DTYPE_F32, wire_bytes, count);
        double norm = plain_norm(&gradient, 3, clip_value);
        double scale = norm > clip_norm ? clip_norm / norm : 1;
        for (size_t i = 0; i < count; i++) {
            double c = scale * fmax(-clip_value, fmin(clip_value, 3 * read[i]));
            close_to(fabs(next[i]), fabs(c), fine);
            if (next[i] * c > 0)
                ck_abort_msg("element %zu has the wrong sign", i);
        }
        close_to(advance.param_norm, norm * scale, fine);
        ck_assert(advance.update_norm == advance.param_norm); /* from zero */
    }
}
END_TEST

START_TEST(norms_of_a_step_are_the_plain_sums)
{
    static double last[LARGE], next[LARGE];
    static _Alignas(64) unsigned char param[LARGE * sizeof(double)];
    double hyper[HYPERS_MAX] = {0};

    hyper[HYPER_LR] = 0.125;
    EACH(session, sessions)
    EACH(count, sizes)
    {
        for (size_t i = 0; i < count; i++)
            last[i] = values[LARGE - 1 - i];
        dtype_convert(session, param, DTYPE_F64, last, count);
        struct advance advance = {.plan = plan_of(session, count),
                                  .hyper = hyper,
                                  .update = 1,
                                  .gradient = on_wire(DTYPE_F16, count),
                                  .rescale = 1,
                                  .clip_value = HUGE_VAL,
                                  .clip_scale = 1,
                                  .param = param,
                                  .next_param = copy_bytes};
        long double moved = 0, size = 0;
        advances(session)->run(&advance);
        dtype_convert(DTYPE_F64, last, session, param, count);
        dtype_convert(DTYPE_F64, next, session, copy_bytes, count);
        for (size_t i = 0; i < count; i++) {
            moved += ((long double)next[i] - (long double)last[i]) *
                     ((long double)next[i] - (long double)last[i]);
            size += (long double)next[i] * (long double)next[i];
        }
        close_to(advance.update_norm, (double)sqrtl(moved), session == DTYPE_F32 ? 1e-7 : 1e-13);
        close_to(advance.param_norm, (double)sqrtl(size), 1e-13);
    }
}
END_TEST

/* A vector above 64 Ki elements is cut for the crew; whoever does the parts, the sums are added in
 * order. */
START_TEST(threads_change_no_bit)
{
    static double alone[LARGE], crewed[LARGE];

    EACH(session, sessions)
    {
        struct wire_gradient gradient = on_wire(DTYPE_F32, LARGE);
        struct advance one, other;
        take_step(session, &gradient, 0.5, 2, alone, &one);
        crew_start();
        for (int round = 0; round < 20; round++) {
            take_step(session, &gradient, 0.5, 2, crewed, &other);
            ck_assert_mem_eq(alone, crewed, sizeof alone);
            ck_assert(one.clip_scale == other.clip_scale && one.clip_scale < 1);
            ck_assert(one.update_norm == other.update_norm && one.param_norm == other.param_norm);
        }
        crew_stop();
    }
}
END_TEST

Suite *suite_advance(void);
Suite *suite_advance(void)
{
    Suite *suite = suite_create("advance");
    TCase *cases = tcase_create("measure and norms");

    tcase_set_timeout(cases, 60);
    tcase_add_checked_fixture(cases, setup, NULL);
    tcase_add_test(cases, norms_are_the_plain_sums);
    tcase_add_loop_test(cases, norms_of_huge_and_tiny_doubles_hold, 0,
                        (int)(sizeof ranges / sizeof *ranges));
    tcase_add_test(cases, a_norm_beyond_all_doubles_is_infinite_not_nan);
    tcase_add_test(cases, the_norm_of_zeros_is_zero);
    tcase_add_test(cases, one_bad_element_is_found_where_it_stands);
    tcase_add_test(cases, all_bad_elements_are_counted);
    tcase_add_test(cases, a_double_beyond_f32_is_bad_in_an_f32_session_only);
    tcase_add_test(cases, zeroing_replaces_what_is_bad_and_nothing_else);
    tcase_add_test(cases, both_clips_bound_elements_and_norm);
    tcase_add_test(cases, norms_of_a_step_are_the_plain_sums);
    tcase_add_test(cases, threads_change_no_bit);
    suite_add_tcase(suite, cases);
    return suite;
}
