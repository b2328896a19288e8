/* Numbers and times as text, held against printf and strftime. */
#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "service/core/clock.h"
#include "service/core/number.h"

enum { TRIALS = 20000, SEED = 17 };

static void check_digits(uint64_t value)
{
    char expected[NUMBER_BYTES], found[NUMBER_BYTES];

    memset(found, '#', sizeof found);
    size_t size = number_digits(found, value);
    snprintf(expected, sizeof expected, "%" PRIu64, value);
    ck_assert_uint_eq(size, strlen(expected));
    ck_assert_mem_eq(found, expected, size);
    ck_assert_int_eq(found[size], '#');
}

START_TEST(digits_are_those_of_printf)
{
    uint64_t power = 1, state = SEED;

    check_digits(0);
    check_digits(UINT64_MAX);
    for (int i = 0; i < 20; i++, power *= 10) {
        check_digits(power);
        check_digits(power - 1);
    }
    for (int i = 0; i < TRIALS; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        check_digits(state >> (i % 64));
    }
}
END_TEST

START_TEST(hexadecimal_of_every_byte)
{
    char expected[3], found[4] = "###";

    for (unsigned byte = 0; byte < 256; byte++) {
        number_hex(found, &(unsigned char){(unsigned char)byte}, 1);
        snprintf(expected, sizeof expected, "%02x", byte);
        ck_assert_mem_eq(found, expected, 2);
        ck_assert_int_eq(found[2], '#');
    }
    number_hex(found, NULL, 0);
}
END_TEST

START_TEST(times_in_utc)
{
    static const uint64_t times[] = {0, 1, 999999, 1000000, 951827696123456, 4102444799999999};
    char date[24], expected[40], found[32];

    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        struct tm parts;
        gmtime_r(&(time_t){(time_t)(times[i] / 1000000)}, &parts);
        strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
        snprintf(expected, sizeof expected, "%s.%06uZ", date, (unsigned)(times[i] % 1000000));
        ck_assert_str_eq(clock_format(found, times[i]), expected);
    }
    ck_assert_str_eq(clock_format(found, 951827696123456), "2000-02-29T12:34:56.123456Z");
}
END_TEST

Suite *suite_number(void);

Suite *suite_number(void)
{
    Suite *suite = suite_create("number");
    TCase *tcase = tcase_create("all");

    tcase_add_test(tcase, digits_are_those_of_printf);
    tcase_add_test(tcase, hexadecimal_of_every_byte);
    tcase_add_test(tcase, times_in_utc);
    suite_add_tcase(suite, tcase);
    return suite;
}
