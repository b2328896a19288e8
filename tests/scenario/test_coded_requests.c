/* Bodies in a content coding, against a live server: each does what the plain one does, to the same
 * bits; what is broken, too large or unknown is refused, and the connection lives on. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/base64.h"
#include "api/crypto.h"
#include "api/router.h"
#include "tests/lib/codings.h"
#include "tests/lib/http_client.h"
#include "tests/lib/live_server.h"
#include "tests/lib/tensors.h"
#include "tests/lib/testing.h"

enum { WAIT_S = 30, TEST_TIMEOUT_S = 60, COUNT = 1031, LINE_BYTES = 512, BOMB_BYTES = 256 << 20 };

#define JSON "application/json"
#define RAW "application/octet-stream"
#define SAFETENSORS "application/vnd.safetensors"

static struct live_server server;
static struct http_client *client;

static void start(const char *const *options)
{
    live_server_start(&server, testing_folder(), options);
    client = http_client_open(server.port, WAIT_S);
}

static void stop(void)
{
    http_client_close(client);
    ck_assert_int_eq(live_server_stop(&server), 0);
}

/* --- requests --- */

struct body {
    const char *type;
    struct buffer *bytes;
};

enum framing_kind { LENGTH, CHUNKED };

/* How a body travels. `coding` NULL: plain. */
struct travel {
    const char *coding;
    enum framing_kind framing;
};

static void send_chunked(struct span bytes)
{
    size_t size = 1; /* then more and more */

    for (size_t at = 0; at < bytes.size; at += size, size = size * 3 + 1) {
        char line[32];
        size = size < bytes.size - at ? size : bytes.size - at;
        snprintf(line, sizeof line, "%zx\r\n", size);
        ck_assert(http_client_send_text(client, line));
        ck_assert(http_client_send(client, bytes.data + at, size));
        ck_assert(http_client_send_text(client, "\r\n"));
    }
    ck_assert(http_client_send_text(client, "0\r\n\r\n"));
}

/* "Content-Digest: sha-256=:...:" of what is sent. */
static void digest_line(char *out, size_t size, struct span bytes)
{
    unsigned char digest[SHA256_BYTES];
    char text[BASE64_SIZE(SHA256_BYTES) + 1] = "";

    ck_assert(crypto_sha256(bytes, digest));
    base64_write(digest, sizeof digest, text);
    snprintf(out, size, "Content-Digest: sha-256=:%s:\r\n", text);
}

static struct http_response send_bytes(const char *method, const char *path, const char *type,
                                       const char *headers, struct span bytes, struct travel travel)
{
    char head[4 * LINE_BYTES], digest[LINE_BYTES], length[LINE_BYTES];
    struct http_response response;

    digest_line(digest, sizeof digest, bytes);
    snprintf(length, sizeof length, "Content-Length: %zu\r\n", bytes.size);
    snprintf(head, sizeof head,
             "%s %s HTTP/1.1\r\nHost: test\r\nContent-Type: %s\r\n%s%s%s%s%s%s\r\n", method, path,
             type, headers, digest, travel.coding != NULL ? "Content-Encoding: " : "",
             travel.coding != NULL ? travel.coding : "", travel.coding != NULL ? "\r\n" : "",
             travel.framing == CHUNKED ? "Transfer-Encoding: chunked\r\n" : length);
    ck_assert(http_client_send_text(client, head));
    if (travel.framing == CHUNKED)
        send_chunked(bytes);
    else
        ck_assert(http_client_send(client, bytes.data, bytes.size));
    ck_assert_msg(http_client_receive(client, false, &response), "%s %s: no answer", method, path);
    return response;
}

static struct http_response send_body(const char *method, const char *path, const char *type,
                                      const char *headers, struct span plain, struct travel travel)
{
    if (travel.coding == NULL)
        return send_bytes(method, path, type, headers, plain, travel);
    struct buffer *coded = codings_encode(travel.coding, plain);
    struct http_response response =
        send_bytes(method, path, type, headers, span_of(coded->data, coded->size), travel);
    buffer_release(coded);
    return response;
}

static struct http_response get(const char *path, const char *headers)
{
    struct http_response response;

    ck_assert(http_client_request(client, "GET", path, headers, NULL, 0, &response));
    return response;
}

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
        struct http_response response = send_body(story[i].method, path, story[i].type, "",
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
    struct http_response response = get(path, "Accept: application/json\r\n");
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
    start(NULL);
    tell("plain", (struct travel){NULL, LENGTH});
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        tell(others[i].id, others[i].travel);
        check_same("plain", others[i].id, "parameters");
        check_same("plain", others[i].id, "hash");
    }
    stop();
}
END_TEST

/* --- refused --- */

/* Fails unless the answer has this status and these words. */
static void check_refused(struct http_response response, unsigned status, const char *words)
{
    ck_assert_msg(response.status == status, "%u, not %u: %s", response.status, status,
                  response.body);
    ck_assert_msg(strstr(response.body, words) != NULL, "%s: %s", words, response.body);
    http_response_free(&response);
    /* The connection is as good as before. */
    response = get("/livez", "");
    ck_assert_uint_eq(response.status, 200);
    http_response_free(&response);
}

static void make_session(size_t count)
{
    char spec[LINE_BYTES];

    snprintf(spec, sizeof spec,
             "{\"optimizer\": \"sgd\", \"parameters\": {\"w\": {\"shape\": [%zu], \"init\": "
             "\"zeros\"}}}",
             count);
    struct http_response response =
        send_body("PUT", "/v1/sessions/s", JSON, "", span_text(spec), (struct travel){0});
    ck_assert_uint_eq(response.status, 201);
    http_response_free(&response);
}

static struct http_response post(const char *headers, struct span bytes, const char *coding,
                                 enum framing_kind framing)
{
    return send_bytes("POST", "/v1/sessions/s/gradients", RAW, headers, bytes,
                      (struct travel){coding, framing});
}

START_TEST(broken_bodies_are_refused_and_the_connection_lives)
{
    static const char *const codings[] = {"zstd", "gzip"};

    start(NULL);
    make_session(COUNT);
    struct buffer *plain = gradient_raw();
    plain->data[0] = 0; /* begins no coding */
    for (size_t c = 0; c < 2; c++) {
        struct buffer *coded = codings_encode(codings[c], span_of(plain->data, plain->size));
        for (enum framing_kind framing = LENGTH; framing <= CHUNKED; framing++) {
            check_refused(post("", span_of(coded->data, coded->size - 1), codings[c], framing), 400,
                          "cut off");
            check_refused(post("", span_of(plain->data, plain->size), codings[c], framing), 400,
                          "from byte 0 on");
            check_refused(post("", span_of(coded->data, coded->size), codings[1 - c], framing), 400,
                          "from byte 0 on");
        }
        coded->data[coded->size - 1] ^= 1;
        check_refused(post("", span_of(coded->data, coded->size), codings[c], LENGTH), 400,
                      "the body is not");
        coded->data[coded->size - 1] ^= 1;
        check_refused(
            post("Repr-Digest: sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:\r\n",
                 span_of(coded->data, coded->size), codings[c], CHUNKED),
            400, "the body was changed on its way");
        buffer_release(coded);
    }
    buffer_release(plain);
    struct http_response response = state_of("s", "hash");
    ck_assert_ptr_nonnull(strstr(response.body, "\"step\":0"));
    http_response_free(&response);
    stop();
}
END_TEST

START_TEST(an_unknown_coding_is_refused_with_those_there_are)
{
    static const char *const codings[] = {"br", "deflate", "gzip, zstd", "zstd, zstd", "*"};
    char value[LINE_BYTES];

    start(NULL);
    make_session(COUNT);
    for (size_t i = 0; i < sizeof codings / sizeof *codings; i++) {
        struct http_response response = post("", span_text("abc"), codings[i], LENGTH);
        ck_assert_str_eq(http_response_header(&response, "Accept-Encoding", value, sizeof value),
                         "zstd, gzip");
        check_refused(response, 415, "zstd, gzip");
    }
    /* Two lines are one list. */
    check_refused(post("Content-Encoding: gzip\r\n", span_text("abc"), "zstd", LENGTH), 415,
                  "gzip, zstd");
    stop();
}
END_TEST

/* Of the process, kB. */
static unsigned long most_memory(void)
{
    char path[64], line[LINE_BYTES];
    unsigned long kb = 0;

    snprintf(path, sizeof path, "/proc/%d/status", (int)server.pid);
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    while (kb == 0 && fgets(line, sizeof line, file) != NULL)
        sscanf(line, "VmHWM: %lu", &kb);
    fclose(file);
    ck_assert_uint_gt(kb, 0);
    return kb;
}

/* A quarter of a gigabyte of zeros in some kilobytes, ten times over. */
START_TEST(a_bomb_costs_what_the_session_is_worth)
{
    static const char *const codings[] = {"zstd", "gzip"};
    struct buffer *zeros = buffer_new_zeroed(BOMB_BYTES);

    ck_assert_ptr_nonnull(zeros);
    start(NULL);
    make_session(COUNT);
    unsigned long before_kb = most_memory();
    for (size_t c = 0; c < 3; c++) {
        /* The last one does not say how large it is. */
        struct span bytes = span_of(zeros->data, zeros->size);
        struct buffer *coded =
            c < 2 ? codings_encode(codings[c], bytes) : codings_zstd_open(bytes, 20);
        ck_assert_uint_lt(coded->size, BOMB_BYTES / 1000);
        for (int i = 0; i < 10; i++)
            check_refused(post("", span_of(coded->data, coded->size), codings[c % 2],
                               (enum framing_kind)(i % 2)),
                          413, "when it is decoded");
        buffer_release(coded);
    }
    buffer_release(zeros);
    /* 1 MiB and a bit of body, moved as it grows, and the decoder's window. */
    ck_assert_uint_lt(most_memory() - before_kb, 8 << 10);
    stop();
}
END_TEST

START_TEST(where_no_session_is_the_limit_of_bodies_holds)
{
    static const char *const options[] = {"--body-bytes-max", "100000", "--inflight-bytes-max",
                                          "500000", NULL};
    struct buffer *zeros = buffer_new_zeroed(100001);

    ck_assert_ptr_nonnull(zeros);
    start(options);
    memset(zeros->data, ' ', zeros->size);
    for (size_t i = 0; i < 4; i++) {
        struct travel travel = {i % 2 == 0 ? "zstd" : "gzip", i < 2 ? LENGTH : CHUNKED};
        check_refused(
            send_body("PUT", "/v1/sessions/s", JSON, "", span_of(zeros->data, zeros->size), travel),
            413, "100000");
        /* One byte less is read, and is no JSON. */
        check_refused(send_body("PUT", "/v1/sessions/s", JSON, "",
                                span_of(zeros->data, zeros->size - 1), travel),
                      400, "invalid_json");
    }
    buffer_release(zeros);
    stop();
}
END_TEST

START_TEST(memory_of_all_bodies_is_bounded)
{
    static const char *const options[] = {"--inflight-bytes-max", "100000", NULL};
    struct buffer *zeros = buffer_new_zeroed(100000);

    ck_assert_ptr_nonnull(zeros);
    start(options);
    make_session(25000);
    for (size_t i = 0; i < 4; i++)
        check_refused(
            send_body("POST", "/v1/sessions/s/gradients", RAW, "",
                      span_of(zeros->data, zeros->size),
                      (struct travel){i % 2 == 0 ? "zstd" : "gzip", i < 2 ? LENGTH : CHUNKED}),
            503, "overloaded");
    buffer_release(zeros);
    /* What was charged has been given back: this fills most of it. */
    zeros = buffer_new_zeroed(49000);
    check_refused(send_body("POST", "/v1/sessions/s/gradients", RAW, "",
                            span_of(zeros->data, zeros->size), (struct travel){"zstd", LENGTH}),
                  422, "length_mismatch");
    buffer_release(zeros);
    stop();
}
END_TEST

/* --- the same request --- */

START_TEST(a_retry_in_another_coding_is_the_same_request)
{
    static const struct travel travels[] = {
        {NULL, LENGTH}, {"gzip", LENGTH}, {"zstd", CHUNKED}, {"x-gzip", LENGTH}};
    char value[LINE_BYTES];

    start(NULL);
    make_session(COUNT);
    struct buffer *plain = gradient_raw();
    struct buffer *gzip = codings_encode("gzip", span_of(plain->data, plain->size));
    for (size_t i = 0; i < sizeof travels / sizeof *travels; i++) {
        bool alias = i == 3;
        struct http_response response =
            alias
                ? post("Idempotency-Key: k\r\n", span_of(gzip->data, gzip->size), "x-gzip", LENGTH)
                : send_body("POST", "/v1/sessions/s/gradients", RAW, "Idempotency-Key: k\r\n",
                            span_of(plain->data, plain->size), travels[i]);
        ck_assert_uint_eq(response.status, 200);
        ck_assert_ptr_nonnull(strstr(response.body, "\"step\":1,"));
        ck_assert((http_response_header(&response, "Idempotency-Replayed", value, sizeof value) !=
                   NULL) == (i > 0));
        http_response_free(&response);
    }
    buffer_release(gzip);
    buffer_release(plain);
    stop();
}
END_TEST

/* Nothing in a coding is nothing, as without one; and identity is none. */
START_TEST(nothing_coded_is_no_body)
{
    start(NULL);
    make_session(COUNT);
    for (size_t i = 0; i < 4; i++)
        check_refused(
            send_body("PATCH", "/v1/sessions/s", JSON, "", span_of(NULL, 0),
                      (struct travel){i % 2 == 0 ? "zstd" : "gzip", i < 2 ? LENGTH : CHUNKED}),
            400, "the body is empty");
    check_refused(send_bytes("PATCH", "/v1/sessions/s", JSON, "", span_of(NULL, 0),
                             (struct travel){"gzip", LENGTH}),
                  400, "the body is empty");
    check_refused(send_bytes("PATCH", "/v1/sessions/s", JSON, "", span_text("["),
                             (struct travel){"identity", LENGTH}),
                  400, "invalid_json");
    stop();
}
END_TEST

Suite *suite_coded_requests(void);
Suite *suite_coded_requests(void)
{
    Suite *suite = suite_create("coded_requests");
    TCase *tests = tcase_create("coded_requests");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_test(tests, a_coded_body_does_what_the_plain_one_does);
    tcase_add_test(tests, broken_bodies_are_refused_and_the_connection_lives);
    tcase_add_test(tests, an_unknown_coding_is_refused_with_those_there_are);
    tcase_add_test(tests, a_bomb_costs_what_the_session_is_worth);
    tcase_add_test(tests, where_no_session_is_the_limit_of_bodies_holds);
    tcase_add_test(tests, memory_of_all_bodies_is_bounded);
    tcase_add_test(tests, a_retry_in_another_coding_is_the_same_request);
    tcase_add_test(tests, nothing_coded_is_no_body);
    suite_add_tcase(suite, tests);
    return suite;
}
