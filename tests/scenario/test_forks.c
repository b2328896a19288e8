/* Forks, held against other sessions that were led the same way. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "tests/lib/live_server.h"
#include "tests/lib/remote.h"
#include "tests/lib/testing.h"

enum { TEST_TIMEOUT_S = 300 };

static struct live_server server;

static void start(void)
{
    live_server_start(&server, testing_folder(), NULL);
}

static void stop(void)
{
    ck_assert_int_eq(live_server_stop(&server), 0);
}

static const json_t *fork_of(const struct answer *answer)
{
    return json_object_get(answer->json, "fork");
}

static const char *fork_text(const struct answer *answer, const char *name)
{
    const char *text = json_string_value(json_object_get(fork_of(answer), name));

    return text == NULL ? "" : text;
}

static void check_equal(const struct remote *one, const struct remote *other, bool hashes,
                        const char *what)
{
    char mine[REMOTE_HASH_BYTES], theirs[REMOTE_HASH_BYTES];
    struct weights left = remote_weights(one, ""), right = remote_weights(other, "");

    remote_check_same(&left, &right, what);
    remote_hash(one, "", mine);
    remote_hash(other, "", theirs);
    if (hashes)
        ck_assert_str_eq(mine, theirs);
}

static const char *const sessions[] = {
    "\"optimizer\": \"adam\"",
    ("\"optimizer\": {\"name\": \"momentum\", \"momentum\": 0.9}, \"ema\": {\"decay\": 0.9}, "
     "\"groups\": [{\"tensors\": [\"b\"], \"lr_mult\": 0.5}]"),
    "\"optimizer\": \"adafactor\"",
    "\"optimizer\": \"nadam\", \"dtype\": \"f64\"",
    "\"optimizer\": \"dcasgd\"",
};

/* Twin takes gradients 1 .. 10 and then 31 .. 40; the fork at 10 of what took 1 .. 20 as well. */
START_TEST(a_fork_goes_on_as_its_parent_would_have)
{
    char value[96];
    struct remote parent = remote_create(server.port, "parent", sessions[_i]);
    struct remote twin = remote_create(server.port, "twin", sessions[_i]);
    struct remote fork = remote_other(&parent, server.port, "child");

    remote_steps(&parent, 1, 20);
    struct weights before = remote_weights(&parent, "");
    remote_steps(&twin, 1, 10);
    struct answer answer =
        remote_send(&parent, "POST", "/forks", "{\"step\": 10, \"id\": \"child\"}", 201);
    const json_t *from = json_object_get(answer.json, "parent");
    ck_assert_str_eq(json_string_value(json_object_get(from, "id")), "parent");
    ck_assert_int_eq(json_integer_value(json_object_get(from, "step")), 10);
    ck_assert_int_eq(json_integer_value(json_object_get(from, "lineage")), 0);
    ck_assert_str_eq(fork_text(&answer, "state"), "kept");
    ck_assert_int_eq(json_integer_value(json_object_get(fork_of(&answer), "replayed")), 0);
    ck_assert_ptr_null(json_object_get(fork_of(&answer), "off_policy"));
    ck_assert_str_eq(http_response_header(&answer.http, "Location", value, sizeof value),
                     "/v1/sessions/child");
    answer_close(&answer);
    check_equal(&fork, &twin, true, "at the fork");
    remote_steps(&fork, 31, 40);
    remote_steps(&twin, 31, 40);
    check_equal(&fork, &twin, true, "after it");

    /* Neither knows of the other any more. */
    struct weights after = remote_weights(&parent, "");
    remote_check_same(&before, &after, "the parent");
    answer = remote_send(&parent, "DELETE", "", NULL, 204);
    answer_close(&answer);
    live_server_kill(&server);
    live_server_restart(&server);
    fork.port = twin.port = server.port;
    check_equal(&fork, &twin, true, "after a kill, without the parent");
    remote_steps(&fork, 41, 45);
    remote_steps(&twin, 41, 45);
    check_equal(&fork, &twin, true, "and on");
    stop();
}
END_TEST

START_TEST(fields_without_a_name_change_the_parents_rule)
{
    struct remote parent =
        remote_create(server.port, "parent", "\"optimizer\": {\"name\": \"adam\", \"beta1\": 0.8}");
    struct remote twin =
        remote_create(server.port, "twin", "\"optimizer\": {\"name\": \"adam\", \"beta1\": 0.8}");
    struct remote fork = remote_other(&parent, server.port, "child");

    remote_steps(&parent, 1, 10);
    remote_steps(&twin, 1, 10);
    struct answer answer = remote_send(
        &parent, "POST", "/forks",
        "{\"id\": \"child\", \"optimizer\": {\"lr\": 0.05}, \"schedule\": {\"name\": \"cosine\", "
        "\"max_steps\": 50}, \"gradient\": {\"clip_norm\": 1}, \"labels\": {\"run\": \"b\"}, "
        "\"hash_every\": 5}",
        201);
    const json_t *rule = json_object_get(answer.json, "optimizer");
    ck_assert(json_real_value(json_object_get(rule, "beta1")) == 0.8);
    ck_assert(json_real_value(json_object_get(rule, "lr")) == 0.05);
    ck_assert_int_eq(answer_number(&answer, "hash_every"), 5);
    ck_assert_int_eq(answer_number(&answer, "step"), 10);
    ck_assert_str_eq(
        json_string_value(json_object_get(json_object_get(answer.json, "labels"), "run")), "b");
    answer_close(&answer);
    answer = remote_send(&twin, "PATCH", "",
                         "{\"optimizer\": {\"lr\": 0.05}, \"schedule\": {\"name\": \"cosine\", "
                         "\"max_steps\": 50}, \"gradient\": {\"clip_norm\": 1}}",
                         200);
    answer_close(&answer);
    remote_steps(&fork, 11, 20);
    remote_steps(&twin, 11, 20);
    check_equal(&fork, &twin, false, "a fork and a patch");
    stop();
}
END_TEST

/* With state reset only the weights are left: as of a new session that is given them. */
START_TEST(another_rule_without_state_is_a_new_session_with_the_weights)
{
    char path[160];
    struct remote parent = remote_create(server.port, "parent", "\"optimizer\": \"adam\"");
    struct remote fork = remote_other(&parent, server.port, "child");
    struct remote twin =
        remote_create(server.port, "twin", "\"optimizer\": {\"name\": \"momentum\", \"lr\": 0.01}");

    remote_steps(&parent, 1, 10);
    struct weights weights = remote_weights(&parent, "?step=6");
    struct answer answer =
        remote_send(&parent, "POST", "/forks",
                    "{\"id\": \"child\", \"step\": 6, \"state\": \"reset\", \"optimizer\": "
                    "{\"name\": \"momentum\", \"lr\": 0.01}}",
                    201);
    ck_assert_str_eq(fork_text(&answer, "state"), "reset");
    answer_close(&answer);
    snprintf(path, sizeof path, "%s/parameters", twin.path);
    answer = api_send(server.port, "PUT", path, "Content-Type: application/octet-stream\r\n",
                      weights.bytes, weights.size);
    ck_assert_uint_eq(answer.http.status, 200);
    answer_close(&answer);
    remote_steps(&fork, 7, 20);
    remote_steps(&twin, 7, 20);
    check_equal(&fork, &twin, false, "another rule");
    stop();
}
END_TEST

START_TEST(slots_that_both_rules_have_are_kept)
{
    struct remote parent = remote_create(server.port, "parent", "\"optimizer\": \"adam\"");

    remote_steps(&parent, 1, 10);
    struct answer answer = remote_send(&parent, "POST", "/forks",
                                       "{\"id\": \"child\", \"optimizer\": \"nadam\"}", 201);
    ck_assert_str_eq(fork_text(&answer, "state"), "converted");
    const char *name;
    json_t *fate;
    size_t kept = 0;
    json_object_foreach(json_object_get(fork_of(&answer), "slots"), name, fate) kept +=
        strcmp(json_string_value(fate), "kept") == 0;
    ck_assert_uint_ge(kept, 2);
    answer_close(&answer);
    answer =
        remote_send(&parent, "POST", "/forks",
                    "{\"id\": \"other\", \"optimizer\": {\"preset\": \"torch.optim.SGD\"}}", 201);
    json_object_foreach(json_object_get(fork_of(&answer), "slots"), name, fate)
        ck_assert_str_ne(json_string_value(fate), "kept");
    answer_close(&answer);
    struct remote other = remote_other(&parent, server.port, "other");
    remote_steps(&other, 11, 12);
    stop();
}
END_TEST

/* The same configuration makes the same weights of the same gradients; another makes those of a
 * session that was changed at the same step. */
START_TEST(a_replay_takes_the_gradients_the_parent_took)
{
    struct remote parent = remote_create(server.port, "parent", "\"optimizer\": \"adam\"");
    struct remote twin = remote_create(server.port, "twin", "\"optimizer\": \"adam\"");
    struct remote same = remote_other(&parent, server.port, "same");
    struct remote other = remote_other(&parent, server.port, "other");

    remote_steps(&parent, 1, 20);
    struct answer answer = remote_send(&parent, "POST", "/forks",
                                       "{\"id\": \"same\", \"step\": 5, \"replay\": true}", 201);
    ck_assert_int_eq(json_integer_value(json_object_get(fork_of(&answer), "replayed")), 15);
    ck_assert(json_is_true(json_object_get(fork_of(&answer), "off_policy")));
    ck_assert_int_eq(answer_number(&answer, "step"), 20);
    answer_close(&answer);
    check_equal(&parent, &same, true, "the same again");
    answer = remote_send(&parent, "POST", "/forks",
                         "{\"id\": \"other\", \"step\": 5, \"replay\": true, \"optimizer\": "
                         "{\"lr\": 0.1}}",
                         201);
    answer_close(&answer);
    remote_steps(&twin, 1, 5);
    answer = remote_send(&twin, "PATCH", "", "{\"optimizer\": {\"lr\": 0.1}}", 200);
    answer_close(&answer);
    remote_steps(&twin, 6, 20);
    check_equal(&twin, &other, true, "another rate");
    stop();
}
END_TEST

START_TEST(bad_forks_are_refused_and_make_nothing)
{
    static const struct {
        const char *json;
        unsigned status;
        const char *code, *pointer;
    } cases[] = {
        {"{\"id\": \"parent\"}", 409, "session_exists", ""},
        {"{\"id\": \"Not-One\"}", 422, "invalid_field", "/id"},
        {"{\"id\": 7}", 422, "invalid_field", "/id"},
        {"{\"step\": 4}", 404, "not_found", "/step"},
        {"{\"step\": 1, \"lineage\": 5}", 404, "not_found", "/lineage"},
        {"{\"lineage\": 0}", 422, "invalid_field", "/lineage"},
        {"{\"state\": \"some\"}", 422, "invalid_field", "/state"},
        {"{\"replay\": 1}", 422, "invalid_field", "/replay"},
        {"{\"optimizer\": \"adamm\"}", 422, "unknown_optimizer", "/optimizer"},
        {"{\"optimizer\": {\"lr\": -1}}", 422, "invalid_field", "/optimizer/lr"},
        {"{\"optimizer\": {\"momentum\": 1}}", 422, "unknown_field", "/optimizer/momentum"},
        {"{\"gradient\": {\"max_norm_ratio\": 1}}", 422, "invalid_field",
         "/gradient/max_norm_ratio"},
        {"{\"hash_every\": -1}", 422, "invalid_field", "/hash_every"},
        {"{\"dtype\": \"f64\"}", 422, "unknown_field", "/dtype"},
        {"{\"parameters\": {}}", 422, "unknown_field", "/parameters"},
        {"[]", 400, "invalid_request", ""},
    };
    struct remote parent = remote_create(server.port, "parent", "\"optimizer\": \"adam\"");

    remote_steps(&parent, 1, 3);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct answer answer =
            api_send_json(server.port, "POST", "/v1/sessions/parent/forks", cases[i].json);
        answer_check_problem(&answer, cases[i].status, cases[i].code, cases[i].json);
        ck_assert_msg(strcmp(answer_pointer(&answer), cases[i].pointer) == 0, "%s: %s",
                      cases[i].json, answer.http.body);
        answer_close(&answer);
    }
    struct answer answer = api_send_json(server.port, "POST", "/v1/sessions/absent/forks", "{}");
    answer_check_problem(&answer, 404, "session_not_found", "absent");
    answer_close(&answer);
    answer = api_send(server.port, "GET", "/v1/sessions", "", NULL, 0);
    ck_assert_uint_eq(json_array_size(json_object_get(answer.json, "sessions")), 1);
    answer_close(&answer);
    answer = remote_send(&parent, "POST", "/forks", "{}", 201);
    ck_assert_int_eq(
        json_integer_value(json_object_get(json_object_get(answer.json, "parent"), "step")), 3);
    answer_close(&answer);
    stop();
}
END_TEST

Suite *suite_forks(void);
Suite *suite_forks(void)
{
    Suite *suite = suite_create("forks");
    TCase *tests = tcase_create("forks");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, NULL);
    tcase_add_loop_test(tests, a_fork_goes_on_as_its_parent_would_have, 0,
                        (int)(sizeof sessions / sizeof *sessions));
    tcase_add_test(tests, fields_without_a_name_change_the_parents_rule);
    tcase_add_test(tests, another_rule_without_state_is_a_new_session_with_the_weights);
    tcase_add_test(tests, slots_that_both_rules_have_are_kept);
    tcase_add_test(tests, a_replay_takes_the_gradients_the_parent_took);
    tcase_add_test(tests, bad_forks_are_refused_and_make_nothing);
    suite_add_tcase(suite, tests);
    return suite;
}
