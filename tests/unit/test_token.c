/* A token by itself: how it is drawn, what its digest is, what has another form, when it ends. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "api/tokens.h"

static int value_of(char c)
{
    return c >= 'a' && c <= 'z' ? c - 'a' : c >= '2' && c <= '7' ? c - '2' + 26 : -1;
}

START_TEST(a_token_is_256_bits_that_nobody_had)
{
    enum { DRAWN = 200 };
    static char drawn[DRAWN][TOKEN_BYTES + 1];
    unsigned seen[52] = {0};
    unsigned char hash[SHA256_BYTES], again[SHA256_BYTES];

    for (size_t i = 0; i < DRAWN; i++) {
        ck_assert(token_draw(drawn[i], hash));
        ck_assert(token_valid(drawn[i]));
        ck_assert_uint_eq(strlen(drawn[i]), TOKEN_BYTES);
        ck_assert(crypto_sha256(span_of(drawn[i], TOKEN_BYTES), again));
        ck_assert_mem_eq(hash, again, sizeof hash);
        for (size_t k = 0; k < 52; k++) {
            int value = value_of(drawn[i][4 + k]);
            ck_assert_int_ge(value, 0);
            seen[k] |= 1U << value;
        }
        ck_assert_int_eq(value_of(drawn[i][TOKEN_BYTES - 1]) & 15, 0); /* 260 - 4 bits */
        for (size_t k = 0; k < i; k++)
            ck_assert_str_ne(drawn[k], drawn[i]);
    }
    /* Every bit of every character but the last four takes both values. */
    for (size_t k = 0; k < 52; k++)
        for (int bit = k == 51 ? 4 : 0; bit < 5; bit++) {
            unsigned with = 0, without = 0;
            for (int value = 0; value < 32; value++)
                if ((seen[k] >> value & 1) != 0)
                    *((value >> bit & 1) != 0 ? &with : &without) += 1;
            ck_assert_msg(with > 0 && without > 0, "bit %d of character %zu is fixed", bit, k);
        }
}
END_TEST

START_TEST(digests_are_sha_256)
{
    /* FIPS 180-2, appendix B.1 */
    static const unsigned char expected[] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea,
                                             0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
                                             0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c,
                                             0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad};
    unsigned char hash[SHA256_BYTES];

    ck_assert(crypto_sha256(span_of("abc", 3), hash));
    ck_assert_mem_eq(hash, expected, sizeof hash);
    ck_assert(crypto_equal(hash, expected, sizeof hash));
    hash[31] ^= 1;
    ck_assert(!crypto_equal(hash, expected, sizeof hash));
}
END_TEST

START_TEST(what_has_another_form_is_no_token)
{
    static const char good[] = "dsc_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    char text[TOKEN_BYTES + 2];

    ck_assert(token_valid(good));
    for (size_t size = 0; size < TOKEN_BYTES; size++) {
        snprintf(text, sizeof text, "%.*s", (int)size, good);
        ck_assert(!token_valid(text));
    }
    for (size_t i = 0; i < TOKEN_BYTES; i++) {
        strcpy(text, good);
        text[i] = i < 4 ? 'x' : "A189 =\x7F"[i % 7];
        ck_assert_msg(!token_valid(text), "%s", text);
    }
    snprintf(text, sizeof text, "%sa", good);
    ck_assert(!token_valid(text));
}
END_TEST

static const struct {
    const char *text;
    uint64_t us; /* 0: not a time */
} times[] = {
    /* The seconds are those of date(1): `date -u -d 2026-01-31T12:00:00Z +%s`. */
    {"2026-01-31T12:00:00Z", 1769860800000000},
    {"2026-01-31T12:00:00.000001Z", 1769860800000001},
    {"2028-02-29T23:59:59.999999Z", 1835481599999999},
    {"2026-02-29T00:00:00Z", 0},
    {"2026-13-01T00:00:00Z", 0},
    {"2026-01-31T24:00:00Z", 0},
    {"2026-01-31T12:00:00", 0},
    {"2026-01-31T12:00:00+00:00", 0},
    {"2026-01-31T12:00:00.5Z", 0},
    {"2026-01-31 12:00:00Z", 0},
    {"+026-01-31T12:00:00Z", 0},
    {"2026-1-31T12:00:00.00Z", 0},
    {"1969-12-31T00:00:00Z", 0},
    {"2026-01-31T12:00:00.00000xZ", 0},
    {"", 0},
};

START_TEST(times_are_read_to_the_letter)
{
    uint64_t us = 0;

    ck_assert_msg(token_time_read(times[_i].text, &us) == (times[_i].us > 0), "%s", times[_i].text);
    if (times[_i].us > 0)
        ck_assert_uint_eq(us, times[_i].us);
}
END_TEST

Suite *suite_token(void);
Suite *suite_token(void)
{
    Suite *suite = suite_create("token");
    TCase *token = tcase_create("a token");

    tcase_set_timeout(token, 60);
    tcase_add_test(token, a_token_is_256_bits_that_nobody_had);
    tcase_add_test(token, digests_are_sha_256);
    tcase_add_test(token, what_has_another_form_is_no_token);
    tcase_add_loop_test(token, times_are_read_to_the_letter, 0, sizeof times / sizeof *times);
    suite_add_tcase(suite, token);
    return suite;
}
