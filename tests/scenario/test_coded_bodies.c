/* Bodies in a content coding, against a live server: each does what the plain one does, to the same
 * bits. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/router.h"
#include "tests/lib/coded.h"
#include "tests/lib/tensors.h"
#include "tests/lib/testing.h"

enum { TEST_TIMEOUT_S = 60, COUNT = 1031, LINE_BYTES = 512 };

#define JSON "application/json"
#define RAW "application/octet-stream"
#define SAFETENSORS "application/vnd.safetensors"

/* --- a story in which every route that takes a body takes one --- */

static struct buffer *random_numbers(size_t count, uint64_t seed)
{
    struct buffer *buffer = buffer_new(count * sizeof(float));
    uint64_t random = testing_seed() ^ seed;

    ck_assert_ptr_nonnull(buffer);
    for (size_t i = 0; i < count; i++) {
        float value = (float)testing_normal(&random);
        memcpy(buffer->data + i * sizeof value, &value, sizeof value);
    }
    return buffer;
}

/* {"w": [...]} between `before` and `after`. */
static struct buffer *json_numbers(const char *before, const char *after)
{
    uint64_t random = testing_seed();
    char *text = malloc(strlen(before) + strlen(after) + (size_t)COUNT * 32 + 64);

    ck_assert_ptr_nonnull(text);
    int used = sprintf(text, "%s{\"w\": [", before);
    for (int i = 0; i < COUNT; i++)
        used += sprintf(text + used, "%s%.9g", i == 0 ? "" : ", ", testing_normal(&random));
    used += sprintf(text + used, "]}%s", after);
    struct buffer *buffer = tensors_buffer(text, (size_t)used);
    free(text);
    return buffer;
}

static struct buffer *text(const char *words)
{
    return tensors_buffer(words, strlen(words));
}

#define SPEC "\"optimizer\": {\"name\": \"adam\", \"lr\": 0.1}, \"svrg\": {}"

static struct buffer *whole_model(void)
{
    return json_numbers("{" SPEC ", \"parameters\": ", "}");
}

static struct buffer *model_file(void)
{
    return tensors_safetensors(
        "{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
        "\"__metadata__\":{\"descent\":\"{\\\"optimizer\\\":\\\"sgd\\\"}\"}}",
        8);
}

static struct buffer *gradient_json(void)
{
    return json_numbers("{\"gradients\": ", ", \"loss\": 0.5}");
}

static struct buffer *gradient_raw(void)
{
    return random_numbers(COUNT, 1);
}

static struct buffer *pair_raw(void)
{
    return random_numbers((size_t)2 * COUNT, 2);
}

static struct buffer *change(void)
{
    return text("{\"optimizer\": {\"lr\": 0.01}}");
}

static struct buffer *snapshot(void)
{
    return text("{\"examples\": 10}");
}

static struct buffer *rewind_to(void)
{
    return text("{\"step\": 2}");
}

static struct buffer *fork_of(void)
{
    return text("{\"step\": 1}");
}

static const struct event {
    const char *operation, *method, *path, *query, *type;
    struct buffer *(*make)(void);
    unsigned status;
} story[] = {
    {"sessions_put", "PUT", "", "", JSON, whole_model, 201},
    {"sessions_put", "PUT", "-file", "", SAFETENSORS, model_file, 201},
    {"sessions_create", "POST", NULL, "", JSON, whole_model, 201},
    {"gradients_submit", "POST", "/gradients", "", JSON, gradient_json, 200},
    {"gradients_submit", "POST", "/gradients", "", RAW, gradient_raw, 200},
    {"gradients_submit", "POST", "/gradients", "?seq=1&worker=a", RAW, gradient_raw, 200},
    {"parameters_replace", "PUT", "/parameters", "", RAW, gradient_raw, 200},
    {"snapshots_create", "POST", "/snapshots", "", JSON, snapshot, 201},
    {"snapshots_gradients", "POST", "/snapshots/1/gradients", "?examples=10", RAW, gradient_raw,
     200},
    {"gradients_submit", "POST", "/gradients", "?snapshot=1", RAW, pair_raw, 200},
    {"sessions_patch", "PATCH", "", "", JSON, change, 200},
    {"sessions_rewind", "POST", "/rewind", "", JSON, rewind_to, 200},
    {"sessions_fork", "POST", "/forks", "", JSON, fork_of, 201},
    {"gradients_submit", "POST", "/gradients", "", RAW, gradient_raw, 200},
};

enum { EVENTS = sizeof story / sizeof *story };

static void tell(const char *id, struct travel travel)
{
    for (size_t i = 0; i < EVENTS; i++) {
        char path[LINE_BYTES] = "/v1/sessions";
        if (story[i].path != NULL)
            snprintf(path, sizeof path, "/v1/sessions/%s%s%s", id, story[i].path, story[i].query);
        struct buffer *plain = story[i].make();
        struct http_response response = coded_send(story[i].method, path, story[i].type, "",
                                                   span_of(plain->data, plain->size), travel);
        ck_assert_msg(response.status == story[i].status, "%s %s: %s%s", story[i].method, path,
                      response.head, response.body);
        http_response_free(&response);
        buffer_release(plain);
    }
}

/* The weights and the hash of the whole state. */
static struct http_response state_of(const char *id, const char *part)
{
    char path[LINE_BYTES];

    snprintf(path, sizeof path, "/v1/sessions/%s/%s", id, part);
    struct http_response response = coded_get(path, "Accept: application/json\r\n");
    ck_assert_uint_eq(response.status, 200);
    return response;
}

static void check_same(const char *id, const char *other, const char *part)
{
    struct http_response a = state_of(id, part), b = state_of(other, part);

    ck_assert_uint_eq(a.body_size, b.body_size);
    ck_assert_mem_eq(a.body, b.body, a.body_size);
    http_response_free(&a);
    http_response_free(&b);
}

START_TEST(a_coded_body_does_what_the_plain_one_does)
{
    static const struct {
        const char *id;
        struct travel travel;
    } others[] = {{"plain-chunks", {NULL, CHUNKED}},
                  {"gzip", {"gzip", LENGTH}},
                  {"gzip-chunks", {"gzip", CHUNKED}},
                  {"zstd", {"zstd", LENGTH}},
                  {"zstd-chunks", {"zstd", CHUNKED}}};
    const struct route *route;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        bool told = !route->takes_body;
        for (size_t i = 0; i < EVENTS; i++)
            told |= strcmp(story[i].operation, route->operation) == 0;
        ck_assert_msg(told, "%s takes a body and is not in the story", route->operation);
    }
    coded_start(NULL);
    tell("plain", (struct travel){NULL, LENGTH});
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        tell(others[i].id, others[i].travel);
        check_same("plain", others[i].id, "parameters");
        check_same("plain", others[i].id, "hash");
    }
    coded_stop();
}
END_TEST

Suite *suite_coded_bodies(void);
Suite *suite_coded_bodies(void)
{
    Suite *suite = suite_create("coded_bodies");
    TCase *tests = tcase_create("coded_bodies");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_test(tests, a_coded_body_does_what_the_plain_one_does);
    suite_add_tcase(suite, tests);
    return suite;
}
