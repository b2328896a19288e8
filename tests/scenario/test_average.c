/* The moving average of the weights, as it is served. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/refusal.h"

enum { TEST_TIMEOUT_S = 120, TEXT_BYTES = 4096 };

#define SESSION "/v1/sessions/averaged"
#define WEIGHTS SESSION "/parameters"
#define AVERAGE WEIGHTS "?average=ema"
#define RAW "Accept: application/octet-stream\r\n"

static void start(void)
{
    refusal_start(NULL);
}

static struct answer get(const char *path, const char *headers)
{
    return api_send(refusal_server.port, "GET", path, headers, NULL, 0);
}

/* sgd with lr 1 from zeros on w [2] and b []. */
static void create(const char *dtype, const char *ema)
{
    char text[TEXT_BYTES];

    snprintf(text, sizeof text,
             "{\"optimizer\": {\"name\": \"sgd\", \"lr\": 1}, \"dtype\": \"%s\", "
             "\"parameters\": {\"w\": [0, 0], \"b\": 0}, \"ema\": %s}",
             dtype, ema);
    struct answer answer = refusal_accept("PUT", SESSION, "", text, 201);
    answer_close(&answer);
}

/* Steps with the gradient 1 and -1; 2: the weights are -1, 1; -2, after one, twice it after two. */
static void steps(int count)
{
    for (int i = 0; i < count; i++) {
        struct answer answer = refusal_accept("POST", SESSION "/gradients", "",
                                              "{\"gradients\": {\"w\": [1, -1], \"b\": 2}}", 200);
        answer_close(&answer);
    }
}

static double number(const struct answer *answer, const char *tensor, size_t index)
{
    const json_t *value = json_object_get(json_object_get(answer->json, "parameters"), tensor);

    return json_number_value(json_is_array(value) ? json_array_get(value, index) : value);
}

/* The average is f times the gradient's sign and size, exactly. */
static void check_average(double f)
{
    struct answer answer = get(AVERAGE, "");

    ck_assert_msg(answer.http.status == 200, "%s", answer.http.body);
    ck_assert_str_eq(json_string_value(json_object_get(answer.json, "average")), "ema");
    ck_assert_msg(number(&answer, "w", 0) == -f && number(&answer, "w", 1) == f &&
                      number(&answer, "b", 0) == -2 * f,
                  "%.17g: %s", f, answer.http.body);
    answer_close(&answer);
}

START_TEST(the_average_follows_the_weights)
{
    static const double wanted[] = {0, 0.5, 1.25, 2.125, 3.0625}; /* m + (w - m) / 2 */

    create("f32", "{\"decay\": 0.5}");
    for (int n = 0; n < 5; n++) {
        check_average(wanted[n]);
        struct answer answer = get(WEIGHTS, "");
        ck_assert_double_eq(number(&answer, "w", 1), n);
        ck_assert_ptr_null(json_object_get(answer.json, "average"));
        answer_close(&answer);
        steps(1);
    }
}
END_TEST

START_TEST(a_debiased_average_is_corrected_for_its_start)
{
    double left = 0.5 * 0.5 * 0.5;

    create("f64", "{\"decay\": 0.5, \"debias\": true}");
    check_average(0);
    steps(1);
    check_average(0.5 / (1 - (1 - 1e-6) * 0.5));
    steps(2);
    check_average(2.125 / (1 - (1 - 1e-6) * left));
}
END_TEST

START_TEST(a_debiased_average_is_rounded_once_to_the_dtype)
{
    /* The one rounded in double and then to f32 is another number. */
    float divisor = (float)(1 - (1 - 0.1) * 0.5), f = 0.5F / divisor;
    char body[64];

    create("f32", "{\"decay\": 0.5, \"debias\": true, \"eps\": 0.1}");
    steps(1);
    struct answer answer = get(AVERAGE, RAW);
    ck_assert_uint_eq(answer.http.body_size, 3 * sizeof f);
    memcpy(body, answer.http.body, 3 * sizeof f);
    answer_close(&answer);
    const float wanted[] = {-f, f, -2 * f};
    ck_assert_mem_eq(body, wanted, sizeof wanted);
}
END_TEST

START_TEST(the_average_comes_in_every_form)
{
    create("f32", "{\"decay\": 0.5}");
    steps(3); /* the average is 2.125 = 0x1.1p1 times -1, 1; -2 */
    static const unsigned char f16[] = {0x40, 0xC0, 0x40, 0x40, 0x40, 0xC4};
    static const unsigned char b_f32[] = {0, 0, 0x88, 0xC0};
    struct answer answer = get(AVERAGE "&dtype=f16", RAW);

    ck_assert_uint_eq(answer.http.body_size, sizeof f16);
    ck_assert_mem_eq(answer.http.body, f16, sizeof f16);
    answer_close(&answer);
    answer = get(AVERAGE "&dtype=f16", RAW "Range: bytes=4-5\r\n");
    ck_assert_uint_eq(answer.http.status, 206);
    ck_assert_uint_eq(answer.http.body_size, 2);
    ck_assert_mem_eq(answer.http.body, f16 + 4, 2);
    answer_close(&answer);
    answer = get(AVERAGE "&tensors=b", "Accept: application/x-npy\r\n");
    ck_assert_uint_gt(answer.http.body_size, sizeof b_f32);
    ck_assert_mem_eq(answer.http.body + answer.http.body_size - sizeof b_f32, b_f32, sizeof b_f32);
    answer_close(&answer);
    answer = get(AVERAGE, "Accept: application/vnd.safetensors\r\n");
    ck_assert_uint_eq(answer.http.status, 200);
    ck_assert_ptr_nonnull(strstr(answer.http.body + 8, "\"average\":\"ema\""));
    ck_assert_mem_eq(answer.http.body + answer.http.body_size - sizeof b_f32, b_f32, sizeof b_f32);
    answer_close(&answer);
    answer = get(WEIGHTS, "Accept: application/vnd.safetensors\r\n");
    ck_assert_ptr_null(strstr(answer.http.body + 8, "\"average\""));
    answer_close(&answer);
}
END_TEST

static void check_status(const char *path, const char *headers, unsigned wanted)
{
    struct answer answer = get(path, headers);

    ck_assert_msg(answer.http.status == wanted, "%s %s: %s", path, headers, answer.http.head);
    answer_close(&answer);
}

START_TEST(its_tag_is_its_own_and_no_revisions)
{
    static const char gradient[] = "{\"gradients\": {\"w\": [1, -1], \"b\": 2}}";
    char tag[64];

    create("f32", "{}");
    steps(3);
    struct answer answer = get(AVERAGE, "");
    ck_assert_str_eq(http_response_header(&answer.http, "ETag", tag, sizeof tag), "\"0-3-ema\"");
    answer_close(&answer);
    check_status(AVERAGE, "If-None-Match: \"0-3-ema\"\r\n", 304);
    check_status(AVERAGE, "If-None-Match: \"0-3\"\r\n", 200);
    check_status(WEIGHTS, "If-None-Match: \"0-3-ema\"\r\n", 200);
    check_status(WEIGHTS, "If-None-Match: \"0-3-ema\", \"0-3\"\r\n", 304);
    answer = api_send(refusal_server.port, "POST", SESSION "/gradients",
                      "If-Match: \"0-3-ema\"\r\n", gradient, strlen(gradient));
    answer_check_problem(&answer, 412, "step_conflict", "If-Match");
    answer_close(&answer);
    steps(1);
    check_status(AVERAGE, "If-None-Match: \"0-3-ema\"\r\n", 200);
}
END_TEST

START_TEST(a_session_without_an_average_says_so)
{
    static const char *const headers[] = {"", RAW, "If-None-Match: *\r\n"};

    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        struct answer answer = get(REFUSAL_WEIGHTS "?average=ema", headers[i]);
        answer_check_problem(&answer, 422, "invalid_field", headers[i]);
        ck_assert_str_eq(answer_pointer(&answer), "/average");
        ck_assert_ptr_nonnull(strstr(answer_detail(&answer), "\"ema\""));
        answer_close(&answer);
    }
    create("f32", "{}");
    struct answer answer = get(WEIGHTS "?average=mean", "");
    answer_check_problem(&answer, 422, "invalid_field", "mean");
    ck_assert_str_eq(answer_pointer(&answer), "/average");
    answer_close(&answer);
}
END_TEST

START_TEST(a_killed_server_keeps_the_average)
{
    struct answer before, after;

    create("f32", "{\"decay\": 0.9, \"debias\": true}");
    steps(7);
    before = get(AVERAGE, RAW);
    live_server_kill(&refusal_server);
    live_server_restart(&refusal_server);
    after = get(AVERAGE, RAW);
    ck_assert_uint_eq(before.http.body_size, 3 * sizeof(float));
    ck_assert_uint_eq(after.http.body_size, before.http.body_size);
    ck_assert_mem_eq(after.http.body, before.http.body, before.http.body_size);
    answer_close(&before);
    answer_close(&after);
    steps(1);
    live_server_stop(&refusal_server); /* this time from a checkpoint */
    live_server_restart(&refusal_server);
    after = get(AVERAGE, "");
    ck_assert_int_eq(json_integer_value(json_object_get(after.json, "step")), 8);
    answer_close(&after);
}
END_TEST

START_TEST(it_can_be_put_in_the_place_of_the_weights)
{
    create("f32", "{\"decay\": 0.5}");
    steps(2);
    struct answer answer = get(AVERAGE, "");
    char *text = json_dumps(answer.json, JSON_COMPACT);
    answer_close(&answer);
    answer = refusal_accept("PUT", WEIGHTS, "", text, 200);
    answer_close(&answer);
    free(text);
    answer = get(WEIGHTS, "");
    ck_assert_double_eq(number(&answer, "w", 1), 1.25);
    answer_close(&answer);
}
END_TEST

START_TEST(its_settings_have_ranges_and_are_fixed)
{
    static const struct {
        const char *ema, *code, *pointer, *words;
    } cases[] = {
        {"true", "invalid_field", "/ema", "object"},
        {"0.999", "invalid_field", "/ema", "object"},
        {"[]", "invalid_field", "/ema", "object"},
        {"{\"decay\": 1}", "invalid_field", "/ema/decay", "less than 1"},
        {"{\"decay\": -0.1}", "invalid_field", "/ema/decay", "-0.1"},
        {"{\"decay\": null}", "invalid_field", "/ema/decay", "number"},
        {"{\"eps\": 0}", "invalid_field", "/ema/eps", "at least 1e-12"},
        {"{\"eps\": 1}", "invalid_field", "/ema/eps", "less than 1"},
        {"{\"debias\": 1}", "invalid_field", "/ema/debias", "true"},
        {"{\"beta\": 0.9}", "unknown_field", "/ema/beta", "decay"},
    };
    char text[TEXT_BYTES];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(text, sizeof text,
                 "{\"optimizer\": \"sgd\", \"parameters\": {\"w\": [0]}, \"ema\": %s}",
                 cases[i].ema);
        refusal_check_json("POST", "/v1/sessions", text, 422, cases[i].code, cases[i].pointer,
                           cases[i].words);
    }
    refusal_check_json("PATCH", REFUSAL_SESSION, "{\"ema\": {\"decay\": 0.5}}", 422,
                       "unknown_field", "/ema", "fixed when a session is created");
    refusal_check_json("PATCH", REFUSAL_SESSION, "{\"ema\": null}", 422, "unknown_field", "/ema",
                       "fixed when a session is created");
    create("f32", "{\"debias\": true}");
    struct answer answer = get(SESSION, "");
    json_t *wanted = json_loads("{\"decay\": 0.999, \"debias\": true, \"eps\": 1e-6}", 0, NULL);
    ck_assert_msg(json_equal(json_object_get(answer.json, "ema"), wanted), "%s", answer.http.body);
    json_decref(wanted);
    answer_close(&answer);
    answer = get(REFUSAL_SESSION, "");
    ck_assert(json_is_null(json_object_get(answer.json, "ema")));
    answer_close(&answer);
}
END_TEST

Suite *suite_average(void);
Suite *suite_average(void)
{
    Suite *suite = suite_create("average");
    TCase *tests = tcase_create("average");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, refusal_stop);
    tcase_add_test(tests, the_average_follows_the_weights);
    tcase_add_test(tests, a_debiased_average_is_corrected_for_its_start);
    tcase_add_test(tests, a_debiased_average_is_rounded_once_to_the_dtype);
    tcase_add_test(tests, the_average_comes_in_every_form);
    tcase_add_test(tests, its_tag_is_its_own_and_no_revisions);
    tcase_add_test(tests, a_session_without_an_average_says_so);
    tcase_add_test(tests, a_killed_server_keeps_the_average);
    tcase_add_test(tests, it_can_be_put_in_the_place_of_the_weights);
    tcase_add_test(tests, its_settings_have_ranges_and_are_fixed);
    suite_add_tcase(suite, tests);
    return suite;
}
