/* Sessions with a schedule: how it is set, shown and changed, and what rate a step gets. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/refusal.h"

enum { TEST_TIMEOUT_S = 120, TEXT_BYTES = 4096 };

#define SESSION "/v1/sessions/scheduled"
#define GRADIENT "{\"gradients\": {\"w\": [1]}}"

static void start(void)
{
    refusal_start(NULL);
}

/* sgd with lr 1 on one weight, 0, in f64: the sum of the rates, negated, is the weight. */
static void create(const char *schedule)
{
    char text[TEXT_BYTES];

    snprintf(text, sizeof text,
             "{\"optimizer\": {\"name\": \"sgd\", \"lr\": 1}, \"dtype\": \"f64\", "
             "\"parameters\": {\"w\": [0]}, \"schedule\": %s}",
             schedule);
    struct answer answer = refusal_accept("PUT", SESSION, "", text, 201);
    answer_close(&answer);
}

static void change(const char *schedule)
{
    char text[TEXT_BYTES];

    snprintf(text, sizeof text, "{\"schedule\": %s}", schedule);
    struct answer answer = refusal_accept("PATCH", SESSION, "", text, 200);
    answer_close(&answer);
}

/* The session's schedule as it is shown equals this JSON. */
static void check_shown(const char *wanted)
{
    struct answer answer = api_send(refusal_server.port, "GET", SESSION, "", NULL, 0);
    json_t *value = json_loads(wanted, 0, NULL);

    ck_assert_ptr_nonnull(value);
    ck_assert_msg(json_equal(json_object_get(answer.json, "schedule"), value), "%s is not %s",
                  answer.http.body, wanted);
    json_decref(value);
    answer_close(&answer);
}

/* One step; the rate that its receipt tells. */
static double step(const char *body)
{
    struct answer answer = refusal_accept("POST", SESSION "/gradients", "", body, 200);
    double rate = json_number_value(json_object_get(answer.json, "lr"));

    answer_close(&answer);
    return rate;
}

static double weight(void)
{
    struct answer answer = api_send(refusal_server.port, "GET", SESSION "/parameters", "", NULL, 0);
    const json_t *w = json_object_get(json_object_get(answer.json, "parameters"), "w");
    double value = json_number_value(json_array_get(w, 0));

    answer_close(&answer);
    return value;
}

static void check_rate(double rate, double wanted)
{
    ck_assert_msg(fabs(rate - wanted) <= 1e-14, "%.17g is not %.17g", rate, wanted);
}

START_TEST(receipts_and_weights_follow_the_schedule)
{
    double sum = 0;

    create("{\"name\": \"cosine\", \"max_steps\": 12, \"final_lr\": 0.25, \"warmup_steps\": 4, "
           "\"warmup_begin_lr\": 0.5}");
    for (int n = 1; n <= 14; n++) {
        double wanted = n < 4    ? 0.5 + 0.5 * n / 4
                        : n < 12 ? 0.25 + 0.75 * (1 + cos(M_PI * (n - 4) / 8)) / 2
                                 : 0.25;
        double rate = step(GRADIENT);
        check_rate(rate, wanted);
        sum += rate;
    }
    check_rate(weight(), -sum);
}
END_TEST

START_TEST(a_rate_given_with_the_step_stands_in_place_of_the_scheduled_one)
{
    create("{\"name\": \"constant\", \"warmup_steps\": 10}");
    check_rate(step(GRADIENT), 0.1);
    check_rate(step("{\"gradients\": {\"w\": [1]}, \"lr\": 0.5}"), 0.5);
    check_rate(step(GRADIENT), 0.3);
    check_rate(weight(), -(0.1 + 0.5 + 0.3));
}
END_TEST

START_TEST(a_schedule_is_shown_in_full_and_changed_by_parts)
{
    create("null");
    check_shown("{\"name\": \"constant\", \"warmup_steps\": 0, \"warmup_begin_lr\": 0, "
                "\"warmup_mode\": \"linear\"}");
    change("{\"warmup_steps\": 5, \"warmup_mode\": \"constant\", \"warmup_begin_lr\": 0.25}");
    check_shown("{\"name\": \"constant\", \"warmup_steps\": 5, \"warmup_begin_lr\": 0.25, "
                "\"warmup_mode\": \"constant\"}");
    check_rate(step(GRADIENT), 0.25);
    change("{\"name\": \"constant\", \"warmup_begin_lr\": 0.5}"); /* the same: the rest stays */
    check_shown("{\"name\": \"constant\", \"warmup_steps\": 5, \"warmup_begin_lr\": 0.5, "
                "\"warmup_mode\": \"constant\"}");
    check_rate(step(GRADIENT), 0.5);
    /* Another one starts from its defaults. */
    change("{\"name\": \"step_decay\", \"steps\": [4, 9], \"gamma\": 0.5}");
    check_shown("{\"name\": \"step_decay\", \"warmup_steps\": 0, \"warmup_begin_lr\": 0, "
                "\"warmup_mode\": \"linear\", \"step_size\": null, \"steps\": [4, 9], "
                "\"gamma\": 0.5}");
    check_rate(step(GRADIENT), 1);
    check_rate(step(GRADIENT), 0.5);
    change("{\"step_size\": 5, \"steps\": null}");
    check_shown("{\"name\": \"step_decay\", \"warmup_steps\": 0, \"warmup_begin_lr\": 0, "
                "\"warmup_mode\": \"linear\", \"step_size\": 5, \"steps\": null, \"gamma\": 0.5}");
    check_rate(step(GRADIENT), 0.5);
    change("\"step_decay\""); /* its name alone changes nothing */
    check_rate(step(GRADIENT), 0.5);
    change("null");
    check_shown("{\"name\": \"constant\", \"warmup_steps\": 0, \"warmup_begin_lr\": 0, "
                "\"warmup_mode\": \"linear\"}");
    check_rate(step(GRADIENT), 1);
}
END_TEST

START_TEST(a_killed_server_goes_on_where_the_schedule_was)
{
    create("{\"name\": \"factor\", \"step\": 2, \"factor\": 0.5}");
    check_rate(step(GRADIENT), 1);
    change("{\"step\": 3}");
    check_rate(step(GRADIENT), 1);
    live_server_kill(&refusal_server);
    live_server_restart(&refusal_server);
    check_rate(weight(), -2);
    check_rate(step(GRADIENT), 1);
    check_rate(step(GRADIENT), 0.5);
    live_server_kill(&refusal_server);
    live_server_restart(&refusal_server);
    check_rate(weight(), -3.5);
    for (int n = 5; n <= 7; n++)
        check_rate(step(GRADIENT), n < 7 ? 0.5 : 0.25);
    /* Whatever the schedule was, the rate is a function of the step. */
    change("{\"step\": 8}");
    check_rate(step(GRADIENT), 1);
}
END_TEST

/* Settings that make a session, for every schedule of the catalogue: a new one needs a line. */
static const struct {
    const char *name, *settings;
} examples[] = {
    {"constant", ""},
    {"factor", ", \"step\": 5, \"factor\": 0.5"},
    {"multi_factor", ", \"steps\": [5, 7], \"factor\": 0.5"},
    {"poly", ", \"max_steps\": 9"},
    {"cosine", ", \"max_steps\": 9"},
    {"linear_annealing", ", \"max_steps\": 9"},
    {"step_decay", ", \"step_size\": 5"},
    {"exponential", ", \"gamma\": 0.5"},
    {"one_cycle", ", \"max_steps\": 9"},
    {"cosine_restarts", ", \"first\": 5"},
};

static const char *example_of(const char *name)
{
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++)
        if (strcmp(examples[i].name, name) == 0)
            return examples[i].settings;
    ck_abort_msg("%s needs an example here", name);
    return NULL;
}

/* A session shows a value for each declared parameter: the default where it was not given. */
static void check_declared(const json_t *schedule, const json_t *shown, const char *given)
{
    const json_t *parameters = json_object_get(schedule, "parameters");

    ck_assert_uint_eq(json_object_size(shown), json_array_size(parameters) + 1);
    for (size_t i = 0; i < json_array_size(parameters); i++) {
        const json_t *parameter = json_array_get(parameters, i);
        const char *name = json_string_value(json_object_get(parameter, "name"));
        char key[64];
        ck_assert_msg(json_object_get(shown, name) != NULL, "%s is not shown", name);
        snprintf(key, sizeof key, "\"%s\"", name);
        if (strstr(given, key) == NULL)
            ck_assert_msg(
                json_equal(json_object_get(shown, name), json_object_get(parameter, "default")),
                "%s", name);
    }
}

START_TEST(every_schedule_of_the_catalogue_makes_a_session)
{
    struct answer catalogue = api_send(refusal_server.port, "GET", "/v1/schedules", "", NULL, 0);
    const json_t *schedules = json_object_get(catalogue.json, "schedules");

    ck_assert_uint_gt(json_array_size(schedules), 0);
    for (size_t i = 0; i < json_array_size(schedules); i++) {
        const json_t *schedule = json_array_get(schedules, i);
        const char *name = json_string_value(json_object_get(schedule, "name"));
        char settings[256];
        snprintf(settings, sizeof settings, "{\"name\": \"%s\"%s}", name, example_of(name));
        create(settings);
        struct answer answer = api_send(refusal_server.port, "GET", SESSION, "", NULL, 0);
        check_declared(schedule, json_object_get(answer.json, "schedule"), settings);
        answer_close(&answer);
        double first = step(GRADIENT), second = step(GRADIENT);
        ck_assert_msg(first > 0 && first <= 1 && second > 0 && second <= 1, "%s: %g %g", name,
                      first, second);
        answer = api_send(refusal_server.port, "DELETE", SESSION, "", NULL, 0);
        ck_assert_uint_eq(answer.http.status, 204);
        answer_close(&answer);
    }
    answer_close(&catalogue);
}
END_TEST

START_TEST(settings_that_cannot_be_are_refused)
{
    static const struct {
        const char *schedule, *code, *pointer, *words;
    } cases[] = {
        {"7", "invalid_field", "/schedule", "cosine"},
        {"[]", "invalid_field", "/schedule", NULL},
        {"\"cosinus\"", "invalid_field", "/schedule", "there are cosine,"},
        {"\"COSINE\"", "invalid_field", "/schedule", "there are cosine,"},
        {"{\"name\": \"cosinus\"}", "invalid_field", "/schedule/name", "there are cosine,"},
        {"{\"name\": 7}", "invalid_field", "/schedule/name", NULL},
        {"{\"name\": null}", "invalid_field", "/schedule/name", NULL},
        {"\"cosine\"", "invalid_field", "/schedule", "max_steps"},
        {"{\"name\": \"cosine\"}", "invalid_field", "/schedule/max_steps", "max_steps"},
        {"{\"name\": \"cosine\", \"max_steps\": null}", "invalid_field", "/schedule/max_steps",
         "whole number"},
        {"{\"name\": \"cosine\", \"max_steps\": 0}", "invalid_field", "/schedule/max_steps", "0"},
        {"{\"name\": \"cosine\", \"max_steps\": 7.5}", "invalid_field", "/schedule/max_steps",
         "whole number"},
        {"{\"name\": \"cosine\", \"max_steps\": 9, \"warmup_steps\": 9}", "invalid_field", NULL,
         "warmup"},
        {"{\"name\": \"cosine\", \"max_steps\": 9, \"step\": 1}", "unknown_field", "/schedule/step",
         "final_lr"},
        {"{\"max_steps\": 9}", "unknown_field", "/schedule/max_steps", "constant has no"},
        {"{\"warmup_steps\": -1}", "invalid_field", "/schedule/warmup_steps", "-1"},
        {"{\"warmup_begin_lr\": -1}", "invalid_field", "/schedule/warmup_begin_lr", "-1"},
        {"{\"warmup_mode\": \"slow\"}", "invalid_field", "/schedule/warmup_mode", "linear"},
        {"{\"preset\": \"torch.optim.Adam\"}", "unknown_field", "/schedule/preset", NULL},
        {"{\"name\": \"multi_factor\", \"steps\": []}", "invalid_field", "/schedule/steps", "list"},
        {"{\"name\": \"multi_factor\", \"steps\": 5}", "invalid_field", "/schedule/steps", "list"},
        {"{\"name\": \"multi_factor\", \"steps\": null}", "invalid_field", "/schedule/steps",
         "list"},
        {"{\"name\": \"multi_factor\", \"steps\": [[5]]}", "invalid_field", "/schedule/steps",
         "list"},
        {"{\"name\": \"multi_factor\", \"steps\": [5, \"7\"]}", "invalid_field", "/schedule/steps",
         "list"},
        {"{\"name\": \"multi_factor\", \"steps\": [5, 5]}", "invalid_field", "/schedule/steps/1",
         "before"},
        {"{\"name\": \"multi_factor\", \"steps\": [5, 6.5]}", "invalid_field", "/schedule/steps/1",
         "6.5"},
        {"{\"name\": \"multi_factor\", \"steps\": [0, 1]}", "invalid_field", "/schedule/steps/0",
         "from 1"},
        {"{\"name\": \"multi_factor\", \"steps\": [1, 1e16]}", "invalid_field", "/schedule/steps/1",
         "1e15"},
        {"{\"name\": \"multi_factor\", \"steps\": [1, 1e999]}", "invalid_field", NULL, NULL},
        {"{\"name\": \"step_decay\", \"steps\": [1], \"step_size\": 1}", "invalid_field", NULL,
         "step_size"},
    };
    char text[TEXT_BYTES];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *pointer = cases[i].pointer;
        snprintf(text, sizeof text,
                 "{\"optimizer\": \"sgd\", \"parameters\": {\"w\": [0]}, \"schedule\": %s}",
                 cases[i].schedule);
        struct answer answer = api_send_json(refusal_server.port, "POST", "/v1/sessions", text);
        answer_check_problem(&answer, 422, cases[i].code, text);
        ck_assert_msg(pointer == NULL ? strncmp(answer_pointer(&answer), "/schedule/", 10) == 0
                                      : strcmp(answer_pointer(&answer), pointer) == 0,
                      "%s: %s", text, answer.http.body);
        snprintf(text, sizeof text, "{\"schedule\": %s}", cases[i].schedule);
        refusal_check_json("PATCH", REFUSAL_SESSION, text, 422, cases[i].code,
                           answer_pointer(&answer), cases[i].words);
        answer_close(&answer);
    }
}
END_TEST

Suite *suite_schedule_sessions(void);
Suite *suite_schedule_sessions(void)
{
    Suite *suite = suite_create("schedule_sessions");
    TCase *tests = tcase_create("schedule_sessions");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, refusal_stop);
    tcase_add_test(tests, receipts_and_weights_follow_the_schedule);
    tcase_add_test(tests, a_rate_given_with_the_step_stands_in_place_of_the_scheduled_one);
    tcase_add_test(tests, a_schedule_is_shown_in_full_and_changed_by_parts);
    tcase_add_test(tests, a_killed_server_goes_on_where_the_schedule_was);
    tcase_add_test(tests, every_schedule_of_the_catalogue_makes_a_session);
    tcase_add_test(tests, settings_that_cannot_be_are_refused);
    suite_add_tcase(suite, tests);
    return suite;
}
