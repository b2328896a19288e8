/* Groups of tensors: factors of rate and decay by name, for a session's life. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/refusal.h"

enum { TEST_TIMEOUT_S = 120, TEXT_BYTES = 16384 };

#define SESSION "/v1/sessions/grouped"

static void start(void)
{
    refusal_start(NULL);
}

/* What GET answers, with a member of it equal to this JSON. */
static void check_member(const char *path, const char *name, const char *wanted)
{
    struct answer answer = api_send(refusal_server.port, "GET", path, "", NULL, 0);
    json_t *value = json_loads(wanted, 0, NULL);

    ck_assert_ptr_nonnull(value);
    ck_assert_msg(json_equal(json_object_get(answer.json, name), value), "%s: %s is not %s",
                  answer.http.body, name, wanted);
    json_decref(value);
    answer_close(&answer);
}

static void step(const char *gradients)
{
    char text[TEXT_BYTES];

    snprintf(text, sizeof text, "{\"gradients\": %s}", gradients);
    struct answer answer = refusal_accept("POST", SESSION "/gradients", "", text, 200);
    answer_close(&answer);
}

/* Numbers that are exact in f32, so that the weights must be. */
START_TEST(factors_hold_for_the_tensors_they_name)
{
    struct answer answer =
        refusal_accept("PUT", SESSION, "",
                       "{\"optimizer\": {\"name\": \"sgd\", \"lr\": 0.5, \"weight_decay\": 0.25}, "
                       "\"parameters\": {\"a.weight\": [2, 4], \"a.bias\": [2], \"frozen\": [[2]], "
                       "\"b.bias\": [2], \"b.weight\": [2]}, "
                       "\"groups\": [{\"tensors\": \"frozen\", \"lr_mult\": 0}, "
                       "{\"tensors\": [\"*.bias\"], \"lr_mult\": 0.5, \"weight_decay_mult\": 0}, "
                       "{\"tensors\": [\"b*\", \"fr?zen\"], \"weight_decay_mult\": 2}]}",
                       201);

    answer_close(&answer);
    step("{\"a.weight\": [1, 1], \"a.bias\": [1], \"frozen\": [[1]], \"b.bias\": [1], "
         "\"b.weight\": [1]}");
    /* w - 0.5 lr_mult (1 + 0.25 weight_decay_mult w); the first group that matches counts. */
    check_member(SESSION "/parameters", "parameters",
                 "{\"a.weight\": [1.25, 3], \"a.bias\": [1.75], \"frozen\": [[2]], "
                 "\"b.bias\": [1.75], \"b.weight\": [1]}");
    /* What is changed goes through the factors too. */
    answer = refusal_accept("PATCH", SESSION, "",
                            "{\"optimizer\": {\"lr\": 1, \"weight_decay\": 0}}", 200);
    answer_close(&answer);
    step("{\"a.weight\": [1, 1], \"a.bias\": [1], \"frozen\": [[1]], \"b.bias\": [1], "
         "\"b.weight\": [1]}");
    check_member(SESSION "/parameters", "parameters",
                 "{\"a.weight\": [0.25, 2], \"a.bias\": [1.25], \"frozen\": [[2]], "
                 "\"b.bias\": [1.25], \"b.weight\": [0]}");
}
END_TEST

START_TEST(a_group_can_be_left_out_of_layer_wise_rates)
{
    struct answer answer = refusal_accept(
        "PUT", SESSION, "",
        "{\"optimizer\": {\"name\": \"lars\", \"lr\": 1, \"momentum\": 0, \"weight_decay\": 0, "
        "\"trust_coefficient\": 0.5, \"eps\": 0}, "
        "\"parameters\": {\"w\": [3, 4], \"b\": [3, 4]}, "
        "\"groups\": [{\"tensors\": [\"b\"], \"adapt\": false}]}",
        201);

    answer_close(&answer);
    step("{\"w\": [0.25, 0], \"b\": [0.25, 0]}");
    /* norm(w) = 5, norm(c) = 0.25: the rate of w is 0.5 * 5 / 0.25 = 10, that of b 1. */
    check_member(SESSION "/parameters", "parameters", "{\"w\": [0.5, 4], \"b\": [2.75, 4]}");
}
END_TEST

START_TEST(groups_are_shown_in_full_and_belong_to_the_session)
{
    static const char shown[] =
        "[{\"tensors\": [\"*\"], \"lr_mult\": 2, \"weight_decay_mult\": 1, \"adapt\": true}]";
    static const char text[] = "{\"optimizer\": \"sgd\", \"parameters\": {\"w\": [0]}, \"groups\": "
                               "[{\"tensors\": \"*\", \"lr_mult\": 2}]}";
    static const char spelt[] = "{\"optimizer\": \"sgd\", \"parameters\": {\"w\": [0]}, "
                                "\"groups\": [{\"adapt\": true, \"tensors\": [\"*\"], "
                                "\"weight_decay_mult\": 1.0, \"lr_mult\": 2}]}";
    static const char other[] = "{\"optimizer\": \"sgd\", \"parameters\": {\"w\": [0]}, "
                                "\"groups\": [{\"tensors\": \"?\", \"lr_mult\": 2}]}";
    struct answer answer = refusal_accept("PUT", SESSION, "", text, 201);

    answer_close(&answer);
    check_member(SESSION, "groups", shown);
    answer = refusal_accept("PUT", SESSION, "", spelt, 200);
    answer_close(&answer);
    refusal_check_json("PUT", SESSION, other, 409, "session_exists", NULL, NULL);
    live_server_kill(&refusal_server);
    live_server_restart(&refusal_server);
    check_member(SESSION, "groups", shown);
    step("{\"w\": [1]}");
    check_member(SESSION "/parameters", "parameters", "{\"w\": [-0.02]}");
    check_member(REFUSAL_SESSION, "groups", "[]");
    refusal_check_json("PATCH", SESSION, "{\"groups\": []}", 422, "unknown_field", "/groups",
                       "fixed when a session is created");
}
END_TEST

START_TEST(groups_that_cannot_be_are_refused)
{
    static const struct {
        const char *groups, *code, *pointer, *words;
    } cases[] = {
        {"7", "invalid_field", "/groups", "list"},
        {"{}", "invalid_field", "/groups", "list"},
        {"[1, 2]", "invalid_field", "/groups", "list"},
        {"[[]]", "invalid_field", "/groups", "list"},
        {"[\"w\"]", "invalid_field", "/groups/0", "object"},
        {"[{}]", "invalid_field", "/groups/0/tensors", "pattern"},
        {"[{\"tensors\": []}]", "invalid_field", "/groups/0/tensors", "pattern"},
        {"[{\"tensors\": \"\"}]", "invalid_field", "/groups/0/tensors", "pattern"},
        {"[{\"tensors\": null}]", "invalid_field", "/groups/0/tensors", "pattern"},
        {"[{\"tensors\": [\"w\", 7]}]", "invalid_field", "/groups/0/tensors/1", "pattern"},
        {"[{\"tensors\": {\"w\": 1}}]", "invalid_field", "/groups/0/tensors", "pattern"},
        {"[{\"tensors\": \"w\"}, {\"tensors\": \"w\", \"lr_mult\": -1}]", "invalid_field",
         "/groups/1/lr_mult", "-1"},
        {"[{\"tensors\": \"w\", \"lr_mult\": null}]", "invalid_field", "/groups/0/lr_mult",
         "number"},
        {"[{\"tensors\": \"w\", \"lr_mult\": 1000001}]", "invalid_field", "/groups/0/lr_mult",
         "at most"},
        {"[{\"tensors\": \"w\", \"weight_decay_mult\": 1e999}]", "invalid_field",
         "/groups/0/weight_decay_mult", NULL},
        {"[{\"tensors\": \"w\", \"adapt\": 0}]", "invalid_field", "/groups/0/adapt", "true"},
        {"[{\"tensors\": \"w\", \"lr\": 1}]", "unknown_field", "/groups/0/lr", "lr_mult"},
        {"[{\"tensors\": \"w\"}, {\"tensors\": [\"w\", \"*.bias\"]}]", "invalid_field",
         "/groups/1/tensors/1", "*.bias"},
        {"[{\"tensors\": \"W\"}]", "invalid_field", "/groups/0/tensors/0", "w"},
    };
    char text[TEXT_BYTES];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(text, sizeof text,
                 "{\"optimizer\": \"sgd\", \"parameters\": {\"w\": [0], \"v\": [1]}, "
                 "\"groups\": %s}",
                 cases[i].groups);
        refusal_check_json("POST", "/v1/sessions", text, 422, cases[i].code, cases[i].pointer,
                           cases[i].words);
    }
}
END_TEST

START_TEST(groups_have_limits)
{
    static char text[TEXT_BYTES];

    for (int count = 32; count <= 33; count++) {
        size_t used = (size_t)snprintf(
            text, sizeof text,
            "{\"optimizer\": \"sgd\", \"parameters\": {\"w\": [0]}, \"groups\": [");
        for (int i = 0; i < count; i++)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s{\"tensors\": \"w\"}",
                                     i > 0 ? ", " : "");
        snprintf(text + used, sizeof text - used, "]}");
        if (count == 33)
            refusal_check_json("POST", "/v1/sessions", text, 422, "invalid_field", "/groups", "32");
        else {
            struct answer answer = refusal_accept("POST", "/v1/sessions", "", text, 201);
            answer_close(&answer);
        }
    }
    /* 2048 bytes of patterns, each with a byte of its own behind it. */
    for (int count = 255; count <= 256; count++) {
        size_t used = (size_t)snprintf(
            text, sizeof text,
            "{\"optimizer\": \"sgd\", \"parameters\": {\"w\": [0]}, \"groups\": [{\"tensors\": [");
        for (int i = 0; i < count; i++)
            used += (size_t)snprintf(text + used, sizeof text - used, "\"*******\", ");
        snprintf(text + used, sizeof text - used, "\"%s\"]}]}", count == 256 ? "w" : "w*****");
        if (count == 256)
            refusal_check_json("POST", "/v1/sessions", text, 422, "invalid_field", "/groups",
                               "2048");
        else {
            struct answer answer = refusal_accept("POST", "/v1/sessions", "", text, 201);
            answer_close(&answer);
        }
    }
}
END_TEST

Suite *suite_group_sessions(void);
Suite *suite_group_sessions(void)
{
    Suite *suite = suite_create("group_sessions");
    TCase *tests = tcase_create("group_sessions");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, refusal_stop);
    tcase_add_test(tests, factors_hold_for_the_tensors_they_name);
    tcase_add_test(tests, a_group_can_be_left_out_of_layer_wise_rates);
    tcase_add_test(tests, groups_are_shown_in_full_and_belong_to_the_session);
    tcase_add_test(tests, groups_that_cannot_be_are_refused);
    tcase_add_test(tests, groups_have_limits);
    suite_add_tcase(suite, tests);
    return suite;
}
