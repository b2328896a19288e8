/* Numbers between text and floats, against the C library and against the format's grammar. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/json_numbers.h"
#include "tests/lib/testing.h"

enum { PATTERNS = 200000 };

static void check_f32(float value)
{
    char text[NUMBER_TEXT_BYTES + 1];
    float back;
    char *end = number_write_f32(text, value);

    *end = '\0';
    ck_assert_msg(number_read_f32(text, end, &back) == end, "%s", text);
    ck_assert_msg(memcmp(&value, &back, sizeof back) == 0, "%s reads back as %a, not %a", text,
                  (double)back, (double)value);
    back = strtof(text, NULL);
    ck_assert_msg(memcmp(&value, &back, sizeof back) == 0, "strtof(%s) is %a, not %a", text,
                  (double)back, (double)value);
}

static void check_f64(double value)
{
    char text[NUMBER_TEXT_BYTES + 1];
    double back;
    char *end = number_write_f64(text, value);

    *end = '\0';
    ck_assert_msg(number_read_f64(text, end, &back) == end, "%s", text);
    ck_assert_msg(memcmp(&value, &back, sizeof back) == 0, "%s reads back as %a, not %a", text,
                  back, value);
    back = strtod(text, NULL);
    ck_assert_msg(memcmp(&value, &back, sizeof back) == 0, "strtod(%s) is %a, not %a", text, back,
                  value);
}

START_TEST(every_bit_pattern_of_f32_comes_back)
{
    uint64_t random = testing_seed() ^ 0x632;

    for (int i = 0; i < PATTERNS; i++) {
        uint32_t bits = (uint32_t)testing_random(&random);
        float value;
        memcpy(&value, &bits, sizeof value);
        if (isfinite(value))
            check_f32(value);
    }
    for (uint32_t bits = 0; bits < 4096; bits++) { /* zero and the smallest subnormals */
        float value;
        memcpy(&value, &bits, sizeof value);
        check_f32(value);
        check_f32(-value);
    }
    for (int exponent = -149; exponent < 128; exponent++) { /* the interval below is half as wide */
        float power = ldexpf(1, exponent);
        check_f32(power);
        check_f32(nextafterf(power, 0));
        check_f32(nextafterf(power, INFINITY));
    }
    check_f32(3.4028234664e38f);
}
END_TEST

START_TEST(every_bit_pattern_of_f64_comes_back)
{
    uint64_t random = testing_seed() ^ 0x664;

    for (int i = 0; i < PATTERNS; i++) {
        uint64_t bits = testing_random(&random);
        double value;
        memcpy(&value, &bits, sizeof value);
        if (isfinite(value))
            check_f64(value);
    }
    for (int exponent = -1074; exponent < 1024; exponent++) {
        double power = ldexp(1, exponent);
        check_f64(power);
        check_f64(nextafter(power, 0));
        check_f64(-nextafter(power, HUGE_VAL));
    }
    for (int i = -323; i <= 308; i++) {
        char text[16];
        snprintf(text, sizeof text, "1e%d", i);
        check_f64(strtod(text, NULL));
    }
    check_f64(1.7976931348623157e308);
}
END_TEST

/* The C library knows nothing of "shortest", but fewer digits must not come back. */
START_TEST(no_shorter_text_comes_back)
{
    uint64_t random = testing_seed() ^ 0x5407;

    for (int i = 0; i < 20000; i++) {
        uint32_t bits = (uint32_t)testing_random(&random);
        char text[NUMBER_TEXT_BYTES + 1], shorter[64];
        float value;
        memcpy(&value, &bits, sizeof value);
        if (!isfinite(value) || value == 0)
            continue;
        *number_write_f32(text, value) = '\0';
        int digits = 0, zeros = 0;
        for (const char *at = text; *at != '\0' && *at != 'e'; at++) {
            if (*at < '0' || *at > '9' || (digits == 0 && *at == '0'))
                continue;
            digits++;
            zeros = *at == '0' ? zeros + 1 : 0;
        }
        digits -= zeros;
        if (digits > 1) {
            snprintf(shorter, sizeof shorter, "%.*e", digits - 2, (double)value);
            ck_assert_msg(strtof(shorter, NULL) != value, "%s could be %s", text, shorter);
        }
    }
}
END_TEST

START_TEST(numbers_are_written_as_people_write_them)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {
        {0, "0"},
        {-0.0, "-0.0"},
        {1, "1"},
        {-1.5, "-1.5"},
        {0.1, "0.1"},
        {100, "100"},
        {0.0001, "0.0001"},
        {0.00001, "1e-5"},
        {1.25e-7, "1.25e-7"},
        {123456.789, "123456.789"},
        {1e15, "1000000000000000"},
        {1e16, "1e16"},
        {1.5e300, "1.5e300"},
        {5e-324, "5e-324"},
        {9007199254740992.0, "9007199254740992"},
        {2.2250738585072014e-308, "2.2250738585072014e-308"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[NUMBER_TEXT_BYTES + 1];
        *number_write_f64(text, cases[i].value) = '\0';
        ck_assert_str_eq(text, cases[i].text);
    }
    char text[NUMBER_TEXT_BYTES + 1];
    *number_write_f32(text, 0.1f) = '\0';
    ck_assert_str_eq(text, "0.1");
}
END_TEST

START_TEST(what_is_no_json_number_is_refused)
{
    static const char *const bad[] = {"",    "-",        "+1",   ".5",  "1.",  "-.5",
                                      "1e",  "1e+",      "e5",   "x1",  "NaN", "nan",
                                      "inf", "Infinity", "-inf", "--1", "1.e5"};

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        float single;
        double real;
        const char *end = bad[i] + strlen(bad[i]);
        ck_assert_msg(number_read_f32(bad[i], end, &single) == NULL, "\"%s\"", bad[i]);
        ck_assert_msg(number_read_f64(bad[i], end, &real) == NULL, "\"%s\"", bad[i]);
        ck_assert_msg(number_end(bad[i], end) == NULL, "\"%s\"", bad[i]);
    }
}
END_TEST

START_TEST(a_number_ends_where_its_grammar_ends)
{
    static const struct {
        const char *text;
        size_t size;
    } cases[] = {{"01", 1},    {"-0", 2},   {"0x10", 1},     {"1,2", 1},
                 {"1.5.2", 3}, {"1e5e", 3}, {"1 ", 1},       {"12]", 2},
                 {"1E+05", 5}, {"1e-0", 4}, {"0.0", 3},      {"123456789012", 12},
                 {"1_0", 1},   {"1f", 1},   {"-12.5e-3,", 8}};

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double value;
        const char *text = cases[i].text, *end = text + strlen(text);
        ck_assert_ptr_eq(number_end(text, end), text + cases[i].size);
        ck_assert_ptr_eq(number_read_f64(text, end, &value), text + cases[i].size);
        char number[16] = "";
        memcpy(number, text, cases[i].size);
        ck_assert_double_eq(value, strtod(number, NULL));
    }
}
END_TEST

START_TEST(nothing_is_read_past_the_end)
{
    float value;
    const char text[] = "12345678901234567890";

    for (size_t size = 1; size < sizeof text; size++) {
        char *exact = malloc(size); /* so that a sanitizer sees */
        char terminated[sizeof text];
        ck_assert_ptr_nonnull(exact);
        memcpy(exact, text, size);
        memcpy(terminated, text, size);
        terminated[size] = '\0';
        ck_assert_ptr_eq(number_read_f32(exact, exact + size, &value), exact + size);
        ck_assert(value == strtof(terminated, NULL));
        free(exact);
    }
}
END_TEST

/* Decimals right beside the middle of two floats, where going through double rounds twice. */
START_TEST(middles_between_floats_round_to_even_once)
{
    uint64_t random = testing_seed() ^ 0x51d;

    for (int i = 0; i < PATTERNS; i++) {
        uint32_t bits = (uint32_t)testing_random(&random) & 0x7FFFFFFF;
        float low, got;
        char text[80];
        memcpy(&low, &bits, sizeof low);
        if (!isfinite(low) || !isfinite(nextafterf(low, INFINITY)))
            continue;
        double middle = ((double)low + (double)nextafterf(low, INFINITY)) / 2;
        snprintf(text, sizeof text, "%.*e", (int)(12 + testing_random(&random) % 16), middle);
        float want = strtof(text, NULL);
        ck_assert_ptr_nonnull(number_read_f32(text, text + strlen(text), &got));
        ck_assert_msg(memcmp(&got, &want, sizeof got) == 0, "%s is %a, not %a", text, (double)want,
                      (double)got);
    }
    float got;
    const char *hard =
        "1.00000017881393432617187499"; /* just below a middle; above it as a double */
    ck_assert_ptr_nonnull(number_read_f32(hard, hard + strlen(hard), &got));
    ck_assert(got == 0x1.000002p0f);
}
END_TEST

START_TEST(any_decimal_is_rounded_as_the_c_library_does)
{
    uint64_t random = testing_seed() ^ 0xdec;

    for (int i = 0; i < PATTERNS; i++) {
        char text[128];
        snprintf(text, sizeof text, "%s%llu.%0*lluE%d", i % 2 == 0 ? "" : "-",
                 (unsigned long long)(testing_random(&random) >> testing_random(&random) % 64),
                 (int)(testing_random(&random) % 30),
                 (unsigned long long)(testing_random(&random) >> testing_random(&random) % 64),
                 (int)(testing_random(&random) % 80) - 50);
        float single, want_single = strtof(text, NULL);
        double real, want_real = strtod(text, NULL);
        const char *end = text + strlen(text);
        ck_assert_ptr_eq(number_read_f32(text, end, &single), end);
        ck_assert_ptr_eq(number_read_f64(text, end, &real), end);
        ck_assert_msg(memcmp(&single, &want_single, sizeof single) == 0, "%s", text);
        ck_assert_msg(memcmp(&real, &want_real, sizeof real) == 0, "%s", text);
    }
}
END_TEST

START_TEST(too_large_is_infinity_and_too_small_is_zero)
{
    static const struct {
        const char *text;
        double f64;
        float f32;
    } cases[] = {
        {"1e39", 1e39, INFINITY},
        {"1e309", HUGE_VAL, INFINITY},
        {"-1e400", -HUGE_VAL, -INFINITY},
        {"1e-400", 0, 0},
        {"1e-50", 1e-50, 0},
        {"0e999999999999", 0, 0},
        {"1e-99999999999999", 0, 0},
        {"1e99999999999999", HUGE_VAL, INFINITY},
        {"3.4028235677973367e38", 3.4028235677973367e38, INFINITY},
        {"3.4028235677973366e38", 3.4028235677973366e38, 3.4028234664e38f},
        {"0.00000000000000000000000000000000000000000000000000000001e57", 10, 10},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float single;
        double real;
        const char *end = cases[i].text + strlen(cases[i].text);
        ck_assert_ptr_eq(number_read_f64(cases[i].text, end, &real), end);
        ck_assert_ptr_eq(number_read_f32(cases[i].text, end, &single), end);
        ck_assert_msg(real == cases[i].f64, "%s as f64 is %g", cases[i].text, real);
        ck_assert_msg(single == cases[i].f32, "%s as f32 is %g", cases[i].text, (double)single);
    }
}
END_TEST

Suite *suite_json_numbers(void);
Suite *suite_json_numbers(void)
{
    Suite *suite = suite_create("json_numbers");
    TCase *tests = tcase_create("json_numbers");

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, every_bit_pattern_of_f32_comes_back);
    tcase_add_test(tests, every_bit_pattern_of_f64_comes_back);
    tcase_add_test(tests, no_shorter_text_comes_back);
    tcase_add_test(tests, numbers_are_written_as_people_write_them);
    tcase_add_test(tests, what_is_no_json_number_is_refused);
    tcase_add_test(tests, a_number_ends_where_its_grammar_ends);
    tcase_add_test(tests, nothing_is_read_past_the_end);
    tcase_add_test(tests, middles_between_floats_round_to_even_once);
    tcase_add_test(tests, any_decimal_is_rounded_as_the_c_library_does);
    tcase_add_test(tests, too_large_is_infinity_and_too_small_is_zero);
    suite_add_tcase(suite, tests);
    return suite;
}
