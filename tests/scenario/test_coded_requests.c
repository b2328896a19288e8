/* Bodies in a content coding that are broken, too large or of an unknown one, against a live
 * server: refused, and the connection lives on. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "tests/lib/coded.h"
#include "tests/lib/codings.h"
#include "tests/lib/testing.h"

enum { TEST_TIMEOUT_S = 60, COUNT = 1031, LINE_BYTES = 512, BOMB_BYTES = 256 << 20 };

#define JSON "application/json"
#define RAW "application/octet-stream"

static struct buffer *noise(void)
{
    struct buffer *buffer = buffer_new(COUNT * sizeof(float));
    uint64_t random = testing_seed();

    ck_assert_ptr_nonnull(buffer);
    for (size_t i = 0; i < COUNT; i++) {
        float value = (float)testing_normal(&random);
        memcpy(buffer->data + i * sizeof value, &value, sizeof value);
    }
    return buffer;
}

static void check_step_0(void)
{
    struct http_response response = coded_get("/v1/sessions/s/hash", "");

    ck_assert_ptr_nonnull(strstr(response.body, "\"step\":0"));
    http_response_free(&response);
}

/* Fails unless the answer has this status and these words. */
static void check_refused(struct http_response response, unsigned status, const char *words)
{
    ck_assert_msg(response.status == status, "%u, not %u: %s", response.status, status,
                  response.body);
    ck_assert_msg(strstr(response.body, words) != NULL, "%s: %s", words, response.body);
    http_response_free(&response);
    /* The connection is as good as before. */
    response = coded_get("/livez", "");
    ck_assert_uint_eq(response.status, 200);
    http_response_free(&response);
}

static void make_session(size_t count)
{
    char spec[LINE_BYTES];

    snprintf(spec, sizeof spec,
             "{\"optimizer\": \"sgd\", \"parameters\": {\"w\": {\"shape\": [%zu], \"init\": "
             "\"zeros\"}}}",
             count);
    struct http_response response =
        coded_send("PUT", "/v1/sessions/s", JSON, "", span_text(spec), (struct travel){0});
    ck_assert_uint_eq(response.status, 201);
    http_response_free(&response);
}

static struct http_response post(const char *headers, struct span bytes, const char *coding,
                                 enum coded_framing framing)
{
    return coded_send_bytes("POST", "/v1/sessions/s/gradients", RAW, headers, bytes,
                            (struct travel){coding, framing});
}

START_TEST(broken_bodies_are_refused_and_the_connection_lives)
{
    static const char *const codings[] = {"zstd", "gzip"};

    coded_start(NULL);
    make_session(COUNT);
    struct buffer *plain = noise();
    plain->data[0] = 0; /* begins no coding */
    for (size_t c = 0; c < 2; c++) {
        struct buffer *coded = codings_encode(codings[c], span_of(plain->data, plain->size));
        for (enum coded_framing framing = LENGTH; framing <= CHUNKED; framing++) {
            check_refused(post("", span_of(coded->data, coded->size - 1), codings[c], framing), 400,
                          "cut off");
            check_refused(post("", span_of(plain->data, plain->size), codings[c], framing), 400,
                          "from byte 0 on");
            check_refused(post("", span_of(coded->data, coded->size), codings[1 - c], framing), 400,
                          "from byte 0 on");
        }
        coded->data[coded->size - 1] ^= 1;
        check_refused(post("", span_of(coded->data, coded->size), codings[c], LENGTH), 400,
                      "the body is not");
        coded->data[coded->size - 1] ^= 1;
        check_refused(
            post("Repr-Digest: sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:\r\n",
                 span_of(coded->data, coded->size), codings[c], CHUNKED),
            400, "the body was changed on its way");
        buffer_release(coded);
    }
    buffer_release(plain);
    check_step_0();
    coded_stop();
}
END_TEST

START_TEST(an_unknown_coding_is_refused_with_those_there_are)
{
    static const char *const codings[] = {"br", "deflate", "gzip, zstd", "zstd, zstd", "*"};
    char value[LINE_BYTES];

    coded_start(NULL);
    make_session(COUNT);
    for (size_t i = 0; i < sizeof codings / sizeof *codings; i++) {
        struct http_response response = post("", span_text("abc"), codings[i], LENGTH);
        ck_assert_str_eq(http_response_header(&response, "Accept-Encoding", value, sizeof value),
                         "zstd, gzip");
        check_refused(response, 415, "zstd, gzip");
    }
    /* Two lines are one list. */
    check_refused(post("Content-Encoding: gzip\r\n", span_text("abc"), "zstd", LENGTH), 415,
                  "gzip, zstd");
    coded_stop();
}
END_TEST

/* Of the process, kB. */
static unsigned long most_memory(void)
{
    char path[64], line[LINE_BYTES];
    unsigned long kb = 0;

    snprintf(path, sizeof path, "/proc/%d/status", (int)coded_server.pid);
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    while (kb == 0 && fgets(line, sizeof line, file) != NULL)
        sscanf(line, "VmHWM: %lu", &kb);
    fclose(file);
    ck_assert_uint_gt(kb, 0);
    return kb;
}

/* A quarter of a gigabyte of zeros in some kilobytes, ten times over. */
START_TEST(a_bomb_costs_what_the_session_is_worth)
{
    static const char *const codings[] = {"zstd", "gzip"};
    struct buffer *zeros = buffer_new_zeroed(BOMB_BYTES);

    ck_assert_ptr_nonnull(zeros);
    coded_start(NULL);
    make_session(COUNT);
    unsigned long before_kb = most_memory();
    for (size_t c = 0; c < 3; c++) {
        /* The last one does not say how large it is. */
        struct span bytes = span_of(zeros->data, zeros->size);
        struct buffer *coded =
            c < 2 ? codings_encode(codings[c], bytes) : codings_zstd_open(bytes, 20);
        ck_assert_uint_lt(coded->size, BOMB_BYTES / 1000);
        for (int i = 0; i < 10; i++)
            check_refused(post("", span_of(coded->data, coded->size), codings[c % 2],
                               (enum coded_framing)(i % 2)),
                          413, "when it is decoded");
        buffer_release(coded);
    }
    buffer_release(zeros);
    /* Each took 1 MiB and a bit of body, moved as it grew, and the decoder's window: about 8 MiB
     * with what the connections' threads take. AddressSanitizer keeps some of what was freed. */
    ck_assert_uint_lt(most_memory() - before_kb, BOMB_BYTES / 4 / 1024);
    coded_stop();
}
END_TEST

START_TEST(where_no_session_is_the_limit_of_bodies_holds)
{
    static const char *const options[] = {"--body-bytes-max", "100000", "--inflight-bytes-max",
                                          "500000", NULL};
    struct buffer *zeros = buffer_new_zeroed(100001);

    ck_assert_ptr_nonnull(zeros);
    coded_start(options);
    memset(zeros->data, ' ', zeros->size);
    for (size_t i = 0; i < 4; i++) {
        struct travel travel = {i % 2 == 0 ? "zstd" : "gzip", i < 2 ? LENGTH : CHUNKED};
        check_refused(coded_send("PUT", "/v1/sessions/s", JSON, "",
                                 span_of(zeros->data, zeros->size), travel),
                      413, "100000");
        /* One byte less is read, and is no JSON. */
        check_refused(coded_send("PUT", "/v1/sessions/s", JSON, "",
                                 span_of(zeros->data, zeros->size - 1), travel),
                      400, "invalid_json");
    }
    buffer_release(zeros);
    coded_stop();
}
END_TEST

/* However large it would be, or if it is broken: that is all there is to say. */
START_TEST(what_is_coded_for_no_session_is_not_decoded)
{
    struct buffer *zeros = buffer_new_zeroed(3 << 20);

    ck_assert_ptr_nonnull(zeros);
    coded_start(NULL);
    make_session(COUNT);
    for (size_t i = 0; i < 8; i++) {
        struct travel travel = {i % 2 == 0 ? "zstd" : "gzip", i % 4 < 2 ? LENGTH : CHUNKED};
        check_refused(coded_send("POST", "/v1/sessions/absent/gradients", RAW, "",
                                 span_of(zeros->data, i < 4 ? zeros->size : 100), travel),
                      404, "session_not_found");
        check_refused(coded_send_bytes("PATCH", "/v1/sessions/absent", JSON, "",
                                       span_of(zeros->data, 100), travel),
                      404, "session_not_found");
    }
    buffer_release(zeros);
    coded_stop();
}
END_TEST

/* 40 MiB of nothing in some kilobytes; and 20 MiB of numbers, which earn what they become. */
START_TEST(what_makes_a_session_earns_its_bytes)
{
    static const char head[] = "{\"optimizer\": \"sgd\", \"parameters\": {\"w\": [0";
    static const char *const none[] = {NULL};
    size_t size = (size_t)40 << 20, used = sizeof head - 1;
    struct buffer *body = buffer_new(size);

    ck_assert_ptr_nonnull(body);
    coded_start(none);
    memset(body->data, ' ', size);
    for (size_t i = 0; i < 4; i++) {
        struct travel travel = {i % 2 == 0 ? "zstd" : "gzip", i < 2 ? LENGTH : CHUNKED};
        check_refused(
            coded_send("PUT", "/v1/sessions/s", JSON, "", span_of(body->data, size), travel), 413,
            "more than any sensible one");
    }
    memcpy(body->data, head, used);
    for (uint32_t at = 1; used < size / 2; at = at * 1664525 + 1013904223)
        used += (size_t)snprintf((char *)body->data + used, 16, ",%u", (unsigned)(at >> 4));
    memcpy(body->data + used, "]}}", 3);
    for (size_t i = 0; i < 2; i++) {
        struct travel travel = {"zstd", i == 0 ? LENGTH : CHUNKED};
        struct http_response response =
            coded_send("PUT", i == 0 ? "/v1/sessions/a" : "/v1/sessions/b", JSON, "",
                       span_of(body->data, used + 3), travel);
        ck_assert_msg(response.status == 201, "%s", response.body);
        http_response_free(&response);
    }
    buffer_release(body);
    coded_stop();
}
END_TEST

START_TEST(memory_of_all_bodies_is_bounded)
{
    static const char *const options[] = {"--inflight-bytes-max", "100000", NULL};
    struct buffer *zeros = buffer_new_zeroed(100000);

    ck_assert_ptr_nonnull(zeros);
    coded_start(options);
    make_session(25000);
    for (size_t i = 0; i < 4; i++)
        check_refused(
            coded_send("POST", "/v1/sessions/s/gradients", RAW, "",
                       span_of(zeros->data, zeros->size),
                       (struct travel){i % 2 == 0 ? "zstd" : "gzip", i < 2 ? LENGTH : CHUNKED}),
            503, "overloaded");
    buffer_release(zeros);
    /* What was charged has been given back: this fills most of it. */
    zeros = buffer_new_zeroed(49000);
    check_refused(coded_send("POST", "/v1/sessions/s/gradients", RAW, "",
                             span_of(zeros->data, zeros->size), (struct travel){"zstd", LENGTH}),
                  422, "length_mismatch");
    buffer_release(zeros);
    coded_stop();
}
END_TEST

/* --- the same request --- */

START_TEST(a_retry_in_another_coding_is_the_same_request)
{
    static const struct travel travels[] = {
        {NULL, LENGTH}, {"gzip", LENGTH}, {"zstd", CHUNKED}, {"x-gzip", LENGTH}};
    char value[LINE_BYTES];

    coded_start(NULL);
    make_session(COUNT);
    struct buffer *plain = noise();
    struct buffer *gzip = codings_encode("gzip", span_of(plain->data, plain->size));
    for (size_t i = 0; i < sizeof travels / sizeof *travels; i++) {
        bool alias = i == 3;
        struct http_response response =
            alias
                ? post("Idempotency-Key: k\r\n", span_of(gzip->data, gzip->size), "x-gzip", LENGTH)
                : coded_send("POST", "/v1/sessions/s/gradients", RAW, "Idempotency-Key: k\r\n",
                             span_of(plain->data, plain->size), travels[i]);
        ck_assert_uint_eq(response.status, 200);
        ck_assert_ptr_nonnull(strstr(response.body, "\"step\":1,"));
        ck_assert((http_response_header(&response, "Idempotency-Replayed", value, sizeof value) !=
                   NULL) == (i > 0));
        http_response_free(&response);
    }
    buffer_release(gzip);
    buffer_release(plain);
    coded_stop();
}
END_TEST

/* Nothing in a coding is nothing, as without one; and identity is none. */
START_TEST(nothing_coded_is_no_body)
{
    coded_start(NULL);
    make_session(COUNT);
    for (size_t i = 0; i < 4; i++)
        check_refused(
            coded_send("PATCH", "/v1/sessions/s", JSON, "", span_of(NULL, 0),
                       (struct travel){i % 2 == 0 ? "zstd" : "gzip", i < 2 ? LENGTH : CHUNKED}),
            400, "the body is empty");
    check_refused(coded_send_bytes("PATCH", "/v1/sessions/s", JSON, "", span_of(NULL, 0),
                                   (struct travel){"gzip", LENGTH}),
                  400, "the body is empty");
    check_refused(coded_send_bytes("PATCH", "/v1/sessions/s", JSON, "", span_text("["),
                                   (struct travel){"identity", LENGTH}),
                  400, "invalid_json");
    coded_stop();
}
END_TEST

Suite *suite_coded_requests(void);
Suite *suite_coded_requests(void)
{
    Suite *suite = suite_create("coded_requests");
    TCase *tests = tcase_create("coded_requests");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_test(tests, broken_bodies_are_refused_and_the_connection_lives);
    tcase_add_test(tests, an_unknown_coding_is_refused_with_those_there_are);
    tcase_add_test(tests, a_bomb_costs_what_the_session_is_worth);
    tcase_add_test(tests, where_no_session_is_the_limit_of_bodies_holds);
    tcase_add_test(tests, what_is_coded_for_no_session_is_not_decoded);
    tcase_add_test(tests, what_makes_a_session_earns_its_bytes);
    tcase_add_test(tests, memory_of_all_bodies_is_bounded);
    tcase_add_test(tests, a_retry_in_another_coding_is_the_same_request);
    tcase_add_test(tests, nothing_coded_is_no_body);
    suite_add_tcase(suite, tests);
    return suite;
}
