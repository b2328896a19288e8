/* Bodies that are too large, too many or given up, over a live server: what the client hears, and
 * what is left of them. */
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

static const char *const small_bodies[] = {"--body-bytes-max", "100000", NULL};

START_TEST(body_of_declared_size_beyond_the_limit_gets_413_and_the_connection_lives)
{
    struct http_response response;
    char *body = calloc(1, 3000000);

    http_start(small_bodies);
    struct http_client *client = http_dial();
    for (size_t size = 100001; size < 3000000; size *= 4) {
        ck_assert(http_client_request(client, "POST", "/v1/sessions",
                                      "Content-Type: application/json\r\n", body, size, &response));
        ck_assert_uint_eq(response.status, 413);
        check_problem(&response, "too_large");
        http_response_free(&response);
    }
    ck_assert(http_client_request(client, "POST", "/v1/sessions",
                                  "Content-Type: application/json\r\n", body, 100000, &response));
    ck_assert_uint_eq(response.status, 400); /* the limit itself is allowed; NULs are no JSON */
    http_response_free(&response);
    http_client_close(client);
    free(body);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

START_TEST(chunked_body_beyond_the_limit_gets_413)
{
    struct http_response response;
    char *chunk = calloc(1, 10000);

    http_start(small_bodies);
    struct http_client *client = http_dial();
    ck_assert(http_client_send_text(client, POST_SESSIONS "Content-Type: application/json\r\n"
                                                          "Transfer-Encoding: chunked\r\n\r\n"));
    for (int i = 0; i < 11; i++) {
        ck_assert(http_client_send(client, "2710\r\n", 6));
        ck_assert(http_client_send(client, chunk, 10000));
        ck_assert(http_client_send(client, "\r\n", 2));
    }
    ck_assert(http_client_send_text(client, "0\r\n\r\n" GET_LIVEZ "\r\n"));
    ck_assert(http_client_receive(client, false, &response));
    ck_assert_uint_eq(response.status, 413);
    check_problem(&response, "too_large");
    http_response_free(&response);
    ck_assert(http_client_at_end(client)); /* as after every body in chunks */
    http_client_close(client);
    free(chunk);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

START_TEST(body_far_beyond_the_limit_is_answered_at_once_and_closed)
{
    struct http_response response;

    http_start(small_bodies);
    struct http_client *client = http_dial();
    ck_assert(http_client_send_text(client, POST_SESSIONS "Content-Length: 9000000000\r\n\r\nabc"));
    ck_assert(http_client_receive(client, false, &response));
    ck_assert_uint_eq(response.status, 413);
    http_response_free(&response);
    ck_assert(http_client_at_end(client));
    http_client_close(client);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

START_TEST(endless_chunked_body_is_cut_off)
{
    char *chunk = calloc(1, 1 << 20);
    size_t sent = 0;

    http_start(small_bodies);
    struct http_client *client = http_dial();
    ck_assert(http_client_send_text(client, POST_SESSIONS "Transfer-Encoding: chunked\r\n\r\n"));
    while (sent < 200 && http_client_send(client, "100000\r\n", 8) &&
           http_client_send(client, chunk, 1 << 20) && http_client_send(client, "\r\n", 2))
        sent++;
    ck_assert_uint_lt(sent, 100); /* 64 MiB and what fits into socket buffers */
    http_client_close(client);
    free(chunk);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

/* A member of gzip that holds nothing: a coded body of them never reaches a limit when it is
 * decoded. */
static const unsigned char empty_member[] = {0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3,
                                             3,    0,    0, 0, 0, 0, 0, 0, 0, 0};

START_TEST(coded_body_of_nothing_has_a_limit_too)
{
    enum { MEMBERS = 500 };
    unsigned char chunk[MEMBERS * sizeof empty_member];
    struct http_response response;

    for (size_t i = 0; i < sizeof chunk; i++)
        chunk[i] = empty_member[i % sizeof empty_member];
    http_start(small_bodies);
    struct http_client *client = http_dial();
    ck_assert(http_client_send_text(client, POST_SESSIONS "Content-Type: application/json\r\n"
                                                          "Content-Encoding: gzip\r\n"
                                                          "Transfer-Encoding: chunked\r\n\r\n"));
    for (int i = 0; i < 11; i++) {
        ck_assert(http_client_send(client, "2710\r\n", 6));
        ck_assert(http_client_send(client, chunk, sizeof chunk));
        ck_assert(http_client_send(client, "\r\n", 2));
    }
    ck_assert(http_client_send_text(client, "0\r\n\r\n"));
    ck_assert(http_client_receive(client, false, &response));
    ck_assert_uint_eq(response.status, 413);
    check_problem(&response, "too_large");
    http_response_free(&response);
    http_client_close(client);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

START_TEST(expectation_of_a_body_too_large_is_refused_before_it_is_sent)
{
    struct http_response response;

    http_start(small_bodies);
    struct http_client *client = http_dial();
    ck_assert(http_client_send_text(client, POST_SESSIONS "Content-Length: 100001\r\n"
                                                          "Expect: 100-continue\r\n\r\n"));
    ck_assert(http_client_receive(client, false, &response));
    ck_assert_uint_eq(response.status, 413);
    http_response_free(&response);
    ck_assert(http_client_at_end(client));
    http_client_close(client);

    client = http_dial();
    ck_assert(http_client_send_text(client, POST_SESSIONS "Content-Type: application/json\r\n"
                                                          "Content-Length: 3\r\n"
                                                          "Expect: 100-continue\r\n\r\n"));
    ck_assert(http_client_receive(client, false, &response));
    ck_assert_uint_eq(response.status, 100);
    http_response_free(&response);
    ck_assert(http_client_send_text(client, "{]}"));
    ck_assert(http_client_receive(client, false, &response));
    ck_assert_uint_eq(response.status, 400);
    check_problem(&response, "invalid_json");
    http_response_free(&response);
    http_client_close(client);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

/* Runs a shell line with $PORT; its first line of output. */
static const char *shell(const char *line)
{
    static char out[256];
    char port[16];

    snprintf(port, sizeof port, "%u", http_server.port);
    setenv("PORT", port, 1);
    FILE *pipe = popen(line, "r");
    ck_assert_ptr_nonnull(pipe);
    out[0] = '\0';
    if (fgets(out, sizeof out, pipe) == NULL)
        out[0] = '\0';
    pclose(pipe);
    out[strcspn(out, "\n")] = '\0';
    return out;
}

START_TEST(python_and_curl_see_413)
{
    http_start(small_bodies);
    ck_assert_str_eq(
        shell("/usr/bin/python3 -c '\n"
              "import http.client, os\n"
              "c = http.client.HTTPConnection(\"127.0.0.1\", int(os.environ[\"PORT\"]))\n"
              "c.request(\"POST\", \"/v1/sessions\", b\"x\" * 8000000)\n"
              "r = c.getresponse(); r.read(); a = r.status\n"
              "c.request(\"GET\", \"/livez\")\n"
              "print(a, c.getresponse().status)'"),
        "413 200");
    ck_assert_str_eq(shell("head -c 8000000 /dev/zero | curl -s -o /dev/null -w '%{http_code}\\n' "
                           "--data-binary @- http://127.0.0.1:$PORT/v1/sessions"),
                     "413");
    ck_assert_str_eq(shell("head -c 8000000 /dev/zero | curl -s -o /dev/null -w '%{http_code}\\n' "
                           "-H 'Transfer-Encoding: chunked' -H 'Expect:' "
                           "--data-binary @- http://127.0.0.1:$PORT/v1/sessions"),
                     "413");
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

START_TEST(bodies_under_way_have_a_common_limit)
{
    static const char *const options[] = {"--inflight-bytes-max", "5000", NULL};
    struct http_response response;
    char value[16], body[5001] = "";

    http_start(options);
    struct http_client *first = http_dial(), *second = http_dial();
    ck_assert(http_client_request(second, "POST", "/v1/sessions", "", body, 5001, &response));
    ck_assert_uint_eq(response.status, 503);
    check_problem(&response, "overloaded");
    ck_assert_str_eq(http_response_header(&response, "Retry-After", value, sizeof value), "1");
    http_response_free(&response);

    ck_assert(http_client_send_text(first, POST_SESSIONS "Content-Type: application/json\r\n"
                                                         "Content-Length: 3000\r\n\r\nabc"));
    sleep_ms(200); /* the first must be under way */
    ck_assert(http_client_request(second, "POST", "/v1/sessions", "", body, 3000, &response));
    ck_assert_uint_eq(response.status, 503);
    http_response_free(&response);

    ck_assert(http_client_send(first, body, 2997));
    ck_assert(http_client_receive(first, false, &response));
    ck_assert_uint_eq(response.status, 400);
    http_response_free(&response);
    ck_assert(http_client_request(second, "POST", "/v1/sessions",
                                  "Content-Type: application/json\r\n", body, 3000, &response));
    ck_assert_uint_eq(response.status, 400);
    http_response_free(&response);
    http_client_close(first);
    http_client_close(second);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

START_TEST(connections_beyond_the_limit_get_503)
{
    static const char *const options[] = {"--connections-max", "2", NULL};
    struct http_response response;

    http_start(options);
    struct http_client *first = http_dial(), *second = http_dial();
    ck_assert(http_client_send_text(first, "GET /livez HTTP/1.1\r\n"));
    ck_assert(http_client_send_text(second, "GET /livez HTTP/1.1\r\n"));
    sleep_ms(100);
    struct http_client *third = http_dial();
    ck_assert(http_client_request(third, "GET", "/v1/optimizers", "", NULL, 0, &response));
    ck_assert_uint_eq(response.status, 503);
    check_problem(&response, "overloaded");
    http_response_free(&response);
    ck_assert(http_client_at_end(third));
    http_client_close(third);
    /* Full is not dead: who restarts what does not live must not restart it. */
    third = http_dial();
    ck_assert_uint_eq(get_status(third, "/livez"), 200);
    ck_assert(http_client_at_end(third));
    http_client_close(third);
    ck_assert(http_client_send_text(first, "Host: test\r\n\r\n"));
    ck_assert(http_client_receive(first, false, &response));
    ck_assert_uint_eq(response.status, 200);
    http_response_free(&response);
    http_client_close(first);
    http_client_close(second);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

/* Else who opens all of them and sends a request on each would keep others out for the ten minutes
 * that a connection may be idle. */
START_TEST(the_connection_that_is_idle_the_longest_makes_room)
{
    static const char *const options[] = {"--connections-max", "2", NULL};

    http_start(options);
    struct http_client *first = http_dial(), *second = http_dial();
    ck_assert_uint_eq(get_status(second, "/livez"), 200);
    ck_assert_uint_eq(get_status(first, "/livez"), 200);
    sleep_ms(20);
    ck_assert_uint_eq(get_status(second, "/livez"), 200);
    sleep_ms(20);
    struct http_client *third = http_dial();
    ck_assert_uint_eq(get_status(third, "/v1/optimizers"), 200);
    ck_assert(http_client_at_end(first));
    ck_assert_uint_eq(get_status(second, "/v1/optimizers"), 200);
    ck_assert_uint_eq(get_status(third, "/v1/optimizers"), 200);
    http_client_close(first);
    http_client_close(second);
    http_client_close(third);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

/* --- what is left of bodies that came to nothing --- */

enum { BUDGET = 100000, ROUNDS = 1200 };

static const char *const given_up[] = {
    POST_SESSIONS "Content-Length: 1000\r\n\r\nabc",
    POST_SESSIONS "Content-Length: 1000\r\n\r\n",
    POST_SESSIONS "Transfer-Encoding: chunked\r\n\r\n3e8\r\nabc",
    POST_SESSIONS "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx",
    POST_SESSIONS "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nno trailer\r\n\r\n",
    POST_SESSIONS "Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n",
    POST_SESSIONS "Content-Type: application/json\r\nContent-Length: 3\r\n\r\n{]}",
    POST_SESSIONS "Content-Type: text/html\r\nContent-Length: 3\r\n\r\n{]}",
    POST_SESSIONS "Content-Length: 200000\r\n\r\n", /* refused, and waits for the body: the last */
};

START_TEST(budget_is_given_back_after_every_kind_of_end)
{
    static const char *const options[] = {"--inflight-bytes-max", "100000", "--body-bytes-max",
                                          "100000", NULL};
    enum { KINDS = sizeof given_up / sizeof *given_up };
    char *body = calloc(1, BUDGET);
    struct http_response response;
    unsigned status = 503;

    http_start(options);
    for (size_t i = 0; i < (size_t)KINDS * ROUNDS; i++) {
        struct http_client *client = http_dial();
        ck_assert(http_client_send_text(client, given_up[i % KINDS]));
        if (i % KINDS > 2 && i % KINDS < KINDS - 1 &&
            i % 2 == 0) { /* waiting for the answer is another kind of end */
            http_client_receive(client, false, &response);
            http_response_free(&response);
        }
        http_client_close(client);
    }
    /* Not a byte is missing, as soon as the last connections are gone. */
    struct http_client *client = http_dial();
    for (double begin = now_s(); status == 503 && now_s() - begin < 5; sleep_ms(20)) {
        ck_assert(http_client_request(client, "POST", "/v1/sessions",
                                      "Content-Type: application/json\r\n", body, BUDGET,
                                      &response));
        status = response.status;
        http_response_free(&response);
    }
    ck_assert_uint_eq(status, 400);
    http_client_close(client);
    free(body);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

/* A body in chunks takes its memory as it grows: 64 KiB first, then twice as much beside it. */
START_TEST(body_that_grows_beyond_the_budget_gets_503)
{
    static const char *const options[] = {"--inflight-bytes-max", "100000", NULL};
    static const struct {
        int chunks; /* of 10,000 bytes */
        unsigned status;
    } wanted[] = {{6, 400}, {7, 503}, {20, 503}, {6, 400}};
    char chunk[10000], value[16];
    struct http_response response;

    memset(chunk, ' ', sizeof chunk);
    http_start(options);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        struct http_client *client = http_dial();
        ck_assert(http_client_send_text(client,
                                        POST_SESSIONS "Content-Type: application/json\r\n"
                                                      "Transfer-Encoding: chunked\r\n\r\n"));
        for (int k = 0; k < wanted[i].chunks; k++) {
            ck_assert(http_client_send(client, "2710\r\n", 6));
            ck_assert(http_client_send(client, chunk, sizeof chunk));
            ck_assert(http_client_send(client, "\r\n", 2));
        }
        ck_assert(http_client_send_text(client, "0\r\n\r\n"));
        ck_assert(http_client_receive(client, false, &response));
        ck_assert_msg(response.status == wanted[i].status, "%s", response.head);
        if (response.status == 503)
            ck_assert_str_eq(http_response_header(&response, "Retry-After", value, sizeof value),
                             "1");
        http_response_free(&response);
        http_client_close(client);
    }
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

Suite *suite_http_bodies(void);
Suite *suite_http_bodies(void)
{
    Suite *suite = suite_create("http_bodies");
    TCase *tests = tcase_create("http_bodies");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_test(tests, body_of_declared_size_beyond_the_limit_gets_413_and_the_connection_lives);
    tcase_add_test(tests, chunked_body_beyond_the_limit_gets_413);
    tcase_add_test(tests, body_far_beyond_the_limit_is_answered_at_once_and_closed);
    tcase_add_test(tests, endless_chunked_body_is_cut_off);
    tcase_add_test(tests, coded_body_of_nothing_has_a_limit_too);
    tcase_add_test(tests, expectation_of_a_body_too_large_is_refused_before_it_is_sent);
    tcase_add_test(tests, python_and_curl_see_413);
    tcase_add_test(tests, bodies_under_way_have_a_common_limit);
    tcase_add_test(tests, connections_beyond_the_limit_get_503);
    tcase_add_test(tests, the_connection_that_is_idle_the_longest_makes_room);
    tcase_add_test(tests, budget_is_given_back_after_every_kind_of_end);
    tcase_add_test(tests, body_that_grows_beyond_the_budget_gets_503);
    suite_add_tcase(suite, tests);
    return suite;
}
