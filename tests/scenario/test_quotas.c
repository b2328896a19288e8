/* Quotas of tokens: each refuses what is beyond it with 429 and Retry-After, nothing before, and
 * lets go again. */
#include <check.h>
#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "api/access_usage.h"
#include "service/core/clock.h"
#include "service/session/session.h"
#include "service/tensor/layout.h"
#include "tests/lib/engines.h"
#include "tests/lib/gate.h"
#include "tests/lib/testing.h"

enum { TEST_TIMEOUT_S = 120, THREADS = 8 };

#define SECOND_NS 1000000000u

static struct pass limited(const char *tenant, struct quotas quotas)
{
    return gate_pass(&(struct token){.tenant = tenant, .scope = SCOPE_ADMIN, .quotas = quotas});
}

/* 429 with Retry-After, which the document repeats; `words` occur in its detail. */
static void check_quota(const struct answer *answer, const char *words)
{
    char after[32];

    answer_check_problem(answer, 429, "quota_exceeded", words);
    ck_assert_msg(strstr(answer_detail(answer), words) != NULL, "%s", answer_detail(answer));
    ck_assert_msg(http_response_header(&answer->http, "Retry-After", after, sizeof after) != NULL,
                  "%s", answer->http.head);
    ck_assert_int_ge(atoi(after), 1);
    ck_assert_int_eq(json_integer_value(json_object_get(answer->json, "retry_after_s")),
                     atoi(after));
}

static void must_exceed(const struct pass *pass, const char *method, const char *path,
                        const char *json, const char *words)
{
    struct answer answer = gate_send(pass, method, path, json);

    check_quota(&answer, words);
    answer_close(&answer);
}

/* --- steps a second --- */

/* The bucket as a textbook has it, in units of 1/rate ns. */
struct bucket {
    uint64_t rate, tokens, at_ns; /* tokens: times SECOND_NS */
};

static bool bucket_takes(struct bucket *bucket, uint64_t now_ns)
{
    uint64_t full = bucket->rate * SECOND_NS;

    bucket->tokens += (now_ns - bucket->at_ns) * bucket->rate;
    bucket->tokens = bucket->tokens < full ? bucket->tokens : full;
    bucket->at_ns = now_ns;
    if (bucket->tokens < SECOND_NS)
        return false;
    bucket->tokens -= SECOND_NS;
    return true;
}

START_TEST(steps_come_as_from_a_bucket)
{
    static const uint64_t rates[] = {1, 2, 5, 8, 1000, 8000};
    uint64_t random = testing_seed() ^ 0xB0C4;

    for (size_t r = 0; r < sizeof rates / sizeof *rates; r++) {
        uint64_t rate = rates[r], now_ns = 5 * (uint64_t)SECOND_NS, again_ns = 0;
        struct bucket bucket = {rate, rate * SECOND_NS, now_ns};
        struct access_usage *usage = usage_new();
        size_t taken = 0, refused = 0;
        for (int i = 0; i < 20000; i++) {
            if (again_ns > 0 && testing_random(&random) % 4 == 0)
                now_ns = again_ns - 1 + testing_random(&random) % 2; /* at the edge */
            else
                now_ns += testing_random(&random) % (SECOND_NS / rate);
            bool takes = bucket_takes(&bucket, now_ns);
            again_ns = usage_step_at(usage, rate, now_ns);
            ck_assert_msg(takes == (again_ns == 0), "rate %llu, step %d", (unsigned long long)rate,
                          i);
            ck_assert(takes || again_ns > now_ns);
            ck_assert(again_ns <= now_ns + SECOND_NS);
            taken += takes;
            refused += !takes;
        }
        ck_assert_uint_gt(taken, 0);
        ck_assert_uint_gt(refused, 0);
        usage_release(usage);
    }
}
END_TEST

static struct {
    struct access_usage *usage;
    atomic_size_t taken;
} crowd;

static void *take_many(void *context)
{
    (void)context;
    for (int i = 0; i < 1000; i++)
        if (usage_step_at(crowd.usage, 1000, SECOND_NS) == 0)
            atomic_fetch_add(&crowd.taken, 1);
    return NULL;
}

START_TEST(a_crowd_takes_no_step_more)
{
    pthread_t threads[THREADS];

    crowd.usage = usage_new();
    for (size_t i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, take_many, NULL), 0);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(atomic_load(&crowd.taken), 1000);
    usage_release(crowd.usage);
}
END_TEST

START_TEST(steps_are_counted_and_looking_is_not)
{
    enum { RATE = 3, TRIES = 40 };
    struct pass pass = limited("", (struct quotas){.steps_per_s = RATE});
    struct pass other = gate_member("", SCOPE_ADMIN);
    size_t taken = 0;

    gate_must(201, &pass, "PUT", "/v1/sessions/s", GATE_SESSION);
    uint64_t began_us = clock_monotonic_us();
    for (int i = 0; i < TRIES; i++) {
        struct answer answer = gate_send(&pass, "POST", "/v1/sessions/s/gradients", GATE_STEP);
        if (answer.http.status == 200)
            taken++;
        else
            check_quota(&answer, "3 steps a second");
        answer_close(&answer);
        gate_must(200, &pass, "GET", "/v1/sessions/s/parameters", NULL);
    }
    double elapsed_s = (double)(clock_monotonic_us() - began_us) / 1e6;
    ck_assert_uint_ge(taken, RATE);
    ck_assert_msg((double)taken <= RATE * (1 + elapsed_s) + 1, "%zu in %g s", taken, elapsed_s);
    for (int i = 0; i < RATE + 1; i++)
        gate_must(200, &other, "POST", "/v1/sessions/s/gradients", GATE_STEP);
}
END_TEST

/* --- sessions and parameters --- */

#define SESSION_OF(count)                                                                          \
    "{\"optimizer\": \"sgd\", \"parameters\": {\"w\": {\"shape\": [" count                         \
    "], \"init\": \"zeros\"}}}"

START_TEST(sessions_are_counted_over_the_tenant)
{
    struct pass pass = limited("t", (struct quotas){.sessions = 3});
    struct pass same = gate_member("t", SCOPE_ADMIN), other = gate_member("", SCOPE_ADMIN);

    for (int i = 0; i < 5; i++) /* of another tenant */
        gate_must(201, &other, "POST", "/v1/sessions", GATE_SESSION);
    gate_must(201, &pass, "PUT", "/v1/sessions/a", GATE_SESSION);
    gate_must(201, &pass, "POST", "/v1/sessions/a/forks", "{\"id\": \"b\"}");
    gate_must(201, &same, "PUT", "/v1/sessions/c", GATE_SESSION);
    for (int round = 0; round < 2; round++) {
        must_exceed(&pass, "PUT", "/v1/sessions/d", GATE_SESSION, "there are 3 sessions");
        must_exceed(&pass, "POST", "/v1/sessions", GATE_SESSION, "there are 3 sessions");
        must_exceed(&pass, "POST", "/v1/sessions/a/forks", "{\"id\": \"d\"}",
                    "there are 3 sessions");
        gate_must(404, &pass, "GET", "/v1/sessions/d", NULL);
        gate_must(200, &pass, "PUT", "/v1/sessions/a", GATE_SESSION); /* which is there */
        live_server_kill(&gate_server);
        live_server_restart(&gate_server);
    }
    gate_must(201, &same, "PUT", "/v1/sessions/d", GATE_SESSION); /* this one may */
    must_exceed(&pass, "PUT", "/v1/sessions/e", GATE_SESSION, "there are 4 sessions");
    gate_must(204, &pass, "DELETE", "/v1/sessions/a", NULL);
    gate_must(204, &pass, "DELETE", "/v1/sessions/b", NULL);
    gate_must(201, &pass, "PUT", "/v1/sessions/e", GATE_SESSION);
    must_exceed(&pass, "PUT", "/v1/sessions/f", GATE_SESSION, "there are 3 sessions");
}
END_TEST

START_TEST(parameters_are_counted_over_the_tenant)
{
    struct pass pass = limited("t", (struct quotas){.parameters = 10});

    must_exceed(&pass, "PUT", "/v1/sessions/a", SESSION_OF("11"), "11 more");
    gate_must(201, &pass, "PUT", "/v1/sessions/a", SESSION_OF("6"));
    must_exceed(&pass, "PUT", "/v1/sessions/b", SESSION_OF("5"), "6 parameters");
    must_exceed(&pass, "POST", "/v1/sessions/a/forks", "{}", "6 parameters");
    gate_must(201, &pass, "PUT", "/v1/sessions/b", SESSION_OF("4"));
    must_exceed(&pass, "PUT", "/v1/sessions/c", SESSION_OF("1"), "10 parameters");
    gate_must(204, &pass, "DELETE", "/v1/sessions/a", NULL);
    gate_must(201, &pass, "PUT", "/v1/sessions/c", SESSION_OF("6"));
}
END_TEST

static struct pass racer;
static atomic_size_t made;

static void *make_some(void *context)
{
    (void)context;
    for (int i = 0; i < 4; i++) {
        struct http_client *client = http_client_open(gate_server.port, 60);
        struct http_response response;
        char headers[200];
        snprintf(headers, sizeof headers,
                 "Authorization: Bearer %s\r\nContent-Type: application/json\r\n", racer.text);
        if (http_client_request(client, "POST", "/v1/sessions", headers, GATE_SESSION,
                                strlen(GATE_SESSION), &response) &&
            response.status == 201)
            atomic_fetch_add(&made, 1);
        http_response_free(&response);
        http_client_close(client);
    }
    return NULL;
}

START_TEST(a_race_makes_no_session_more)
{
    pthread_t threads[THREADS];

    racer = limited("t", (struct quotas){.sessions = 7});
    for (size_t i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, make_some, NULL), 0);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(atomic_load(&made), 7);
}
END_TEST

/* --- requests in flight --- */

/* A request that is under way, and counted, since the server has asked for its body. */
static struct http_client *begin(const struct pass *pass)
{
    struct http_client *client = http_client_open(gate_server.port, 30);
    struct http_response response;
    char head[400];

    snprintf(head, sizeof head,
             "POST /v1/sessions HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n"
             "Expect: 100-continue\r\n%s\r\n",
             gate_header(pass));
    ck_assert(http_client_send_text(client, head));
    ck_assert(http_client_receive(client, false, &response));
    ck_assert_msg(response.status == 100, "%s%s", response.head, response.body);
    http_response_free(&response);
    return client;
}

static void end(struct http_client *client)
{
    struct http_response response;

    ck_assert(http_client_send_text(client, "{}"));
    ck_assert(http_client_receive(client, false, &response));
    ck_assert_uint_eq(response.status, 422);
    http_response_free(&response);
    http_client_close(client);
}

START_TEST(requests_in_flight_are_counted_until_the_answer)
{
    enum { LIMIT = 3 };
    struct pass other = gate_member("", SCOPE_READ);
    struct http_client *clients[LIMIT];

    for (int round = 0; round < 2; round++) {
        struct pass pass = limited("", (struct quotas){.inflight = LIMIT});
        for (size_t i = 0; i < LIMIT; i++)
            clients[i] = begin(&pass);
        must_exceed(&pass, "GET", "/v1/sessions", NULL, "3 requests with this token");
        must_exceed(&pass, "POST", "/v1/sessions", "{}", "3 requests with this token");
        gate_must(200, &other, "GET", "/v1/sessions", NULL);
        gate_must(200, NULL, "GET", "/livez", NULL);
        for (size_t i = 0; i < LIMIT; i++) {
            if (round == 0)
                end(clients[i]);
            else
                http_client_close(clients[i]);
        }
        bool free_again = false;
        for (int tries = 0; tries < 1000 && !free_again; tries++) {
            struct answer answer = gate_send(&pass, "GET", "/v1/sessions", NULL);
            free_again = answer.http.status == 200;
            answer_close(&answer);
        }
        ck_assert(free_again);
    }
}
END_TEST

/* What a token has used is not forgotten when the file is read anew. */
START_TEST(a_new_file_forgives_nothing)
{
    struct pass pass = limited("", (struct quotas){.inflight = 1});
    struct http_client *client = begin(&pass);

    for (int i = 0; i < 3; i++) {
        struct pass another = gate_member("", SCOPE_READ);
        gate_must(200, &another, "GET", "/v1/sessions", NULL); /* the new file has been read */
        must_exceed(&pass, "GET", "/v1/sessions", NULL, "1 requests with this token");
    }
    end(client);
}
END_TEST

/* --- bytes on disk --- */

static uint64_t checkpoint_bytes(struct engine *engine, const char *tenant)
{
    struct session *page[16];
    struct checkpoint_view views[64];
    uint64_t bytes = 0;
    bool more;
    size_t count = engine_list(engine, tenant, "", page, 16, &more);

    for (size_t i = 0; i < count; i++) {
        size_t found = session_checkpoints(page[i], views, 64);
        ck_assert_uint_le(found, 64);
        for (size_t k = 0; k < found; k++)
            bytes += views[k].bytes;
        session_release(page[i]);
    }
    return bytes;
}

/* All tenants together have the journal and the checkpoints, which are counted elsewhere too. */
static void check_sum(struct engine *engine, const char *const *tenants, size_t count)
{
    uint64_t counted = 0, checkpoints = 0;
    struct engine_usage usage;

    for (size_t i = 0; i < count; i++) {
        struct tenant_usage of;
        engine_tenant_usage(engine, tenants[i], &of);
        counted += of.bytes;
        checkpoints += checkpoint_bytes(engine, tenants[i]);
    }
    engine_usage(engine, &usage);
    ck_assert_uint_eq(counted, usage.journal_bytes + checkpoints);
}

static struct session *make(struct engine *engine, const char *tenant, const char *id)
{
    struct owner owner = {.tenant = tenant};
    struct spec spec = engines_spec(DTYPE_F32, "adam");
    struct layout *layout = layout_new();
    struct buffer *weights = engines_constant(7, 1);
    size_t shape = 7;
    struct session_request request = {
        .id = id, .owner = &owner, .spec = &spec, .layout = layout, .weights = weights};
    struct session *session = NULL;
    struct fault fault;
    bool created;

    spec.keep_steps = 20;
    ck_assert_int_eq(layout_add(layout, "w", 1, 1, &shape, &fault), STATUS_OK);
    ck_assert_int_eq(layout_seal(layout, &fault), STATUS_OK);
    ck_assert_int_eq(engine_create(engine, &request, &session, &created, &fault), STATUS_OK);
    layout_release(layout);
    buffer_release(weights);
    return session;
}

START_TEST(bytes_are_those_of_journal_and_checkpoints)
{
    static const char *const tenants[] = {"", "a", "b"};
    uint64_t random = testing_seed() ^ 0xD15C;
    struct tenant_usage usage, before;
    struct moment moment;
    char url[300];
    struct fault fault;

    snprintf(url, sizeof url, "sqlite:%s", testing_folder());
    struct engine *engine = engines_open(url, NULL);
    for (size_t t = 0; t < 3; t++) {
        struct session *session = make(engine, tenants[t], "s");
        for (int i = 0; i < 40; i++) {
            engines_steps(session, testing_random(&random) % 8, &random);
            if (testing_random(&random) % 4 == 0)
                ck_assert_int_eq(session_checkpoint_now(session, &moment, &fault), STATUS_OK);
            if (testing_random(&random) % 16 == 0)
                engine_trim(engine);
            check_sum(engine, tenants, 3);
        }
        session_release(session);
    }
    engine_tenant_usage(engine, "a", &before);
    ck_assert_uint_eq(before.sessions, 1);
    ck_assert_uint_eq(before.parameters, 7);
    ck_assert_uint_gt(before.bytes, 0);
    engine_close(engine);
    engine = engines_open(url, NULL);
    check_sum(engine, tenants, 3);
    for (size_t t = 0; t < 3; t++) {
        struct session *session;
        ck_assert_int_eq(engine_find(engine, tenants[t], "s", &session, &fault), STATUS_OK);
        ck_assert_int_eq(session_delete(engine, session, &fault), STATUS_OK);
        session_release(session);
        engine_tenant_usage(engine, tenants[t], &usage);
        ck_assert_uint_eq(usage.bytes + usage.sessions + usage.parameters, 0);
        check_sum(engine, tenants, 3);
    }
    engine_close(engine);
}
END_TEST

/* Each is an event; the tenant's sessions have twice the quota some time. */
static void patch_until_refused(const struct pass *pass)
{
    char json[600];

    for (int i = 0; i < 1000; i++) {
        snprintf(json, sizeof json, "{\"labels\": {\"n\": \"%0500d\"}}", i);
        struct answer answer = gate_send(pass, "PATCH", "/v1/sessions/s", json);
        bool full = answer.http.status == 429;
        if (full)
            check_quota(&answer, "bytes on disk");
        else
            ck_assert_uint_eq(answer.http.status, 200);
        answer_close(&answer);
        if (full)
            return;
    }
    ck_abort_msg("PATCH fills the disk");
}

/* What a process that is started after a crash of now would find. */
static void copy_database(const char *from, const char *to)
{
    char name[400];
    char *bytes;
    size_t size;

    snprintf(name, sizeof name, "%s/descent.db", from);
    FILE *file = fopen(name, "rb");
    ck_assert(file != NULL && fseek(file, 0, SEEK_END) == 0);
    size = (size_t)ftell(file);
    rewind(file);
    bytes = malloc(size);
    ck_assert_uint_eq(fread(bytes, 1, size, file), size);
    fclose(file);
    snprintf(name, sizeof name, "%s/descent.db", to);
    file = fopen(name, "wb");
    ck_assert(file != NULL && fwrite(bytes, 1, size, file) == size);
    ck_assert_int_eq(fclose(file), 0);
    free(bytes);
}

/* Of small steps, whose heads are most of it, and of large ones in several chunks. */
START_TEST(bytes_are_the_same_after_a_restart)
{
    static const size_t counts[] = {1, 7, 300000};
    uint64_t random = testing_seed() ^ 0xB17E5;
    const char *folder = testing_folder();
    struct engine_usage live, restarted;
    struct tenant_usage of, later;
    char url[400], other[300];

    snprintf(url, sizeof url, "sqlite:%s", folder);
    snprintf(other, sizeof other, "%s/other", folder);
    ck_assert_int_eq(mkdir(other, 0700), 0);
    struct engine *engine = engines_open(url, NULL);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct spec spec = engines_spec(DTYPE_F32, "sgd");
        struct session *session =
            engines_create(engine, (const char[]){(char)('a' + i), 0}, &spec, counts[i]);
        engines_steps(session, 3, &random);
        session_release(session);
    }
    engine_usage(engine, &live);
    engine_tenant_usage(engine, "", &of);
    copy_database(folder, other);
    engine_close(engine);
    snprintf(url, sizeof url, "sqlite:%s", other);
    engine = engines_open(url, NULL);
    engine_usage(engine, &restarted);
    engine_tenant_usage(engine, "", &later);
    engine_close(engine);
    ck_assert_uint_gt(live.journal_bytes, 3 * 300000 * sizeof(float));
    ck_assert_uint_eq(restarted.journal_bytes, live.journal_bytes);
    ck_assert_uint_eq(later.bytes, of.bytes);
}
END_TEST

START_TEST(a_full_tenant_can_look_change_and_delete)
{
    struct pass pass = limited("t", (struct quotas){.disk_bytes = 20000});
    struct pass other = gate_member("", SCOPE_ADMIN);
    size_t taken = 0;
    bool full = false;

    gate_must(201, &pass, "PUT", "/v1/sessions/s", GATE_SESSION);
    gate_must(201, &other, "PUT", "/v1/sessions/s", GATE_SESSION);
    for (; !full && taken < 1000; taken++) {
        struct answer answer = gate_send(&pass, "POST", "/v1/sessions/s/gradients", GATE_STEP);
        full = answer.http.status == 429;
        if (full)
            check_quota(&answer, "bytes on disk");
        answer_close(&answer);
    }
    ck_assert(full);
    ck_assert_uint_gt(taken, 10);
    must_exceed(&pass, "PUT", "/v1/sessions/t", GATE_SESSION, "bytes on disk");
    must_exceed(&pass, "PUT", "/v1/sessions/s/parameters",
                "{\"parameters\": {\"w\": [[0, 0], [0, 0]], \"b\": [0, 0]}}", "bytes on disk");
    must_exceed(&pass, "POST", "/v1/sessions/s/checkpoints", NULL, "bytes on disk");
    gate_must(200, &pass, "GET", "/v1/sessions/s/parameters", NULL);
    gate_must(200, &pass, "PATCH", "/v1/sessions/s", "{\"history\": {\"keep_steps\": 1}}");
    patch_until_refused(&pass);
    gate_must(200, &other, "POST", "/v1/sessions/s/gradients", GATE_STEP);
    gate_must(204, &pass, "DELETE", "/v1/sessions/s", NULL);
    gate_must(201, &pass, "PUT", "/v1/sessions/s", GATE_SESSION);
    gate_must(200, &pass, "POST", "/v1/sessions/s/gradients", GATE_STEP);
}
END_TEST

static void start(void)
{
    gate_start(NULL);
}

Suite *suite_quotas(void);
Suite *suite_quotas(void)
{
    Suite *suite = suite_create("quotas");
    TCase *units = tcase_create("units"), *tests = tcase_create("quotas");

    tcase_set_timeout(units, TEST_TIMEOUT_S);
    tcase_add_test(units, steps_come_as_from_a_bucket);
    tcase_add_test(units, a_crowd_takes_no_step_more);
    tcase_add_test(units, bytes_are_those_of_journal_and_checkpoints);
    tcase_add_test(units, bytes_are_the_same_after_a_restart);
    suite_add_tcase(suite, units);
    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, gate_stop);
    tcase_add_test(tests, steps_are_counted_and_looking_is_not);
    tcase_add_test(tests, sessions_are_counted_over_the_tenant);
    tcase_add_test(tests, parameters_are_counted_over_the_tenant);
    tcase_add_test(tests, a_race_makes_no_session_more);
    tcase_add_test(tests, requests_in_flight_are_counted_until_the_answer);
    tcase_add_test(tests, a_new_file_forgives_nothing);
    tcase_add_test(tests, a_full_tenant_can_look_change_and_delete);
    suite_add_tcase(suite, tests);
    return suite;
}
