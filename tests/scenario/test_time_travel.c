/* Past weights, hashes and rewinds, held against what was fetched when it was the present. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/lib/live_server.h"
#include "tests/lib/remote.h"
#include "tests/lib/testing.h"

enum { TEST_TIMEOUT_S = 300, STEPS = 24, AWAIT_TRIES = 400 };

static struct live_server server;

static void start(void)
{
    live_server_start(&server, testing_folder(), NULL);
}

static void stop(void)
{
    ck_assert_int_eq(live_server_stop(&server), 0);
}

static void restart(struct remote *remote)
{
    live_server_kill(&server);
    live_server_restart(&server);
    remote->port = server.port;
}

static const char *query_of(uint64_t step)
{
    static char query[64];

    snprintf(query, sizeof query, "?step=%llu", (unsigned long long)step);
    return query;
}

static const char *query_on(uint64_t step, unsigned lineage)
{
    static char query[64];

    snprintf(query, sizeof query, "?step=%llu&lineage=%u", (unsigned long long)step, lineage);
    return query;
}

/* Takes steps from + 1 .. to, and keeps the weights after each. */
static void record(const struct remote *remote, uint64_t from, uint64_t to, struct weights *seen)
{
    for (uint64_t step = from + 1; step <= to; step++) {
        remote_steps(remote, step, step);
        seen[step] = remote_weights(remote, "");
    }
}

static void check_past(const struct remote *remote, uint64_t from, uint64_t to,
                       const struct weights *seen, const char *what)
{
    for (uint64_t step = from; step <= to; step++) {
        struct weights past = remote_weights(remote, query_of(step));
        char where[160];
        snprintf(where, sizeof where, "%s, step %llu", what, (unsigned long long)step);
        remote_check_same(&past, &seen[step], where);
    }
}

static const char *const sessions[] = {
    "\"optimizer\": \"adam\"",
    ("\"optimizer\": {\"name\": \"momentum\", \"momentum\": 0.9}, \"ema\": {\"decay\": 0.9}, "
     "\"groups\": [{\"tensors\": [\"b\"], \"lr_mult\": 0.5}]"),
    "\"optimizer\": \"adafactor\"",
    "\"optimizer\": \"nadam\", \"dtype\": \"f64\"",
    "\"optimizer\": \"dcasgd\"",
    "\"optimizer\": \"adam\", \"durability\": {\"mode\": \"interval\", \"seconds\": 1}",
    ("\"optimizer\": {\"name\": \"sgd\", \"lr\": 0.1}, \"schedule\": {\"name\": \"cosine\", "
     "\"max_steps\": 30, \"warmup_steps\": 3}, \"gradient\": {\"clip_norm\": 2}"),
};

/* Also when the configuration changed on the way, weights were replaced, and the server was killed
 * in between. */
START_TEST(the_past_is_what_was_seen)
{
    struct weights seen[STEPS + 2];
    struct remote remote = remote_create(server.port, "past", sessions[_i]);

    seen[0] = remote_weights(&remote, "");
    record(&remote, 0, 6, seen);
    struct answer answer =
        remote_send(&remote, "PATCH", "", "{\"optimizer\": {\"lr\": 0.05}}", 200);
    answer_close(&answer);
    record(&remote, 6, 9, seen);
    answer = remote_send(&remote, "POST", "/checkpoints", NULL, 201);
    ck_assert_int_eq(answer_number(&answer, "step"), 9);
    answer_close(&answer);
    record(&remote, 9, 15, seen);
    check_past(&remote, 0, 15, seen, sessions[_i]);
    char zero[REMOTE_HASH_BYTES], later[REMOTE_HASH_BYTES];
    remote_hash(&remote, query_of(12), zero);
    /* What durability had not reached is lost by a kill: stop there. */
    if (strstr(sessions[_i], "interval") != NULL) {
        ck_assert_int_eq(live_server_stop(&server), 0);
        live_server_restart(&server);
        remote.port = server.port;
    } else {
        restart(&remote);
    }
    record(&remote, 15, STEPS, seen);
    check_past(&remote, 0, STEPS, seen, sessions[_i]);
    remote_hash(&remote, query_of(12), later);
    ck_assert_str_eq(zero, later);
    stop();
}
END_TEST

START_TEST(a_past_revision_has_its_own_tag_and_forms)
{
    char value[64], path[256];
    struct remote remote =
        remote_create(server.port, "forms", "\"optimizer\": \"adam\", \"ema\": {\"decay\": 0.5}");

    remote_steps(&remote, 1, 5);
    struct answer answer = remote_send(&remote, "GET", "/parameters?step=3", NULL, 200);
    ck_assert_int_eq(answer_number(&answer, "step"), 3);
    ck_assert_int_eq(answer_number(&answer, "lineage"), 0);
    ck_assert_str_eq(http_response_header(&answer.http, "ETag", value, sizeof value), "\"0-3\"");
    answer_close(&answer);
    answer = remote_send(&remote, "GET", "/parameters?step=3&average=ema&tensors=b", NULL, 200);
    ck_assert_str_eq(http_response_header(&answer.http, "ETag", value, sizeof value),
                     "\"0-3-ema\"");
    answer_close(&answer);
    snprintf(path, sizeof path, "%s/parameters?step=3", remote.path);
    answer = api_send(server.port, "GET", path, "If-None-Match: \"0-3\"\r\n", NULL, 0);
    ck_assert_uint_eq(answer.http.status, 304);
    answer_close(&answer);
    answer = api_send(server.port, "GET", path,
                      "Accept: application/octet-stream\r\nRange: bytes=4-7\r\n", NULL, 0);
    struct weights whole = remote_weights(&remote, "?step=3");
    ck_assert_uint_eq(answer.http.status, 206);
    ck_assert_uint_eq(answer.http.body_size, 4);
    ck_assert_mem_eq(answer.http.body, whole.bytes + 4, 4);
    answer_close(&answer);
    remote_refused(&remote, "GET", "/parameters?step=6", NULL, 404, "not_found");
    remote_refused(&remote, "GET", "/hash?step=6", NULL, 404, "not_found");
    remote_refused(&remote, "GET", "/state?step=6", NULL, 404, "not_found");
    remote_refused(&remote, "GET", "/parameters?step=1&lineage=7", NULL, 404, "not_found");
    remote_refused(&remote, "GET", "/parameters?lineage=0", NULL, 422, "invalid_field");
    remote_refused(&remote, "GET", "/parameters?step=-1", NULL, 422, "invalid_field");
    remote_refused(&remote, "GET", "/parameters?step=1&after=1", NULL, 422, "invalid_field");
    remote_refused(&remote, "GET", "/parameters?step=1&wait=1", NULL, 422, "invalid_field");
    stop();
}
END_TEST

#define ONCE "/v1/sessions/once"
#define ANOTHER "{\"optimizer\": \"sgd\", \"parameters\": {\"w\": [1, 2]}}"

/* All that changes something, but not only at a revision, and not once for a key. */
static const struct {
    const char *method, *path, *body;
    bool same_twice; /* so that a key is welcome */
} changes[] = {
    {"POST", ONCE "/rewind", "{\"step\": 1}", false},
    {"POST", ONCE "/forks", "{\"step\": 1}", false},
    {"POST", "/v1/sessions", ANOTHER, false},
    {"PUT", "/v1/sessions/another", ANOTHER, true},
    {"PATCH", ONCE, "{\"optimizer\": {\"lr\": 0.5}}", true},
    {"DELETE", ONCE, "", true},
    {"DELETE", ONCE "/workers/w", "", true},
    {"POST", ONCE "/checkpoints", "", true},
    {"POST", ONCE "/snapshots", "{}", false},
    {"POST", ONCE "/snapshots/1/close", "", true},
};

static void check_not_heeded(const char *method, const char *path, const char *headers,
                             const char *body)
{
    struct answer answer = api_send(server.port, method, path, headers, body, strlen(body));

    answer_check_problem(&answer, 400, "invalid_request", path);
    ck_assert_msg(strstr(answer_detail(&answer), "leave it out") != NULL, "%s %s: %s", method, path,
                  answer_detail(&answer));
    answer_close(&answer);
}

/* What is not heeded is refused, and nothing was done. */
START_TEST(conditions_and_keys_are_refused)
{
    static const char *const headers[] = {"If-Match: \"0-3\"\r\n", "If-Match: *\r\n",
                                          "Idempotency-Key: once\r\n"};
    static const char weights[] = "{\"parameters\": {}}";
    struct remote remote = remote_create(server.port, "once", "\"optimizer\": \"adam\"");

    remote_steps(&remote, 1, 3);
    for (size_t i = 0; i < 3 * (sizeof changes / sizeof *changes); i++)
        if (i % 3 < 2 || !changes[i / 3].same_twice)
            check_not_heeded(changes[i / 3].method, changes[i / 3].path, headers[i % 3],
                             changes[i / 3].body);
    check_not_heeded("PUT", ONCE "/parameters", headers[2], weights); /* If-Match is heeded there */
    struct answer answer = remote_send(&remote, "GET", "", NULL, 200);
    ck_assert_int_eq(answer_number(&answer, "step"), 3);
    ck_assert_int_eq(answer_number(&answer, "lineage"), 0);
    answer_close(&answer);
    answer = api_send(server.port, "GET", "/v1/sessions", "", NULL, 0);
    ck_assert_uint_eq(json_array_size(json_object_get(answer.json, "sessions")), 1);
    answer_close(&answer);
    stop();
}
END_TEST

/* The first step that is kept, as a refusal says it; -1 while step 1 is still there. */
static json_int_t oldest_of(const struct remote *remote)
{
    char path[160];
    json_int_t oldest = -1;

    snprintf(path, sizeof path, "%s/parameters?step=1", remote->path);
    struct answer answer = api_send(remote->port, "GET", path, "", NULL, 0);
    if (answer.http.status != 200) {
        answer_check_problem(&answer, 410, "history_gone", path);
        oldest = answer_number(&answer, "oldest_step");
    }
    answer_close(&answer);
    return oldest;
}

/* The ledger has lost its first lines: who asks for them hears so, in either form. */
static void check_ledger(const struct remote *remote, json_int_t newest)
{
    static const char *const accepts[] = {"", "Accept: application/x-ndjson\r\n"};
    struct answer answer = remote_send(remote, "GET", "/steps?page_size=1", NULL, 200);
    json_int_t oldest = answer_number(&answer, "oldest_step");
    const json_t *line = json_array_get(json_object_get(answer.json, "steps"), 0);
    char under[32], path[128];

    ck_assert_int_gt(oldest, 1);
    ck_assert_int_eq(json_integer_value(json_object_get(line, "step")), oldest);
    answer_close(&answer);
    for (size_t i = 0; i < 4; i++) {
        const char *name = i / 2 == 0 ? "from" : "page_token";
        snprintf(path, sizeof path, "%s/steps?%s=%d", remote->path, name, (int)oldest - 1);
        answer = api_send(remote->port, "GET", path, accepts[i % 2], NULL, 0);
        answer_check_problem(&answer, 410, "history_gone", path);
        ck_assert_str_eq(answer_pointer(&answer) + 1, name);
        ck_assert_int_ge(answer_number(&answer, "oldest_step"), oldest);
        answer_close(&answer);
    }
    snprintf(path, sizeof path, "%s/steps", remote->path);
    answer = api_send(remote->port, "GET", path, accepts[1], NULL, 0);
    ck_assert_uint_eq(answer.http.status, 200);
    ck_assert_int_ge(strtol(strstr(answer.http.body, "\"step\":") + 7, NULL, 10), oldest);
    answer_close(&answer);
    snprintf(under, sizeof under, "/steps?from=%d", (int)newest);
    answer = remote_send(remote, "GET", under, NULL, 200);
    ck_assert_uint_eq(json_array_size(json_object_get(answer.json, "steps")), 1);
    answer_close(&answer);
}

START_TEST(what_is_forgotten_is_gone_and_says_what_is_not)
{
    static struct weights seen[200];
    const struct timespec pause = {.tv_nsec = 50 * 1000 * 1000};
    struct remote remote = remote_create(
        server.port, "forgetful", "\"optimizer\": \"adam\", \"history\": {\"keep_steps\": 4}");
    json_int_t oldest = -1, steps = 0;

    for (int i = 0; i < AWAIT_TRIES && oldest < 0; i++) {
        if (steps < 100) {
            record(&remote, (uint64_t)steps, (uint64_t)steps + 5, seen);
            steps += 5;
            struct answer answer = remote_send(&remote, "POST", "/checkpoints", NULL, 201);
            answer_close(&answer);
        }
        nanosleep(&pause, NULL);
        oldest = oldest_of(&remote);
    }
    ck_assert_int_gt(oldest, 1);
    ck_assert_int_le(oldest, steps - 4);
    check_past(&remote, (uint64_t)steps - 4, (uint64_t)steps, seen, "what must be kept");
    check_ledger(&remote, steps);
    remote_refused(&remote, "GET", "/hash?step=1", NULL, 410, "history_gone");
    remote_refused(&remote, "GET", "/state?step=1", NULL, 410, "history_gone");
    remote_refused(&remote, "POST", "/rewind", "{\"step\": 1}", 410, "history_gone");
    remote_refused(&remote, "POST", "/forks", "{\"step\": 1}", 410, "history_gone");
    stop();
}
END_TEST

START_TEST(a_rewind_begins_a_line_and_leaves_the_old_one_readable)
{
    struct weights old[STEPS + 2], again[STEPS + 2];
    char value[64];
    struct remote remote = remote_create(server.port, "line", "\"optimizer\": \"adam\"");

    old[0] = remote_weights(&remote, "");
    record(&remote, 0, 20, old);
    struct answer answer = remote_send(&remote, "POST", "/rewind", "{\"step\": 8}", 200);
    ck_assert_int_eq(answer_number(&answer, "step"), 8);
    ck_assert_int_eq(answer_number(&answer, "lineage"), 1);
    answer_close(&answer);
    struct weights now = remote_weights(&remote, "");
    remote_check_same(&now, &old[8], "after the rewind");

    /* What names the old line does not match; the same gradients make the same bits. */
    answer = remote_try(&remote, 9, "", "If-Match: \"0-8\"\r\n");
    answer_check_problem(&answer, 412, "step_conflict", "the old tag");
    answer_close(&answer);
    answer = remote_try(&remote, 9, "", "If-Match: \"1-8\"\r\n");
    ck_assert_uint_eq(answer.http.status, 200);
    ck_assert_int_eq(answer_number(&answer, "lineage"), 1);
    ck_assert_str_eq(http_response_header(&answer.http, "ETag", value, sizeof value), "\"1-9\"");
    answer_close(&answer);
    now = remote_weights(&remote, "");
    remote_check_same(&now, &old[9], "the same gradient again");

    /* Others make others. */
    for (uint64_t step = 10; step <= 14; step++) {
        remote_steps(&remote, 100 + step, 100 + step);
        again[step] = remote_weights(&remote, "");
    }
    restart(&remote);
    for (uint64_t step = 0; step <= 20; step++) {
        now = remote_weights(&remote, query_on(step, 0));
        remote_check_same(&now, &old[step], "the old line");
    }
    for (uint64_t step = 10; step <= 14; step++) {
        now = remote_weights(&remote, query_of(step));
        remote_check_same(&now, &again[step], "the new line");
        ck_assert_mem_ne(now.bytes, old[step].bytes, now.size);
    }
    now = remote_weights(&remote, query_of(5));
    remote_check_same(&now, &old[5], "before the lines part");
    remote_refused(&remote, "GET", "/parameters?step=15", NULL, 404, "not_found");

    /* Back to what was left behind. */
    answer = remote_send(&remote, "POST", "/rewind", "{\"step\": 15, \"lineage\": 0}", 200);
    ck_assert_int_eq(answer_number(&answer, "step"), 15);
    ck_assert_int_eq(answer_number(&answer, "lineage"), 2);
    answer_close(&answer);
    remote_steps(&remote, 16, 20);
    now = remote_weights(&remote, "");
    remote_check_same(&now, &old[20], "the old line, gone on");
    remote_refused(&remote, "POST", "/rewind", "{}", 422, "invalid_field");
    remote_refused(&remote, "POST", "/rewind", "{\"step\": 21}", 404, "not_found");
    remote_refused(&remote, "POST", "/rewind", "{\"step\": \"1\"}", 422, "invalid_field");
    stop();
}
END_TEST

START_TEST(equal_histories_have_equal_hashes)
{
    char one[REMOTE_HASH_BYTES], other[REMOTE_HASH_BYTES];
    struct remote first = remote_create(server.port, "first", "\"optimizer\": \"adam\"");
    struct remote second = remote_create(server.port, "second", "\"optimizer\": \"adam\"");
    struct remote third = remote_create(server.port, "third",
                                        "\"optimizer\": {\"name\": \"adam\", \"beta1\": 0.8}, "
                                        "\"hash_every\": 3");

    remote_steps(&first, 1, 10);
    remote_steps(&second, 1, 10);
    for (uint64_t step = 0; step <= 10; step++) {
        remote_hash(&first, query_of(step), one);
        remote_hash(&second, query_of(step), other);
        ck_assert_str_eq(one, other);
        remote_hash(&first, query_of(step == 0 ? 1 : step - 1), other);
        ck_assert_str_ne(one, other);
    }
    for (uint64_t step = 1; step <= 7; step++) {
        struct answer answer = remote_try(&third, step, "", "");
        const char *told = json_string_value(json_object_get(answer.json, "state_hash"));
        remote_hash(&third, "", one);
        ck_assert_int_eq(told != NULL, step % 3 == 0);
        if (told != NULL)
            ck_assert_str_eq(told, one);
        answer_close(&answer);
    }
    struct answer off = remote_send(&third, "PATCH", "", "{\"hash_every\": null}", 200);
    ck_assert_int_eq(answer_number(&off, "hash_every"), 0);
    answer_close(&off);
    remote_hash(&third, "?step=7", one);
    remote_hash(&first, "?step=7", other);
    ck_assert_str_ne(one, other);
    stop();
}
END_TEST

Suite *suite_time_travel(void);
Suite *suite_time_travel(void)
{
    Suite *suite = suite_create("time_travel");
    TCase *tests = tcase_create("time_travel");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, NULL);
    tcase_add_loop_test(tests, the_past_is_what_was_seen, 0,
                        (int)(sizeof sessions / sizeof *sessions));
    tcase_add_test(tests, a_past_revision_has_its_own_tag_and_forms);
    tcase_add_test(tests, conditions_and_keys_are_refused);
    tcase_add_test(tests, what_is_forgotten_is_gone_and_says_what_is_not);
    tcase_add_test(tests, a_rewind_begins_a_line_and_leaves_the_old_one_readable);
    tcase_add_test(tests, equal_histories_have_equal_hashes);
    suite_add_tcase(suite, tests);
    return suite;
}
