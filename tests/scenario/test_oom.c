/* Memory that runs out: for every request of the table, on a server in a process of its own, the
 * i-th allocation between the request's first byte and the answer's last fails, for i = 0, 1, 2 ...
 * until nothing fails any more; then again, with all that follow the i-th failing too. Whatever
 * thread allocates counts.
 *
 * Every attempt begins with the same sessions. What the request answers, and what it makes of all
 * the sessions, was seen before anything failed: an answer of success is that answer, all sessions
 * are as before or as after, in memory and stored, a repeat brings them to after (a keyed one
 * always, else when it had not been done). At the end of a sweep the server is ready, closes in
 * order, and nothing is left of what it allocated.
 *
 * With DESCENT_OOM_ALL set (make check-fault-long) it is every i. Else (make check-fault), on disk
 * and where all that follow fail too, it is every STRIDE-th from one that the seed chooses, or so
 * many that there are about SAMPLES; and on disk it is not every line.
 *
 * A new route needs a line in tests/lib/oom_requests.c. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/router.h"
#include "service/core/clock.h"
#include "tests/lib/api_client.h"
#include "tests/lib/forked_server.h"
#include "tests/lib/oom.h"
#include "tests/lib/oom_requests.h"
#include "tests/lib/survey.h"
#include "tests/lib/tensors.h"
#include "tests/lib/testing.h"

#define JSON_TYPE "Content-Type: application/json\r\n"
enum { PATH_BYTES = 100, WAIT_S = 20, ATTEMPTS_MAX = 5000, STRIDE = 5, SAMPLES = 20 };

static const struct route *route_of(const char *operation)
{
    const struct route *route;

    for (size_t i = 0; (route = router_at(i)) != NULL; i++)
        if (strcmp(route->operation, operation) == 0)
            return route;
    return NULL;
}

START_TEST(every_route_is_swept)
{
    const struct route *route;

    for (size_t i = 0; (route = router_at(i)) != NULL; i++) {
        bool found = false;
        for (size_t k = 0; k < oom_request_count; k++)
            found |= strcmp(oom_requests[k].operation, route->operation) == 0;
        ck_assert_msg(found, "%s %s has no line in oom_requests.c", method_name(route->method),
                      route->pattern);
    }
    for (size_t k = 0; k < oom_request_count; k++)
        ck_assert_msg(route_of(oom_requests[k].operation) != NULL, "there is no %s",
                      oom_requests[k].operation);
}
END_TEST

/* --- the server, and what is asked of it while nothing fails --- */

static struct forked_server server;

static struct buffer *text_body(const char *text)
{
    return tensors_buffer(text, strlen(text));
}

static struct buffer *body_of(const struct oom_request *line)
{
    if (line->text != NULL)
        return text_body(line->text);
    if (line->exported) {
        struct http_response state = survey_ask("GET", OOM_SESSION "/state", "", NULL);
        struct buffer *body = tensors_buffer(state.body, state.body_size);
        http_response_free(&state);
        return body;
    }
    return line->build != NULL ? line->build() : NULL;
}

static void post(const char *text, unsigned count, unsigned status)
{
    struct buffer *body = text_body(text);

    for (unsigned i = 0; i < count; i++) {
        struct http_response response =
            survey_ask("POST", OOM_SESSION "/gradients", JSON_TYPE, body);
        ck_assert_msg(response.status == status, "%s: %s", text, response.body);
        http_response_free(&response);
    }
    buffer_release(body);
}

static void demand(const char *path, const char *text)
{
    struct buffer *body = text_body(text);

    survey_demand("POST", path, JSON_TYPE, body);
    buffer_release(body);
}

/* Of the one gradient that is kept. */
static unsigned long long quarantined(void)
{
    struct http_response response = survey_ask("GET", OOM_SESSION "/quarantine", "", NULL);
    json_t *json = json_loadb(response.body, response.body_size, 0, NULL);
    json_t *first = json_array_get(json_object_get(json, "quarantine"), 0);
    unsigned long long number =
        (unsigned long long)json_integer_value(json_object_get(first, "number"));

    json_decref(json);
    http_response_free(&response);
    ck_assert_uint_gt(number, 0);
    return number;
}

/* Whether several gradients make a step, of which the first is one. */
static bool is_round(const struct oom_request *line)
{
    return line->session != NULL && strstr(line->session, "aggregation") != NULL;
}

/* The sessions with which every attempt begins; the path of the request. */
static void prepare(const struct oom_request *line, char path[PATH_BYTES])
{
    struct buffer *session = text_body(line->session != NULL ? line->session : OOM_STEP);

    survey_delete();
    survey_demand("PUT", OOM_SESSION, JSON_TYPE, session);
    post(OOM_FIRST, 1, is_round(line) ? 202 : 200);
    post(OOM_MORE, line->steps, 200);
    if (line->abnormal)
        post(OOM_ABNORMAL, 1, 422);
    if (line->snapshot != NULL) {
        demand(OOM_SESSION "/snapshots", line->snapshot);
        demand(OOM_SESSION "/snapshots/1/gradients", OOM_SHARD);
    }
    size_t length = (size_t)snprintf(path, PATH_BYTES, "%s", line->path);
    if (path[length - 1] == '/')
        snprintf(path + length, PATH_BYTES - length, "%llu", quarantined());
    buffer_release(session);
}

/* Whether every step is stored before its answer. */
static bool journals(const struct oom_request *line)
{
    return line->session == NULL || strstr(line->session, "durability") == NULL;
}

/* --- the sweep --- */

struct sweep {
    const struct oom_request *line;
    char path[PATH_BYTES];
    struct buffer *body;
    unsigned status; /* of the answer */
    bool intact;     /* the sessions are as before */
    struct survey *before, *after, *answer;
    uint64_t index;
    bool forever;
    unsigned attempts, refused, cut, done_all_the_same;
};

/* What must be told of an attempt that went wrong. */
static void complain(const struct sweep *sweep, const char *what, const char *seen,
                     const char *wanted)
{
    fprintf(stderr, "%s %s (%s): %s, when allocation %llu%s failed, called by\n",
            sweep->line->operation, sweep->line->path, sweep->line->headers, what,
            (unsigned long long)sweep->index, sweep->forever ? " and all after it" : "");
    oom_show_failure(stderr);
    if (seen != NULL)
        fprintf(stderr, "--- seen\n%s\n--- wanted\n%s\n", seen, wanted);
    ck_abort_msg("%s", what);
}

/* An answer that is no success says so in full, and that it is the server's fault. */
static void check_refusal(const struct sweep *sweep, const struct http_response *response)
{
    char type[100] = "";
    json_t *json = json_loadb(response->body, response->body_size, 0, NULL);
    const char *code = json_string_value(json_object_get(json, "code"));
    const char *detail = json_string_value(json_object_get(json, "detail"));

    http_response_header(response, "Content-Type", type, sizeof type);
    if ((response->status != 500 && response->status != 503) ||
        strcmp(type, "application/problem+json") != 0 || code == NULL || detail == NULL ||
        strstr(detail, "memory") == NULL ||
        strcmp(code, response->status == 500 ? "internal" : "overloaded") != 0)
        complain(sweep, "a bad answer", response->body, "an orderly problem that names memory");
    json_decref(json);
}

static void check_answer(struct sweep *sweep, bool heard, const struct http_response *response)
{
    struct survey *answer = calloc(1, sizeof *answer);

    ck_assert_ptr_nonnull(answer);
    if (!heard) {
        sweep->cut++;
        /* Before the first answer it is the connection that finds no memory. */
        if (!sweep->forever && sweep->refused > 0 && !oom_failed_outside())
            complain(sweep, "no answer", NULL, NULL);
    } else if (response->status >= 400 && response->status == sweep->status) {
        ; /* refused as without a failure */
    } else if (response->status >= 400) {
        sweep->refused++;
        check_refusal(sweep, response);
    } else {
        survey_add(answer, response);
        if (!survey_same(answer, sweep->answer))
            complain(sweep, "another answer", answer->data, sweep->answer->data);
    }
    free(answer);
}

/* Whether something failed. */
static bool attempt(struct sweep *sweep)
{
    const struct oom_request *line = sweep->line;
    const char *method = method_name(route_of(line->operation)->method);
    struct http_response response = {.status = 0};

    if (!sweep->intact)
        prepare(line, sweep->path);
    if (line->idle)
        ck_assert(forked_server_evict(&server));
    oom_arm(sweep->index, sweep->forever);
    struct http_client *own = http_client_open(server.port, WAIT_S);
    bool heard = http_client_request(own, method, sweep->path, line->headers,
                                     sweep->body != NULL ? sweep->body->data : NULL,
                                     sweep->body != NULL ? sweep->body->size : 0, &response);
    if (line->session != NULL && strstr(line->session, "interval") != NULL)
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL); /* what is done after the answer */
    uint64_t failed = oom_disarm();
    http_client_close(own);
    sweep->attempts++;
    check_answer(sweep, heard, &response);
    bool done = heard && response.status < 400;
    http_response_free(&response);

    struct survey *now = survey_take();
    bool is_after = survey_same(now, sweep->after);
    sweep->intact = survey_same(now, sweep->before);
    if (done ? !is_after : !is_after && !sweep->intact)
        complain(sweep, done ? "success, and not done" : "neither before nor after", now->data,
                 sweep->after->data);
    if (journals(line) && !survey_same(sweep->before, sweep->after)) {
        forked_server_forget(&server);
        struct survey *stored = survey_take();
        if (!survey_same(stored, now))
            complain(sweep, "stored is something else", stored->data, now->data);
        free(stored);
    }
    free(now);
    sweep->done_all_the_same += !done && is_after && !sweep->intact;
    bool keyed = strstr(line->headers, "Idempotency-Key") != NULL;
    if (!done && (keyed || !is_after)) {
        sweep->intact = false;
        response = survey_ask(method, sweep->path, line->headers, sweep->body);
        if (response.status != sweep->status)
            complain(sweep, "the repeat has another answer", response.body, sweep->answer->data);
        http_response_free(&response);
        now = survey_take();
        if (!survey_same(now, sweep->after))
            complain(sweep, "after the repeat it is not as after one", now->data,
                     sweep->after->data);
        free(now);
    }
    return failed > 0;
}

/* One index after the other, until two attempts in a row had no failure: other threads allocate
 * when they like. */
static void run(struct sweep *sweep, bool forever, unsigned stride)
{
    unsigned calm = 0;

    sweep->index = UINT64_MAX;
    attempt(sweep);
    if (getenv("DESCENT_OOM_ALL") != NULL)
        stride = 1;
    else if (stride > 1 && stride < oom_counted() / SAMPLES)
        stride = (unsigned)(oom_counted() / SAMPLES);
    sweep->forever = forever;
    for (sweep->index = testing_seed() % stride; calm < 2; sweep->index += calm == 0 ? stride : 0) {
        ck_assert_uint_lt(sweep->attempts, ATTEMPTS_MAX);
        calm = attempt(sweep) ? 0 : calm + 1;
    }
    survey_demand("GET", "/readyz", "", NULL);
}

static void sweep_all(const char *url, const struct oom_request *line, unsigned stride)
{
    struct sweep sweep = {.line = line};
    uint64_t begun = clock_monotonic_us();
    struct http_response response;

    oom_share();
    forked_server_start(&server, url);
    survey_open(server.port, journals(line), line->abnormal || line->refused > 0);
    for (int i = 0; i < 2; i++) { /* the first time some things are made for good */
        free(sweep.before);
        free(sweep.after);
        free(sweep.answer);
        prepare(line, sweep.path);
        if (sweep.body == NULL)
            sweep.body = body_of(line);
        sweep.before = survey_take();
        prepare(line, sweep.path);
        if (line->idle)
            ck_assert(forked_server_evict(&server));
        response = survey_ask(method_name(route_of(line->operation)->method), sweep.path,
                              line->headers, sweep.body);
        sweep.status = response.status;
        ck_assert_msg(response.status < 300 || response.status == line->refused, "%s: %s%s",
                      line->operation, response.head, response.body);
        sweep.answer = calloc(1, sizeof *sweep.answer);
        ck_assert_ptr_nonnull(sweep.answer);
        survey_add(sweep.answer, &response);
        http_response_free(&response);
        sweep.after = survey_take();
    }
    run(&sweep, false, stride);
    run(&sweep, true, STRIDE);
    survey_delete();
    survey_close();
    int code = forked_server_stop(&server);
    printf("%s %s: %u attempts, %u refused, %u cut, %u done and not told, %.0f ms\n",
           line->operation, line->path, sweep.attempts, sweep.refused, sweep.cut,
           sweep.done_all_the_same, (double)(clock_monotonic_us() - begun) / 1000);
    ck_assert_msg(code == 0, "%s %s: the server ended with %d", line->operation, line->path, code);
    ck_assert_uint_gt(sweep.refused, 0);
    free(sweep.before);
    free(sweep.after);
    free(sweep.answer);
    buffer_release(sweep.body);
}

START_TEST(a_request_without_memory_is_refused_or_served_in_memory)
{
    sweep_all("memory:", &oom_requests[_i], 1);
}
END_TEST

START_TEST(a_request_without_memory_is_refused_or_served_on_disk)
{
    char url[300];

    snprintf(url, sizeof url, "sqlite:%s", testing_folder());
    if (oom_requests[_i].disk || getenv("DESCENT_OOM_ALL") != NULL)
        sweep_all(url, &oom_requests[_i], STRIDE);
}
END_TEST

Suite *suite_oom(void);
Suite *suite_oom(void)
{
    Suite *suite = suite_create("oom");
    TCase *table = tcase_create("the table"), *sweeps = tcase_create("sweeps");

    tcase_add_test(table, every_route_is_swept);
    tcase_set_timeout(sweeps, 120);
    tcase_add_loop_test(sweeps, a_request_without_memory_is_refused_or_served_in_memory, 0,
                        (int)oom_request_count);
    tcase_add_loop_test(sweeps, a_request_without_memory_is_refused_or_served_on_disk, 0,
                        (int)oom_request_count);
    suite_add_tcase(suite, table);
    suite_add_tcase(suite, sweeps);
    return suite;
}
