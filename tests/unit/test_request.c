/* What is read out of a request: query, headers, preferences, ranges. */
#include <check.h>
#include <stdint.h>
#include <string.h>

#include "api/accept.h"
#include "api/endpoint.h"
#include "api/guard.h"
#include "api/range.h"

static struct arena arena;
static struct request request;
static struct fault fault;

static void setup(void)
{
    arena_init(&arena);
    request = (struct request){.arena = &arena};
}

static void teardown(void)
{
    arena_close(&arena);
}

static void header(const char *name, const char *value)
{
    request.headers[request.header_count++] = (struct header){.name = name, .value = value};
}

START_TEST(query_is_cut_and_decoded)
{
    ck_assert_int_eq(guard_query(&request, "tensors=w%2Cb&dtype=f32&flag&empty=&a+b=c+d=e", &fault),
                     STATUS_OK);
    ck_assert_uint_eq(request.query_count, 5);
    ck_assert_str_eq(request_query(&request, "tensors"), "w,b");
    ck_assert_str_eq(request_query(&request, "dtype"), "f32");
    ck_assert_str_eq(request_query(&request, "flag"), "");
    ck_assert_str_eq(request_query(&request, "empty"), "");
    ck_assert_ptr_null(request_query(&request, "Dtype"));
    ck_assert_int_eq(request_query_end(&request, &fault), STATUS_INVALID_REQUEST);
    ck_assert_ptr_nonnull(strstr(fault.detail, "\"a+b\""));
    ck_assert_str_eq(request_query(&request, "a+b"), "c+d=e");
    ck_assert_int_eq(request_query_end(&request, &fault), STATUS_OK);
}
END_TEST

static const char *const bad_queries[] = {
    "a=1&a=2",
    "a=1&%61=2",
    "a&a",
    "=1",
    "&",
    "a=1&",
    "a=1&&b=2",
    "a=%",
    "a=%4",
    "a=%g0",
    "%zz=1",
    "a=%00",
    "a=%ff",
    "1&2&3&4&5&6&7&8&9&10&11&12&13&14&15&16&17&18&19&20&21&22&23&24&25&26&27&28&29&30&31&32&33",
};

START_TEST(bad_query_is_refused)
{
    ck_assert_msg(guard_query(&request, bad_queries[_i], &fault) == STATUS_INVALID_REQUEST, "%s",
                  bad_queries[_i]);
    ck_assert_uint_gt(strlen(fault.detail), 20);
}
END_TEST

START_TEST(repeated_query_key_is_named)
{
    guard_query(&request, "dtype=f32&x=1&dtype=f64", &fault);
    ck_assert_ptr_nonnull(strstr(fault.detail, "\"dtype\""));
}
END_TEST

START_TEST(headers_are_found_without_case_and_the_last_wins)
{
    header("Accept", "a/b");
    header("accept", "c/d");
    ck_assert_str_eq(request_header(&request, "ACCEPT"), "c/d");
    ck_assert_ptr_null(request_header(&request, "Accep"));
    ck_assert_ptr_null(request_header(&request, "Accept-Encoding"));
}
END_TEST

START_TEST(preferences_are_found)
{
    header("Prefer", " return=minimal;x=1 , wait = \"30\",respond-async");
    header("prefer", "wait=5, handling=strict, odd=\"a,b\" , after");
    ck_assert_str_eq(request_prefer(&request, "return"), "minimal");
    ck_assert_str_eq(request_prefer(&request, "Wait"), "30");
    ck_assert_str_eq(request_prefer(&request, "respond-async"), "");
    ck_assert_str_eq(request_prefer(&request, "handling"), "strict");
    ck_assert_str_eq(request_prefer(&request, "odd"), "a,b");
    ck_assert_str_eq(request_prefer(&request, "after"), "");
    ck_assert_ptr_null(request_prefer(&request, "x"));
    ck_assert_ptr_null(request_prefer(&request, "ret"));
    ck_assert_ptr_null(request_prefer(&request, "b"));
}
END_TEST

START_TEST(broken_preferences_do_no_harm)
{
    header("Prefer", ",,;=,\"a\"=\"b, =x, wait=\"");
    ck_assert_ptr_null(request_prefer(&request, "return"));
}
END_TEST

START_TEST(fields_of_one_name_are_one_list)
{
    header("Accept-Encoding", "gzip;q=0.5");
    ck_assert_str_eq(request_list(&request, "accept-encoding"), "gzip;q=0.5");
    header("Other", "x");
    header("ACCEPT-ENCODING", "zstd");
    header("Accept-Encoding", "");
    ck_assert_str_eq(request_list(&request, "Accept-Encoding"), "gzip;q=0.5, zstd, ");
    ck_assert_ptr_null(request_list(&request, "Absent"));
}
END_TEST

START_TEST(vary_says_each_name_once)
{
    struct reply reply = {.http = 200};

    reply_vary(&reply, &arena, "Accept");
    ck_assert_str_eq(*reply_find(&reply, "vary"), "Accept");
    reply_vary(&reply, &arena, "accept");
    ck_assert_str_eq(*reply_find(&reply, "Vary"), "Accept");
    reply_vary(&reply, &arena, "Accept-Encoding");
    reply_vary(&reply, &arena, "Origin");
    reply_vary(&reply, &arena, "Accept-Encoding");
    ck_assert_str_eq(*reply_find(&reply, "Vary"), "Accept, Accept-Encoding, Origin");
    ck_assert_uint_eq(reply.header_count, 1);
    ck_assert_ptr_null(reply_find(&reply, "ETag"));
}
END_TEST

static const struct {
    const char *field, *value;
} parameters[] = {
    {"application/json", ""},
    {"application/json;", ""},
    {"application/json; charset=utf-8", "utf-8"},
    {"application/json;Charset=UTF-8;x=y", "UTF-8"},
    {"application/json ; a=\"b;charset=no\" ; charset=\"utf-8\" ; c", "utf-8"},
    {"application/json; charset=", ""},
    {"application/json; charset=\"", "\""},
    {"application/json; charset", ""},
    {"application/json; charsets=x", ""},
    {"charset=x", ""},
    {"", ""},
};

START_TEST(parameters_of_a_field_are_found)
{
    struct span value = accept_parameter(parameters[_i].field, "charset");

    ck_assert_uint_eq(value.size, strlen(parameters[_i].value));
    if (value.size > 0)
        ck_assert_mem_eq(value.data, parameters[_i].value, value.size);
}
END_TEST

static const struct {
    const char *range, *if_range;
    enum range_kind kind;
    uint64_t first, size;
} ranges[] = {
    {NULL, NULL, RANGE_WHOLE, 0, 1031},
    {"bytes=0-0", NULL, RANGE_PART, 0, 1},
    {"bytes=0-", NULL, RANGE_PART, 0, 1031},
    {"bytes=1030-", NULL, RANGE_PART, 1030, 1},
    {"bytes=7-1030", NULL, RANGE_PART, 7, 1024},
    {"bytes=7-99999", NULL, RANGE_PART, 7, 1024},
    {"bytes=7-99999999999999999999999999", NULL, RANGE_PART, 7, 1024},
    {"bytes=-1", NULL, RANGE_PART, 1030, 1},
    {"bytes=-1031", NULL, RANGE_PART, 0, 1031},
    {"bytes=-5000", NULL, RANGE_PART, 0, 1031},
    {"BYTES=1-2", NULL, RANGE_PART, 1, 2},
    {"bytes=1031-", NULL, RANGE_OUTSIDE, 0, 0},
    {"bytes=99999999999999999999999999-", NULL, RANGE_OUTSIDE, 0, 0},
    {"bytes=-0", NULL, RANGE_OUTSIDE, 0, 0},
    {"bytes=2-1", NULL, RANGE_WHOLE, 0, 1031},
    {"bytes=-", NULL, RANGE_WHOLE, 0, 1031},
    {"bytes=", NULL, RANGE_WHOLE, 0, 1031},
    {"bytes=a-b", NULL, RANGE_WHOLE, 0, 1031},
    {"bytes=0-1,3-4", NULL, RANGE_WHOLE, 0, 1031},
    {"bytes=0-1x", NULL, RANGE_WHOLE, 0, 1031},
    {"lines=0-1", NULL, RANGE_WHOLE, 0, 1031},
    {"bytes=0-0", "\"0-13\"", RANGE_PART, 0, 1},
    {"bytes=0-0", "\"0-12\"", RANGE_WHOLE, 0, 1031},
    {"bytes=0-0", "W/\"0-13\"", RANGE_WHOLE, 0, 1031},
    {"bytes=0-0", "Sat, 21 Nov 2026 20:56:45 GMT", RANGE_WHOLE, 0, 1031},
};

START_TEST(ranges_are_cut_to_what_is_there)
{
    struct range range = range_find(ranges[_i].range, ranges[_i].if_range, "\"0-13\"", 1031);

    ck_assert_int_eq(range.kind, ranges[_i].kind);
    ck_assert_uint_eq(range.first, ranges[_i].first);
    ck_assert_uint_eq(range.size, ranges[_i].size);
}
END_TEST

START_TEST(nothing_has_no_ranges)
{
    ck_assert_int_eq(range_find("bytes=0-", NULL, NULL, 0).kind, RANGE_OUTSIDE);
    ck_assert_int_eq(range_find("bytes=-5", NULL, NULL, 0).kind, RANGE_OUTSIDE);
    ck_assert_int_eq(range_find("bytes=0-0", "\"a\"", NULL, 9).kind, RANGE_WHOLE);
}
END_TEST

Suite *suite_request(void);
Suite *suite_request(void)
{
    Suite *suite = suite_create("request");
    TCase *tests = tcase_create("request");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, query_is_cut_and_decoded);
    tcase_add_loop_test(tests, bad_query_is_refused, 0, sizeof bad_queries / sizeof *bad_queries);
    tcase_add_test(tests, repeated_query_key_is_named);
    tcase_add_test(tests, headers_are_found_without_case_and_the_last_wins);
    tcase_add_test(tests, preferences_are_found);
    tcase_add_test(tests, broken_preferences_do_no_harm);
    tcase_add_test(tests, fields_of_one_name_are_one_list);
    tcase_add_test(tests, vary_says_each_name_once);
    tcase_add_loop_test(tests, parameters_of_a_field_are_found, 0,
                        sizeof parameters / sizeof *parameters);
    tcase_add_loop_test(tests, ranges_are_cut_to_what_is_there, 0, sizeof ranges / sizeof *ranges);
    tcase_add_test(tests, nothing_has_no_ranges);
    suite_add_tcase(suite, tests);
    return suite;
}
