/* Gradients that come late to a rule that needs the weights they were computed at. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "tests/lib/refusal.h"

enum { TEST_TIMEOUT_S = 120 };

#define SESSION "/v1/sessions/late"

/* On one weight, 0, with lr 1, lambda 1 and g = 1: w moves by -(1 + (w - w_base)). */
static void start(void)
{
    refusal_start(NULL);
    struct answer answer = refusal_accept(
        "PUT", SESSION, "",
        "{\"optimizer\": {\"name\": \"dcasgd\", \"lr\": 1, \"lambda\": 1, \"revisions\": 2}, "
        "\"parameters\": {\"w\": [0]}}",
        201);
    answer_close(&answer);
}

static struct answer step_from(int base_step)
{
    char text[96];

    snprintf(text, sizeof text, "{\"gradients\": {\"w\": [1]}, \"base_step\": %d}", base_step);
    return api_send_json(refusal_server.port, "POST", SESSION "/gradients", text);
}

static void check_taken(int base_step, double wanted)
{
    struct answer answer = step_from(base_step);

    ck_assert_msg(answer.http.status == 200, "%s", answer.http.body);
    answer_close(&answer);
    answer = api_send(refusal_server.port, "GET", SESSION "/parameters", "", NULL, 0);
    const json_t *w = json_object_get(json_object_get(answer.json, "parameters"), "w");
    ck_assert_msg(json_number_value(json_array_get(w, 0)) == wanted, "%s is not %g",
                  answer.http.body, wanted);
    answer_close(&answer);
}

static void check_stale(int base_step, int current_step)
{
    struct answer answer = step_from(base_step);

    answer_check_problem(&answer, 409, "stale_gradient", "base_step");
    ck_assert_str_eq(answer_pointer(&answer), "/base_step");
    ck_assert_int_eq(json_integer_value(json_object_get(answer.json, "current_step")),
                     current_step);
    answer_close(&answer);
}

START_TEST(a_late_gradient_is_corrected_and_one_too_late_conflicts)
{
    check_taken(0, -1);
    check_taken(0, -1); /* -1 - (1 + (-1 - 0)) = -1 */
    check_taken(2, -2);
    check_taken(1, -2); /* -2 - (1 + (-2 - -1)) = -2 */
    check_stale(0, 4);
    check_stale(1, 4);
    check_taken(2, -2); /* two revisions back: -2 - (1 + (-2 - -1)) = -2 */
    check_taken(5, -3);
}
END_TEST

START_TEST(what_is_kept_survives_a_kill)
{
    check_taken(0, -1);
    check_taken(1, -2);
    check_taken(2, -3);
    live_server_kill(&refusal_server);
    live_server_restart(&refusal_server);
    check_stale(0, 3);
    check_taken(1, -2);                /* -3 - (1 + (-3 - -1)) = -2 */
    live_server_stop(&refusal_server); /* now from a checkpoint */
    live_server_restart(&refusal_server);
    check_stale(1, 4);
    check_taken(2, -3); /* -2 - (1 + (-2 - -2)) = -3 */
}
END_TEST

Suite *suite_stale_gradients(void);
Suite *suite_stale_gradients(void)
{
    Suite *suite = suite_create("stale_gradients");
    TCase *tests = tcase_create("stale_gradients");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, refusal_stop);
    tcase_add_test(tests, a_late_gradient_is_corrected_and_one_too_late_conflicts);
    tcase_add_test(tests, what_is_kept_survives_a_kill);
    suite_add_tcase(suite, tests);
    return suite;
}
