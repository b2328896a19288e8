/* Gradients that are refused for their norm and kept, held against what was sent. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "service/tensor/dtype.h"
#include "tests/lib/live_server.h"
#include "tests/lib/openapi.h"
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

/* As the description of the address says. */
static void check_documented(const char *pattern, const struct answer *answer)
{
    const json_t *response = openapi_response(openapi_operation("GET", pattern), 200);
    const json_t *content = json_object_get(response, "content");

    ck_assert_ptr_nonnull(content);
    openapi_check(json_object_get(json_object_get(content, "application/json"), "schema"),
                  answer->json, pattern);
}

static double norm(const float *values, size_t count)
{
    double sum = 0;

    for (size_t i = 0; i < count; i++)
        sum += (double)values[i] * (double)values[i];
    return sqrt(sum);
}

/* Sends gradient `number` times `factor` in a wire dtype. */
static struct answer send_scaled(const struct remote *remote, uint64_t number, float factor,
                                 enum dtype dtype)
{
    float gradient[REMOTE_COUNT];
    unsigned char wire[8 * REMOTE_COUNT];
    char path[160];

    remote_gradient(remote, number, gradient);
    for (size_t i = 0; i < REMOTE_COUNT; i++)
        gradient[i] *= factor;
    dtype_convert(dtype, wire, DTYPE_F32, gradient, REMOTE_COUNT);
    snprintf(path, sizeof path, "%s/gradients?dtype=%s&worker=wild&loss=7.5", remote->path,
             dtype_name(dtype));
    return api_send(remote->port, "POST", path, "Content-Type: application/octet-stream\r\n", wire,
                    REMOTE_COUNT * dtype_size(dtype));
}

static void check_kept(const struct remote *remote, json_int_t number, uint64_t gradient_number,
                       float factor, enum dtype dtype)
{
    float gradient[REMOTE_COUNT];
    unsigned char wire[8 * REMOTE_COUNT];
    char path[160];

    remote_gradient(remote, gradient_number, gradient);
    for (size_t i = 0; i < REMOTE_COUNT; i++)
        gradient[i] *= factor;
    dtype_convert(dtype, wire, DTYPE_F32, gradient, REMOTE_COUNT);
    snprintf(path, sizeof path, "%s/quarantine/%d", remote->path, (int)number);
    struct answer answer =
        api_send(remote->port, "GET", path, "Accept: application/octet-stream\r\n", NULL, 0);
    ck_assert_msg(answer.http.status == 200, "%s", answer.http.body);
    ck_assert_uint_eq(answer.http.body_size, REMOTE_COUNT * dtype_size(dtype));
    ck_assert_mem_eq(answer.http.body, wire, answer.http.body_size);
    answer_close(&answer);
    answer = api_send(remote->port, "GET", path, "", NULL, 0);
    check_documented("/v1/sessions/{id}/quarantine/{number}", &answer);
    const json_t *row =
        json_array_get(json_object_get(json_object_get(answer.json, "gradients"), "w"), 0);
    float first;
    dtype_convert(DTYPE_F32, &first, dtype, wire, 1);
    ck_assert((float)json_number_value(json_array_get(row, 0)) == first);
    answer_close(&answer);
    static const char *const types[] = {"application/x-npy", "application/vnd.safetensors"};
    for (size_t i = 0; i < 2; i++) {
        char accept[96];
        snprintf(accept, sizeof accept, "Accept: %s\r\n", types[i]);
        answer = api_send(remote->port, "GET", path, accept, NULL, 0);
        ck_assert_msg(answer.http.status == 200, "%s", answer.http.body);
        ck_assert_uint_gt(answer.http.body_size, REMOTE_COUNT * dtype_size(dtype));
        if (dtype != DTYPE_BF16 || i == 1)
            ck_assert_mem_eq(answer.http.body + answer.http.body_size -
                                 REMOTE_COUNT * dtype_size(dtype),
                             wire, REMOTE_COUNT * dtype_size(dtype));
        answer_close(&answer);
    }
}

START_TEST(an_abnormal_gradient_is_refused_and_kept)
{
    struct remote remote = remote_create(
        server.port, "wild", "\"optimizer\": \"adam\", \"gradient\": {\"max_norm_ratio\": 10}");
    char before[REMOTE_HASH_BYTES], after[REMOTE_HASH_BYTES];

    remote_steps(&remote, 1, 40);
    struct answer answer = remote_send(&remote, "GET", "/quarantine", NULL, 200);
    ck_assert_uint_eq(json_array_size(json_object_get(answer.json, "quarantine")), 0);
    answer_close(&answer);
    remote_hash(&remote, "", before);
    answer = send_scaled(&remote, 41, 1000, DTYPE_F32);
    answer_check_problem(&answer, 422, "abnormal_gradient", "a thousand times");
    answer_close(&answer);
    answer = send_scaled(&remote, 42, 500, DTYPE_BF16);
    answer_check_problem(&answer, 422, "abnormal_gradient", "in bf16");
    answer_close(&answer);
    remote_hash(&remote, "", after);
    ck_assert_str_eq(before, after);
    for (int round = 0; round < 2; round++) {
        answer = remote_send(&remote, "GET", "/quarantine", NULL, 200);
        const json_t *list = json_object_get(answer.json, "quarantine");
        check_documented("/v1/sessions/{id}/quarantine", &answer);
        ck_assert_uint_eq(json_array_size(list), 2);
        const json_t *newest = json_array_get(list, 0), *first = json_array_get(list, 1);
        ck_assert_str_eq(json_string_value(json_object_get(newest, "dtype")), "bf16");
        ck_assert_str_eq(json_string_value(json_object_get(first, "dtype")), "f32");
        ck_assert_int_eq(json_integer_value(json_object_get(first, "step")), 40);
        ck_assert(json_number_value(json_object_get(first, "loss")) == 7.5);
        ck_assert_str_eq(json_string_value(json_object_get(first, "worker")), "wild");
        float gradient[REMOTE_COUNT];
        remote_gradient(&remote, 41, gradient);
        double told = json_number_value(json_object_get(first, "grad_norm"));
        double expected = 1000 * norm(gradient, REMOTE_COUNT);
        ck_assert_msg(fabs(told - expected) < 1e-5 * expected, "%g, not %g", told, expected);
        json_int_t number = json_integer_value(json_object_get(first, "number"));
        check_kept(&remote, number, 41, 1000, DTYPE_F32);
        check_kept(&remote, json_integer_value(json_object_get(newest, "number")), 42, 500,
                   DTYPE_BF16);
        ck_assert_int_gt(json_integer_value(json_object_get(newest, "number")), number);
        answer_close(&answer);
        live_server_kill(&server);
        live_server_restart(&server);
        remote.port = server.port;
    }
    remote_refused(&remote, "GET", "/quarantine/999", NULL, 404, "not_found");
    remote_refused(&remote, "GET", "/quarantine/x", NULL, 404, "not_found");
    answer = remote_send(&remote, "PATCH", "", "{\"gradient\": {\"max_norm_ratio\": null}}", 200);
    answer_close(&answer);
    answer = send_scaled(&remote, 43, 1000, DTYPE_F32);
    ck_assert_uint_eq(answer.http.status, 200);
    answer_close(&answer);
    stop();
}
END_TEST

Suite *suite_quarantine(void);
Suite *suite_quarantine(void)
{
    Suite *suite = suite_create("quarantine");
    TCase *tests = tcase_create("quarantine");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, NULL);
    tcase_add_test(tests, an_abnormal_gradient_is_refused_and_kept);
    suite_add_tcase(suite, tests);
    return suite;
}
