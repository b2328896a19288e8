/* Values that cannot be: each is refused with its code and place, and the session stays as it was.
 */
#include <check.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/lib/refusal.h"
#include "tests/lib/tensors.h"

enum { TEST_TIMEOUT_S = 120, TEXT_BYTES = 16384 };

#define GRADIENTS "\"gradients\": " REFUSAL_TENSORS
#define STEP "{" GRADIENTS "}"
#define RAW "Content-Type: application/octet-stream\r\n"
#define SAFETENSORS "Content-Type: application/vnd.safetensors\r\n"
#define MODEL "\"parameters\": {\"w\": [0]}"

static void start(void)
{
    refusal_start(NULL);
}

/* One field more beside a good gradient. */
static void check_step(const char *members, const char *code, const char *pointer,
                       const char *words)
{
    char text[TEXT_BYTES];

    snprintf(text, sizeof text, "{" GRADIENTS ", %s}", members);
    refusal_check_json("POST", REFUSAL_STEPS, text, 422, code, pointer, words);
}

static void step(const char *headers, const char *members)
{
    char text[TEXT_BYTES];

    snprintf(text, sizeof text, "{" GRADIENTS "%s%s}", members[0] == '\0' ? "" : ", ", members);
    struct answer answer = refusal_accept("POST", REFUSAL_STEPS, headers, text, 200);
    answer_close(&answer);
}

static void check_bytes(const char *method, const char *path, const char *headers,
                        const struct buffer *body, const char *code, const char *pointer,
                        const char *words)
{
    refusal_check(&(struct refusal){.method = method,
                                    .path = path,
                                    .headers = headers,
                                    .body = body->data,
                                    .size = body->size,
                                    .status = 422,
                                    .code = code,
                                    .pointer = pointer,
                                    .words = words});
}

/* A safetensors file with this header. */
static void check_safetensors(const char *header, size_t data_size, const char *code,
                              const char *pointer, const char *words)
{
    struct buffer *file = tensors_safetensors(header, data_size);

    check_bytes("POST", REFUSAL_STEPS, SAFETENSORS, file, code, pointer, words);
    buffer_release(file);
}

#define ENTRY(name, shape, begin, end)                                                             \
    "\"" name "\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

/* --- tensors --- */

START_TEST(missing_tensor_is_named)
{
    refusal_check_json("POST", REFUSAL_STEPS,
                       "{\"gradients\": {\"w\": [[1, 2], [3, 4]], \"s\": 1}}", 422,
                       "missing_tensor", "/gradients/a~1b", "a/b");
    refusal_check_json("POST", REFUSAL_STEPS, "{\"gradients\": {}}", 422, "missing_tensor",
                       "/gradients/w", "\"w\"");
    refusal_check_json("PUT", REFUSAL_WEIGHTS, "{\"parameters\": {\"a/b\": [1, 2, 3], \"s\": 1}}",
                       422, "missing_tensor", "/parameters/w", "\"w\"");
    check_safetensors("{" ENTRY("w", "[2,2]", "0", "16") "," ENTRY("s", "[]", "16", "20") "}", 20,
                      "missing_tensor", "/gradients/a~1b", "a/b");
}
END_TEST

START_TEST(unknown_tensor_is_named)
{
    refusal_check_json("POST", REFUSAL_STEPS,
                       "{\"gradients\": {\"w\": [[1, 2], [3, 4]], \"a/b\": [1, 2, 3], \"s\": 1, "
                       "\"x~y\": [1]}}",
                       422, "unknown_tensor", "/gradients/x~0y", NULL);
    refusal_check_json("PUT", REFUSAL_WEIGHTS, "{\"parameters\": {\"z\": 0}}", 422,
                       "unknown_tensor", "/parameters/z", NULL);
    check_safetensors("{" ENTRY("z", "[2,2]", "0", "16") "}", 16, "unknown_tensor", "/gradients/z",
                      NULL);
    refusal_check(&(struct refusal){.method = "GET",
                                    .path = REFUSAL_WEIGHTS "?tensors=w,z",
                                    .headers = "",
                                    .status = 422,
                                    .code = "unknown_tensor",
                                    .pointer = "/tensors",
                                    .words = "\"z\""});
}
END_TEST

START_TEST(shape_mismatch_says_both_shapes)
{
    static const struct {
        const char *w, *words;
    } shapes[] = {
        {"[1, 2, 3, 4]", "[4]; it must be [2, 2]"},
        {"[[1, 2, 3], [4, 5, 6]]", "[2, 3]"},
        {"[[1, 2]]", "[1, 2]; it must be [2, 2]"},
        {"[]", "[0]; it must be [2, 2]"},
        {"7", "[]; it must be [2, 2]"},
        {"[[1, 2], [3]]", "must be [2, 2]"},
        {"[[[1, 2], [3, 4]]]", "[1, 2, 2]; it must"},
        {"[[1, 2], 3]", "must be [2, 2]"},
    };
    char text[256];

    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        snprintf(text, sizeof text, "{\"gradients\": {\"w\": %s, \"a/b\": [5, 6, 7], \"s\": 8}}",
                 shapes[i].w);
        refusal_check_json("POST", REFUSAL_STEPS, text, 422, "shape_mismatch", "/gradients/w",
                           shapes[i].words);
    }
    refusal_check_json("POST", REFUSAL_STEPS, "{\"gradients\": {\"s\": [8]}}", 422,
                       "shape_mismatch", "/gradients/s", "the shape is [1]; it must be []");
    check_safetensors("{" ENTRY("w", "[4]", "0", "16") "}", 16, "shape_mismatch", "/gradients/w",
                      "the shape is [4]; it must be [2, 2]");
    struct buffer *file = tensors_safetensors("{" ENTRY("w", "[4]", "0", "16") "}", 16);
    check_bytes("PUT", REFUSAL_WEIGHTS, SAFETENSORS, file, "shape_mismatch", "/parameters/w", NULL);
    buffer_release(file);
}
END_TEST

START_TEST(length_mismatch_says_both_numbers)
{
    static const unsigned char bytes[65];
    static const struct {
        const char *query;
        size_t size;
        const char *words;
    } lengths[] = {
        {"", 31, "31 bytes; 32 are needed"},
        {"", 33, "33 bytes; 32 are needed"},
        {"", 1, "1 bytes; 32 are needed"},
        {"", 64, "64 bytes; 32 are needed"},
        {"?dtype=bf16", 32, "32 bytes; 16 are needed"},
        {"?dtype=f64", 65, "65 bytes; 64 are needed"},
    };

    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        const char *paths[] = {REFUSAL_STEPS, REFUSAL_WEIGHTS};
        for (size_t k = 0; k < 2; k++) {
            char path[128];
            snprintf(path, sizeof path, "%s%s", paths[k], lengths[i].query);
            refusal_check(&(struct refusal){.method = k == 0 ? "POST" : "PUT",
                                            .path = path,
                                            .headers = RAW,
                                            .body = bytes,
                                            .size = lengths[i].size,
                                            .status = 422,
                                            .code = "length_mismatch",
                                            .words = lengths[i].words});
        }
    }
    refusal_check_json("POST", "/v1/sessions",
                       "{\"optimizer\": \"sgd\", \"parameters\": {\"w\": {\"shape\": [2], "
                       "\"data_b64\": \"AAAA\"}}}",
                       422, "length_mismatch", "/parameters/w/data_b64",
                       "4 characters; it must have 12");
}
END_TEST

/* --- NaN and infinity --- */

/* 8 elements of f32, all 1 but this one. */
static struct buffer *one_bad(size_t index, float value)
{
    float numbers[REFUSAL_COUNT];

    for (size_t i = 0; i < REFUSAL_COUNT; i++)
        numbers[i] = i == index ? value : 1;
    return tensors_buffer(numbers, sizeof numbers);
}

START_TEST(nonfinite_gradient_is_refused_with_tensor_and_index)
{
    static const struct {
        size_t index;
        const char *pointer, *words;
    } places[] = {
        {0, "/gradients/w", "index 0 of tensor w"},
        {3, "/gradients/w", "index 3 of tensor w"},
        {4, "/gradients/a~1b", "index 0 of tensor a/b"},
        {6, "/gradients/a~1b", "index 2 of tensor a/b"},
        {7, "/gradients/s", "index 0 of tensor s"},
    };
    const float values[] = {(float)NAN, HUGE_VALF, -HUGE_VALF};

    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        struct buffer *body = one_bad(places[i].index, values[i % 3]);
        check_bytes("POST", REFUSAL_STEPS, RAW, body, "nonfinite_gradient", places[i].pointer,
                    places[i].words);
        buffer_release(body);
    }
    /* Finite in f64, not in the session's f32. */
    const double large[REFUSAL_COUNT] = {0, 1e39};
    struct buffer *body = tensors_buffer(large, sizeof large);
    check_bytes("POST", REFUSAL_STEPS "?dtype=f64", RAW, body, "nonfinite_gradient", "/gradients/w",
                "index 1 of tensor w");
    buffer_release(body);
}
END_TEST

static void check_nonfinite(const char *patch, const char *wanted_status, const char *wanted)
{
    struct answer answer = refusal_accept("PATCH", REFUSAL_SESSION, "", patch, 200);
    struct buffer *body = one_bad(5, (float)NAN);

    answer_close(&answer);
    answer = api_send(refusal_server.port, "POST", REFUSAL_STEPS, RAW, body->data, body->size);
    ck_assert_uint_eq(answer.http.status, 200);
    ck_assert_str_eq(json_string_value(json_object_get(answer.json, "status")), wanted_status);
    ck_assert_int_eq(json_integer_value(json_object_get(answer.json, "step")), 1);
    answer_close(&answer);
    answer = api_send(refusal_server.port, "GET", REFUSAL_WEIGHTS, "", NULL, 0);
    char *text = json_dumps(json_object_get(answer.json, "parameters"), JSON_COMPACT);
    ck_assert_str_eq(text, wanted);
    free(text);
    answer_close(&answer);
    buffer_release(body);
}

START_TEST(nonfinite_gradient_is_counted_and_not_applied_with_skip)
{
    check_nonfinite("{\"gradient\": {\"nonfinite\": \"skip\"}}", "skipped",
                    "{\"w\":[[0,0],[0,0]],\"a/b\":[0,0,0],\"s\":0}");
}
END_TEST

START_TEST(nonfinite_elements_are_replaced_with_zero)
{
    check_nonfinite("{\"gradient\": {\"nonfinite\": \"zero\"}}", "applied",
                    "{\"w\":[[-1,-1],[-1,-1]],\"a/b\":[-1,0,-1],\"s\":-1}");
}
END_TEST

START_TEST(nonfinite_weights_are_refused)
{
    struct buffer *body = one_bad(6, (float)NAN);
    const double large[REFUSAL_COUNT] = {0, 0, 0, -1e39};

    check_bytes("PUT", REFUSAL_WEIGHTS, RAW, body, "invalid_field", "/parameters/a~1b",
                "index 2 of tensor a/b");
    buffer_release(body);
    body = tensors_buffer(large, sizeof large);
    check_bytes("PUT", REFUSAL_WEIGHTS "?dtype=f64", RAW, body, "invalid_field", "/parameters/w",
                "index 3 of tensor w");
    buffer_release(body);
    refusal_check_json("POST", "/v1/sessions", /* the bytes are a NaN */
                       "{\"optimizer\": \"sgd\", \"parameters\": {\"w\": {\"shape\": [1], "
                       "\"data_b64\": \"AADAfw==\"}}}",
                       422, "invalid_field", "/parameters/w", "index 0 of tensor w");
    refusal_check_json("POST", "/v1/sessions",
                       "{\"optimizer\": \"sgd\", \"parameters\": {\"w\": {\"shape\": [7], "
                       "\"init\": {\"normal\": {\"mean\": 1e300, \"std\": 0}}}}}",
                       422, "invalid_field", "/parameters/w", "index 0 of tensor w");
    body =
        tensors_safetensors("{\"__metadata__\":{\"descent\":\"{\\\"optimizer\\\": \\\"sgd\\\"}\"},"
                            "\"w\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[0,2]}}",
                            2);
    body->data[body->size - 2] = 0x80;
    body->data[body->size - 1] = 0x7F;
    check_bytes("POST", "/v1/sessions", SAFETENSORS, body, "invalid_field", "/parameters/w",
                "index 0 of tensor w");
    buffer_release(body);
}
END_TEST

/* --- exactly once --- */

START_TEST(idempotency_key_with_another_payload_is_refused)
{
    static const char headers[] = "Content-Type: application/json\r\nIdempotency-Key: \"k\"\r\n";
    static const char other[] = "{" GRADIENTS ", \"loss\": 1}";
    char value[16];

    step(headers, "");
    refusal_check(&(struct refusal){.method = "POST",
                                    .path = REFUSAL_STEPS,
                                    .headers = headers,
                                    .body = other,
                                    .size = strlen(other),
                                    .status = 422,
                                    .code = "idempotency_mismatch"});
    struct answer answer = refusal_accept("POST", REFUSAL_STEPS, headers, STEP, 200);
    ck_assert_int_eq(json_integer_value(json_object_get(answer.json, "step")), 1);
    ck_assert_str_eq(
        http_response_header(&answer.http, "Idempotency-Replayed", value, sizeof value), "true");
    answer_close(&answer);
}
END_TEST

START_TEST(sequence_number_with_another_payload_is_refused)
{
    step("", "\"worker\": \"w0\", \"seq\": 1");
    check_step("\"worker\": \"w0\", \"seq\": 1, \"loss\": 1", "idempotency_mismatch", NULL, NULL);
}
END_TEST

static void check_sequence(const char *members, const char *code, json_int_t expected)
{
    char text[TEXT_BYTES];

    snprintf(text, sizeof text, "{" GRADIENTS ", %s}", members);
    refusal_check_json("POST", REFUSAL_STEPS, text, 409, code, "/seq", NULL);
    struct answer answer = api_send_json(refusal_server.port, "POST", REFUSAL_STEPS, text);
    ck_assert_int_eq(json_integer_value(json_object_get(answer.json, "expected")), expected);
    answer_close(&answer);
}

START_TEST(older_sequence_number_is_stale)
{
    step("", "\"worker\": \"w0\", \"seq\": 1");
    step("", "\"worker\": \"w0\", \"seq\": 2");
    check_sequence("\"worker\": \"w0\", \"seq\": 1", "stale_sequence", 3);
}
END_TEST

START_TEST(gap_in_the_sequence_says_what_is_expected)
{
    check_sequence("\"worker\": \"w0\", \"seq\": 2", "sequence_gap", 1);
    step("", "\"worker\": \"w0\", \"seq\": 1");
    check_sequence("\"worker\": \"w0\", \"seq\": 3", "sequence_gap", 2);
    check_sequence("\"worker\": \"w1\", \"seq\": 9007199254740991", "sequence_gap", 1);
}
END_TEST

/* --- position --- */

START_TEST(step_conflict_says_where_the_session_stands)
{
    static const char *const tags[] = {"\"0-0\"",   "\"0-2\"",          "\"1-1\"",   "\"garbage\"",
                                       "0-1",       "\"0-2\", \"1-1\"", "W/\"0-1\"", "\"-1--1\"",
                                       "\"00-01\"", "\"+0-+1\"",        "\" 0- 1\""};
    static const char weights[] = "{\"parameters\": " REFUSAL_TENSORS "}";
    char headers[128];

    step("", "");
    for (size_t i = 0; i < 2 * sizeof tags / sizeof *tags; i++) {
        snprintf(headers, sizeof headers, "If-Match: %s\r\n", tags[i / 2]);
        struct refusal refusal = {.method = i % 2 == 0 ? "POST" : "PUT",
                                  .path = i % 2 == 0 ? REFUSAL_STEPS : REFUSAL_WEIGHTS,
                                  .headers = headers,
                                  .body = i % 2 == 0 ? STEP : weights,
                                  .size = strlen(i % 2 == 0 ? STEP : weights),
                                  .status = 412,
                                  .code = "step_conflict"};
        refusal_check(&refusal);
        struct answer answer = api_send(refusal_server.port, refusal.method, refusal.path, headers,
                                        refusal.body, refusal.size);
        ck_assert_int_eq(json_integer_value(json_object_get(answer.json, "current_step")), 1);
        answer_close(&answer);
    }
    step("If-Match: \"9-9\", \"0-1\"\r\n", "");
}
END_TEST

START_TEST(if_none_match_is_read_to_its_end_and_not_beyond)
{
    static const struct {
        const char *value;
        unsigned status;
    } cases[] = {{"\"0-0\"", 304},
                 {"W/\"0-0\"", 304},
                 {"\"9-9\" , \"0-0\"", 304},
                 {"*", 304},
                 {"\"0-1\"", 200},
                 {"0-0", 200},
                 {"\"unclosed", 200},
                 {"\"", 200},
                 {"W/", 200},
                 {"\"0-1\", \"open", 200},
                 {",", 200},
                 {"W/\"", 200}};
    char headers[9000];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(headers, sizeof headers, "If-None-Match: %s\r\n", cases[i].value);
        struct answer answer =
            api_send(refusal_server.port, "GET", REFUSAL_WEIGHTS, headers, NULL, 0);
        ck_assert_msg(answer.http.status == cases[i].status, "%s gives %u", headers,
                      answer.http.status);
        answer_close(&answer);
    }
    /* Long enough for a block of memory of its own, whose end AddressSanitizer watches. */
    int used = snprintf(headers, sizeof headers, "If-None-Match: \"");
    memset(headers + used, 'x', 8500);
    strcpy(headers + used + 8500, " \r\n");
    struct answer answer = api_send(refusal_server.port, "GET", REFUSAL_WEIGHTS, headers, NULL, 0);
    ck_assert_uint_eq(answer.http.status, 200);
    answer_close(&answer);
}
END_TEST

START_TEST(base_step_ahead_of_the_session_is_refused)
{
    check_step("\"base_step\": 1", "invalid_field", "/base_step", "only at step 0");
    check_step("\"base_step\": 9007199254740991", "invalid_field", "/base_step", NULL);
    check_step("\"base_step\": 9007199254740992", "invalid_field", "/base_step", NULL);
    check_step("\"base_step\": -1", "invalid_field", "/base_step", NULL);
    check_step("\"base_step\": 0.5", "invalid_field", "/base_step", NULL);
}
END_TEST

START_TEST(overrides_must_fit_the_rule)
{
    check_step("\"lr\": -1", "invalid_field", "/lr", "-1");
    check_step("\"lr\": 1e999", "invalid_field", "/lr", NULL);
    check_step("\"lr\": \"1\"", "invalid_field", "/lr", NULL);
    check_step("\"lr\": null", "invalid_field", "/lr", NULL);
    check_step("\"beta1\": 0.5", "invalid_field", "/beta1", "sgd");
    check_step("\"momentum\": 1", "invalid_field", "/momentum", NULL);
    check_step("\"momentum\": 0.5", "invalid_field", "/momentum", "PATCH");
}
END_TEST

START_TEST(step_fields_have_limits)
{
    static char members[TEXT_BYTES];

    check_step("\"examples\": 0", "invalid_field", "/examples", NULL);
    check_step("\"examples\": -1", "invalid_field", "/examples", NULL);
    check_step("\"loss\": 1e999", "invalid_field", "/loss", NULL);
    check_step("\"seq\": 1", "invalid_field", "/worker", "worker");
    check_step("\"worker\": \"w\", \"seq\": 0", "invalid_field", "/seq", NULL);
    check_step("\"worker\": \"w\", \"seq\": 1.5", "invalid_field", "/seq", NULL);
    check_step("\"worker\": \"\"", "invalid_field", "/worker", NULL);
    check_step("\"worker\": \"a\\nb\"", "invalid_field", "/worker", "control");
    snprintf(members, sizeof members, "\"worker\": \"%065d\", \"seq\": 1", 0);
    check_step(members, "invalid_field", "/worker", "65 bytes");
    snprintf(members, sizeof members, "\"cursor\": \"%04097d\"", 0);
    check_step(members, "invalid_field", "/cursor", "4097 bytes");
    snprintf(members, sizeof members, "\"worker\": \"%064d\", \"seq\": 1, \"cursor\": \"%04096d\"",
             0, 0);
    step("", members);
}
END_TEST

START_TEST(idempotency_key_has_limits)
{
    char headers[512];

    for (int length = 0; length <= 256; length += 256) {
        snprintf(headers, sizeof headers, "Idempotency-Key: \"%.*s\"\r\n", length,
                 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
                 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
                 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
                 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
        refusal_check(&(struct refusal){.method = "POST",
                                        .path = REFUSAL_STEPS,
                                        .headers = headers,
                                        .body = STEP,
                                        .size = strlen(STEP),
                                        .status = 400,
                                        .code = "invalid_request",
                                        .words = "1 to 255"});
    }
    snprintf(headers, sizeof headers, "Idempotency-Key: %0255d\r\n", 0);
    step(headers, "");
}
END_TEST

/* --- the life of a session --- */

START_TEST(another_session_of_the_same_id_is_refused)
{
    static const char *const others[] = {
        "{\"optimizer\": \"sgd\", \"parameters\": {\"w\": [[0, 0], [0, 0]], \"a/b\": [0, 0, 0], "
        "\"s\": 0}, \"labels\": {\"k\": \"v\"}}",
        "{\"optimizer\": {\"name\": \"sgd\", \"lr\": 1}, \"parameters\": {\"w\": [[0, 0], [0, 0]], "
        "\"a/b\": [0, 0, 0], \"s\": 1}, \"labels\": {\"k\": \"v\"}}",
        "{\"optimizer\": {\"name\": \"sgd\", \"lr\": 1}, \"parameters\": {\"w\": [[0, 0], [0, 0]], "
        "\"a/b\": [0, 0, 0], \"s\": 0}}",
        "{\"optimizer\": {\"name\": \"sgd\", \"lr\": 1}, \"parameters\": {\"a/b\": [0, 0, 0], "
        "\"w\": [[0, 0], [0, 0]], \"s\": 0}, \"labels\": {\"k\": \"v\"}}",
    };

    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        refusal_check_json("PUT", REFUSAL_SESSION, others[i], 409, "session_exists", NULL,
                           "victim");
}
END_TEST

START_TEST(the_same_session_again_is_found_where_it_stands)
{
    step("", "");
    /* Defaults spelled out and members in another order are the same request. */
    struct answer answer = refusal_accept(
        "PUT", REFUSAL_SESSION, "",
        "{\"labels\": {\"k\": \"v\"}, \"seed\": 0, \"dtype\": \"f32\", \"parameters\": {\"w\": "
        "[[0, 0], [0, 0]], \"a/b\": {\"shape\": [3], \"init\": \"zeros\"}, \"s\": 0}, "
        "\"optimizer\": {\"lr\": 1.0, \"name\": \"sgd\"}}",
        200);
    ck_assert_int_eq(json_integer_value(json_object_get(answer.json, "step")), 1);
    answer_close(&answer);
}
END_TEST

struct race {
    _Atomic unsigned applied, absent, other;
    atomic_bool stop;
};

static void *keep_stepping(void *context)
{
    struct race *race = context;

    while (!atomic_load(&race->stop)) {
        struct answer answer = api_send_json(refusal_server.port, "POST", REFUSAL_STEPS, STEP);
        if (answer.http.status == 200)
            atomic_fetch_add(&race->applied, 1);
        else if (answer.http.status == 404 &&
                 strcmp(answer_code(&answer), "session_not_found") == 0)
            atomic_fetch_add(&race->absent, 1);
        else
            atomic_fetch_add(&race->other, 1);
        answer_close(&answer);
    }
    return NULL;
}

static void wait_above(const _Atomic unsigned *count, unsigned least)
{
    const struct timespec pause = {.tv_nsec = 1000000};

    while (atomic_load(count) <= least) /* the test's timeout ends this */
        nanosleep(&pause, NULL);
}

START_TEST(a_session_is_deleted_under_running_steps)
{
    struct race race = {.applied = 0};
    pthread_t threads[4];

    for (size_t i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, keep_stepping, &race), 0);
    for (unsigned round = 0; round < 5; round++) {
        wait_above(&race.applied, atomic_load(&race.applied) + 3);
        struct answer answer =
            api_send(refusal_server.port, "DELETE", REFUSAL_SESSION, "", NULL, 0);
        ck_assert_uint_eq(answer.http.status, 204);
        answer_close(&answer);
        answer = api_send(refusal_server.port, "GET", REFUSAL_SESSION, "", NULL, 0);
        answer_check_problem(&answer, 404, "session_not_found", "after DELETE");
        answer_close(&answer);
        wait_above(&race.absent, atomic_load(&race.absent) + 3);
        unsigned before = atomic_load(&race.applied);
        answer = refusal_accept(
            "PUT", REFUSAL_SESSION, "",
            "{\"optimizer\": \"sgd\", \"parameters\": {\"w\": [[0, 0], [0, 0]], \"a/b\": [0, 0, 0],"
            " \"s\": 0}}",
            201);
        /* It begins anew. But who steps does not wait for this answer: it may tell of steps that
         * were taken since, of each thread one that has not been told yet. */
        ck_assert_uint_le((unsigned)json_integer_value(json_object_get(answer.json, "step")),
                          atomic_load(&race.applied) - before + sizeof threads / sizeof *threads);
        answer_close(&answer);
    }
    atomic_store(&race.stop, true);
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(atomic_load(&race.other), 0);
}
END_TEST

START_TEST(sessions_and_models_have_limits)
{
    static const char *const options[] = {"--sessions-max", "1", "--parameters-max", "8", NULL};

    refusal_stop();
    refusal_start(options);
    refusal_check_json("POST", "/v1/sessions", "{\"optimizer\": \"sgd\", " MODEL "}", 429,
                       "quota_exceeded", NULL, "1 sessions");
    refusal_check_json("POST", "/v1/sessions",
                       "{\"optimizer\": \"sgd\", \"parameters\": {\"w\": {\"shape\": [3, 3], "
                       "\"init\": \"zeros\"}}}",
                       413, "too_large", "/parameters", "at most 8");
}
END_TEST

Suite *suite_bad_input(void);
Suite *suite_bad_input(void)
{
    Suite *suite = suite_create("bad_input");
    TCase *tests = tcase_create("bad_input");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, refusal_stop);
    tcase_add_test(tests, missing_tensor_is_named);
    tcase_add_test(tests, unknown_tensor_is_named);
    tcase_add_test(tests, shape_mismatch_says_both_shapes);
    tcase_add_test(tests, length_mismatch_says_both_numbers);
    tcase_add_test(tests, nonfinite_gradient_is_refused_with_tensor_and_index);
    tcase_add_test(tests, nonfinite_gradient_is_counted_and_not_applied_with_skip);
    tcase_add_test(tests, nonfinite_elements_are_replaced_with_zero);
    tcase_add_test(tests, nonfinite_weights_are_refused);
    tcase_add_test(tests, idempotency_key_with_another_payload_is_refused);
    tcase_add_test(tests, sequence_number_with_another_payload_is_refused);
    tcase_add_test(tests, older_sequence_number_is_stale);
    tcase_add_test(tests, gap_in_the_sequence_says_what_is_expected);
    tcase_add_test(tests, step_conflict_says_where_the_session_stands);
    tcase_add_test(tests, if_none_match_is_read_to_its_end_and_not_beyond);
    tcase_add_test(tests, base_step_ahead_of_the_session_is_refused);
    tcase_add_test(tests, overrides_must_fit_the_rule);
    tcase_add_test(tests, step_fields_have_limits);
    tcase_add_test(tests, idempotency_key_has_limits);
    tcase_add_test(tests, another_session_of_the_same_id_is_refused);
    tcase_add_test(tests, the_same_session_again_is_found_where_it_stands);
    tcase_add_test(tests, a_session_is_deleted_under_running_steps);
    tcase_add_test(tests, sessions_and_models_have_limits);
    suite_add_tcase(suite, tests);
    return suite;
}
