/* The event stream of a session: every step once, in order, from wherever a client comes back. */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/event_stream.h"
#include "tests/lib/live_server.h"
#include "tests/lib/testing.h"

enum { TEST_TIMEOUT_S = 120, TOLD_MAX = 256 };

static struct live_server server;

static void start_on(const char *folder, const char *const *options)
{
    live_server_start(&server, folder, options);
}

/* Without a disk: what is on it is not the question here. */
static void start(void)
{
    start_on("memory:", NULL);
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

static void rewind_to(const struct remote *remote, const char *json)
{
    struct answer answer = remote_send(remote, "POST", "/rewind", json, 200);

    answer_close(&answer);
}

/* --- what a client knows --- */

/* The ids of steps that were told and hold, [step - 1]. */
struct ledger {
    size_t count;
    char ids[TOLD_MAX][EVENT_ID_BYTES];
};

/* Takes in an event: a step must be the next one. */
static void learn(struct ledger *ledger, const struct heard *heard)
{
    unsigned long long lineage, step;

    ck_assert_int_eq(sscanf(heard->id, "%llu-%llu", &lineage, &step), 2);
    ck_assert_int_eq(json_integer_value(json_object_get(heard->data, "lineage")),
                     (long long)lineage);
    ck_assert_int_eq(json_integer_value(json_object_get(heard->data, "step")), (long long)step);
    if (strcmp(heard->name, "rewind") == 0) {
        ck_assert_uint_le(step, ledger->count);
        ledger->count = (size_t)step;
        return;
    }
    ck_assert_str_eq(heard->name, "step");
    ck_assert_msg(step == ledger->count + 1, "%s after step %zu", heard->id, ledger->count);
    memcpy(ledger->ids[ledger->count++], heard->id, sizeof heard->id);
}

/* Reads until that id. */
static void learn_until(struct event_stream *stream, struct ledger *ledger, const char *id)
{
    struct heard heard;

    while (strcmp(stream->id, id) != 0) {
        ck_assert_msg(event_stream_next(stream, false, &heard), "the end comes before %s", id);
        learn(ledger, &heard);
        heard_close(&heard);
    }
}

static void check_ledger(const struct remote *remote, const struct ledger *ledger)
{
    struct answer answer = remote_send(remote, "GET", "/steps?page_size=1000", NULL, 200);
    const json_t *steps = json_object_get(answer.json, "steps");
    char id[EVENT_ID_BYTES];

    ck_assert_uint_eq(json_array_size(steps), ledger->count);
    for (size_t i = 0; i < ledger->count; i++) {
        const json_t *line = json_array_get(steps, i);
        snprintf(id, sizeof id, "%lld-%lld",
                 (long long)json_integer_value(json_object_get(line, "lineage")),
                 (long long)json_integer_value(json_object_get(line, "step")));
        ck_assert_str_eq(ledger->ids[i], id);
    }
    answer_close(&answer);
}

/* --- events --- */

START_TEST(every_step_is_told_as_the_listing_has_it)
{
    static const char *const queries[] = {"", "?tensors=false"};
    struct remote remote = remote_create(server.port, "told", "\"optimizer\": \"adam\"");
    char value[64];

    for (size_t q = 0; q < 2; q++) {
        struct event_stream stream = event_stream_open(&remote, queries[q], NULL);
        ck_assert_str_eq(stream.id, q == 0 ? "0-0" : "0-5");
        http_response_header(&stream.head, "Content-Type", value, sizeof value);
        ck_assert_str_eq(value, "text/event-stream");
        http_response_header(&stream.head, "Cache-Control", value, sizeof value);
        ck_assert_str_eq(value, "no-cache");
        http_response_header(&stream.head, "X-Accel-Buffering", value, sizeof value);
        ck_assert_str_eq(value, "no");
        remote_steps(&remote, 5 * q + 1, 5 * q + 5);
        char listing[64];
        snprintf(listing, sizeof listing, "/steps?tensors=%s&from=%zu", q == 0 ? "true" : "false",
                 5 * q + 1);
        struct answer answer = remote_send(&remote, "GET", listing, NULL, 200);
        for (size_t i = 0; i < 5; i++) {
            struct heard heard;
            ck_assert(event_stream_next(&stream, false, &heard));
            ck_assert_str_eq(heard.name, "step");
            snprintf(value, sizeof value, "0-%zu", 5 * q + i + 1);
            ck_assert_str_eq(heard.id, value);
            ck_assert(
                json_equal(heard.data, json_array_get(json_object_get(answer.json, "steps"), i)));
            heard_close(&heard);
        }
        answer_close(&answer);
        event_stream_close(&stream);
    }
}
END_TEST

/* A long history, then one after the other: from each event that was told on. */
START_TEST(a_client_comes_back_at_every_point)
{
    struct remote remote = remote_create(server.port, "back", "\"optimizer\": \"sgd\"");
    struct event_stream all = event_stream_open(&remote, "?tensors=false", NULL);
    struct ledger ledger = {.count = 0};
    static struct ledger before[TOLD_MAX];
    static char ids[TOLD_MAX][EVENT_ID_BYTES];
    size_t count = 0;

    static const struct {
        uint64_t first, last;
        const char *end, *rewind;
    } acts[] = {
        {1, 8, "0-8", "{\"step\": 5}"},
        {9, 12, "1-9", "{\"step\": 6}"},
        {13, 13, "2-7", "{\"step\": 7, \"lineage\": 0}"},
        {14, 16, "3-10", "{\"step\": 0}"},
        {17, 20, "4-4", "{\"step\": 4}"},
        {21, 23, "5-7", NULL},
    };
    memcpy(ids[count++], all.id, sizeof all.id);
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++) {
        struct heard heard;
        remote_steps(&remote, acts[i].first, acts[i].last);
        while (strcmp(all.id, acts[i].end) != 0) {
            ck_assert(event_stream_next(&all, false, &heard));
            learn(&ledger, &heard);
            heard_close(&heard);
            memcpy(ids[count], all.id, sizeof all.id);
            before[count++] = ledger;
        }
        if (acts[i].rewind != NULL)
            rewind_to(&remote, acts[i].rewind);
    }
    check_ledger(&remote, &ledger);
    ck_assert_uint_gt(count, 25);
    for (size_t i = 0; i < count; i++) {
        struct event_stream again = event_stream_open(&remote, "?tensors=false&from=3", ids[i]);
        ck_assert_str_eq(again.id, ids[i]); /* not from 3 */
        learn_until(&again, &before[i], "5-7");
        check_ledger(&remote, &before[i]);
        event_stream_close(&again);
    }
    /* All of them hear what comes next. */
    struct event_stream again = event_stream_open(&remote, "", "0-8");
    remote_steps(&remote, 24, 24);
    learn_until(&all, &ledger, "5-8");
    event_stream_expect(&again, "rewind", "4-0");
    check_ledger(&remote, &ledger);
    event_stream_close(&again);
    event_stream_close(&all);
}
END_TEST

START_TEST(a_stream_begins_with_the_step_that_is_asked_for)
{
    struct remote remote = remote_create(server.port, "from", "\"optimizer\": \"sgd\"");
    static const char *const first[] = {"0-1", "0-2", "1-3", "1-4"};
    char query[48];

    remote_steps(&remote, 1, 5);
    rewind_to(&remote, "{\"step\": 2}");
    remote_steps(&remote, 6, 7);
    for (int from = 1; from <= 5; from++) {
        snprintf(query, sizeof query, "?tensors=false&from=%d", from);
        struct event_stream stream = event_stream_open(&remote, query, from % 2 == 0 ? "" : NULL);
        if (from == 5)
            remote_steps(&remote, 8, 8);
        event_stream_expect(&stream, "step", from == 5 ? "1-5" : first[from - 1]);
        event_stream_close(&stream);
    }
}
END_TEST

static void check_refused(const struct remote *remote, const char *query, const char *header,
                          unsigned status, const char *code)
{
    char path[160], headers[256];

    snprintf(path, sizeof path, "%s/steps%s", remote->path, query);
    snprintf(headers, sizeof headers, "Accept: text/event-stream\r\n%s", header);
    struct answer answer = api_send(remote->port, "GET", path, headers, NULL, 0);
    answer_check_problem(&answer, status, code, path);
    answer_close(&answer);
}

START_TEST(what_cannot_be_followed_is_refused_before_the_stream_begins)
{
    static const char *const ids[] = {"1",
                                      "-",
                                      "0-",
                                      "-1",
                                      "0-1-",
                                      "0-1-x",
                                      "0-1-1-1",
                                      "0-1-10000000000000000",
                                      "a-b",
                                      "+0-1",
                                      "0--1",
                                      "00-1",
                                      "0-01",
                                      "0x0-1",
                                      "0-99999999999999999"};
    struct remote remote = remote_create(server.port, "refused", "\"optimizer\": \"sgd\"");
    struct remote none = remote_other(&remote, server.port, "none");
    char header[96];

    remote_steps(&remote, 1, 3);
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        snprintf(header, sizeof header, "Last-Event-ID: %s\r\n", ids[i]);
        check_refused(&remote, "", header, 400, "invalid_request");
    }
    check_refused(&remote, "?from=5", "", 422, "invalid_field");
    check_refused(&remote, "?lineage=0", "", 422, "invalid_field");
    check_refused(&remote, "?page_size=3", "", 422, "invalid_field");
    check_refused(&remote, "?page_token=3", "", 422, "invalid_field");
    check_refused(&remote, "?nonsense=3", "", 400, "invalid_request");
    check_refused(&none, "", "", 404, "session_not_found");
}
END_TEST

START_TEST(head_has_the_headers_and_ends)
{
    struct remote remote = remote_create(server.port, "head", "\"optimizer\": \"sgd\"");
    struct http_client *client = http_client_open(server.port, 30);
    struct http_response response;
    char value[64];

    ck_assert(http_client_request(client, "HEAD", "/v1/sessions/head/steps",
                                  "Accept: text/event-stream\r\n", NULL, 0, &response));
    ck_assert_uint_eq(response.status, 200);
    http_response_header(&response, "Content-Type", value, sizeof value);
    ck_assert_str_eq(value, "text/event-stream");
    ck_assert(http_client_at_end(client));
    http_response_free(&response);
    http_client_close(client);
    remote_steps(&remote, 1, 1);
}
END_TEST

START_TEST(a_removal_is_told_and_is_the_end)
{
    struct remote remote = remote_create(server.port, "gone", "\"optimizer\": \"sgd\"");
    struct event_stream stream = event_stream_open(&remote, "", NULL);

    remote_steps(&remote, 1, 1);
    event_stream_expect(&stream, "step", "0-1");
    char whole[2 * EVENT_ID_BYTES], header[3 * EVENT_ID_BYTES];
    snprintf(whole, sizeof whole, "%s%s", stream.id, stream.life);
    snprintf(header, sizeof header, "Last-Event-ID: %s\r\n", whole);
    struct event_stream again = event_stream_open(&remote, "", whole);
    ck_assert_str_eq(again.id, "0-1");
    ck_assert_str_eq(again.life, stream.life);
    event_stream_close(&again);
    struct answer answer = remote_send(&remote, "DELETE", "", NULL, 204);
    answer_close(&answer);
    event_stream_expect(&stream, "deleted", "");
    event_stream_expect_end(&stream);
    event_stream_close(&stream);
    check_refused(&remote, "", "Last-Event-ID: 0-1\r\n", 404, "session_not_found");
    /* Another of this name has another past. */
    struct remote other = remote_create(server.port, "gone", "\"optimizer\": \"sgd\"");
    stream = event_stream_open(&other, "", "2-9");
    event_stream_expect(&stream, "gap", "0-0");
    remote_steps(&other, 1, 1);
    event_stream_expect(&stream, "step", "0-1");
    check_refused(&other, "", header, 404, "session_not_found");
    ck_assert_str_ne(stream.life, again.life);
    event_stream_close(&stream);
}
END_TEST

START_TEST(lines_that_are_not_kept_are_a_gap)
{
    struct remote remote = remote_create(
        server.port, "gap", "\"optimizer\": \"sgd\", \"history\": {\"keep_steps\": 2}");
    uint64_t step = 1;
    long long oldest = 1;
    char id[EVENT_ID_BYTES];

    remote_steps(&remote, 1, 1);
    while (oldest == 1) {
        ck_assert_uint_lt(step, 1000);
        remote_steps(&remote, step + 1, step + 5);
        step += 5;
        struct answer answer = remote_send(&remote, "POST", "/checkpoints", NULL, 201);
        answer_close(&answer);
        usleep(20000);
        answer = remote_send(&remote, "GET", "/steps?tensors=false", NULL, 200);
        oldest = answer_number(&answer, "oldest_step");
        answer_close(&answer);
    }
    check_refused(&remote, "?from=1", "", 410, "history_gone");
    struct event_stream stream = event_stream_open(&remote, "?tensors=false", "0-0");
    struct heard heard;
    ck_assert(event_stream_next(&stream, false, &heard));
    ck_assert_str_eq(heard.name, "gap");
    long long reached = json_integer_value(json_object_get(heard.data, "step"));
    ck_assert_int_ge(reached, oldest - 1); /* more may have gone meanwhile */
    heard_close(&heard);
    snprintf(id, sizeof id, "0-%lld", reached + 1);
    event_stream_expect(&stream, "step", id);
    event_stream_close(&stream);
}
END_TEST

/* --- the server's life --- */

START_TEST(a_silent_stream_has_a_heart)
{
    static const char *const options[] = {"--heartbeat-s", "1", NULL};
    struct heard heard;

    start_on("memory:", options);
    struct remote remote = remote_create(server.port, "heart", "\"optimizer\": \"sgd\"");
    struct event_stream stream = event_stream_open(&remote, "", NULL);
    double begin = now_s();
    ck_assert(event_stream_next(&stream, true, &heard));
    ck_assert_str_eq(heard.name, "");
    ck_assert(now_s() - begin > 0.8 && now_s() - begin < 20);
    event_stream_close(&stream);
    stop();
}
END_TEST

START_TEST(a_stop_ends_every_stream_at_once)
{
    enum { STREAMS = 5 };
    struct remote remote = remote_create(server.port, "stop", "\"optimizer\": \"sgd\"");
    struct event_stream streams[STREAMS];

    for (size_t i = 0; i < STREAMS; i++)
        streams[i] = event_stream_open(&remote, "", NULL);
    remote_steps(&remote, 1, 1);
    double begin = now_s();
    ck_assert_int_eq(live_server_stop(&server), 0);
    ck_assert(now_s() - begin < 10);
    for (size_t i = 0; i < STREAMS; i++) {
        struct heard heard;
        while (event_stream_next(&streams[i], false, &heard)) /* the step, if it came in time */
            heard_close(&heard);
        event_stream_close(&streams[i]);
    }
}
END_TEST

/* What a stream told outlives the server, whatever the durability; and nothing comes twice. */
START_TEST(a_kill_takes_back_nothing_that_was_told)
{
    static const char *const members[] = {
        "\"optimizer\": \"sgd\"",
        "\"optimizer\": \"sgd\", \"durability\": {\"mode\": \"interval\", \"seconds\": 0.05}",
        "\"optimizer\": \"sgd\", \"durability\": {\"mode\": \"checkpoint\", \"steps\": 7}",
    };
    struct ledger ledger = {.count = 0};
    struct heard heard;

    start_on(testing_folder(), NULL);
    struct remote remote = remote_create(server.port, "killed", members[_i]);
    struct event_stream stream = event_stream_open(&remote, "?tensors=false", NULL);
    for (int life = 0; life < 3; life++) {
        remote_steps(&remote, (uint64_t)life * 30 + 1, (uint64_t)life * 30 + 30);
        for (int i = 0; i < 9; i++) { /* in every mode so many are on disk */
            ck_assert(event_stream_next(&stream, false, &heard));
            ck_assert_str_eq(heard.name, "step");
            learn(&ledger, &heard);
            heard_close(&heard);
        }
        live_server_kill(&server);
        while (event_stream_next(&stream, false, &heard)) {
            learn(&ledger, &heard);
            heard_close(&heard);
        }
        live_server_restart(&server);
        remote.port = server.port;
        struct event_stream again = event_stream_open(&remote, "?tensors=false", stream.id);
        ck_assert_str_eq(again.id, stream.id);
        event_stream_close(&stream);
        stream = again;
    }
    struct answer answer = remote_send(&remote, "POST", "/checkpoints", NULL, 201);
    answer_close(&answer);
    answer = remote_send(&remote, "GET", "", NULL, 200);
    char last[EVENT_ID_BYTES];
    snprintf(last, sizeof last, "0-%lld", (long long)answer_number(&answer, "step"));
    answer_close(&answer);
    learn_until(&stream, &ledger, last);
    check_ledger(&remote, &ledger);
    event_stream_close(&stream);
    stop();
}
END_TEST

/* Steps that are not on disk: who was told none of them stands before them, so that he is told
 * those that take their place after a crash. */
START_TEST(a_stream_does_not_begin_where_a_crash_takes_it_back)
{
    struct ledger ledger = {.count = 0};

    start_on(testing_folder(), NULL);
    struct remote remote = remote_create(server.port, "back",
                                         "\"optimizer\": \"sgd\","
                                         "\"durability\": {\"mode\": \"checkpoint\"}");
    remote_steps(&remote, 1, 20);
    struct event_stream next = event_stream_open(&remote, "?tensors=false", NULL);
    ck_assert_str_eq(next.id, "0-0");
    struct event_stream from = event_stream_open(&remote, "?tensors=false&from=21", NULL);
    ck_assert_str_eq(from.id, "");
    event_stream_close(&from);
    live_server_kill(&server);
    live_server_restart(&server);
    remote.port = server.port;
    remote_steps(&remote, 1, 30);
    struct answer answer = remote_send(&remote, "POST", "/checkpoints", NULL, 201);
    answer_close(&answer);
    struct event_stream again = event_stream_open(&remote, "?tensors=false", next.id);
    learn_until(&again, &ledger, "0-30");
    check_ledger(&remote, &ledger);
    event_stream_close(&again);
    event_stream_close(&next);
    stop();
}
END_TEST

Suite *suite_events(void);
Suite *suite_events(void)
{
    Suite *suite = suite_create("events");
    TCase *tests = tcase_create("events"), *own = tcase_create("own server");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, stop);
    tcase_add_test(tests, every_step_is_told_as_the_listing_has_it);
    tcase_add_test(tests, a_client_comes_back_at_every_point);
    tcase_add_test(tests, a_stream_begins_with_the_step_that_is_asked_for);
    tcase_add_test(tests, what_cannot_be_followed_is_refused_before_the_stream_begins);
    tcase_add_test(tests, head_has_the_headers_and_ends);
    tcase_add_test(tests, a_removal_is_told_and_is_the_end);
    tcase_add_test(tests, lines_that_are_not_kept_are_a_gap);
    tcase_add_test(tests, a_stop_ends_every_stream_at_once);
    suite_add_tcase(suite, tests);
    tcase_set_timeout(own, TEST_TIMEOUT_S);
    tcase_add_test(own, a_silent_stream_has_a_heart);
    tcase_add_test(own, a_stream_does_not_begin_where_a_crash_takes_it_back);
    tcase_add_loop_test(own, a_kill_takes_back_nothing_that_was_told, 0, 3);
    suite_add_tcase(suite, own);
    return suite;
}
