/* Memory that runs out: for every request of the table, on a server in a process of its own, the
 * i-th allocation between the request's first byte and the answer's last fails, for i = 0, 1, 2 ...
 * until nothing fails any more; then again, with all that follow the i-th failing too. Whatever
 * thread allocates counts.
 *
 * Every attempt begins with the same session. What the request answers, and what it makes of all
 * the sessions, was seen before anything failed: an answer of success is that answer, all sessions
 * are as before or as after, in memory and stored, a repeat brings them to after (a keyed one
 * always, else when it had not been done). At the end of a sweep the server is ready, closes in
 * order, and nothing is left of what it allocated.
 *
 * With DESCENT_OOM_ALL set (make check-oom) it is every i; else, on disk and where all that follow
 * fail too, every STRIDE-th from one that the seed chooses, and on disk not every line.
 *
 * A new route needs a line in `requests`. */
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
#include "tests/lib/survey.h"
#include "tests/lib/tensors.h"
#include "tests/lib/testing.h"

enum { COUNT = 8, WAIT_S = 20, ATTEMPTS_MAX = 5000, STRIDE = 5 };

#define S "/v1/sessions/s"
#define TYPE(type) "Content-Type: " type "\r\n"
#define JSON TYPE("application/json")
#define SAFETENSORS TYPE("application/vnd.safetensors")
#define RAW TYPE("application/octet-stream")
#define NPY TYPE("application/x-npy")
#define ACCEPT(type) "Accept: " type "\r\n"
#define KEY "Idempotency-Key: \"once\"\r\n"
#define WEIGHTS_TOO "Prefer: return=representation\r\n"

#define TENSORS "{\"w\": [[1, 2], [3, 4]], \"a/b\": [5, 6, 7], \"s\": 8}"
#define GRADIENTS "{\"gradients\": " TENSORS "}"
#define SPEC(more) "\"optimizer\": {\"name\": \"adam\", \"lr\": 0.1}" more
#define SESSION(more) "{" SPEC(more) ", \"parameters\": " TENSORS "}"
#define MODE(mode) SESSION(", \"durability\": {\"mode\": \"" mode "\"}")
#define INTERVAL SESSION(", \"durability\": {\"mode\": \"interval\", \"seconds\": 0.001}")
#define CHECKPOINT SESSION(", \"durability\": {\"mode\": \"checkpoint\", \"steps\": 2}")
#define STEP MODE("step")

#define HEADER(more)                                                                               \
    "{" more "\"w\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"                  \
    "\"a/b\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[16,28]},"                          \
    "\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[28,32]}}"

/* --- bodies --- */

static struct buffer *with_numbers(struct buffer *body)
{
    for (size_t i = 0; i < COUNT; i++) {
        float number = 0.25F * (float)(i + 1);
        memcpy(body->data + body->size - (COUNT - i) * sizeof number, &number, sizeof number);
    }
    return body;
}

static struct buffer *raw(void)
{
    return with_numbers(buffer_new_zeroed(COUNT * sizeof(float)));
}

static struct buffer *npy(void)
{
    static const char head[] = "\x93NUMPY\1\0\x76\0{'descr': '<f4', 'fortran_order': False, "
                               "'shape': (8,), }";
    enum { HEAD_BYTES = 128 };
    struct buffer *body = buffer_new_zeroed(HEAD_BYTES + COUNT * sizeof(float));

    memset(body->data, ' ', HEAD_BYTES - 1);
    body->data[HEAD_BYTES - 1] = '\n';
    memcpy(body->data, head, sizeof head - 1);
    return with_numbers(body);
}

static struct buffer *safetensors(void)
{
    return with_numbers(tensors_safetensors(HEADER(""), COUNT * sizeof(float)));
}

static struct buffer *safetensors_session(void)
{
    static const char header[] =
        HEADER("\"__metadata__\":{\"descent\":\"{\\\"optimizer\\\":\\\"adam\\\"}\"},");

    return with_numbers(tensors_safetensors(header, COUNT * sizeof(float)));
}

/* --- the requests: the operation of routes.def, where, header lines, the body --- */

static const struct request_line {
    const char *operation, *path, *headers, *text; /* text or build: the body; neither: none */
    struct buffer *(*build)(void);
    const char *session; /* NULL: STEP */
    bool idle;           /* the session's state is not in memory */
    bool disk;           /* on disk too; the others only when DESCENT_OOM_ALL is set */
} requests[] = {
    {"sessions_create", "/v1/sessions", JSON, .text = STEP, .disk = true},
    {"sessions_create", "/v1/sessions", SAFETENSORS, .build = safetensors_session},
    {"sessions_put", "/v1/sessions/other", JSON, .text = INTERVAL},
    {"sessions_put", "/v1/sessions/other", SAFETENSORS, .build = safetensors_session, .disk = true},
    {"sessions_list", "/v1/sessions?page_size=1", .headers = ""},
    {"sessions_get", S, .headers = ""},
    {"sessions_get", S, .headers = "", .idle = true, .disk = true},
    {"sessions_patch", S, JSON,
     .text = "{\"optimizer\": {\"lr\": 0.5}, \"labels\": {\"a\": \"b\"}}", .disk = true},
    {"sessions_patch", S, JSON, .text = "{\"labels\": {\"a\": \"b\"}}", .session = CHECKPOINT},
    {"sessions_patch", S, JSON, .text = "{\"gradient\": {\"clip_norm\": 1}}", .session = INTERVAL},
    {"sessions_delete", S, .headers = ""},
    {"sessions_delete", S, .headers = "", .idle = true, .disk = true},
    {"gradients_submit", S "/gradients", JSON KEY, .text = GRADIENTS, .disk = true},
    {"gradients_submit", S "/gradients", JSON KEY WEIGHTS_TOO, .text = GRADIENTS},
    {"gradients_submit", S "/gradients", JSON, .text = GRADIENTS},
    {"gradients_submit", S "/gradients", JSON,
     .text = "{\"worker\": \"w\", \"seq\": 1, \"cursor\": \"c\", \"gradients\": " TENSORS "}"},
    {"gradients_submit", S "/gradients", SAFETENSORS KEY WEIGHTS_TOO, .build = safetensors},
    {"gradients_submit", S "/gradients", RAW KEY WEIGHTS_TOO ACCEPT("application/octet-stream"),
     .build = raw},
    {"gradients_submit", S "/gradients?loss=0.5", NPY KEY, .build = npy},
    {"gradients_submit", S "/gradients", RAW KEY, .build = raw, .idle = true, .disk = true},
    {"gradients_submit", S "/gradients", RAW KEY, .build = raw, .session = INTERVAL, .disk = true},
    {"gradients_submit", S "/gradients", RAW KEY, .build = raw, .session = CHECKPOINT,
     .disk = true},
    {"parameters_fetch", S "/parameters", .headers = ""},
    {"parameters_fetch", S "/parameters", .headers = ACCEPT("application/vnd.safetensors")},
    {"parameters_fetch", S "/parameters?tensors=w,s&dtype=bf16", ACCEPT("application/octet-stream"),
     .idle = true},
    {"parameters_fetch", S "/parameters?average=ema", ACCEPT("application/x-npy"),
     .session = SESSION(", \"ema\": {\"decay\": 0.5}")},
    {"parameters_fetch", S "/parameters",
     .headers = "If-None-Match: \"0-9\"\r\nRange: bytes=0-3\r\n"},
    {"parameters_replace", S "/parameters", JSON, .text = "{\"parameters\": " TENSORS "}",
     .disk = true},
    {"parameters_replace", S "/parameters", RAW, .build = raw, .session = INTERVAL},
    {"parameters_replace", S "/parameters", SAFETENSORS, .build = safetensors,
     .session = CHECKPOINT},
    {"parameters_fetch", S "/parameters?step=0", .headers = ""},
    {"hash_get", S "/hash", .headers = ""},
    {"sessions_rewind", S "/rewind", JSON, .text = "{\"step\": 0}", .disk = true},
    {"sessions_fork", S "/forks", JSON, .text = "{\"id\": \"other\"}", .disk = true},
    {"checkpoints_create", S "/checkpoints", .headers = ""},
    {"checkpoints_list", S "/checkpoints", .headers = ""},
    {"quarantine_list", S "/quarantine", .headers = ""},
    {"optimizers_list", "/v1/optimizers", .headers = ""},
    {"optimizers_get", "/v1/optimizers/adam", .headers = ""},
    {"presets_list", "/v1/presets", .headers = ""},
    {"schedules_list", "/v1/schedules", .headers = ""},
    {"livez", "/livez", .headers = ""},
    {"readyz", "/readyz", .headers = ""},
    {"healthz", "/healthz", .headers = ""},
    {"openapi", "/openapi.json", .headers = ""},
};
enum { REQUESTS = sizeof requests / sizeof *requests };

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
        for (size_t k = 0; k < REQUESTS; k++)
            found |= strcmp(requests[k].operation, route->operation) == 0;
        ck_assert_msg(found, "%s %s has no line in `requests`", method_name(route->method),
                      route->pattern);
    }
    for (size_t k = 0; k < REQUESTS; k++)
        ck_assert_msg(route_of(requests[k].operation) != NULL, "there is no %s",
                      requests[k].operation);
}
END_TEST

/* --- the server, and what is asked of it while nothing fails --- */

static struct forked_server server;

static struct buffer *text_body(const char *text)
{
    return tensors_buffer(text, strlen(text));
}

static struct buffer *body_of(const struct request_line *line)
{
    if (line->text != NULL)
        return text_body(line->text);
    return line->build != NULL ? line->build() : NULL;
}

/* The sessions with which every attempt begins. */
static void prepare(const struct request_line *line)
{
    struct buffer *session = text_body(line->session != NULL ? line->session : STEP);
    struct buffer *gradients = text_body(GRADIENTS);

    survey_delete();
    survey_demand("PUT", S, JSON, session);
    survey_demand("POST", S "/gradients", JSON, gradients);
    if (line->idle)
        ck_assert(forked_server_evict(&server));
    buffer_release(session);
    buffer_release(gradients);
}

/* --- the sweep --- */

struct sweep {
    const struct request_line *line;
    struct buffer *body;
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
    const struct request_line *line = sweep->line;
    const char *method = method_name(route_of(line->operation)->method);
    struct http_response response = {.status = 0};

    prepare(line);
    oom_arm(sweep->index, sweep->forever);
    struct http_client *own = http_client_open(server.port, WAIT_S);
    bool heard = http_client_request(own, method, line->path, line->headers,
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
    if (done ? !is_after : !is_after && !survey_same(now, sweep->before))
        complain(sweep, done ? "success, and not done" : "neither before nor after", now->data,
                 sweep->after->data);
    if (line->session == NULL) {
        forked_server_forget(&server);
        struct survey *stored = survey_take();
        if (!survey_same(stored, now))
            complain(sweep, "stored is something else", stored->data, now->data);
        free(stored);
    }
    free(now);
    sweep->done_all_the_same += !done && is_after && !survey_same(sweep->before, sweep->after);
    bool keyed = strstr(line->headers, KEY) != NULL;
    if (!done && (keyed || !is_after)) {
        response = survey_ask(method, line->path, line->headers, sweep->body);
        if (response.status >= 300)
            complain(sweep, "the repeat is refused", response.body, "success");
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

    if (getenv("DESCENT_OOM_ALL") != NULL)
        stride = 1;
    sweep->forever = forever;
    for (sweep->index = testing_seed() % stride; calm < 2; sweep->index += calm == 0 ? stride : 0) {
        ck_assert_uint_lt(sweep->attempts, ATTEMPTS_MAX);
        calm = attempt(sweep) ? 0 : calm + 1;
    }
    survey_demand("GET", "/readyz", "", NULL);
}

static void sweep_all(const char *url, const struct request_line *line, unsigned stride)
{
    struct sweep sweep = {.line = line, .body = body_of(line)};
    uint64_t begun = clock_monotonic_us();
    struct http_response response;

    oom_share();
    forked_server_start(&server, url);
    survey_open(server.port, line->session == NULL);
    for (int i = 0; i < 2; i++) { /* the first time some things are made for good */
        free(sweep.before);
        free(sweep.after);
        free(sweep.answer);
        prepare(line);
        sweep.before = survey_take();
        prepare(line);
        response = survey_ask(method_name(route_of(line->operation)->method), line->path,
                              line->headers, sweep.body);
        ck_assert_msg(response.status < 300, "%s: %s%s", line->operation, response.head,
                      response.body);
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
    sweep_all("memory:", &requests[_i], 1);
}
END_TEST

START_TEST(a_request_without_memory_is_refused_or_served_on_disk)
{
    char url[300];

    snprintf(url, sizeof url, "sqlite:%s", testing_folder());
    if (requests[_i].disk || getenv("DESCENT_OOM_ALL") != NULL)
        sweep_all(url, &requests[_i], STRIDE);
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
                        REQUESTS);
    tcase_add_loop_test(sweeps, a_request_without_memory_is_refused_or_served_on_disk, 0, REQUESTS);
    suite_add_tcase(suite, table);
    suite_add_tcase(suite, sweeps);
    return suite;
}
