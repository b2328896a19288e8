/* Records: the bytes, the way back, and every record that ends too early. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/pack.h"

static struct packer packer;

static void setup(void)
{
    packer = (struct packer){0};
}

static void teardown(void)
{
    packer_close(&packer);
}

START_TEST(numbers_are_little_endian)
{
    static const unsigned char expected[] = {4, 3, 2, 1, 8,    7,    6, 5, 4, 3, 2,   1,   0,  0,
                                             0, 0, 0, 0, 0xF0, 0xBF, 2, 0, 0, 0, 'a', 'b', 'x'};

    pack_u32(&packer, 0x01020304);
    pack_u64(&packer, 0x0102030405060708);
    pack_f64(&packer, -1);
    pack_bytes(&packer, "ab", 2);
    pack_fixed(&packer, "x", 1);
    ck_assert(!packer.failed);
    struct span span = packer_span(&packer);
    ck_assert_uint_eq(span.size, sizeof expected);
    ck_assert_mem_eq(span.data, expected, sizeof expected);
}
END_TEST

START_TEST(texts_keep_null_apart_from_empty)
{
    char text[8];

    pack_text(&packer, NULL);
    pack_text(&packer, "");
    pack_text(&packer, "seven c");
    struct unpacker unpacker = {.data = packer.data, .size = packer.used};
    ck_assert(!unpack_text(&unpacker, text, sizeof text));
    ck_assert_str_eq(text, "");
    ck_assert(unpack_text(&unpacker, text, sizeof text));
    ck_assert_str_eq(text, "");
    ck_assert(unpack_text(&unpacker, text, sizeof text));
    ck_assert_str_eq(text, "seven c");
    ck_assert(!unpacker.failed && unpacker.used == unpacker.size);
}
END_TEST

START_TEST(a_text_that_does_not_fit_fails)
{
    char text[7];

    pack_text(&packer, "seven c");
    struct unpacker unpacker = {.data = packer.data, .size = packer.used};
    ck_assert(!unpack_text(&unpacker, text, sizeof text));
    ck_assert_str_eq(text, "");
    ck_assert(unpacker.failed);
}
END_TEST

START_TEST(doubles_keep_their_bits)
{
    const double values[] = {0.0, -0.0, (double)NAN, HUGE_VAL, 0x1p-1074, 1.0 / 3};

    for (size_t i = 0; i < 6; i++)
        pack_f64(&packer, values[i]);
    struct unpacker unpacker = {.data = packer.data, .size = packer.used};
    for (size_t i = 0; i < 6; i++) {
        double value = unpack_f64(&unpacker);
        ck_assert_mem_eq(&value, &values[i], sizeof value);
    }
}
END_TEST

/* One of everything, from a record of `size` bytes; whether all of it was there. */
static bool read_all(const unsigned char *data, size_t size)
{
    struct unpacker unpacker = {.data = data, .size = size};
    char text[8];
    unsigned char fixed[3] = {9, 9, 9};

    bool first = unpack_u32(&unpacker) == 7;
    bool second = unpack_u64(&unpacker) == 8;
    bool third = unpack_f64(&unpacker) == 9;
    struct span bytes = unpack_bytes(&unpacker);
    bool fourth = bytes.size == 3 && memcmp(bytes.data, "abc", 3) == 0;
    bool fifth = unpack_text(&unpacker, text, sizeof text) && strcmp(text, "text") == 0;
    unpack_fixed(&unpacker, fixed, sizeof fixed);
    ck_assert_uint_le(unpacker.used, size);
    if (unpacker.failed) { /* once failed, zeros and nothing more */
        static const unsigned char zeros[3] = {0};
        ck_assert_mem_eq(fixed, zeros, sizeof fixed);
        ck_assert_uint_eq(unpack_u64(&unpacker), 0);
        ck_assert_uint_eq(unpack_bytes(&unpacker).size, 0);
        ck_assert(unpacker.failed);
        return false;
    }
    return first && second && third && fourth && fifth && memcmp(fixed, "xyz", 3) == 0;
}

START_TEST(a_record_cut_at_any_byte_fails)
{
    pack_u32(&packer, 7);
    pack_u64(&packer, 8);
    pack_f64(&packer, 9);
    pack_bytes(&packer, "abc", 3);
    pack_text(&packer, "text");
    pack_fixed(&packer, "xyz", 3);
    ck_assert(read_all(packer.data, packer.used));
    for (size_t size = 0; size < packer.used; size++) {
        /* In memory of its own, so that a sanitizer sees a read beyond. */
        unsigned char *copy = malloc(size + 1);
        ck_assert_ptr_nonnull(copy);
        memcpy(copy, packer.data, size);
        unsigned char *exact = realloc(copy, size > 0 ? size : 1);
        ck_assert_ptr_nonnull(exact);
        ck_assert_msg(!read_all(exact, size), "%zu bytes are enough", size);
        free(exact);
    }
}
END_TEST

START_TEST(a_length_beyond_the_record_fails)
{
    const uint32_t lengths[] = {4, 5, UINT32_MAX - 1, UINT32_MAX};

    pack_u32(&packer, 0);
    pack_fixed(&packer, "abc", 3);
    for (size_t i = 0; i < 4; i++) {
        struct unpacker unpacker = {.data = packer.data, .size = packer.used};
        memcpy(packer.data, &lengths[i], sizeof lengths[i]); /* tests run on little-endian */
        ck_assert_uint_eq(unpack_bytes(&unpacker).size, 0);
        ck_assert(unpacker.failed);
    }
}
END_TEST

START_TEST(a_long_record_grows)
{
    for (uint32_t i = 0; i < 100003; i++)
        pack_u32(&packer, i);
    pack_fixed(&packer, NULL, 0);
    ck_assert(!packer.failed);
    ck_assert_uint_eq(packer.used, 4 * 100003);
    struct unpacker unpacker = {.data = packer.data, .size = packer.used};
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < 100003; i++)
        wrong += unpack_u32(&unpacker) != i;
    ck_assert_uint_eq(wrong, 0);
    packer_close(&packer);
    ck_assert(packer.data == NULL && packer.used == 0);
}
END_TEST

START_TEST(bytes_too_many_for_a_length_are_refused)
{
    pack_bytes(&packer, "", (size_t)UINT32_MAX);
    ck_assert(packer.failed);
    pack_u32(&packer, 1);
    ck_assert_uint_eq(packer.used, 0);
}
END_TEST

Suite *suite_pack(void);
Suite *suite_pack(void)
{
    Suite *suite = suite_create("pack");
    TCase *cases = tcase_create("records");

    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_test(cases, numbers_are_little_endian);
    tcase_add_test(cases, texts_keep_null_apart_from_empty);
    tcase_add_test(cases, a_text_that_does_not_fit_fails);
    tcase_add_test(cases, doubles_keep_their_bits);
    tcase_add_test(cases, a_record_cut_at_any_byte_fails);
    tcase_add_test(cases, a_length_beyond_the_record_fails);
    tcase_add_test(cases, a_long_record_grows);
    tcase_add_test(cases, bytes_too_many_for_a_length_are_refused);
    suite_add_tcase(suite, cases);
    return suite;
}
