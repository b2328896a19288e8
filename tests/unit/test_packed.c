/* The packed forms: blocks of them against the plain numbers they stand for, bit for bit, whatever
 * the cut; every byte that is not ours refused; zeroing as of plain numbers. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/session/advance.h"
#include "service/tensor/packed.h"
#include "tests/lib/packings.h"
#include "tests/lib/tensors.h"
#include "tests/lib/testing.h"

static const enum dtype wires[] = {DTYPE_F64, DTYPE_F32, DTYPE_F16, DTYPE_BF16};
static const double densities[] = {0, 0.02, 0.5, 1};

/* Odd sizes, scalars and empty tensors at every place, a row longer than a block. */
static const char small[] = "z[0] s[] a[7] e[3,0] m[5,3] n[0,4] t[] c[2,1,3]";
static const char large[] = "z[0] s[] long[2,9001] e[3,0] m[211,13] v[1031] t[] tiny[1]";

#define EACH_FORM(form) for (int form = FORM_DENSE + 1; form < FORM_NONE; form++)
#define EACH(i, array) for (size_t i = 0; i < sizeof(array) / sizeof *(array); i++)

static struct span span_in(const struct packing *packing)
{
    return span_of(packing->gradient.data, packing->gradient.size);
}

static enum status check(const struct packing *packing, struct span bytes, struct fault *fault)
{
    const struct wire_gradient *gradient = &packing->gradient;

    return packed_check(gradient->layout, gradient->form, gradient->wire, bytes, fault);
}

static void same_block(const struct packing *packing, size_t start, size_t count)
{
    static double wide[20000], scratch[20000];
    float *narrow = (float *)(void *)wide;
    const void *got = gradient_block_f64(&packing->gradient, start, count, scratch);

    if (memcmp(got, packing->values + start, count * sizeof(double)) != 0)
        ck_abort_msg("form %d, wire %d: f64 %zu+%zu", packing->gradient.form,
                     packing->gradient.wire, start, count);
    dtype_convert(DTYPE_F32, narrow, DTYPE_F64, packing->values + start, count);
    got = gradient_block_f32(&packing->gradient, start, count, (float *)(void *)scratch);
    if (memcmp(got, narrow, count * sizeof(float)) != 0)
        ck_abort_msg("form %d, wire %d: f32 %zu+%zu", packing->gradient.form,
                     packing->gradient.wire, start, count);
}

START_TEST(blocks_are_the_plain_numbers_however_they_are_cut)
{
    struct layout *layout = tensors_layout(small);
    struct fault fault;

    EACH_FORM(form)
    EACH(w, wires)
    EACH(d, densities)
    {
        struct packing packing =
            packing_random(layout, (enum gradient_form)form, wires[w], densities[d], 31 + w + d);
        ck_assert_int_eq(check(&packing, span_in(&packing), &fault), STATUS_OK);
        for (size_t start = 0; start <= layout->count; start++)
            for (size_t count = 0; start + count <= layout->count; count++)
                same_block(&packing, start, count);
        packing_free(&packing);
    }
    layout_release(layout);
}
END_TEST

START_TEST(large_blocks_are_too)
{
    struct layout *layout = tensors_layout(large);
    uint64_t random = testing_seed() ^ 77;
    struct fault fault;

    EACH_FORM(form)
    EACH(w, wires)
    {
        struct packing packing = packing_random(layout, (enum gradient_form)form, wires[w],
                                                densities[(w + (size_t)form) % 4], 99 + w);
        ck_assert_int_eq(check(&packing, span_in(&packing), &fault), STATUS_OK);
        for (int i = 0; i < 8; i++) {
            size_t start = testing_random(&random) % layout->count;
            size_t most = layout->count - start < 20000 ? layout->count - start : 20000;
            same_block(&packing, start, testing_random(&random) % (most + 1));
        }
        packing_free(&packing);
    }
    layout_release(layout);
}
END_TEST

/* Models over 2^32 elements have indices of 8 bytes. */
START_TEST(wide_indices_hold)
{
    static const uint64_t at[] = {5, 4294967299, 4999999999};
    static const float values[] = {1, 2, 3};
    struct layout *layout = tensors_layout("w[2500000000,2]");
    unsigned char bytes[8 + 3 * 8 + 3 * 4];
    uint64_t entries = 3;
    double block[8], scratch[8];
    struct fault fault;

    memcpy(bytes, &entries, 8);
    memcpy(bytes + 8, at, 24);
    memcpy(bytes + 32, values, 12);
    struct wire_gradient gradient = {.data = bytes,
                                     .wire = DTYPE_F32,
                                     .count = layout->count,
                                     .form = FORM_TOPK,
                                     .size = sizeof bytes,
                                     .layout = layout};
    ck_assert_int_eq(
        packed_check(layout, FORM_TOPK, DTYPE_F32, span_of(bytes, sizeof bytes), &fault),
        STATUS_OK);
    for (size_t i = 0; i < 3; i++) {
        memcpy(block, gradient_block_f64(&gradient, at[i] - 5, 6, scratch), 6 * sizeof *block);
        for (size_t k = 0; k < 6; k++)
            ck_assert(block[k] == (k == 5 ? (double)values[i] : 0));
    }
    unsigned char rows[32 + 2 * 8 + 4 * 4];
    static const uint64_t first[] = {0, 0, 2, 4}, row[] = {1, 2499999999};
    static const float four[] = {1, 2, 3, 4};
    memcpy(rows, first, 32);
    memcpy(rows + 32, row, 16);
    memcpy(rows + 48, four, 16);
    gradient.data = rows;
    gradient.form = FORM_ROWS;
    gradient.size = sizeof rows;
    ck_assert_int_eq(packed_check(layout, FORM_ROWS, DTYPE_F32, span_of(rows, sizeof rows), &fault),
                     STATUS_OK);
    memcpy(block, gradient_block_f64(&gradient, 4999999997, 3, scratch), 3 * sizeof *block);
    ck_assert(block[0] == 0 && block[1] == 3 && block[2] == 4);
    layout_release(layout);
}
END_TEST

START_TEST(bytes_that_are_cut_or_spare_are_refused)
{
    struct layout *layout = tensors_layout(small);
    struct fault fault;

    EACH_FORM(form)
    EACH(d, densities)
    {
        struct packing packing =
            packing_random(layout, (enum gradient_form)form, DTYPE_F32, densities[d], 7);
        for (size_t size = 0; size <= packing.gradient.size + 9; size++) {
            unsigned char *bytes = calloc(size + 1, 1); /* moved, so that nothing is aligned */
            ck_assert_ptr_nonnull(bytes);
            memcpy(bytes + 1, packing.gradient.data,
                   size < packing.gradient.size ? size : packing.gradient.size);
            enum status status = check(&packing, span_of(bytes + 1, size), &fault);
            if (size == packing.gradient.size ? status != STATUS_OK
                                              : status != STATUS_LENGTH_MISMATCH)
                ck_abort_msg("form %d, %zu of %zu bytes: %d", form, size, packing.gradient.size,
                             status);
            free(bytes);
        }
        packing_free(&packing);
    }
    ck_assert_int_eq(
        packed_check(layout, FORM_DENSE, DTYPE_F16, span_of(small, 2 * layout->count), &fault),
        STATUS_OK);
    ck_assert_int_eq(
        packed_check(layout, FORM_DENSE, DTYPE_F16, span_of(small, 2 * layout->count + 1), &fault),
        STATUS_LENGTH_MISMATCH);
    ck_assert_int_eq(packed_check(layout, FORM_NONE, DTYPE_F16, span_of(small, 0), &fault),
                     STATUS_INVALID_FIELD);
    layout_release(layout);
}
END_TEST

/* Little-endian numbers of 4 bytes put over a gradient of topk (n 2) or rows (R 2, V 4) on
 * "a[3] b[4,2]". */
static const struct {
    const char *what;
    enum gradient_form form;
    size_t at;
    uint32_t number;
    enum status status;
    const char *where;
} wrongs[] = {
    {"as it is", FORM_TOPK, 0, 2, STATUS_OK, ""},
    {"an element beyond the last", FORM_TOPK, 12, 11, STATUS_INVALID_FIELD, ""},
    {"an element twice", FORM_TOPK, 12, 1, STATUS_INVALID_FIELD, "/a"},
    {"out of order", FORM_TOPK, 8, 5, STATUS_INVALID_FIELD, "/b"},
    {"more than the model", FORM_TOPK, 0, 12, STATUS_INVALID_FIELD, ""},
    {"more than 32 bits", FORM_TOPK, 4, 1, STATUS_INVALID_FIELD, ""},
    {"more than the bytes", FORM_TOPK, 0, 3, STATUS_LENGTH_MISMATCH, ""},
    {"as it is", FORM_ROWS, 0, 0, STATUS_OK, ""},
    {"does not begin at 0", FORM_ROWS, 0, 1, STATUS_INVALID_FIELD, "/a"},
    {"values do not begin at 0", FORM_ROWS, 8, 1, STATUS_INVALID_FIELD, "/a"},
    {"more rows than there are", FORM_ROWS, 16, 4, STATUS_INVALID_FIELD, "/a"},
    {"rows that go back", FORM_ROWS, 36, 0x80000000, STATUS_INVALID_FIELD, "/b"},
    {"values of another length", FORM_ROWS, 40, 3, STATUS_INVALID_FIELD, "/b"},
    {"a row beyond the last", FORM_ROWS, 52, 4, STATUS_INVALID_FIELD, "/b"},
    {"a row twice", FORM_ROWS, 52, 1, STATUS_INVALID_FIELD, "/b"},
    {"rows out of order", FORM_ROWS, 48, 3, STATUS_INVALID_FIELD, "/b"},
};

START_TEST(what_is_wrong_is_refused)
{
    static const uint32_t topk[] = {2, 0, 1, 4, 0x3f800000, 0x40000000};
    static const uint32_t rows[] = {0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 4, 0, 1, 2, 1, 2, 3, 4};
    struct layout *layout = tensors_layout("a[3] b[4,2]");
    bool sparse = wrongs[_i].form == FORM_TOPK;
    size_t size = sparse ? sizeof topk : sizeof rows;
    unsigned char *bytes = malloc(size);
    struct fault fault = {.where = ""};

    ck_assert_ptr_nonnull(bytes);
    memcpy(bytes, sparse ? topk : rows, size);
    memcpy(bytes + wrongs[_i].at, &wrongs[_i].number, 4);
    enum status status =
        packed_check(layout, wrongs[_i].form, DTYPE_F32, span_of(bytes, size), &fault);
    if (status != wrongs[_i].status || strcmp(fault.where, wrongs[_i].where) != 0)
        ck_abort_msg("%s: %d at \"%s\": %s", wrongs[_i].what, status, fault.where, fault.detail);
    free(bytes);
    layout_release(layout);
}
END_TEST

START_TEST(bits_after_the_last_are_refused)
{
    struct layout *layout = tensors_layout("a[3] b[7]");
    struct fault fault;

    for (int form = FORM_SIGN; form <= FORM_TWO_BIT; form += FORM_TWO_BIT - FORM_SIGN) {
        struct packing packing = packing_random(layout, (enum gradient_form)form, DTYPE_F16, 1, 5);
        unsigned char *last = (unsigned char *)packing.gradient.data + packing.gradient.size - 1;
        for (unsigned bit = 0; bit < 8; bit++) {
            bool beyond = form == FORM_SIGN ? bit >= 10 % 8 : bit < 8 - 10 % 4 * 2;
            *last ^= (unsigned char)(1U << bit);
            ck_assert_int_eq(check(&packing, span_in(&packing), &fault),
                             beyond ? STATUS_INVALID_FIELD : STATUS_OK);
            *last ^= (unsigned char)(1U << bit);
        }
        packing_free(&packing);
    }
    layout_release(layout);
}
END_TEST

/* Whatever passes the check can be read; a sanitizer sees more than this does. */
START_TEST(damaged_bytes_are_refused_or_can_be_read)
{
    struct layout *layout = tensors_layout(small);
    uint64_t random = testing_seed() ^ 3;
    double *block = calloc(layout->count, sizeof *block);
    size_t refused = 0;
    struct fault fault;

    ck_assert_ptr_nonnull(block);
    for (size_t i = 0; i < 3000; i++) {
        enum gradient_form form = i % 2 == 0 ? FORM_TOPK : FORM_ROWS;
        struct packing packing = packing_random(layout, form, DTYPE_F32, 0.4, i);
        unsigned char *bytes = packing.gradient.data;
        bytes[testing_random(&random) % packing.gradient.size] ^=
            (unsigned char)(1U << testing_random(&random) % 8);
        if (check(&packing, span_in(&packing), &fault) == STATUS_OK)
            gradient_block_f64(&packing.gradient, 0, layout->count, block);
        else
            refused++;
        packing_free(&packing);
    }
    ck_assert_uint_gt(refused, 300);
    free(block);
    layout_release(layout);
}
END_TEST

START_TEST(runs_are_those_of_the_rows)
{
    struct layout *layout = tensors_layout(small);

    EACH(d, densities)
    {
        struct packing packing = packing_random(layout, FORM_ROWS, DTYPE_F32, densities[d], 17);
        for (size_t start = 0; start < layout->count; start++)
            for (size_t end = start + 1; end <= layout->count; end++) {
                bool sent;
                size_t run = packed_run(&packing.gradient, start, end, &sent);
                ck_assert(run > 0 && start + run <= end && sent == packing.sent[start]);
                size_t tensor = packed_tensor(layout, start);
                const struct tensor *of = &layout->tensors[tensor];
                size_t same = start;
                while (same < end && same < of->offset + of->count &&
                       packing.sent[same] == packing.sent[start])
                    same++;
                if (run != same - start)
                    ck_abort_msg("%zu .. %zu: %zu, not %zu", start, end, run, same - start);
            }
        packing_free(&packing);
    }
    layout_release(layout);
}
END_TEST

/* --- what is not finite --- */

/* Puts numbers that are not finite, or too large for f32, among scales or values. */
static void spoil(struct packing *packing, uint64_t *random)
{
    static const double bad[] = {(double)INFINITY, (double)NAN, -(double)INFINITY, 3e38, 1e300};
    const struct wire_gradient *gradient = &packing->gradient;
    struct packed packed = packed_open(gradient);
    size_t size = dtype_size(gradient->wire);
    size_t values = gradient->form == FORM_ROWS
                        ? packed_first(&packed, gradient->layout->tensor_count).value
                        : packed.entries;

    for (int i = 0; i < 3; i++)
        if (packed.scale != NULL)
            dtype_convert(gradient->wire,
                          packed.scale +
                              testing_random(random) % gradient->layout->tensor_count * size,
                          DTYPE_F64, &bad[testing_random(random) % 5], 1);
        else if (values > 0)
            dtype_convert(gradient->wire, packed.value + testing_random(random) % values * size,
                          DTYPE_F64, &bad[testing_random(random) % 5], 1);
    gradient_block_f64(gradient, 0, gradient->count, packing->values);
}

/* What the session's dtype makes of plain numbers, with what is not finite replaced. */
static size_t plain_zeroing(enum dtype session, const double *values, size_t count, double *out,
                            size_t *first)
{
    size_t found = 0;

    for (size_t i = 0; i < count; i++) {
        float narrow = (float)values[i];
        out[i] = session == DTYPE_F32 ? (double)narrow : values[i];
        if (!isfinite(out[i])) {
            out[i] = 0;
            if (found++ == 0)
                *first = i;
        }
    }
    return found;
}

START_TEST(what_is_not_finite_is_found_and_zeroed_as_if_it_were_plain)
{
    struct layout *layout = tensors_layout(small);
    enum dtype session = _i == 0 ? DTYPE_F32 : DTYPE_F64;
    double *wanted = calloc(2 * layout->count, sizeof *wanted), *got = wanted + layout->count;
    uint64_t random = testing_seed() ^ 57;
    size_t first = 0, spoilt = 0;
    struct fault fault;

    ck_assert_ptr_nonnull(wanted);
    for (size_t i = 0; i < 2000; i++) {
        enum gradient_form form = (enum gradient_form)(1 + i % (FORM_NONE - 1));
        struct packing packing = packing_random(layout, form, wires[i % 4], 0.6, i);
        struct measure measure = {.rescale = 1, .clip_value = HUGE_VAL};
        spoil(&packing, &random);
        size_t found = plain_zeroing(session, packing.values, layout->count, wanted, &first);
        advances(session)->measure(&packing.gradient, &measure);
        if (measure.bad_count != found || (found > 0 && measure.bad_index != first))
            ck_abort_msg("form %d: %zu from %zu, not %zu from %zu", form, measure.bad_count,
                         measure.bad_index, found, first);
        advances(session)->zero_nonfinite(&packing.gradient);
        ck_assert_int_eq(check(&packing, span_in(&packing), &fault), STATUS_OK);
        if (session == DTYPE_F64) {
            gradient_block_f64(&packing.gradient, 0, layout->count, got);
        } else {
            float narrow[64];
            ck_assert_uint_le(layout->count, 64);
            gradient_block_f32(&packing.gradient, 0, layout->count, narrow);
            dtype_convert(DTYPE_F64, got, DTYPE_F32, narrow, layout->count);
        }
        if (memcmp(got, wanted, layout->count * sizeof *got) != 0)
            ck_abort_msg("form %d, wire %d: zeroed otherwise", form, wires[i % 4]);
        spoilt += found > 0;
        packing_free(&packing);
    }
    ck_assert_uint_gt(spoilt, 500);
    free(wanted);
    layout_release(layout);
}
END_TEST

Suite *suite_packed(void);
Suite *suite_packed(void)
{
    Suite *suite = suite_create("packed");
    TCase *tests = tcase_create("packed");

    tcase_add_test(tests, blocks_are_the_plain_numbers_however_they_are_cut);
    tcase_add_test(tests, large_blocks_are_too);
    tcase_add_test(tests, wide_indices_hold);
    tcase_add_test(tests, bytes_that_are_cut_or_spare_are_refused);
    tcase_add_loop_test(tests, what_is_wrong_is_refused, 0, sizeof wrongs / sizeof *wrongs);
    tcase_add_test(tests, bits_after_the_last_are_refused);
    tcase_add_test(tests, damaged_bytes_are_refused_or_can_be_read);
    tcase_add_test(tests, runs_are_those_of_the_rows);
    tcase_add_loop_test(tests, what_is_not_finite_is_found_and_zeroed_as_if_it_were_plain, 0, 2);
    suite_add_tcase(suite, tests);
    return suite;
}
