/* Requests that wait: for a round to close, for a newer step; and what ends a wait. */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/lib/live_server.h"
#include "tests/lib/remote.h"
#include "tests/lib/testing.h"

enum { TEST_TIMEOUT_S = 120, TEXT_BYTES = 512, ANSWER_S = 60 };

static struct live_server server;

static void start_with(const char *const *options)
{
    live_server_start(&server, testing_folder(), options);
}

static void start(void)
{
    start_with(NULL);
}

static void stop(void)
{
    if (server.pid != 0)
        ck_assert_int_eq(live_server_stop(&server), 0);
}

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* --- requests whose answers come later --- */

static struct http_client *ask(const struct remote *remote, const char *method, const char *under,
                               const char *headers, const char *body)
{
    struct http_client *client = http_client_open(remote->port, ANSWER_S);
    char text[2 * TEXT_BYTES];

    snprintf(text, sizeof text,
             "%s %s%s HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
             "Content-Length: %zu\r\n%s\r\n%s",
             method, remote->path, under, strlen(body), headers, body);
    ck_assert(http_client_send_text(client, text));
    return client;
}

/* A gradient of 1 by that worker, with these header lines. */
static struct http_client *contribute(const struct remote *remote, const char *worker,
                                      const char *headers)
{
    char text[TEXT_BYTES];

    snprintf(text, sizeof text, "{\"gradients\": {\"w\": [1]}, \"worker\": \"%s\"}", worker);
    return ask(remote, "POST", "/gradients", headers, text);
}

static struct answer hear(struct http_client *take_client, unsigned status)
{
    struct answer answer = {.json = NULL};

    ck_assert_msg(http_client_receive(take_client, false, &answer.http), "no answer");
    http_client_close(take_client);
    ck_assert_msg(answer.http.status == status, "not %u: %s%s", status, answer.http.head,
                  answer.http.body);
    if (answer.http.body_size > 0)
        answer.json = json_loadb(answer.http.body, answer.http.body_size, 0, NULL);
    return answer;
}

/* `value` NULL: it is not there. */
static void check_header(const struct answer *answer, const char *name, const char *value)
{
    char found[128];
    const char *text = http_response_header(&answer->http, name, found, sizeof found);

    ck_assert_msg(value == NULL ? text == NULL : text != NULL && strcmp(text, value) == 0,
                  "%s is not %s: %s", name, value == NULL ? "absent" : value, answer->http.head);
}

/* 200 with the receipt of this step, of so many contributions. */
static void hear_step(struct http_client *take_client, json_int_t step, json_int_t received)
{
    struct answer answer = hear(take_client, 200);
    char tag[64];

    ck_assert_str_eq(json_string_value(json_object_get(answer.json, "status")), "applied");
    ck_assert_int_eq(answer_number(&answer, "step"), step);
    ck_assert_int_eq(answer_number(&answer, "received"), received);
    snprintf(tag, sizeof tag, "\"0-%lld\"", (long long)step);
    check_header(&answer, "ETag", tag);
    check_header(&answer, "Preference-Applied", "wait=30");
    answer_close(&answer);
}

/* Until so many contributions to the open round are in. */
static void await_received(const struct remote *remote, json_int_t received)
{
    const struct timespec pause = {.tv_nsec = 2000000};

    for (double end = now_s() + ANSWER_S; now_s() < end; nanosleep(&pause, NULL)) {
        struct answer answer = remote_send(remote, "GET", "", NULL, 200);
        const json_t *round = json_object_get(answer.json, "round");
        bool in = json_integer_value(json_object_get(round, "received")) == received;
        answer_close(&answer);
        if (in)
            return;
    }
    ck_abort_msg("%d contributions do not come in", (int)received);
}

/* Until a request waits for a step. */
static void await_watcher(const struct remote *remote)
{
    static const char line[] = "\ndescent_waiting_requests{for=\"step\"} 1\n";
    const struct timespec pause = {.tv_nsec = 2000000};
    struct http_client *client = http_client_open(remote->port, ANSWER_S);
    struct http_response response;
    bool waits = false;

    for (double end = now_s() + ANSWER_S; !waits && now_s() < end; nanosleep(&pause, NULL)) {
        ck_assert(http_client_request(client, "GET", "/metrics", "", NULL, 0, &response));
        waits = strstr(response.body, line) != NULL;
        http_response_free(&response);
    }
    http_client_close(client);
    ck_assert_msg(waits, "nobody waits for a step");
}

static void patch(const struct remote *remote, const char *aggregation)
{
    char text[TEXT_BYTES];

    snprintf(text, sizeof text, "{\"aggregation\": {%s}}", aggregation);
    struct answer answer = remote_send(remote, "PATCH", "", text, 200);
    answer_close(&answer);
}

#define WAIT "Prefer: wait=30\r\n"

/* --- rounds --- */

START_TEST(who_waits_gets_the_receipt_of_the_round)
{
    static const char *const names[] = {"c", "a", "d"};
    struct remote one = remote_one_weight(server.port, "\"mode\": \"sync\", \"workers\": 4");
    struct http_client *clients[3];

    for (json_int_t step = 1; step <= 3; step++) {
        for (int i = 0; i < 3; i++) {
            clients[i] = contribute(&one, names[i], WAIT);
            await_received(&one, i + 1);
        }
        hear_step(contribute(&one, "b", WAIT), step, 4);
        for (int i = 0; i < 3; i++)
            hear_step(clients[i], step, 4);
    }
}
END_TEST

START_TEST(preferences_may_stand_together_or_apart)
{
    static const char *const headers[] = {
        "Prefer: return=representation, wait=30\r\n",
        "Prefer: wait=30, return=representation\r\n",
        "Prefer: handling=strict\r\nPrefer: return=representation\r\nPrefer: wait=30\r\n",
        "prefer: WAIT = \"30\" ; x=y, return=\"representation\"\r\n",
    };
    struct remote one = remote_one_weight(server.port, "\"mode\": \"sync\", \"workers\": 2");

    for (int i = 0; i < 4; i++) {
        struct http_client *first = contribute(&one, "a", headers[i]);
        await_received(&one, 1);
        hear_step(contribute(&one, "b", WAIT), i + 1, 2);
        struct answer answer = hear(first, 200);
        ck_assert_int_eq(answer_number(&answer, "parameters_step"), i + 1);
        const json_t *w = json_object_get(json_object_get(answer.json, "parameters"), "w");
        ck_assert_int_eq(json_integer_value(json_array_get(w, 0)), -(i + 1));
        ck_assert_ptr_nonnull(
            strstr(answer.http.head, "Preference-Applied: return=representation"));
        ck_assert_ptr_nonnull(strstr(answer.http.head, "Preference-Applied: wait=30"));
        answer_close(&answer);
    }
}
END_TEST

START_TEST(a_wait_is_no_longer_than_the_server_allows)
{
    static const char *const options[] = {"--wait-s-max", "1", NULL};
    static const char *const ignored[] = {"Prefer: wait=soon\r\n", "Prefer: wait=-1\r\n",
                                          "Prefer: wait=1.5\r\n",  "Prefer: wait\r\n",
                                          "Prefer: wait=0\r\n",    "Prefer: return=minimal\r\n"};
    char name[16];

    start_with(options);
    struct remote one = remote_one_weight(server.port, "\"mode\": \"sync\", \"workers\": 100");
    double begin = now_s();
    for (int i = 0; i < 6; i++) { /* a preference that says nothing is passed over */
        snprintf(name, sizeof name, "w%d", i);
        struct answer answer = hear(contribute(&one, name, ignored[i]), 202);
        check_header(&answer, "Preference-Applied", NULL);
        answer_close(&answer);
    }
    ck_assert(now_s() - begin < 30);
    begin = now_s();
    struct answer answer =
        hear(contribute(&one, "z", "Prefer: wait=100000000000000000000, return=representation\r\n"),
             202);
    ck_assert(now_s() - begin > 0.9 && now_s() - begin < 30);
    check_header(&answer, "Preference-Applied", "wait=1");
    check_header(&answer, "ETag", NULL);
    ck_assert_int_eq(answer_number(&answer, "received"), 7);
    ck_assert_ptr_null(json_object_get(answer.json, "parameters"));
    answer_close(&answer);
    answer = remote_send(&one, "GET", "/parameters?after=0&wait=0.01", NULL, 304);
    answer_close(&answer);
    remote_refused(&one, "GET", "/parameters?after=0&wait=1.01", NULL, 422, "invalid_field");
    stop();
}
END_TEST

START_TEST(a_vanished_worker_holds_up_nobody_after_the_timeout)
{
    struct remote one = remote_one_weight(
        server.port, "\"mode\": \"sync\", \"workers\": 3, \"quorum\": 2, \"timeout_s\": 0.2");
    double begin = now_s();
    struct http_client *first = contribute(&one, "a", WAIT), *second = contribute(&one, "b", WAIT);

    hear_step(first, 1, 2);
    hear_step(second, 1, 2);
    ck_assert(now_s() - begin > 0.19 && now_s() - begin < 20);
    remote_refused(&one, "POST", "/gradients",
                   "{\"gradients\": {\"w\": [1]}, \"worker\": \"c\", \"base_step\": 0}", 409,
                   "stale_gradient");

    /* Less than the quorum is never enough; who makes it closes the round. */
    const struct timespec pause = {.tv_nsec = 300000000};
    first = contribute(&one, "c", WAIT);
    await_received(&one, 1);
    nanosleep(&pause, NULL);
    await_received(&one, 1);
    hear_step(contribute(&one, "a", WAIT), 2, 2);
    hear_step(first, 2, 2);

    patch(&one, "\"timeout_s\": 0");
    first = contribute(&one, "b", WAIT);
    await_received(&one, 1);
    hear_step(contribute(&one, "c", WAIT), 3, 2);
    hear_step(first, 3, 2);
}
END_TEST

START_TEST(a_patch_lets_a_stuck_round_go)
{
    struct remote one = remote_one_weight(server.port, "\"mode\": \"sync\", \"workers\": 3");
    struct http_client *first = contribute(&one, "a", WAIT), *second = contribute(&one, "b", WAIT);

    await_received(&one, 2);
    patch(&one, "\"workers\": 2");
    hear_step(first, 1, 2);
    hear_step(second, 1, 2);

    /* Another mode, where one is enough, takes it too. */
    first = contribute(&one, "a", WAIT);
    await_received(&one, 1);
    patch(&one, "\"mode\": \"async\"");
    struct answer answer = hear(first, 200);
    ck_assert_int_eq(answer_number(&answer, "step"), 2);
    answer_close(&answer);
}
END_TEST

/* Its client may go: the contribution stays. */
START_TEST(a_client_that_hangs_up_has_contributed)
{
    struct remote one = remote_one_weight(server.port, "\"mode\": \"sync\", \"workers\": 2");
    struct http_client *client = contribute(&one, "a", WAIT);

    await_received(&one, 1);
    http_client_close(client);
    hear_step(contribute(&one, "b", WAIT), 1, 2);
    struct answer answer = remote_send(&one, "GET", "/parameters", NULL, 200);
    const json_t *w = json_object_get(json_object_get(answer.json, "parameters"), "w");
    ck_assert_int_eq(json_integer_value(json_array_get(w, 0)), -1);
    answer_close(&answer);
}
END_TEST

START_TEST(a_rewind_and_a_removal_end_the_wait)
{
    struct remote one = remote_one_weight(server.port, "\"mode\": \"sync\", \"workers\": 2");
    struct http_client *client = contribute(&one, "a", WAIT);

    await_received(&one, 1);
    hear_step(contribute(&one, "b", WAIT), 1, 2);
    hear_step(client, 1, 2);
    client = contribute(&one, "a", WAIT);
    await_received(&one, 1);
    struct http_client *reader = ask(&one, "GET", "/parameters?after=1&wait=30", "", "");
    await_watcher(&one);
    struct answer answer = remote_send(&one, "POST", "/rewind", "{\"step\": 0}", 200);
    answer_close(&answer);
    answer = hear(client, 409);
    ck_assert_str_eq(answer_code(&answer), "stale_gradient");
    ck_assert_int_eq(answer_number(&answer, "current_step"), 0);
    answer_close(&answer);
    await_received(&one, 0);
    answer = hear(reader, 200); /* what it asked about is gone: it has to begin anew from here */
    check_header(&answer, "ETag", "\"1-0\"");
    answer_close(&answer);

    client = contribute(&one, "a", WAIT);
    await_received(&one, 1);
    reader = ask(&one, "GET", "/parameters?after=0&wait=30", "", "");
    await_watcher(&one);
    answer = remote_send(&one, "DELETE", "", NULL, 204);
    answer_close(&answer);
    for (int i = 0; i < 2; i++) {
        answer = hear(i == 0 ? client : reader, 404);
        ck_assert_str_eq(answer_code(&answer), "session_not_found");
        answer_close(&answer);
    }
}
END_TEST

/* --- a newer step --- */

START_TEST(newer_parameters_are_waited_for)
{
    struct remote one = remote_one_weight(server.port, "\"mode\": \"sync\", \"workers\": 2");
    double begin = now_s();
    struct answer answer = remote_send(&one, "GET", "/parameters?after=0", NULL, 304);

    check_header(&answer, "ETag", "\"0-0\"");
    ck_assert_uint_eq(answer.http.body_size, 0);
    answer_close(&answer);
    answer = remote_send(&one, "GET", "/parameters?after=7&wait=0", NULL, 304);
    answer_close(&answer);
    answer = remote_send(&one, "GET", "/parameters?after=0&wait=0.2", NULL, 304);
    answer_close(&answer);
    ck_assert(now_s() - begin > 0.19 && now_s() - begin < 20);

    struct http_client *json = ask(&one, "GET", "/parameters?after=0&wait=30", "", "");
    struct http_client *raw = ask(&one, "GET", "/parameters?after=0&wait=60&dtype=f64",
                                  "Accept: application/octet-stream\r\n", "");
    struct http_client *later = ask(&one, "GET", "/parameters?after=1&wait=30", "", "");
    struct http_client *first = contribute(&one, "a", "");
    answer = hear(first, 202);
    answer_close(&answer);
    hear_step(contribute(&one, "b", WAIT), 1, 2);
    answer = hear(json, 200);
    ck_assert_int_eq(answer_number(&answer, "step"), 1);
    check_header(&answer, "ETag", "\"0-1\"");
    answer_close(&answer);
    answer = hear(raw, 200);
    ck_assert_uint_eq(answer.http.body_size, sizeof(double));
    answer_close(&answer);
    answer = remote_send(&one, "GET", "/parameters?after=0&wait=30", NULL, 200); /* at once */
    answer_close(&answer);
    /* New weights are a newer step too. */
    answer = remote_send(&one, "PUT", "/parameters", "{\"parameters\": {\"w\": [5]}}", 200);
    answer_close(&answer);
    answer = hear(later, 200);
    ck_assert_int_eq(answer_number(&answer, "step"), 2);
    answer_close(&answer);
}
END_TEST

/* --- the end of the server --- */

START_TEST(a_stop_ends_every_wait_and_loses_nothing)
{
    struct remote one = remote_one_weight(server.port, "\"mode\": \"sync\", \"workers\": 3");
    struct http_client *first =
        contribute(&one, "a", "Prefer: wait=60\r\nIdempotency-Key: once\r\n");
    struct http_client *second = contribute(&one, "b", "Prefer: wait=60\r\n");
    struct http_client *reader = ask(&one, "GET", "/parameters?after=0&wait=60", "", "");

    await_received(&one, 2);
    double begin = now_s();
    live_server_signal(&server, SIGTERM);
    struct answer answer = hear(first, 202);
    check_header(&answer, "Preference-Applied", "wait=60");
    answer_close(&answer);
    answer = hear(second, 202);
    answer_close(&answer);
    answer = hear(reader, 304);
    answer_close(&answer);
    ck_assert_int_eq(live_server_wait(&server), 0);
    ck_assert(now_s() - begin < 20);

    live_server_restart(&server);
    one.port = server.port;
    await_received(&one, 2);
    first = contribute(&one, "a", WAIT "Idempotency-Key: once\r\n"); /* waits again */
    hear_step(contribute(&one, "c", WAIT), 1, 3);
    answer = hear(first, 200);
    ck_assert_int_eq(answer_number(&answer, "step"), 1);
    ck_assert_int_eq(answer_number(&answer, "received"), 3);
    check_header(&answer, "Idempotency-Replayed", "true");
    answer_close(&answer);
    answer = remote_send(&one, "GET", "", NULL, 200);
    ck_assert_int_eq(answer_number(&answer, "step"), 1);
    answer_close(&answer);
}
END_TEST

START_TEST(a_round_survives_a_kill_with_its_timeout)
{
    struct remote one = remote_one_weight(
        server.port, "\"mode\": \"sync\", \"workers\": 3, \"quorum\": 1, \"timeout_s\": 0.3");
    struct answer answer = hear(contribute(&one, "a", ""), 202);

    answer_close(&answer);
    live_server_kill(&server);
    live_server_restart(&server);
    one.port = server.port;
    /* Nobody comes any more: who looks sees it closed. */
    answer = remote_send(&one, "GET", "/parameters?after=0&wait=30", NULL, 200);
    ck_assert_int_eq(answer_number(&answer, "step"), 1);
    answer_close(&answer);
}
END_TEST

Suite *suite_waits(void);
Suite *suite_waits(void)
{
    Suite *suite = suite_create("waits");
    TCase *tests = tcase_create("waits"), *own = tcase_create("own server");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, stop);
    tcase_add_test(tests, who_waits_gets_the_receipt_of_the_round);
    tcase_add_test(tests, preferences_may_stand_together_or_apart);
    tcase_add_test(tests, a_vanished_worker_holds_up_nobody_after_the_timeout);
    tcase_add_test(tests, a_patch_lets_a_stuck_round_go);
    tcase_add_test(tests, a_client_that_hangs_up_has_contributed);
    tcase_add_test(tests, a_rewind_and_a_removal_end_the_wait);
    tcase_add_test(tests, newer_parameters_are_waited_for);
    tcase_add_test(tests, a_stop_ends_every_wait_and_loses_nothing);
    tcase_add_test(tests, a_round_survives_a_kill_with_its_timeout);
    suite_add_tcase(suite, tests);
    tcase_set_timeout(own, TEST_TIMEOUT_S);
    tcase_add_test(own, a_wait_is_no_longer_than_the_server_allows);
    suite_add_tcase(suite, own);
    return suite;
}
