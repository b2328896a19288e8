/* Layouts: offsets, names, limits, the digest, finding. */
#include <check.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/tensor/layout.h"
#include "tests/lib/tensors.h"

static struct fault fault;

static enum status add(struct layout *layout, const char *name, unsigned rank, const size_t *shape)
{
    memset(&fault, 0, sizeof fault);
    return layout_add(layout, name, strlen(name), rank, shape, &fault);
}

static struct layout *fresh(void)
{
    struct layout *layout = layout_new();

    ck_assert_ptr_nonnull(layout);
    return layout;
}

START_TEST(tensors_lie_one_after_the_other)
{
    struct layout *layout = tensors_layout("w[31,3] b[7] s[] e[0,5] t[1,1,1,1,1,1,1,2]");
    const size_t offsets[] = {0, 93, 100, 101, 101}, counts[] = {93, 7, 1, 0, 2};

    ck_assert_uint_eq(layout->tensor_count, 5);
    ck_assert_uint_eq(layout->count, 103);
    for (size_t i = 0; i < 5; i++) {
        ck_assert_uint_eq(layout->tensors[i].offset, offsets[i]);
        ck_assert_uint_eq(layout->tensors[i].count, counts[i]);
    }
    ck_assert_uint_eq(layout->tensors[4].rank, 8);
    layout_release(layout);
}
END_TEST

static const struct {
    const char *name;
    size_t size;
    enum status status;
} names[] = {
    {"w", 1, STATUS_OK},
    {"a/b~c.d \"e\"", 10, STATUS_OK},
    {"\xC3\xBC\xE2\x82\xAC\xF0\x9F\x98\x80", 9, STATUS_OK},
    {"\xF4\x8F\xBF\xBF", 4, STATUS_OK},
    {"__metadata", 10, STATUS_OK},
    {"__metadata___", 13, STATUS_OK},
    {"", 0, STATUS_INVALID_FIELD},
    {"a\0b", 3, STATUS_INVALID_FIELD},
    {"a\nb", 3, STATUS_INVALID_FIELD},
    {"\x7F", 1, STATUS_INVALID_FIELD},
    {"\x80", 1, STATUS_INVALID_FIELD},
    {"\xC0\x80", 2, STATUS_INVALID_FIELD},         /* overlong NUL */
    {"\xC1\xBF", 2, STATUS_INVALID_FIELD},         /* overlong */
    {"\xE0\x9F\xBF", 3, STATUS_INVALID_FIELD},     /* overlong */
    {"\xED\xA0\x80", 3, STATUS_INVALID_FIELD},     /* surrogate */
    {"\xF0\x8F\xBF\xBF", 4, STATUS_INVALID_FIELD}, /* overlong */
    {"\xF4\x90\x80\x80", 4, STATUS_INVALID_FIELD}, /* beyond Unicode */
    {"\xF5\x80\x80\x80", 4, STATUS_INVALID_FIELD},
    {"ab\xC3", 3, STATUS_INVALID_FIELD},       /* cut */
    {"ab\xE2\x82", 4, STATUS_INVALID_FIELD},   /* cut */
    {"\xF0\x9F\x98", 3, STATUS_INVALID_FIELD}, /* cut */
    {"\xE2\x28\xA1", 3, STATUS_INVALID_FIELD}, /* second is no continuation */
    {"\xE2\x82\x28", 3, STATUS_INVALID_FIELD}, /* third is none */
    {"__metadata__", 12, STATUS_INVALID_FIELD},
};

START_TEST(names_are_printable_utf8)
{
    struct layout *layout = fresh();
    /* In memory of its own, so that a sanitizer sees a read beyond. */
    char *exact = malloc(names[_i].size > 0 ? names[_i].size : 1);

    ck_assert_ptr_nonnull(exact);
    memcpy(exact, names[_i].name, names[_i].size);
    ck_assert_int_eq(layout_add(layout, exact, names[_i].size, 0, NULL, &fault), names[_i].status);
    if (names[_i].status == STATUS_OK) {
        ck_assert_uint_eq(strlen(layout->tensors[0].name), names[_i].size);
        ck_assert_mem_eq(layout->tensors[0].name, exact, names[_i].size);
    } else {
        ck_assert_uint_eq(layout->tensor_count, 0);
        ck_assert_str_ne(fault.detail, "");
    }
    free(exact);
    layout_release(layout);
}
END_TEST

START_TEST(names_have_at_most_255_bytes)
{
    struct layout *layout = fresh();
    char name[LAYOUT_NAME_BYTES_MAX + 2];

    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    ck_assert_int_eq(add(layout, name, 0, NULL), STATUS_INVALID_FIELD);
    name[LAYOUT_NAME_BYTES_MAX] = '\0';
    ck_assert_int_eq(add(layout, name, 0, NULL), STATUS_OK);
    layout_release(layout);
}
END_TEST

START_TEST(a_name_twice_is_refused_at_the_seal)
{
    struct layout *layout = fresh();

    ck_assert_int_eq(add(layout, "a/b", 0, NULL), STATUS_OK);
    ck_assert_int_eq(add(layout, "c", 0, NULL), STATUS_OK);
    ck_assert_int_eq(add(layout, "a/b", 0, NULL), STATUS_OK);
    ck_assert_int_eq(layout_seal(layout, &fault), STATUS_INVALID_FIELD);
    ck_assert_str_eq(fault.where, "/a~1b");
    layout_release(layout);
}
END_TEST

START_TEST(a_model_without_elements_is_refused)
{
    struct layout *layout = fresh();

    ck_assert_int_eq(layout_seal(layout, &fault), STATUS_INVALID_FIELD);
    ck_assert_int_eq(add(layout, "empty", 2, (size_t[]){3, 0}), STATUS_OK);
    ck_assert_int_eq(layout_seal(layout, &fault), STATUS_INVALID_FIELD);
    layout_release(layout);
}
END_TEST

START_TEST(sizes_are_bounded_before_they_overflow)
{
    const size_t huge = (size_t)1 << 32, most = LAYOUT_COUNT_MAX;
    struct layout *layout = fresh();

    ck_assert_int_eq(add(layout, "a", 1, &(size_t){SIZE_MAX}), STATUS_TOO_LARGE);
    ck_assert_int_eq(add(layout, "a", 2, (size_t[]){huge, huge}), STATUS_TOO_LARGE); /* 2^64 */
    ck_assert_int_eq(add(layout, "a", 3, (size_t[]){0, huge, huge}), STATUS_OK);
    ck_assert_int_eq(add(layout, "b", 1, &(size_t){most + 1}), STATUS_TOO_LARGE);
    ck_assert_str_eq(fault.where, "/b");
    ck_assert_int_eq(add(layout, "b", 1, &(size_t){most}), STATUS_OK);
    ck_assert_int_eq(add(layout, "c", 0, NULL), STATUS_TOO_LARGE);
    ck_assert_int_eq(add(layout, "c", 1, &(size_t){0}), STATUS_OK);
    ck_assert_int_eq(add(layout, "d", LAYOUT_RANK_MAX + 1, (size_t[9]){1}), STATUS_TOO_LARGE);
    ck_assert_uint_eq(layout->count, most);
    layout_release(layout);
}
END_TEST

START_TEST(tensors_are_bounded_in_number_and_all_found)
{
    struct layout *layout = fresh();
    char name[16];

    for (unsigned i = 0; i < LAYOUT_TENSORS_MAX; i++) {
        snprintf(name, sizeof name, "t%u", i * 7919 % LAYOUT_TENSORS_MAX);
        ck_assert_int_eq(add(layout, name, 0, NULL), STATUS_OK);
    }
    ck_assert_int_eq(add(layout, "one more", 0, NULL), STATUS_TOO_LARGE);
    ck_assert_int_eq(layout_seal(layout, &fault), STATUS_OK);
    for (unsigned i = 0; i < LAYOUT_TENSORS_MAX; i++) {
        int size = snprintf(name, sizeof name, "t%u", i * 7919 % LAYOUT_TENSORS_MAX);
        const struct tensor *tensor = layout_find(layout, name, (size_t)size);
        ck_assert_ptr_eq(tensor, &layout->tensors[i]);
    }
    layout_release(layout);
}
END_TEST

START_TEST(only_whole_names_are_found)
{
    struct layout *layout = tensors_layout("layer[1] layer.bias[1] la[1] z[1]");

    ck_assert_ptr_eq(layout_find(layout, "layer", 5), &layout->tensors[0]);
    ck_assert_ptr_eq(layout_find(layout, "layer.bias", 5), &layout->tensors[0]);
    ck_assert_ptr_eq(layout_find(layout, "layer.bias", 10), &layout->tensors[1]);
    ck_assert_ptr_eq(layout_find(layout, "layer", 2), &layout->tensors[2]);
    ck_assert_ptr_null(layout_find(layout, "layer", 3));
    ck_assert_ptr_null(layout_find(layout, "layer.bias2", 11));
    ck_assert_ptr_null(layout_find(layout, "", 0));
    ck_assert_ptr_null(layout_find(layout, "la\0yer", 6));
    ck_assert_ptr_null(layout_find(layout, "zz", 2));
    layout_release(layout);
}
END_TEST

/* Layouts that are alike in all but one thing. */
static const char *const alike[] = {"w[2,3] b[3]",      "b[3] w[2,3]",   "w[3,2] b[3]",
                                    "w[6] b[3]",        "w[2,3] b[3,1]", "w[2,3] c[3]",
                                    "w[2,3] b[3] e[0]", "w[2,3,1] b[3]", "wb[2,3] b[3]"};

START_TEST(the_digest_tells_layouts_apart)
{
    enum { ALIKE = sizeof alike / sizeof *alike };
    struct digest digests[ALIKE];

    for (int i = 0; i < ALIKE; i++) {
        struct layout *one = tensors_layout(alike[i]), *same = tensors_layout(alike[i]);
        ck_assert_mem_eq(&one->digest, &same->digest, sizeof one->digest);
        digests[i] = one->digest;
        for (int k = 0; k < i; k++)
            ck_assert_mem_ne(&digests[i], &digests[k], sizeof digests[i]);
        layout_release(one);
        layout_release(same);
    }
}
END_TEST

START_TEST(shapes_print_and_are_cut_to_fit)
{
    char text[32];

    ck_assert_str_eq(shape_format(text, sizeof text, 0, NULL), "[]");
    ck_assert_str_eq(shape_format(text, sizeof text, 2, (size_t[]){31, 3}), "[31, 3]");
    for (size_t size = 1; size <= 8; size++) {
        memset(text, '#', sizeof text);
        shape_format(text, size, 2, (size_t[]){31, 3});
        ck_assert_uint_lt(strlen(text), size);
        ck_assert_int_eq(strncmp("[31, 3]", text, strlen(text)), 0);
        ck_assert_int_eq(text[size], '#');
    }
}
END_TEST

START_TEST(retained_layouts_live)
{
    struct layout *layout = tensors_layout("w[2]");

    ck_assert_ptr_eq(layout_retain(layout), layout);
    layout_release(layout);
    ck_assert_str_eq(layout->tensors[0].name, "w");
    layout_release(layout);
    layout_release(NULL);
}
END_TEST

Suite *suite_layout(void);
Suite *suite_layout(void)
{
    Suite *suite = suite_create("layout");
    TCase *cases = tcase_create("layout");

    tcase_add_test(cases, tensors_lie_one_after_the_other);
    tcase_add_loop_test(cases, names_are_printable_utf8, 0, (int)(sizeof names / sizeof *names));
    tcase_add_test(cases, names_have_at_most_255_bytes);
    tcase_add_test(cases, a_name_twice_is_refused_at_the_seal);
    tcase_add_test(cases, a_model_without_elements_is_refused);
    tcase_add_test(cases, sizes_are_bounded_before_they_overflow);
    tcase_add_test(cases, tensors_are_bounded_in_number_and_all_found);
    tcase_add_test(cases, only_whole_names_are_found);
    tcase_add_test(cases, the_digest_tells_layouts_apart);
    tcase_add_test(cases, shapes_print_and_are_cut_to_fit);
    tcase_add_test(cases, retained_layouts_live);
    suite_add_tcase(suite, cases);
    return suite;
}
