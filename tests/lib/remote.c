/* Sessions of a live server that are fed numbered gradients. */
#include "tests/lib/remote.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/testing.h"

#define RAW "application/octet-stream"

static struct remote handle(unsigned port, const char *id, uint64_t seed, size_t element)
{
    struct remote remote = {.port = port, .seed = seed, .element = element};

    snprintf(remote.path, sizeof remote.path, "/v1/sessions/%s", id);
    return remote;
}

struct remote remote_create(unsigned port, const char *id, const char *members)
{
    bool wide = strstr(members, "\"f64\"") != NULL;
    struct remote remote = handle(port, id, testing_seed(), wide ? 8 : 4);
    char text[REMOTE_TEXT_BYTES];

    snprintf(text, sizeof text, "{%s, " REMOTE_PARAMETERS "}", members);
    struct answer answer = api_send_json(port, "PUT", remote.path, text);
    ck_assert_msg(answer.http.status == 201, "%s: %s", members, answer.http.body);
    answer_close(&answer);
    return remote;
}

struct remote remote_one_weight(unsigned port, const char *aggregation)
{
    struct remote remote = {.port = port, .path = "/v1/sessions/one"};
    char text[512];

    snprintf(text, sizeof text,
             "{\"optimizer\": {\"name\": \"sgd\", \"lr\": 1}, \"parameters\": {\"w\": [0]}, "
             "\"aggregation\": {%s}}",
             aggregation);
    struct answer answer = remote_send(&remote, "PUT", "", text, 201);
    answer_close(&answer);
    return remote;
}

struct remote remote_other(const struct remote *remote, unsigned port, const char *id)
{
    return handle(port, id, remote->seed, remote->element);
}

void remote_gradient(const struct remote *remote, uint64_t number, float out[REMOTE_COUNT])
{
    uint64_t random = remote->seed ^ (number * 0x9E3779B97F4A7C15u);

    for (size_t i = 0; i < REMOTE_COUNT; i++)
        out[i] = (float)testing_normal(&random);
}

struct answer remote_try(const struct remote *remote, uint64_t number, const char *query,
                         const char *headers)
{
    float gradient[REMOTE_COUNT];
    char path[256], lines[512];

    remote_gradient(remote, number, gradient);
    snprintf(path, sizeof path, "%s/gradients%s%sdtype=f32", remote->path, query,
             query[0] == '\0' ? "?" : "&");
    snprintf(lines, sizeof lines, "Content-Type: " RAW "\r\n%s", headers);
    return api_send(remote->port, "POST", path, lines, gradient, sizeof gradient);
}

void remote_steps(const struct remote *remote, uint64_t first, uint64_t last)
{
    for (uint64_t number = first; number <= last; number++) {
        struct answer answer = remote_try(remote, number, "", "");
        ck_assert_msg(answer.http.status == 200, "%s: %s", remote->path, answer.http.body);
        answer_close(&answer);
    }
}

struct weights remote_weights(const struct remote *remote, const char *query)
{
    struct weights weights = {.size = REMOTE_COUNT * remote->element};
    char path[256];

    snprintf(path, sizeof path, "%s/parameters%s", remote->path, query);
    struct answer answer = api_send(remote->port, "GET", path, "Accept: " RAW "\r\n", NULL, 0);
    ck_assert_msg(answer.http.status == 200, "%s: %s", path, answer.http.body);
    ck_assert_uint_eq(answer.http.body_size, weights.size);
    memcpy(weights.bytes, answer.http.body, weights.size);
    answer_close(&answer);
    return weights;
}

void remote_check_same(const struct weights *one, const struct weights *other, const char *what)
{
    ck_assert_msg(one->size == other->size && memcmp(one->bytes, other->bytes, one->size) == 0,
                  "%s: other bits", what);
}

void remote_hash(const struct remote *remote, const char *query, char out[REMOTE_HASH_BYTES])
{
    char under[128];

    snprintf(under, sizeof under, "/hash%s", query);
    struct answer answer = remote_send(remote, "GET", under, NULL, 200);
    const char *hash = json_string_value(json_object_get(answer.json, "state_hash"));
    ck_assert_ptr_nonnull(hash);
    ck_assert_uint_eq(strlen(hash), REMOTE_HASH_BYTES - 1);
    ck_assert_uint_eq(strspn(hash, "0123456789abcdef"), REMOTE_HASH_BYTES - 1);
    strcpy(out, hash);
    answer_close(&answer);
}

static struct answer send_under(const struct remote *remote, const char *method, const char *under,
                                const char *json)
{
    char path[512];

    snprintf(path, sizeof path, "%s%s", remote->path, under);
    return json != NULL ? api_send_json(remote->port, method, path, json)
                        : api_send(remote->port, method, path, "", NULL, 0);
}

struct answer remote_send(const struct remote *remote, const char *method, const char *under,
                          const char *json, unsigned status)
{
    struct answer answer = send_under(remote, method, under, json);

    ck_assert_msg(answer.http.status == status, "%s %s%s %s: %u %s", method, remote->path, under,
                  json == NULL ? "" : json, answer.http.status, answer.http.body);
    return answer;
}

void remote_refused(const struct remote *remote, const char *method, const char *under,
                    const char *json, unsigned status, const char *code)
{
    struct answer answer = send_under(remote, method, under, json);

    answer_check_problem(&answer, status, code, under);
    answer_close(&answer);
}

json_int_t answer_number(const struct answer *answer, const char *name)
{
    const json_t *value = json_object_get(answer->json, name);

    ck_assert_msg(json_is_integer(value), "%s is no number in %s", name, answer->http.body);
    return json_integer_value(value);
}

struct answer remote_export(const struct remote *remote, const char *query)
{
    char under[128];

    snprintf(under, sizeof under, "/state%s", query);
    return remote_send(remote, "GET", under, NULL, 200);
}

struct answer remote_import(const struct remote *remote, const void *file, size_t size)
{
    return api_send(remote->port, "PUT", remote->path,
                    "Content-Type: application/vnd.safetensors\r\n", file, size);
}
