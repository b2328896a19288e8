/* The angle between one gradient and the next, against plain sums in long double over the sample as
 * it is described; and that the sample lies where it should. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/session/sample.h"
#include "tests/lib/tensors.h"
#include "tests/lib/testing.h"

enum { UNWRITTEN = 77 }; /* what a note holds that nobody has written */

static const enum dtype wires[] = {DTYPE_F32, DTYPE_F64, DTYPE_F16, DTYPE_BF16};

static double *doubles(size_t count)
{
    double *values = calloc(count + 1, sizeof *values);

    ck_assert_ptr_nonnull(values);
    return values;
}

static struct tensor_note *notes_of(const struct layout *layout)
{
    struct tensor_note *notes = malloc((layout->tensor_count + 1) * sizeof *notes);

    ck_assert_ptr_nonnull(notes);
    memset(notes, UNWRITTEN, (layout->tensor_count + 1) * sizeof *notes);
    return notes;
}

static const char sampled[] = "s[] none[0] a[100] full[1024] more[1025] large[100000] pair[2]";

static void turn(struct sample *sample, const struct layout *layout, enum dtype wire,
                 const double *values, struct tensor_note *notes)
{
    void *bytes = doubles(layout->count);
    struct wire_gradient gradient = dense_gradient(bytes, wire, layout->count);

    dtype_convert(wire, bytes, DTYPE_F64, values, layout->count);
    sample_turn(sample, layout, &gradient, notes);
    free(bytes);
}

/* Where the sample lies, in words of its own: 64 runs of 64, the first at the start, the last at
 * the end. */
static size_t plain_position(size_t count, size_t index)
{
    return count <= 1024 ? index : index / 64 * (count - 64) / 15 + index % 64;
}

static double plain_cosine(enum dtype wire, const double *one, const double *other, size_t count)
{
    long double product = 0, squares = 0, others = 0;

    for (size_t i = 0; i < count && i < 1024; i++) {
        size_t at = plain_position(count, i);
        unsigned char bytes[8];
        double a, b;
        dtype_convert(wire, bytes, DTYPE_F64, &one[at], 1);
        dtype_convert(DTYPE_F64, &a, wire, bytes, 1);
        dtype_convert(wire, bytes, DTYPE_F64, &other[at], 1);
        dtype_convert(DTYPE_F64, &b, wire, bytes, 1);
        product += (long double)a * (long double)b;
        squares += (long double)a * (long double)a;
        others += (long double)b * (long double)b;
    }
    return (double)(product / sqrtl(squares) / sqrtl(others));
}

START_TEST(cosines_are_those_of_the_sample)
{
    struct layout *layout = tensors_layout(sampled);
    struct sample *sample = sample_new(layout);
    struct tensor_note *notes = notes_of(layout), untouched = notes[layout->tensor_count];
    double *one = doubles(layout->count), *other = doubles(layout->count);
    uint64_t random = testing_seed() ^ 13;

    ck_assert_ptr_nonnull(sample);
    for (int step = 0; step < 4; step++) {
        for (size_t i = 0; i < layout->count; i++) {
            other[i] = one[i];
            one[i] = 0.3 * one[i] + testing_normal(&random);
        }
        turn(sample, layout, wires[_i], one, step == 2 ? NULL : notes);
        for (size_t i = 0; i < layout->tensor_count && step != 2; i++) {
            const struct tensor *tensor = &layout->tensors[i];
            double want = plain_cosine(wires[_i], one + tensor->offset, other + tensor->offset,
                                       tensor->count);
            if (step == 0 || tensor->count == 0)
                ck_assert(isnan(notes[i].cosine));
            else
                ck_assert_double_le(fabs((double)notes[i].cosine - want), 2e-7);
            notes[i].cosine = untouched.cosine; /* all that may have changed */
            ck_assert_mem_eq(&notes[i], &untouched, sizeof untouched);
        }
    }
    sample_free(sample);
    free(notes);
    free(one);
    free(other);
    layout_release(layout);
}
END_TEST

START_TEST(cosines_of_equal_opposite_and_orthogonal_gradients_are_exact)
{
    struct layout *layout = tensors_layout(sampled);
    struct sample *sample = sample_new(layout);
    struct tensor_note *notes = notes_of(layout);
    double *values = doubles(layout->count);
    /* What the next gradient is of the one before, number by number of a pair; and the cosine, 2
     * for none. */
    static const struct {
        double even, odd, cosine;
    } turns[] = {{1, 1, 2},    {1, 1, 1}, {-1, -1, -1}, {0.5, 0.5, 1},
                 {-4, -4, -1}, {1, 0, 9}, {0, 0, 2},    {0, 0, 2}};
    uint64_t random = testing_seed() ^ 17;

    ck_assert_ptr_nonnull(sample);
    for (size_t i = 0; i < layout->count; i++)
        values[i] = testing_normal(&random);
    for (size_t k = 0; k < sizeof turns / sizeof *turns; k++) {
        for (size_t i = 0; i < layout->count; i++)
            values[i] *= i % 2 == 0 ? turns[k].even : turns[k].odd;
        turn(sample, layout, DTYPE_F32, values, notes);
        for (size_t i = 0; i < layout->tensor_count && turns[k].cosine != 9; i++)
            if (turns[k].cosine == 2 || layout->tensors[i].count == 0)
                ck_assert(isnan(notes[i].cosine));
            else
                ck_assert_double_eq((double)notes[i].cosine, turns[k].cosine);
    }
    for (int odd = 0; odd < 3; odd++) { /* one half of the numbers, then the other */
        for (size_t i = 0; i < layout->count; i++)
            values[i] = i % 2 == (size_t)(odd % 2) ? testing_normal(&random) + 5 : 0;
        turn(sample, layout, DTYPE_F32, values, notes);
        for (size_t i = 2; i < layout->tensor_count && odd > 0; i++)
            ck_assert_double_eq((double)notes[i].cosine, 0);
    }
    sample_forget(sample);
    turn(sample, layout, DTYPE_F32, values, notes);
    for (size_t i = 0; i < layout->tensor_count; i++)
        ck_assert(isnan(notes[i].cosine));
    sample_free(sample);
    free(notes);
    free(values);
    layout_release(layout);
}
END_TEST

/* One number that is not 0, wherever it stands: the cosine of a gradient with itself is 1 where the
 * sample has it, else there is none. */
START_TEST(the_sample_has_the_numbers_it_says)
{
    static const size_t sizes[] = {1, 64, 1023, 1024, 1025, 1087, 5000, 1000003};
    size_t count = sizes[_i], size = count < SAMPLE_TENSOR ? count : SAMPLE_TENSOR;
    size_t step = count < 10000 ? 1 : 997;
    char shape[32];

    snprintf(shape, sizeof shape, "w[%zu]", count);
    struct layout *layout = tensors_layout(shape);
    struct sample *sample = sample_new(layout);
    float *values = calloc(count, sizeof *values);
    unsigned char *in = calloc(count, 1);
    struct wire_gradient gradient = dense_gradient(values, DTYPE_F32, count);

    ck_assert(sample != NULL && values != NULL && in != NULL);
    ck_assert_uint_ge(sample_bytes(layout), size * sizeof(float));
    ck_assert_uint_lt(sample_bytes(layout), size * sizeof(float) + 256);
    for (size_t i = 0; i < size; i++) {
        size_t at = sample_position(count, i);
        ck_assert_uint_eq(at, plain_position(count, i));
        ck_assert_uint_lt(at, count);
        ck_assert_uint_eq(in[at]++, 0); /* none twice */
    }
    ck_assert(in[0] && in[count - 1]);
    for (size_t at = 0; at < count; at += step) {
        struct tensor_note note;
        values[at] = 2;
        sample_turn(sample, layout, &gradient, &note);
        sample_turn(sample, layout, &gradient, &note);
        values[at] = 0;
        if (in[at])
            ck_assert_double_eq((double)note.cosine, 1);
        else
            ck_assert(isnan(note.cosine));
    }
    sample_free(sample);
    free(values);
    free(in);
    layout_release(layout);
}
END_TEST

Suite *suite_gradient_sample(void);
Suite *suite_gradient_sample(void)
{
    Suite *suite = suite_create("gradient_sample");
    TCase *angles = tcase_create("angles");

    tcase_set_timeout(angles, 60);
    tcase_add_loop_test(angles, cosines_are_those_of_the_sample, 0, 4);
    tcase_add_test(angles, cosines_of_equal_opposite_and_orthogonal_gradients_are_exact);
    tcase_add_loop_test(angles, the_sample_has_the_numbers_it_says, 0, 8);
    suite_add_tcase(suite, angles);
    return suite;
}
