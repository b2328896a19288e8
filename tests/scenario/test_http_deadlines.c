/* The deadlines of a connection: header, body, answer, silence. */
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

static const char *const short_times[] = {
    "--header-timeout-s", "1", "--body-timeout-s", "1", "--keepalive-timeout-s", "1", NULL,
};

static const char *const slow[] = {
    "",                                                                        /* says nothing */
    "GET /live",                                                               /* half a line */
    GET_LIVEZ "X: ",                                                           /* half a header */
    POST_SESSIONS "Content-Length: 1000\r\n\r\nabc",                           /* half a body */
    POST_SESSIONS "Transfer-Encoding: chunked\r\n\r\nfff\r\nab",               /* half a chunk */
    "POST /nowhere HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\nabc", /* half a refused one
                                                                                */
    /* what is announced earns no time */
    POST_SESSIONS "Content-Length: 1000000000\r\n\r\nabc",
    "POST /nowhere HTTP/1.1\r\nHost: test\r\nContent-Length: 60000000\r\n\r\nabc",
};

enum { SLOW = sizeof slow / sizeof *slow };

/* The 408 that ends one of them. */
static void check_408(struct http_client *take_client, const char *name)
{
    struct http_response response;

    ck_assert_msg(http_client_receive(take_client, false, &response), "%s", name);
    ck_assert_msg(response.status == 408, "%s: %s", name, response.head);
    ck_assert_ptr_nonnull(strstr(response.body, "\"code\":\"request_timeout\""));
    http_response_free(&response);
    ck_assert(http_client_at_end(take_client));
    http_client_close(take_client);
}

START_TEST(request_that_stops_gets_408)
{
    struct http_client *clients[SLOW];

    http_start(short_times);
    double begin = now_s();
    for (size_t i = 0; i < SLOW; i++) {
        clients[i] = http_dial();
        ck_assert(http_client_send_text(clients[i], slow[i]));
    }
    for (size_t i = 0; i < SLOW; i++) {
        check_408(clients[i], slow[i]);
        ck_assert(now_s() - begin > 0.9 && now_s() - begin < 5);
    }
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

START_TEST(request_that_drips_gets_408_all_the_same)
{
    struct http_client *clients[SLOW];
    bool open = true;

    http_start(short_times);
    double begin = now_s();
    for (size_t i = 0; i < SLOW; i++) {
        clients[i] = http_dial();
        ck_assert(http_client_send_text(clients[i], slow[i]));
    }
    while (open && now_s() - begin < 4) {
        open = false;
        for (size_t i = 0; i < SLOW; i++)
            open |= http_client_send(clients[i], "a", 1);
        sleep_ms(100);
    }
    ck_assert_msg(!open, "a connection outlives its deadline");
    for (size_t i = 0; i < SLOW; i++)
        check_408(clients[i], slow[i]);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

START_TEST(idle_connection_is_closed_without_a_word)
{
    http_start(short_times);
    struct http_client *client = http_dial();
    ck_assert_uint_eq(get_status(client, "/livez"), 200);
    ck_assert(http_client_at_end(client));
    http_client_close(client);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

START_TEST(steady_body_may_take_longer_than_the_header)
{
    struct http_response response;
    static const char *const options[] = {"--header-timeout-s", "1", "--body-timeout-s", "10",
                                          NULL};

    http_start(options);
    struct http_client *client = http_dial();
    ck_assert(http_client_send_text(client, POST_SESSIONS "Content-Type: application/json\r\n"
                                                          "Content-Length: 20\r\n\r\n"));
    for (int i = 0; i < 20; i++) {
        sleep_ms(100);
        ck_assert(http_client_send(client, "x", 1));
    }
    ck_assert(http_client_receive(client, false, &response));
    ck_assert_uint_eq(response.status, 400);
    check_problem(&response, "invalid_json");
    http_response_free(&response);
    http_client_close(client);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

/* --- answers that nobody reads --- */

/* AddressSanitizer keeps so much of what was freed, to notice who still uses it. */
#ifdef __SANITIZE_ADDRESS__
#define KEPT_BYTES ((size_t)256 << 20)
#else
#define KEPT_BYTES ((size_t)0)
#endif

enum { READERS = 8, PARAMETERS = 2000000 };

/* The resident memory of the server, bytes. */
static size_t resident(void)
{
    char path[64], line[128];
    size_t kib = 0;

    snprintf(path, sizeof path, "/proc/%d/status", (int)http_server.pid);
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof line, file) != NULL && sscanf(line, "VmRSS: %zu", &kib) != 1)
        continue;
    fclose(file);
    ck_assert_uint_gt(kib, 0);
    return kib * 1024;
}

/* A new revision of the weights, so that the one before is held by its readers alone. */
static void replace(struct http_client *client)
{
    float *weights = calloc(PARAMETERS, sizeof *weights);
    struct http_response response;

    ck_assert(http_client_request(client, "PUT", "/v1/sessions/w/parameters",
                                  "Content-Type: application/octet-stream\r\n", weights,
                                  PARAMETERS * sizeof *weights, &response));
    ck_assert_msg(response.status == 200, "%s", response.body);
    http_response_free(&response);
    free(weights);
}

/* Every one of them asks for another revision and does not read it. */
static void ignore_answers(struct http_client *other)
{
    struct http_client *readers[READERS];
    struct http_response response;

    for (size_t i = 0; i < READERS; i++) {
        readers[i] = http_dial();
        http_client_take_little(readers[i], 64 * 1024);
        ck_assert(http_client_send_text(readers[i],
                                        "GET /v1/sessions/w/parameters HTTP/1.1\r\nHost: test\r\n"
                                        "Accept: application/octet-stream\r\n\r\n"));
        sleep_ms(20); /* it must have begun */
        replace(other);
    }
    double begin = now_s();
    while (now_s() - begin < 2.5) {
        ck_assert_uint_eq(get_status(other, "/readyz"), 200);
        sleep_ms(50);
    }
    for (size_t i = 0; i < READERS; i++) {
        ck_assert_msg(!http_client_receive(readers[i], false, &response), "it was not cut");
        ck_assert_uint_eq(response.status, 200); /* the head says how much is missing */
        http_response_free(&response);
        http_client_close(readers[i]);
    }
}

START_TEST(answer_that_nobody_reads_is_cut_and_its_memory_released)
{
    static const char json[] =
        "{\"optimizer\":\"sgd\",\"parameters\":{\"w\":{\"shape\":[2000000],\"init\":\"zeros\"}},"
        "\"history\":{\"keep_steps\":0}}";
    static const char *const options[] = {
        "--body-timeout-s", "1", "--transfer-bytes-per-s", "1000000000", NULL,
    };
    struct http_response response;

    http_start(options);
    struct http_client *client = http_dial();
    ck_assert(http_client_request(client, "PUT", "/v1/sessions/w",
                                  "Content-Type: application/json\r\n", json, sizeof json - 1,
                                  &response));
    ck_assert_msg(response.status == 201, "%s", response.body);
    http_response_free(&response);
    ignore_answers(client);
    size_t before = resident();
    ignore_answers(client);
    size_t after = resident(), all = (size_t)READERS * PARAMETERS * sizeof(float);
    ck_assert_msg(after < before + all / 2 + KEPT_BYTES, "%zu bytes, then %zu", before, after);
    http_client_close(client);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

Suite *suite_http_deadlines(void);
Suite *suite_http_deadlines(void)
{
    Suite *suite = suite_create("http_deadlines");
    TCase *tests = tcase_create("http_deadlines");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_test(tests, request_that_stops_gets_408);
    tcase_add_test(tests, request_that_drips_gets_408_all_the_same);
    tcase_add_test(tests, idle_connection_is_closed_without_a_word);
    tcase_add_test(tests, steady_body_may_take_longer_than_the_header);
    tcase_add_test(tests, answer_that_nobody_reads_is_cut_and_its_memory_released);
    suite_add_tcase(suite, tests);
    return suite;
}
