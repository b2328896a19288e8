/* The tags of answers in a content coding, and the conditions on them, against a live server. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/coded.h"
#include "tests/lib/codings.h"
#include "tests/lib/testing.h"

enum { TEST_TIMEOUT_S = 60, COUNT = 1031, LINE_BYTES = 512 };

#define SESSION "/v1/sessions/s"
#define WEIGHTS SESSION "/parameters"
#define STEPS SESSION "/gradients"
#define RAW "Accept: application/octet-stream\r\n"
#define ZSTD "Accept-Encoding: zstd\r\n"
#define GZIP "Accept-Encoding: gzip\r\n"

/* A session "s" of noise. */
static void start(void)
{
    char spec[LINE_BYTES];

    coded_start(NULL);
    snprintf(spec, sizeof spec,
             "{\"optimizer\": \"sgd\", \"seed\": %u, \"parameters\": {\"w\": {\"shape\": [%d], "
             "\"init\": {\"normal\": {\"mean\": 0, \"std\": 0.05}}}}}",
             (unsigned)(testing_seed() % 1000000), COUNT);
    struct http_response response =
        coded_ask("PUT", SESSION, "Content-Type: application/json\r\n", spec, strlen(spec));
    ck_assert_msg(response.status == 201, "%s", response.body);
    http_response_free(&response);
}

/* The status, and whether it is coded. */
static void check_get(const char *path, const char *headers, unsigned status, const char *coding)
{
    struct http_response response = coded_get(path, headers);

    ck_assert_msg(response.status == status, "%s %s: %s", path, headers, response.head);
    ck_assert_msg(strcmp(coded_field(&response, "Content-Encoding"), coding) == 0, "%s %s: %s",
                  path, headers, response.head);
    http_response_free(&response);
}

static void check_known(const char *headers, const char *tag, unsigned status, const char *answer)
{
    char all[2 * LINE_BYTES];

    snprintf(all, sizeof all, "%sIf-None-Match: %s\r\n", headers, tag);
    struct http_response response = coded_get(WEIGHTS, all);
    ck_assert_msg(response.status == status, "%s: %s", all, response.head);
    ck_assert_msg(strcmp(coded_field(&response, "ETag"), answer) == 0, "%s: %s", all,
                  response.head);
    ck_assert_str_eq(coded_field(&response, "Vary"), "Accept, Accept-Encoding");
    http_response_free(&response);
}

START_TEST(a_304_has_the_tag_of_what_the_client_has)
{
    start();
    check_known(ZSTD, "\"0-0-zstd\"", 304, "\"0-0-zstd\"");
    check_known(ZSTD, "W/\"0-0-zstd\"", 304, "\"0-0-zstd\"");
    check_known(ZSTD, "\"0-0\"", 304, "\"0-0\"");
    check_known(ZSTD, "\"0-9\", \"0-0-gzip\", \"0-0-zstd\"", 304, "\"0-0-zstd\"");
    check_known("", "\"0-0\"", 304, "\"0-0\"");
    check_known("", "\"0-0\"\r\nIf-None-Match: \"0-9\"", 304, "\"0-0\""); /* lines are one list */
    check_known("", "*", 304, "\"0-0\"");
    /* A form that this request does not accept is of no use to it. */
    check_known(ZSTD, "\"0-0-gzip\"", 200, "\"0-0-zstd\"");
    check_known("", "\"0-0-zstd\"", 200, "\"0-0\"");
    check_known("Accept-Encoding: gzip, *;q=0\r\n", "\"0-0\"", 200, "\"0-0-gzip\"");
    /* Others' tags. */
    check_known(ZSTD, "\"0-0-br\"", 200, "\"0-0-zstd\"");
    check_known(ZSTD, "\"0-0-zstd-zstd\"", 200, "\"0-0-zstd\"");
    check_known(ZSTD, "\"0-0-ema-zstd\"", 200, "\"0-0-zstd\"");
    check_known(ZSTD, "\"0-0-\"", 200, "\"0-0-zstd\"");
    check_known(ZSTD, "\"0-00-zstd\"", 200, "\"0-0-zstd\"");
    coded_stop();
}
END_TEST

static void check_condition(const char *method, const char *path, const char *tag, unsigned status)
{
    char headers[LINE_BYTES];
    float numbers[COUNT] = {0};

    snprintf(headers, sizeof headers, "Content-Type: application/octet-stream\r\nIf-Match: %s\r\n",
             tag);
    struct http_response response = coded_ask(method, path, headers, numbers, sizeof numbers);
    ck_assert_msg(response.status == status, "%s: %s", headers, response.head);
    http_response_free(&response);
}

START_TEST(a_coded_answers_tag_is_a_condition_on_its_revision)
{
    start();
    check_condition("POST", STEPS, "\"0-0-br\"", 412);
    check_condition("POST", STEPS, "\"0-1-zstd\"", 412);
    check_condition("POST", STEPS, "\"0-0-zstd", 412);
    check_condition("POST", STEPS, "W/\"0-0-zstd\"", 412);
    check_condition("POST", STEPS, "\"0-0-zstd\"", 200);
    check_condition("POST", STEPS, "\"0-0-gzip\"", 412);
    check_condition("POST", STEPS, "\"7-7\", \"0-1-gzip\"", 200);
    check_condition("PUT", WEIGHTS, "\"0-1-gzip\"", 412);
    check_condition("PUT", WEIGHTS, "\"0-1\"\r\nIf-Match: \"0-0\"", 412);
    check_condition("POST", STEPS, "\"0-2\"\r\nIf-Match: \"0-0\"", 200);
    check_condition("PUT", WEIGHTS, "\"0-3-gzip\"", 200);
    coded_stop();
}
END_TEST

/* A part is of the plain form: a validator of another says that the client has no other part. */
START_TEST(if_range_knows_the_forms_apart)
{
    start();
    check_get(WEIGHTS, RAW "Range: bytes=4-7\r\nIf-Range: \"0-0\"\r\n", 206, "");
    check_get(WEIGHTS, RAW ZSTD "Range: bytes=4-7\r\nIf-Range: \"0-0\"\r\n", 206, "");
    check_get(WEIGHTS, RAW ZSTD "Range: bytes=4-7\r\nIf-Range: \"0-0-zstd\"\r\n", 200, "");
    coded_stop();
}
END_TEST

/* Parts that are fetched one after the other are of one revision, or 412 says so. */
START_TEST(a_fetch_may_ask_for_one_revision_alone)
{
    static const struct {
        const char *headers;
        unsigned status;
        const char *coding;
    } cases[] = {
        {RAW "If-Match: \"0-1\"\r\n", 200, ""},
        {RAW "If-Match: *\r\n", 200, ""},
        {RAW "If-Match: \"0-7\", \"0-1\"\r\n", 200, ""},
        {RAW "If-Match: \"0-1\"\r\nRange: bytes=4-7\r\n", 206, ""},
        {RAW "If-Match: \"0-0\"\r\nRange: bytes=4-7\r\n", 412, ""},
        {RAW "If-Match: \"0-0\"\r\n", 412, ""},
        {RAW "If-Match: W/\"0-1\"\r\n", 412, ""},
        {RAW "If-Match: \"0-1-ema\"\r\n", 412, ""},
        {RAW "If-Match: \"0-0\"\r\nIf-None-Match: \"0-1\"\r\n", 412, ""},
        {RAW "If-Match: \"0-1\"\r\nIf-None-Match: \"0-1\"\r\n", 304, ""},
        {RAW ZSTD "If-Match: \"0-1-zstd\"\r\n", 200, "zstd"},
        {RAW ZSTD "If-Match: \"0-1-gzip\"\r\n", 412, ""},
        {RAW "If-Match: \"0-1-zstd\"\r\n", 412, ""},
        {RAW ZSTD "If-Match: \"0-1-zstd\"\r\nRange: bytes=4-7\r\n", 412, ""},
    };

    start();
    check_condition("PUT", WEIGHTS, "*", 200);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_get(WEIGHTS, cases[i].headers, cases[i].status, cases[i].coding);
    check_get(WEIGHTS "?step=0", RAW "If-Match: \"0-0\"\r\nRange: bytes=4-7\r\n", 206, "");
    check_get(WEIGHTS "?step=0", RAW "If-Match: \"0-1\"\r\nRange: bytes=4-7\r\n", 412, "");
    coded_stop();
}
END_TEST

START_TEST(head_tells_what_get_does)
{
    static const char *const headers[] = {"", ZSTD, GZIP, RAW, ZSTD RAW};
    static const char *const names[] = {"Content-Length", "Content-Encoding", "ETag",
                                        "Vary",           "Content-Type",     "Accept-Ranges"};

    start();
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        struct http_response whole = coded_get(WEIGHTS, headers[i]);
        struct http_response head = coded_head(WEIGHTS, headers[i]);
        for (size_t n = 0; n < sizeof names / sizeof *names; n++)
            ck_assert_str_eq(coded_field(&head, names[n]), coded_field(&whole, names[n]));
        ck_assert_uint_eq((size_t)atol(coded_field(&head, "Content-Length")), whole.body_size);
        http_response_free(&whole);
        http_response_free(&head);
    }
    coded_stop();
}
END_TEST

START_TEST(weights_that_come_with_a_step_are_coded_and_tagged)
{
    float gradient[COUNT] = {1};
    struct http_response response;

    start();
    response = coded_ask("POST", STEPS,
                         "Content-Type: application/octet-stream\r\n" RAW ZSTD
                         "Prefer: return=representation\r\n",
                         gradient, sizeof gradient);
    ck_assert_uint_eq(response.status, 200);
    ck_assert_str_eq(coded_field(&response, "ETag"), "\"0-1-zstd\"");
    ck_assert_str_eq(coded_field(&response, "Vary"), "Accept, Accept-Encoding");
    ck_assert_str_eq(coded_field(&response, "Descent-Step"), "1");
    struct buffer *weights = coded_plain(&response);
    struct http_response plain = coded_get(WEIGHTS, RAW);
    ck_assert(codings_same(weights, span_of(plain.body, plain.body_size)));
    http_response_free(&plain);
    http_response_free(&response);
    buffer_release(weights);
    coded_stop();
}
END_TEST

Suite *suite_coded_tags(void);
Suite *suite_coded_tags(void)
{
    Suite *suite = suite_create("coded_tags");
    TCase *tests = tcase_create("coded_tags");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_test(tests, a_304_has_the_tag_of_what_the_client_has);
    tcase_add_test(tests, a_coded_answers_tag_is_a_condition_on_its_revision);
    tcase_add_test(tests, if_range_knows_the_forms_apart);
    tcase_add_test(tests, a_fetch_may_ask_for_one_revision_alone);
    tcase_add_test(tests, head_tells_what_get_does);
    tcase_add_test(tests, weights_that_come_with_a_step_are_coded_and_tagged);
    suite_add_tcase(suite, tests);
    return suite;
}
