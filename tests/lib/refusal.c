/* Requests that must be refused and must change nothing. */
#include "tests/lib/refusal.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

#include "tests/lib/testing.h"

struct live_server refusal_server;

void refusal_start(const char *const *options)
{
    live_server_start(&refusal_server, testing_folder(), options);
    struct answer answer = refusal_accept(
        "PUT", REFUSAL_SESSION, "",
        "{\"optimizer\": {\"name\": \"sgd\", \"lr\": 1}, \"parameters\": {"
        "\"w\": [[0, 0], [0, 0]], \"a/b\": [0, 0, 0], \"s\": 0}, \"labels\": {\"k\": \"v\"}}",
        201);
    answer_close(&answer);
}

void refusal_stop(void)
{
    ck_assert_int_eq(live_server_stop(&refusal_server), 0);
}

struct answer refusal_accept(const char *method, const char *path, const char *headers,
                             const char *json, unsigned status)
{
    struct answer answer = api_send(refusal_server.port, method, path, headers, json, strlen(json));

    ck_assert_msg(answer.http.status == status, "%s %s: %s%s", method, path, answer.http.head,
                  answer.http.body);
    return answer;
}

/* --- what must not change --- */

enum { VIEWS = 3 };

static const struct {
    const char *path, *headers;
} views[VIEWS] = {
    {"/v1/sessions", ""},
    {REFUSAL_SESSION, ""},
    {REFUSAL_WEIGHTS, "Accept: application/octet-stream\r\n"},
};

static void look(struct answer seen[VIEWS])
{
    for (size_t i = 0; i < VIEWS; i++) {
        seen[i] = api_send(refusal_server.port, "GET", views[i].path, views[i].headers, NULL, 0);
        ck_assert_uint_eq(seen[i].http.status, 200);
    }
}

static void compare(struct answer before[VIEWS], struct answer after[VIEWS], const char *what)
{
    for (size_t i = 0; i < VIEWS; i++) {
        ck_assert_msg(
            before[i].http.body_size == after[i].http.body_size &&
                memcmp(before[i].http.body, after[i].http.body, after[i].http.body_size) == 0,
            "%s changed %s", what, views[i].path);
        answer_close(&before[i]);
        answer_close(&after[i]);
    }
}

void refusal_check(const struct refusal *refusal)
{
    struct answer before[VIEWS], after[VIEWS];
    char what[300];
    size_t shown = refusal->body == NULL ? 0 : refusal->size < 100 ? refusal->size : 100;

    snprintf(what, sizeof what, "%s %s %s %.*s", refusal->method, refusal->path, refusal->headers,
             (int)shown, shown > 0 ? (const char *)refusal->body : "");
    look(before);
    struct answer answer = api_send(refusal_server.port, refusal->method, refusal->path,
                                    refusal->headers, refusal->body, refusal->size);
    answer_check_problem(&answer, refusal->status, refusal->code, what);
    const char *pointer = refusal->pointer != NULL ? refusal->pointer : "";
    ck_assert_msg(strcmp(answer_pointer(&answer), pointer) == 0, "%s: the pointer is not %s: %s",
                  what, pointer, answer.http.body);
    ck_assert_msg(refusal->words == NULL || strstr(answer_detail(&answer), refusal->words) != NULL,
                  "%s: \"%s\" is not in: %s", what, refusal->words, answer_detail(&answer));
    answer_close(&answer);
    look(after);
    compare(before, after, what);
}

void refusal_check_json(const char *method, const char *path, const char *json, unsigned status,
                        const char *code, const char *pointer, const char *words)
{
    refusal_check(&(struct refusal){.method = method,
                                    .path = path,
                                    .headers = "Content-Type: application/json\r\n",
                                    .body = json,
                                    .size = strlen(json),
                                    .status = status,
                                    .code = code,
                                    .pointer = pointer,
                                    .words = words});
}
