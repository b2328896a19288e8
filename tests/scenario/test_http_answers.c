/* What every answer has, over a live server: order, HEAD, ids, Allow, ranges. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/http_checks.h"
#include "tests/lib/http_client.h"
#include "tests/lib/live_server.h"
#include "tests/lib/testing.h"

enum { TEST_TIMEOUT_S = 60 };

#define GET_LIVEZ "GET /livez HTTP/1.1\r\nHost: test\r\n"
#define POST_SESSIONS "POST /v1/sessions HTTP/1.1\r\nHost: test\r\n"

START_TEST(pipelined_requests_are_answered_in_order)
{
    static const unsigned statuses[] = {200, 404, 400, 405, 200};
    struct http_response response;

    http_start(NULL);
    struct http_client *client = http_dial();
    ck_assert(http_client_send_text(
        client, GET_LIVEZ "\r\n"
                          "GET /nowhere HTTP/1.1\r\nHost: test\r\n\r\n" POST_SESSIONS
                          "Content-Type: application/json\r\nContent-Length: 3\r\n\r\n{]}"
                          "PUT /livez HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nab"
                          "GET /livez HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"));
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++) {
        ck_assert(http_client_receive(client, false, &response));
        ck_assert_uint_eq(response.status, statuses[i]);
        http_response_free(&response);
    }
    ck_assert(http_client_at_end(client));
    http_client_close(client);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

START_TEST(head_has_the_headers_of_get_and_no_body)
{
    struct http_response get, head;
    char of_get[64], of_head[64];

    http_start(NULL);
    struct http_client *client = http_dial();
    ck_assert(http_client_request(client, "GET", "/livez", "", NULL, 0, &get));
    ck_assert(http_client_request(client, "HEAD", "/livez", "", NULL, 0, &head));
    ck_assert_uint_eq(head.status, 200);
    ck_assert_str_eq(http_response_header(&head, "Content-Length", of_head, sizeof of_head),
                     http_response_header(&get, "Content-Length", of_get, sizeof of_get));
    ck_assert_uint_gt(get.body_size, 0);
    http_response_free(&get);
    http_response_free(&head);
    ck_assert_uint_eq(get_status(client, "/livez"), 200); /* nothing of a body was in the way */
    ck_assert(http_client_request(client, "HEAD", "/nowhere", "", NULL, 0, &head));
    ck_assert_uint_eq(head.status, 404);
    http_response_free(&head);
    ck_assert_uint_eq(get_status(client, "/livez"), 200);
    http_client_close(client);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

START_TEST(every_reply_has_id_date_and_no_store)
{
    struct http_response response;
    char first[128], second[128], value[128];

    http_start(NULL);
    struct http_client *client = http_dial();
    ck_assert(http_client_request(client, "GET", "/livez", "", NULL, 0, &response));
    ck_assert_ptr_nonnull(http_response_header(&response, "Request-Id", first, sizeof first));
    ck_assert_ptr_nonnull(http_response_header(&response, "Date", value, sizeof value));
    ck_assert_str_eq(http_response_header(&response, "Cache-Control", value, sizeof value),
                     "no-store");
    http_response_free(&response);
    ck_assert(http_client_request(client, "GET", "/livez", "X-Request-Id: bad id\r\n", NULL, 0,
                                  &response));
    ck_assert_ptr_nonnull(http_response_header(&response, "Request-Id", second, sizeof second));
    ck_assert_str_ne(first, second);
    ck_assert_str_ne(second, "bad id");
    http_response_free(&response);
    ck_assert(
        http_client_request(client, "GET", "/x", "X-Request-Id: mine-7\r\n", NULL, 0, &response));
    ck_assert_str_eq(http_response_header(&response, "Request-Id", value, sizeof value), "mine-7");
    check_problem(&response, "not_found");
    http_response_free(&response);
    http_client_close(client);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

START_TEST(wrong_method_says_which_are_right)
{
    struct http_response response;
    char value[128];

    http_start(NULL);
    struct http_client *client = http_dial();
    ck_assert(http_client_request(client, "DELETE", "/livez", "", NULL, 0, &response));
    ck_assert_uint_eq(response.status, 405);
    ck_assert_str_eq(http_response_header(&response, "Allow", value, sizeof value),
                     "GET, HEAD, OPTIONS");
    http_response_free(&response);
    http_client_close(client);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

START_TEST(ranges_of_parameters_are_served)
{
    static const char json[] = "{\"optimizer\":{\"name\":\"sgd\",\"lr\":1},"
                               "\"parameters\":{\"w\":[1,2,3,4,5,6,7]}}";
    static const struct {
        const char *headers;
        unsigned status;
        size_t first, size;
        const char *content_range;
    } wanted[] = {
        {"", 200, 0, 28, NULL},
        {"Range: bytes=4-11\r\n", 206, 4, 8, "bytes 4-11/28"},
        {"Range: bytes=-4\r\n", 206, 24, 4, "bytes 24-27/28"},
        {"Range: bytes=0-0,4-5\r\n", 200, 0, 28, NULL},
        {"Range: bytes=4-7\r\nIf-Range: \"0-0\"\r\n", 206, 4, 4, "bytes 4-7/28"},
        {"Range: bytes=4-7\r\nIf-Range: \"0-1\"\r\n", 200, 0, 28, NULL},
        {"Range: bytes=28-\r\n", 416, 0, 0, "bytes */28"},
    };
    const float weights[] = {1, 2, 3, 4, 5, 6, 7};
    struct http_response response;
    char value[64], headers[160];

    http_start(NULL);
    struct http_client *client = http_dial();
    ck_assert(http_client_request(client, "PUT", "/v1/sessions/r",
                                  "Content-Type: application/json\r\n", json, sizeof json - 1,
                                  &response));
    ck_assert_msg(response.status == 201, "%s", response.body);
    http_response_free(&response);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        snprintf(headers, sizeof headers, "Accept: application/octet-stream\r\n%s",
                 wanted[i].headers);
        ck_assert(http_client_request(client, "GET", "/v1/sessions/r/parameters", headers, NULL, 0,
                                      &response));
        ck_assert_msg(response.status == wanted[i].status, "%s%s", headers, response.head);
        if (wanted[i].content_range != NULL)
            ck_assert_str_eq(http_response_header(&response, "Content-Range", value, sizeof value),
                             wanted[i].content_range);
        if (response.status < 300) {
            ck_assert_str_eq(http_response_header(&response, "Accept-Ranges", value, sizeof value),
                             "bytes");
            ck_assert_uint_eq(response.body_size, wanted[i].size);
            ck_assert_mem_eq(response.body, (const char *)weights + wanted[i].first,
                             wanted[i].size);
        }
        http_response_free(&response);
    }
    ck_assert(http_client_request(client, "HEAD", "/v1/sessions/r/parameters",
                                  "Accept: application/octet-stream\r\nRange: bytes=0-3\r\n", NULL,
                                  0, &response));
    ck_assert_uint_eq(response.status, 200);
    ck_assert_str_eq(http_response_header(&response, "Content-Length", value, sizeof value), "28");
    http_response_free(&response);
    http_client_close(client);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

/* --- answers that nobody reads --- */

enum { LARGE_COUNT = 4000000, LARGE_BYTES = 4 * LARGE_COUNT };

#define STATE "/v1/sessions/l/state"
#define WEIGHTS "/v1/sessions/l/parameters"
#define AS_JSON "Accept: application/json\r\n"

/* The status, within five seconds when another is wanted at first. */
static void becomes(struct http_client *client, const char *path, const char *headers,
                    unsigned wanted)
{
    struct http_response response;
    unsigned status = 0;
    char value[32];

    for (double begin = now_s(); status != wanted && now_s() - begin < 5; sleep_ms(20)) {
        ck_assert(http_client_request(client, "GET", path, headers, NULL, 0, &response));
        if (response.status == 503) {
            check_problem(&response, "overloaded");
            ck_assert_ptr_nonnull(
                http_response_header(&response, "Retry-After", value, sizeof value));
        }
        status = response.status;
        http_response_free(&response);
    }
    ck_assert_uint_eq(status, wanted);
}

/* What is made for a client alone is bounded, whoever asks; the weights of now are there anyway,
 * and who has taken a step hears of it. */
START_TEST(answers_that_nobody_reads_have_a_budget)
{
    static const char *const options[] = {"--inflight-bytes-max", "20000000", NULL};
    static const char create[] = "{\"optimizer\": \"sgd\", \"parameters\": {\"w\": {\"shape\": "
                                 "[4000000], \"init\": \"zeros\"}}}";
    float *gradient = calloc(LARGE_COUNT, sizeof *gradient);
    struct http_response response;

    ck_assert_ptr_nonnull(gradient);
    http_start(options);
    struct http_client *client = http_dial(), *idle = http_dial();
    ck_assert(http_client_request(client, "PUT", "/v1/sessions/l",
                                  "Content-Type: application/json\r\n", create, sizeof create - 1,
                                  &response));
    ck_assert_uint_eq(response.status, 201);
    http_response_free(&response);
    http_client_take_little(idle, 4096);
    ck_assert(http_client_send_text(idle, "GET " STATE " HTTP/1.1\r\nHost: test\r\n\r\n"));
    free(http_client_take_until(idle, "200 OK\r\n"));
    becomes(client, STATE, "", 503);
    becomes(client, WEIGHTS, AS_JSON, 503);
    ck_assert(http_client_request(client, "GET", WEIGHTS, "Accept: application/octet-stream\r\n",
                                  NULL, 0, &response));
    ck_assert_uint_eq(response.status, 200);
    ck_assert_uint_eq(response.body_size, LARGE_BYTES);
    http_response_free(&response);
    ck_assert(http_client_request(client, "POST", "/v1/sessions/l/gradients",
                                  "Content-Type: application/octet-stream\r\n"
                                  "Prefer: return=representation\r\n" AS_JSON,
                                  gradient, LARGE_BYTES, &response));
    ck_assert_uint_eq(response.status, 200);
    ck_assert_uint_gt(response.body_size, LARGE_COUNT);
    http_response_free(&response);
    http_client_close(idle);
    becomes(client, STATE, "", 200);
    becomes(client, WEIGHTS, AS_JSON, 200);
    http_client_close(client);
    free(gradient);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

Suite *suite_http_answers(void);
Suite *suite_http_answers(void)
{
    Suite *suite = suite_create("http_answers");
    TCase *tests = tcase_create("http_answers");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_test(tests, pipelined_requests_are_answered_in_order);
    tcase_add_test(tests, head_has_the_headers_of_get_and_no_body);
    tcase_add_test(tests, every_reply_has_id_date_and_no_store);
    tcase_add_test(tests, wrong_method_says_which_are_right);
    tcase_add_test(tests, ranges_of_parameters_are_served);
    tcase_add_test(tests, answers_that_nobody_reads_have_a_budget);
    suite_add_tcase(suite, tests);
    return suite;
}
