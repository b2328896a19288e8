/* Many workers on one session over HTTP: what each mode answers, to the letter. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/lib/live_server.h"
#include "tests/lib/remote.h"
#include "tests/lib/testing.h"

enum { TEST_TIMEOUT_S = 120, TEXT_BYTES = 512 };

static struct live_server server;

static void start(void)
{
    live_server_start(&server, testing_folder(), NULL);
}

static void stop(void)
{
    ck_assert_int_eq(live_server_stop(&server), 0);
}

/* A gradient, with more members ("\"worker\": \"a\""). status 0: any. */
static struct answer submit(const struct remote *remote, double gradient, const char *more,
                            unsigned status)
{
    char text[TEXT_BYTES], path[128];

    snprintf(text, sizeof text, "{\"gradients\": {\"w\": [%.17g]}%s%s}", gradient,
             more[0] != '\0' ? ", " : "", more);
    snprintf(path, sizeof path, "%s/gradients", remote->path);
    struct answer answer = api_send_json(remote->port, "POST", path, text);
    ck_assert_msg(status == 0 || answer.http.status == status, "%s: %s", text, answer.http.body);
    return answer;
}

static void check_json(const json_t *value, const char *expected, const char *what)
{
    json_t *wanted = json_loads(expected, JSON_DECODE_ANY, NULL);
    char *found = json_dumps(value, JSON_ENCODE_ANY);

    ck_assert_ptr_nonnull(wanted);
    ck_assert_msg(json_equal(value, wanted), "%s is not %s: %s", what, expected, found);
    free(found);
    json_decref(wanted);
}

/* 202 with just this body. */
static void check_waiting(const struct remote *remote, double gradient, const char *more,
                          const char *expected)
{
    struct answer answer = submit(remote, gradient, more, 202);
    char value[64];

    check_json(answer.json, expected, more);
    ck_assert_ptr_null(http_response_header(&answer.http, "ETag", value, sizeof value));
    ck_assert_ptr_null(
        http_response_header(&answer.http, "Preference-Applied", value, sizeof value));
    ck_assert_ptr_null(
        http_response_header(&answer.http, "Idempotency-Replayed", value, sizeof value));
    answer_close(&answer);
}

/* 200 with the receipt of this step. */
static void check_step(const struct remote *remote, double gradient, const char *more,
                       json_int_t step)
{
    struct answer answer = submit(remote, gradient, more, 200);
    char tag[64], wanted[64];

    ck_assert_str_eq(json_string_value(json_object_get(answer.json, "status")), "applied");
    ck_assert_int_eq(answer_number(&answer, "step"), step);
    ck_assert_int_eq(answer_number(&answer, "durable_step"), step);
    snprintf(wanted, sizeof wanted, "\"0-%lld\"", (long long)step);
    ck_assert_ptr_nonnull(http_response_header(&answer.http, "ETag", tag, sizeof tag));
    ck_assert_str_eq(tag, wanted);
    answer_close(&answer);
}

/* 409 of this code, which changes nothing. */
static void check_conflict(const struct remote *remote, const char *more, const char *code,
                           json_int_t current_step)
{
    struct answer before = remote_send(remote, "GET", "", NULL, 200);
    struct answer answer = submit(remote, 1, more, 409);
    char value[64];

    answer_check_problem(&answer, 409, code, more);
    if (current_step >= 0)
        ck_assert_int_eq(answer_number(&answer, "current_step"), current_step);
    const char *after = http_response_header(&answer.http, "Retry-After", value, sizeof value);
    if (strcmp(code, "too_far_ahead") == 0)
        ck_assert_str_eq(after, "1");
    else
        ck_assert_ptr_null(after);
    answer_close(&answer);
    answer = remote_send(remote, "GET", "", NULL, 200);
    ck_assert_msg(json_equal(before.json, answer.json), "%s changed %s", more, answer.http.body);
    answer_close(&answer);
    answer_close(&before);
}

static void check_weight(const struct remote *remote, double wanted)
{
    struct answer answer = remote_send(remote, "GET", "/parameters", NULL, 200);
    const json_t *w = json_object_get(json_object_get(answer.json, "parameters"), "w");

    ck_assert_msg(json_number_value(json_array_get(w, 0)) == wanted, "%s is not %g",
                  answer.http.body, wanted);
    answer_close(&answer);
}

static void check_round(const struct remote *remote, const char *expected)
{
    struct answer answer = remote_send(remote, "GET", "", NULL, 200);

    check_json(json_object_get(answer.json, "round"), expected, "round of the session");
    answer_close(&answer);
    answer = remote_send(remote, "GET", "/workers", NULL, 200);
    check_json(json_object_get(answer.json, "round"), expected, "round of the workers");
    answer_close(&answer);
}

/* --- async --- */

START_TEST(async_refuses_what_is_staler_than_allowed)
{
    struct remote one = remote_one_weight(server.port, "\"max_staleness\": 1");

    check_step(&one, 1, "\"base_step\": 0", 1);
    check_step(&one, 1, "\"base_step\": 0", 2); /* one step late */
    check_conflict(&one, "\"base_step\": 0", "stale_gradient", 2);
    check_step(&one, 1, "\"base_step\": 1", 3);
    check_step(&one, 1, "", 4); /* of whatever is current */
    check_weight(&one, -4);
    check_round(&one, "null");
}
END_TEST

START_TEST(async_scales_what_is_staler_than_allowed)
{
    struct remote one =
        remote_one_weight(server.port, "\"max_staleness\": 1, \"stale\": \"scale\"");

    for (json_int_t step = 1; step <= 3; step++)
        check_step(&one, 1, "", step);
    check_step(&one, 1, "\"base_step\": 2", 4); /* one step late: in full */
    check_weight(&one, -4);
    struct answer answer = submit(&one, 1, "\"base_step\": 1", 200); /* three late */
    ck_assert_int_eq(answer_number(&answer, "staleness"), 3);
    ck_assert(json_number_value(json_object_get(answer.json, "lr")) == 0.25);
    answer_close(&answer);
    check_weight(&one, -4.25);
}
END_TEST

START_TEST(accumulate_takes_the_mean_of_every_so_many)
{
    struct remote one = remote_one_weight(server.port, "\"accumulate\": 3");

    check_round(&one, "{\"round\": 1, \"received\": 0, \"expected\": 3}");
    check_waiting(&one, 1, "",
                  "{\"status\": \"waiting\", \"round\": 1, \"received\": 1, \"expected\": 3, "
                  "\"lineage\": 0, \"durable_step\": 0, \"base_step\": 0}");
    check_waiting(&one, 2, "\"worker\": \"a\", \"examples\": 2",
                  "{\"status\": \"waiting\", \"round\": 1, \"received\": 2, \"expected\": 3, "
                  "\"lineage\": 0, \"durable_step\": 0, \"base_step\": 0, \"worker\": \"a\"}");
    check_round(&one, "{\"round\": 1, \"received\": 2, \"expected\": 3}");
    check_weight(&one, 0);
    check_step(&one, 3, "\"worker\": \"a\"", 1); /* (1 + 2 * 2 + 3) / 4; who came may come again */
    check_weight(&one, -2);
    check_round(&one, "{\"round\": 2, \"received\": 0, \"expected\": 3}");
}
END_TEST

/* --- sync --- */

START_TEST(sync_collects_one_of_each_worker)
{
    struct remote one = remote_one_weight(server.port, "\"mode\": \"sync\", \"workers\": 2");

    remote_refused(&one, "POST", "/gradients", "{\"gradients\": {\"w\": [1]}}", 422,
                   "invalid_field"); /* of whom? */
    check_waiting(&one, 5, "\"worker\": \"b\", \"examples\": 1, \"loss\": 1",
                  "{\"status\": \"waiting\", \"round\": 1, \"received\": 1, \"expected\": 2, "
                  "\"lineage\": 0, \"durable_step\": 0, \"base_step\": 0, \"worker\": \"b\"}");
    check_conflict(&one, "\"worker\": \"b\"", "already_contributed", -1);
    check_round(&one, "{\"round\": 1, \"received\": 1, \"expected\": 2}");
    struct answer answer = submit(&one, 1, "\"worker\": \"a\", \"examples\": 3, \"loss\": 5", 200);
    ck_assert_int_eq(answer_number(&answer, "step"), 1);
    ck_assert_int_eq(answer_number(&answer, "received"), 2);
    ck_assert_int_eq(answer_number(&answer, "expected"), 2);
    ck_assert(json_number_value(json_object_get(answer.json, "grad_norm")) == 2);
    ck_assert(json_number_value(json_object_get(answer.json, "loss")) == 4);
    answer_close(&answer);
    check_weight(&one, -2); /* (3 * 1 + 1 * 5) / 4 */
    check_conflict(&one, "\"worker\": \"c\", \"base_step\": 0", "stale_gradient", 1);
    remote_refused(&one, "POST", "/gradients",
                   "{\"gradients\": {\"w\": [1]}, \"worker\": \"a\", \"lr\": 0.5}", 422,
                   "invalid_field"); /* one rate for all */
    answer = remote_send(&one, "GET", "", NULL, 200);
    const json_t *last = json_object_get(answer.json, "last");
    ck_assert_int_eq(json_integer_value(json_object_get(last, "received")), 2);
    answer_close(&answer);
}
END_TEST

START_TEST(the_ledger_names_the_members_in_the_order_of_the_mean)
{
    struct remote one = remote_one_weight(server.port, "\"mode\": \"sync\", \"workers\": 3");

    struct answer answer = submit(&one, 3, "\"worker\": \"z\", \"seq\": 1, \"loss\": 0.5", 202);
    answer_close(&answer);
    answer = submit(&one, -4, "\"worker\": \"a\", \"examples\": 2", 202);
    answer_close(&answer);
    check_step(&one, 1, "\"worker\": \"m\", \"seq\": 1", 1);
    answer = remote_send(&one, "GET", "/steps", NULL, 200);
    const json_t *line = json_array_get(json_object_get(answer.json, "steps"), 0);
    check_json(json_object_get(line, "members"),
               "[{\"worker\": \"a\", \"seq\": null, \"base_step\": 0, \"staleness\": 0, "
               "\"examples\": 2, \"loss\": null, \"grad_norm\": 4, \"bytes\": 4}, "
               "{\"worker\": \"m\", \"seq\": 1, \"base_step\": 0, \"staleness\": 0, "
               "\"examples\": 1, \"loss\": null, \"grad_norm\": 1, \"bytes\": 4}, "
               "{\"worker\": \"z\", \"seq\": 1, \"base_step\": 0, \"staleness\": 0, "
               "\"examples\": 1, \"loss\": 0.5, \"grad_norm\": 3, \"bytes\": 4}]",
               "members");
    ck_assert_int_eq(json_integer_value(json_object_get(line, "received")), 3);
    answer_close(&answer);

    /* Of one alone there is nothing more to say. */
    answer = remote_send(&one, "PATCH", "", "{\"aggregation\": {\"mode\": \"async\"}}", 200);
    answer_close(&answer);
    check_step(&one, 1, "\"worker\": \"a\"", 2);
    answer = remote_send(&one, "GET", "/steps?from=2", NULL, 200);
    line = json_array_get(json_object_get(answer.json, "steps"), 0);
    ck_assert_ptr_null(json_object_get(line, "members"));
    ck_assert_ptr_null(json_object_get(line, "expected"));
    answer_close(&answer);
}
END_TEST

START_TEST(reductions_and_votes_have_their_meaning)
{
    struct remote one = remote_one_weight(
        server.port, "\"mode\": \"sync\", \"workers\": 3, \"reduction\": \"sum\"");
    struct answer answer = submit(&one, 1, "\"worker\": \"a\", \"examples\": 2", 202);

    answer_close(&answer);
    answer = submit(&one, 3, "\"worker\": \"b\"", 202);
    answer_close(&answer);
    check_step(&one, -4, "\"worker\": \"c\"", 1);
    check_weight(&one, 0); /* 1 + 3 - 4: a sum has no weights */
    answer = remote_send(&one, "PATCH", "",
                         "{\"aggregation\": {\"reduction\": \"mean\", \"vote\": true}}", 200);
    answer_close(&answer);
    answer = submit(&one, 0.001, "\"worker\": \"a\"", 202);
    answer_close(&answer);
    answer = submit(&one, -700, "\"worker\": \"b\", \"examples\": 60000", 202);
    answer_close(&answer);
    check_step(&one, 5, "\"worker\": \"c\"", 2);
    check_weight(&one, -1); /* two to one, whatever they weigh */
}
END_TEST

START_TEST(a_delta_is_a_gradient_times_minus_one)
{
    struct remote one = remote_one_weight(server.port, "\"mode\": \"sync\", \"workers\": 2");
    struct answer answer = submit(&one, 4, "\"worker\": \"a\", \"kind\": \"delta\"", 202);

    answer_close(&answer);
    check_step(&one, 1, "\"worker\": \"b\", \"kind\": \"gradient\"", 1);
    check_weight(&one, 1.5); /* -(-4 + 1) / 2 */
}
END_TEST

/* --- ssp --- */

/* Steps until the worker is told to wait, which must come soon. */
static void run_ahead(const struct remote *remote, const char *worker, json_int_t *step)
{
    for (int i = 0; i < 10; i++) {
        struct answer answer = submit(remote, 1, worker, 0);
        bool refused = answer.http.status == 409;
        answer_close(&answer);
        if (refused) {
            check_conflict(remote, worker, "too_far_ahead", -1);
            return;
        }
        ++*step;
    }
    ck_abort_msg("nobody told %s to wait", worker);
}

START_TEST(ssp_lets_nobody_get_far_ahead)
{
    struct remote one = remote_one_weight(server.port, "\"mode\": \"ssp\", \"staleness\": 2");
    json_int_t step = 0;

    check_step(&one, 1, "\"worker\": \"slow\"", ++step);
    run_ahead(&one, "\"worker\": \"fast\"", &step);
    for (int i = 0; i < 3; i++) { /* one for one */
        check_step(&one, 1, "\"worker\": \"slow\"", ++step);
        check_step(&one, 1, "\"worker\": \"fast\"", ++step);
        check_conflict(&one, "\"worker\": \"fast\"", "too_far_ahead", -1);
    }
    /* Who is removed holds up nobody. */
    struct answer answer = remote_send(&one, "DELETE", "/workers/slow", NULL, 204);
    answer_close(&answer);
    check_step(&one, 1, "\"worker\": \"fast\"", ++step);
    check_weight(&one, -(double)step);
}
END_TEST

static void check_live(const struct remote *remote, size_t index, bool live)
{
    struct answer answer = remote_send(remote, "GET", "/workers", NULL, 200);
    const json_t *workers = json_object_get(answer.json, "workers");

    ck_assert_uint_eq(json_array_size(workers), 2);
    ck_assert_msg(json_is_true(json_object_get(json_array_get(workers, index), "live")) == live,
                  "%s", answer.http.body);
    answer_close(&answer);
}

START_TEST(ssp_does_not_wait_for_who_is_gone)
{
    struct remote one = remote_one_weight(server.port, "\"mode\": \"ssp\", \"staleness\": 1");
    const struct timespec pause = {.tv_nsec = 30000000};
    json_int_t step = 0;

    check_step(&one, 1, "\"worker\": \"gone\"", ++step);
    run_ahead(&one, "\"worker\": \"here\"", &step);
    nanosleep(&pause, NULL);
    struct answer answer =
        remote_send(&one, "PATCH", "", "{\"aggregation\": {\"lease_s\": 0.03}}", 200);
    answer_close(&answer);
    check_step(&one, 1, "\"worker\": \"here\"", ++step);
    check_live(&one, 0, false);
    answer = remote_send(&one, "PATCH", "", "{\"aggregation\": {\"lease_s\": 1000}}", 200);
    answer_close(&answer);
    check_live(&one, 0, true);
    check_live(&one, 1, true);
}
END_TEST

/* --- exactly once --- */

START_TEST(a_repeated_contribution_counts_once)
{
    struct remote one = remote_one_weight(server.port, "\"mode\": \"sync\", \"workers\": 2");
    static const char json[] = "{\"gradients\": {\"w\": [1]}, \"worker\": \"a\"}";
    static const char headers[] = "Content-Type: application/json\r\nIdempotency-Key: k\r\n";
    char path[128], value[64];

    snprintf(path, sizeof path, "%s/gradients", one.path);
    for (int i = 0; i < 3; i++) {
        struct answer answer = api_send(server.port, "POST", path, headers, json, strlen(json));
        ck_assert_uint_eq(answer.http.status, 202);
        ck_assert_int_eq(answer_number(&answer, "received"), 1);
        const char *replayed =
            http_response_header(&answer.http, "Idempotency-Replayed", value, sizeof value);
        ck_assert_msg((replayed != NULL) == (i > 0), "attempt %d", i);
        answer_close(&answer);
        if (i == 1) { /* also over a kill */
            live_server_kill(&server);
            live_server_restart(&server);
            one.port = server.port;
        }
    }
    check_round(&one, "{\"round\": 1, \"received\": 1, \"expected\": 2}");
    check_step(&one, 3, "\"worker\": \"b\"", 1);
    check_weight(&one, -2);
    /* Afterwards it has the receipt of its step. */
    struct answer answer = api_send(server.port, "POST", path, headers, json, strlen(json));
    ck_assert_uint_eq(answer.http.status, 200);
    ck_assert_int_eq(answer_number(&answer, "step"), 1);
    ck_assert_int_eq(answer_number(&answer, "received"), 2);
    ck_assert_ptr_nonnull(
        http_response_header(&answer.http, "Idempotency-Replayed", value, sizeof value));
    answer_close(&answer);
    check_round(&one, "{\"round\": 2, \"received\": 0, \"expected\": 2}");
}
END_TEST

START_TEST(a_dry_run_of_a_contribution_keeps_nothing)
{
    struct remote one = remote_one_weight(server.port, "\"mode\": \"sync\", \"workers\": 2");
    struct answer answer = remote_send(&one, "POST", "/gradients?dry_run=true",
                                       "{\"gradients\": {\"w\": [1]}, \"worker\": \"a\"}", 200);

    check_json(answer.json,
               "{\"status\": \"waiting\", \"round\": 1, \"received\": 1, \"expected\": 2, "
               "\"lineage\": 0, \"durable_step\": 0, \"base_step\": 0, \"worker\": \"a\", "
               "\"dry_run\": true}",
               "dry run");
    answer_close(&answer);
    check_round(&one, "{\"round\": 1, \"received\": 0, \"expected\": 2}");
}
END_TEST

/* --- workers --- */

START_TEST(workers_are_listed_by_name_and_removed)
{
    struct remote one =
        remote_one_weight(server.port, "\"mode\": \"sync\", \"workers\": 2, \"lease_s\": 1000");
    struct answer answer = submit(&one, 1, "\"worker\": \"b/\xc3\xa9 1\", \"seq\": 1", 202);

    answer_close(&answer);
    check_step(&one, 1, "\"worker\": \"a\"", 1);
    answer = submit(&one, 1, "\"worker\": \"a\"", 202);
    answer_close(&answer);
    answer = remote_send(&one, "GET", "/workers", NULL, 200);
    json_t *workers = json_object_get(answer.json, "workers");
    ck_assert_uint_eq(json_array_size(workers), 2);
    for (size_t i = 0; i < 2; i++) {
        const char *seen =
            json_string_value(json_object_get(json_array_get(workers, i), "last_seen"));
        ck_assert_ptr_nonnull(seen);
        ck_assert_msg(strncmp(seen, "20", 2) == 0 && seen[strlen(seen) - 1] == 'Z', "%s", seen);
        json_object_del(json_array_get(workers, i), "last_seen");
    }
    check_json(workers,
               "[{\"name\": \"a\", \"seq\": null, \"contributions\": 2, \"base_step\": 1, "
               "\"lag\": 0, \"live\": true, \"waiting\": true}, "
               "{\"name\": \"b/\xc3\xa9 1\", \"seq\": 1, \"contributions\": 1, \"base_step\": 0, "
               "\"lag\": 1, \"live\": true, \"waiting\": false}]",
               "workers");
    answer_close(&answer);

    remote_refused(&one, "DELETE", "/workers/b", NULL, 404, "not_found");
    remote_refused(&one, "DELETE", "/workers/b%2F%FF", NULL, 400, "invalid_request");
    answer = remote_send(&one, "DELETE", "/workers/b%2F%C3%A9%201", NULL, 204);
    ck_assert_uint_eq(answer.http.body_size, 0);
    answer_close(&answer);
    remote_refused(&one, "DELETE", "/workers/b%2F%C3%A9%201", NULL, 404, "not_found");
    live_server_kill(&server);
    live_server_restart(&server);
    one.port = server.port;
    answer = remote_send(&one, "GET", "/workers", NULL, 200);
    ck_assert_uint_eq(json_array_size(json_object_get(answer.json, "workers")), 1);
    answer_close(&answer);
    check_step(&one, 1, "\"worker\": \"b/\xc3\xa9 1\", \"seq\": 1", 2); /* it counts anew */
}
END_TEST

Suite *suite_workers(void);
Suite *suite_workers(void)
{
    Suite *suite = suite_create("workers");
    TCase *tests = tcase_create("workers");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, stop);
    tcase_add_test(tests, async_refuses_what_is_staler_than_allowed);
    tcase_add_test(tests, async_scales_what_is_staler_than_allowed);
    tcase_add_test(tests, accumulate_takes_the_mean_of_every_so_many);
    tcase_add_test(tests, sync_collects_one_of_each_worker);
    tcase_add_test(tests, the_ledger_names_the_members_in_the_order_of_the_mean);
    tcase_add_test(tests, reductions_and_votes_have_their_meaning);
    tcase_add_test(tests, a_delta_is_a_gradient_times_minus_one);
    tcase_add_test(tests, ssp_lets_nobody_get_far_ahead);
    tcase_add_test(tests, ssp_does_not_wait_for_who_is_gone);
    tcase_add_test(tests, a_repeated_contribution_counts_once);
    tcase_add_test(tests, a_dry_run_of_a_contribution_keeps_nothing);
    tcase_add_test(tests, workers_are_listed_by_name_and_removed);
    suite_add_tcase(suite, tests);
    return suite;
}
