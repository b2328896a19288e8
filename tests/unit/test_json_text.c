/* Writing JSON. */
#include <check.h>
#include <math.h>
#include <string.h>

#include "api/json_document.h"
#include "api/json_text.h"

static struct arena arena;
static struct json_text text;

static void setup(void)
{
    arena_init(&arena);
    json_text_init(&text, &arena);
}

static void teardown(void)
{
    arena_close(&arena);
}

static void check_text(const char *expected)
{
    struct span span = json_text_end(&text);

    ck_assert_ptr_nonnull(span.data);
    ck_assert_msg(span.size == strlen(expected) && memcmp(span.data, expected, span.size) == 0,
                  "%.*s, not %s", (int)span.size, (const char *)span.data, expected);
}

START_TEST(commas_stand_between_members_and_elements)
{
    json_text_open(&text, '{');
    json_text_key(&text, "a");
    json_text_u64(&text, UINT64_MAX);
    json_text_key(&text, "b");
    json_text_open(&text, '[');
    json_text_close(&text, ']');
    json_text_key(&text, "c");
    json_text_open(&text, '[');
    json_text_bool(&text, true);
    json_text_bool(&text, false);
    json_text_null(&text);
    json_text_open(&text, '{');
    json_text_close(&text, '}');
    json_text_raw(&text, span_text("[1]"));
    json_text_string(&text, NULL);
    json_text_close(&text, ']');
    json_text_close(&text, '}');
    check_text("{\"a\":18446744073709551615,\"b\":[],\"c\":[true,false,null,{},[1],null]}");
}
END_TEST

START_TEST(strings_are_escaped_where_json_demands_it)
{
    json_text_string(&text, "a\"b\\c/\b\f\n\r\t\x01\x1f\x7f\xc3\xa9");
    check_text("\"a\\\"b\\\\c/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\xc3\xa9\"");
}
END_TEST

START_TEST(every_character_comes_back_through_the_reader)
{
    struct json_document document;
    struct fault fault;
    char value[128];

    for (int i = 1; i < 128; i++)
        value[i - 1] = (char)i;
    value[127] = '\0';
    json_text_open(&text, '{');
    json_text_key(&text, value);
    json_text_string(&text, value);
    json_text_close(&text, '}');
    ck_assert_int_eq(json_read(&arena, json_text_end(&text), &document, &fault), STATUS_OK);
    ck_assert_str_eq(json_string_value(json_object_get(document.root, value)), value);
    json_close(&document);
}
END_TEST

START_TEST(nan_and_infinity_are_null)
{
    json_text_open(&text, '[');
    json_text_f64(&text, 0.1);
    json_text_f64(&text, (double)NAN);
    json_text_f64(&text, -(double)INFINITY);
    json_text_f64(&text, -0.0);
    json_text_close(&text, ']');
    check_text("[0.1,null,null,-0.0]");
}
END_TEST

START_TEST(a_long_text_grows_without_losing_a_byte)
{
    struct json_document document;
    struct fault fault;
    uint64_t value;

    json_text_open(&text, '[');
    json_text_string(&text, "x");
    for (uint64_t i = 0; i < 10007; i++)
        json_text_u64(&text, i);
    json_text_close(&text, ']');
    ck_assert_int_eq(json_read(&arena, json_text_end(&text), &document, &fault), STATUS_OK);
    for (size_t i = 0; i < 10007; i++) {
        const json_t *element = json_array_get(document.root, i + 1);
        ck_assert_int_eq(json_u64(&document, element, &value, &fault), STATUS_OK);
        ck_assert_uint_eq(value, i);
    }
    json_close(&document);
}
END_TEST

START_TEST(without_memory_the_end_says_so)
{
    json_text_open(&text, '[');
    ck_assert_ptr_null(json_text_reserve(&text, SIZE_MAX / 4 * 3)); /* no arena has it */
    json_text_u64(&text, 1);
    json_text_close(&text, ']');
    ck_assert_ptr_null(json_text_end(&text).data);
}
END_TEST

Suite *suite_json_text(void);
Suite *suite_json_text(void)
{
    Suite *suite = suite_create("json_text");
    TCase *tests = tcase_create("json_text");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, commas_stand_between_members_and_elements);
    tcase_add_test(tests, strings_are_escaped_where_json_demands_it);
    tcase_add_test(tests, every_character_comes_back_through_the_reader);
    tcase_add_test(tests, nan_and_infinity_are_null);
    tcase_add_test(tests, a_long_text_grows_without_losing_a_byte);
    tcase_add_test(tests, without_memory_the_end_says_so);
    suite_add_tcase(suite, tests);
    return suite;
}
