/* Answers in a content coding, against a live server: they decode to the plain ones, and nobody
 * gets one who did not ask. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "api/base64.h"
#include "api/crypto.h"
#include "api/router.h"
#include "tests/lib/coded.h"
#include "tests/lib/codings.h"
#include "tests/lib/testing.h"

enum {
    TEST_TIMEOUT_S = 60,
    COUNT = 1031,
    LARGE = 100003, /* 400 kB: large enough for a sample */
    LINE_BYTES = 512,
};

#define SESSION "/v1/sessions/s"
#define WEIGHTS SESSION "/parameters"
#define STEPS SESSION "/gradients"
#define RAW "Accept: application/octet-stream\r\n"
#define ZSTD "Accept-Encoding: zstd\r\n"
#define GZIP "Accept-Encoding: gzip\r\n"

/* A session "s" of so many numbers: zeros, or noise. */
static void start(const char *const *options, size_t count, bool noise)
{
    char spec[LINE_BYTES];

    coded_start(options);
    snprintf(spec, sizeof spec,
             "{\"optimizer\": \"sgd\", \"seed\": %u, \"parameters\": {\"w\": {\"shape\": [%zu], "
             "\"init\": %s}}}",
             (unsigned)(testing_seed() % 1000000), count,
             noise ? "{\"normal\": {\"mean\": 0, \"std\": 0.05}}" : "\"zeros\"");
    struct http_response response =
        coded_ask("PUT", SESSION, "Content-Type: application/json\r\n", spec, strlen(spec));
    ck_assert_msg(response.status == 201, "%s", response.body);
    http_response_free(&response);
}

static void start_noise(void)
{
    start(NULL, COUNT, true);
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

/* --- every route --- */

static void fill(char *path, size_t size, const char *pattern)
{
    static const char *const examples[][2] = {{"{id}", "s"}, {"{number}", "1"}, {"{name}", "adam"}};
    size_t used = 0;

    while (*pattern != '\0' && used + 16 < size) {
        bool found = false;
        for (size_t i = 0; i < sizeof examples / sizeof *examples && !found; i++) {
            size_t length = strlen(examples[i][0]);
            found = strncmp(pattern, examples[i][0], length) == 0;
            if (found) {
                used += (size_t)snprintf(path + used, size - used, "%s", examples[i][1]);
                pattern += length;
            }
        }
        if (!found)
            path[used++] = *pattern++;
    }
    path[used] = '\0';
    ck_assert_ptr_null(strchr(path, '{'));
}

#define ID "X-Request-Id: same\r\n"

/* Coded whatever it saves. Whether it was. */
static bool check_route(const char *path, const char *coding)
{
    char headers[LINE_BYTES];

    snprintf(headers, sizeof headers, ID "Accept-Encoding: %s, identity;q=0\r\n", coding);
    struct http_response plain = coded_get(path, ID), coded = coded_get(path, headers);
    bool streams = coded.status == 406 && plain.status == 200;
    struct buffer *decoded = coded_plain(&coded);
    if (!streams) {
        ck_assert_msg(coded.status == plain.status, "%s: %u", path, coded.status);
        ck_assert_msg(codings_same(decoded, span_of(plain.body, plain.body_size)), "%s is other",
                      path);
        ck_assert_str_eq(coded_field(&coded, "Content-Type"), coded_field(&plain, "Content-Type"));
    }
    bool is_coded = strcmp(coded_field(&coded, "Content-Encoding"), coding) == 0;
    ck_assert_msg(is_coded || coded.body_size == 0, "%s is not coded", path);
    ck_assert_str_eq(coded_field(&plain, "Content-Encoding"), "");
    buffer_release(decoded);
    http_response_free(&plain);
    http_response_free(&coded);
    return is_coded && !streams;
}

START_TEST(every_answer_decodes_to_the_plain_one)
{
    const struct route *route;
    char path[LINE_BYTES];
    size_t coded = 0, routes = 0;

    start_noise();
    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        /* What is counted while it is asked for is never the same. */
        if (route->method != METHOD_GET || strcmp(route->operation, "metrics") == 0)
            continue;
        fill(path, sizeof path, route->pattern);
        coded += check_route(path, "zstd");
        coded += check_route(path, "gzip");
        routes++;
    }
    ck_assert_uint_ge(routes, 15);
    ck_assert_uint_ge(coded, 2 * routes - 4); /* all but the streams */
    coded_stop();
}
END_TEST

/* --- who gets what --- */

static const struct {
    const char *accept, *coding; /* "": plain */
} wishes[] = {
    {"zstd", "zstd"},
    {"gzip", "gzip"},
    {"x-gzip", "gzip"},
    {"gzip, deflate, br, zstd", "zstd"},
    {"gzip, deflate, br", "gzip"},
    {"zstd;q=0.1, gzip;q=0.2", "gzip"},
    {"*", "zstd"},
    {"identity", ""},
    {"br", ""},
    {"zstd;q=0, gzip;q=0", ""},
    {"gzip;q=0.5, identity;q=0.6", ""},
    {"", ""},
};

START_TEST(an_answer_is_coded_as_it_is_asked_for)
{
    char headers[LINE_BYTES], wanted[LINE_BYTES];

    start_noise();
    struct http_response plain = coded_get(WEIGHTS, "");
    ck_assert_str_eq(coded_field(&plain, "Vary"), "Accept, Accept-Encoding");
    ck_assert_str_eq(coded_field(&plain, "ETag"), "\"0-0\"");
    for (size_t i = 0; i < sizeof wishes / sizeof *wishes; i++) {
        snprintf(headers, sizeof headers, "Accept-Encoding: %s\r\n", wishes[i].accept);
        struct http_response response = coded_get(WEIGHTS, headers);
        struct buffer *decoded = coded_plain(&response);
        snprintf(wanted, sizeof wanted, "\"0-0%s%s\"", wishes[i].coding[0] != '\0' ? "-" : "",
                 wishes[i].coding);
        ck_assert_msg(strcmp(coded_field(&response, "Content-Encoding"), wishes[i].coding) == 0,
                      "%s: %s", wishes[i].accept, response.head);
        ck_assert_str_eq(coded_field(&response, "ETag"), wanted);
        ck_assert_str_eq(coded_field(&response, "Vary"), "Accept, Accept-Encoding");
        ck_assert_str_eq(coded_field(&response, "Accept-Ranges"), "");
        ck_assert(codings_same(decoded, span_of(plain.body, plain.body_size)));
        buffer_release(decoded);
        http_response_free(&response);
    }
    http_response_free(&plain);
    coded_stop();
}
END_TEST

START_TEST(what_is_small_or_a_part_or_a_stream_is_plain)
{
    start_noise();
    check_get("/livez", ZSTD, 200, "");
    check_get(SESSION "/hash", ZSTD, 200, "");
    check_get("/v1/sessions/absent", ZSTD, 404, "");
    check_get(WEIGHTS, ZSTD RAW, 200, "zstd");
    check_get(WEIGHTS, ZSTD RAW "Range: bytes=0-2000\r\n", 206, "");
    check_get(WEIGHTS, ZSTD RAW "Range: bytes=9999-\r\n", 416, "");
    check_get(WEIGHTS, ZSTD "Range: bytes=0-2000\r\n", 200, "zstd"); /* JSON has no ranges */
    check_get(SESSION "/state", ZSTD, 200, "");
    check_get(SESSION "/steps", ZSTD "Accept: application/x-ndjson\r\n", 200, "");
    /* Who will not have it plain gets what can be coded coded. */
    check_get("/livez", "Accept-Encoding: zstd, *;q=0\r\n", 200, "zstd");
    check_get("/v1/sessions/absent", "Accept-Encoding: zstd, *;q=0\r\n", 404, "zstd");
    check_get(WEIGHTS, RAW "Accept-Encoding: zstd, *;q=0\r\nRange: bytes=0-2000\r\n", 200, "zstd");
    check_get(SESSION "/state", "Accept-Encoding: zstd, *;q=0\r\n", 406, "zstd");
    coded_stop();
}
END_TEST

START_TEST(what_cannot_be_accepted_has_no_effect)
{
    float gradient[COUNT] = {1};
    struct http_response response;

    start_noise();
    response = coded_ask("POST", STEPS,
                         "Content-Type: application/octet-stream\r\nAccept-Encoding: br, *;q=0\r\n",
                         gradient, sizeof gradient);
    ck_assert_uint_eq(response.status, 406);
    ck_assert_ptr_nonnull(strstr(response.body, "zstd, gzip"));
    ck_assert_ptr_nonnull(strstr(response.body, "not_acceptable"));
    http_response_free(&response);
    response = coded_get(SESSION, "");
    ck_assert_ptr_nonnull(strstr(response.body, "\"step\":0"));
    http_response_free(&response);
    coded_stop();
}
END_TEST

/* Numbers as bytes save 8 %, which is worth zstd's time and not gzip's; where they repeat, both. */
START_TEST(a_large_answer_is_coded_where_it_is_worth_its_time)
{
    start(NULL, LARGE, true);
    check_get(WEIGHTS, ZSTD RAW, 200, "zstd");
    check_get(WEIGHTS, GZIP RAW, 200, "");
    check_get(WEIGHTS, GZIP, 200, "gzip");
    check_get(WEIGHTS, RAW "Accept-Encoding: gzip, *;q=0\r\n", 200, "gzip");
    coded_stop();
    start(NULL, LARGE, false);
    check_get(WEIGHTS, ZSTD RAW, 200, "zstd");
    check_get(WEIGHTS, GZIP RAW, 200, "gzip");
    coded_stop();
}
END_TEST

START_TEST(without_memory_for_the_coded_form_the_plain_one_goes_out)
{
    static const char *const options[] = {"--inflight-bytes-max", "20000", NULL};

    start(options, LARGE, true);
    for (int i = 0; i < 3; i++) {
        check_get(WEIGHTS, ZSTD RAW, 200, "");
        check_get("/openapi.json", ZSTD, 200, "");
        check_get("/v1/optimizers/adam", ZSTD, 200, "zstd"); /* nothing of it stays counted */
    }
    coded_stop();
}
END_TEST

/* --- digests --- */

static void check_digest(const char *path, const char *headers, unsigned status)
{
    char all[2 * LINE_BYTES], text[BASE64_SIZE(SHA256_BYTES) + 1] = "", wanted[LINE_BYTES];
    unsigned char digest[SHA256_BYTES];

    snprintf(all, sizeof all, "%sWant-Content-Digest: sha-256=1\r\n", headers);
    struct http_response response = coded_get(path, all);
    ck_assert_uint_eq(response.status, status);
    ck_assert(crypto_sha256(span_of(response.body, response.body_size), digest));
    base64_write(digest, sizeof digest, text);
    snprintf(wanted, sizeof wanted, "sha-256=:%s:", text);
    ck_assert_str_eq(coded_field(&response, "Content-Digest"), wanted);
    http_response_free(&response);
}

START_TEST(a_digest_is_of_the_bytes_that_are_sent)
{
    struct http_response response;

    start_noise();
    check_digest(WEIGHTS, "", 200);
    check_digest(WEIGHTS, RAW, 200);
    check_digest(WEIGHTS, ZSTD, 200);
    check_digest(WEIGHTS, GZIP RAW, 200);
    check_digest(WEIGHTS, RAW "Range: bytes=5-1000\r\n", 206);
    check_digest(WEIGHTS, RAW "Range: bytes=99999-\r\n", 416);
    check_digest("/nowhere", "", 404);
    response = coded_get(SESSION "/state", "Want-Content-Digest: sha-256=1\r\n");
    ck_assert_str_eq(coded_field(&response, "Content-Digest"), "");
    http_response_free(&response);
    response = coded_get(WEIGHTS, "Want-Content-Digest: sha-256=1\r\nIf-None-Match: \"0-0\"\r\n");
    ck_assert_uint_eq(response.status, 304);
    ck_assert_str_eq(coded_field(&response, "Content-Digest"), "");
    http_response_free(&response);
    coded_stop();
}
END_TEST

Suite *suite_coded_answers(void);
Suite *suite_coded_answers(void)
{
    Suite *suite = suite_create("coded_answers");
    TCase *tests = tcase_create("coded_answers");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_test(tests, every_answer_decodes_to_the_plain_one);
    tcase_add_test(tests, an_answer_is_coded_as_it_is_asked_for);
    tcase_add_test(tests, what_is_small_or_a_part_or_a_stream_is_plain);
    tcase_add_test(tests, what_cannot_be_accepted_has_no_effect);
    tcase_add_test(tests, a_large_answer_is_coded_where_it_is_worth_its_time);
    tcase_add_test(tests, without_memory_for_the_coded_form_the_plain_one_goes_out);
    tcase_add_test(tests, a_digest_is_of_the_bytes_that_are_sent);
    suite_add_tcase(suite, tests);
    return suite;
}
