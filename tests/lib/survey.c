/* What a server keeps and answers, as text. */
#include "tests/lib/survey.h"

#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "service/core/clock.h"

enum { WAIT_S = 20 };

/* Members of answers that differ from one time to the next; durable_step only where steps are not
 * journaled before the answer. */
static const char *const fleeting[] = {"created_at", "request_id", "stages",
                                       "number",     "last_seen",  "durable_step"};
/* The hash is of the weights and all other state. The last only where something may be in it. */
static const char *const parts[] = {"",         "/hash",      "/steps?tensors=false",
                                    "/workers", "/snapshots", "/quarantine"};
static size_t part_count;
static size_t fleeting_count;

static unsigned port;
static struct http_client *client;

void survey_open(unsigned server_port, bool durable, bool quarantine)
{
    port = server_port;
    client = NULL;
    fleeting_count = sizeof fleeting / sizeof *fleeting - durable;
    part_count = sizeof parts / sizeof *parts - !quarantine;
}

void survey_close(void)
{
    if (client != NULL)
        http_client_close(client);
    client = NULL;
}

static bool ask_once(const char *method, const char *path, const char *headers,
                     const struct buffer *body, struct http_response *out)
{
    if (client == NULL)
        client = http_client_open(port, WAIT_S);
    if (http_client_request(client, method, path, headers, body != NULL ? body->data : NULL,
                            body != NULL ? body->size : 0, out))
        return true;
    http_response_free(out);
    http_client_close(client);
    client = NULL;
    return false;
}

struct http_response survey_ask(const char *method, const char *path, const char *headers,
                                const struct buffer *body)
{
    uint64_t until = clock_monotonic_us() + WAIT_S * 1000000u;
    struct http_response response;

    while (!ask_once(method, path, headers, body, &response) || response.status >= 500) {
        ck_assert_msg(clock_monotonic_us() < until, "%s %s: still %u: %s", method, path,
                      response.status, response.status != 0 ? response.body : "");
        http_response_free(&response);
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    return response;
}

void survey_demand(const char *method, const char *path, const char *headers,
                   const struct buffer *body)
{
    struct http_response response = survey_ask(method, path, headers, body);

    ck_assert_msg(response.status < 300, "%s %s: %s%s", method, path, response.head, response.body);
    http_response_free(&response);
}

static void add(struct survey *text, const void *data, size_t size)
{
    ck_assert_uint_lt(text->used + size, sizeof text->data);
    memcpy(text->data + text->used, data, size);
    text->used += size;
    text->data[text->used] = '\0';
}

static void add_text(struct survey *text, const char *more)
{
    add(text, more, strlen(more));
}

/* The record in the header of a session's exported state knows when the session was created, and
 * the checksum, behind it, is of the record too. */
static void add_file(struct survey *text, const char *data, size_t size)
{
    static const char *const marks[] = {"\\\"record\\\":\\\"", "\\\"checksum\\\":\\\""};

    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        const char *found = memmem(data, size, marks[i], strlen(marks[i]));
        if (found == NULL)
            break;
        size_t before = (size_t)(found - data) + strlen(marks[i]);
        size_t length = strcspn(data + before, "\\");
        add(text, data, before);
        data += before + length;
        size -= before + length;
    }
    add(text, data, size);
}

static json_t *lasting(json_t *value)
{
    const char *name;
    json_t *member;
    size_t index;
    void *next;

    if (json_is_string(value) && strncmp(json_string_value(value), "ses_", 4) == 0)
        json_string_set(value, "ses_");
    json_array_foreach(value, index, member) lasting(member);
    for (size_t i = 0; i < fleeting_count && json_is_object(value); i++)
        json_object_del(value, fleeting[i]);
    json_object_foreach_safe(value, next, name, member) lasting(member);
    return value;
}

/* False: it is no JSON. */
static bool add_json(struct survey *text, const char *data, size_t size)
{
    json_t *json = json_loadb(data, size, 0, NULL);
    char *dump = json == NULL ? NULL : json_dumps(lasting(json), JSON_SORT_KEYS | JSON_INDENT(1));

    if (json == NULL)
        return false;
    ck_assert_ptr_nonnull(dump);
    add_text(text, dump);
    free(dump);
    json_decref(json);
    return true;
}

/* Figures count what was asked before: of them only what each says of itself is the same again. */
static void add_figures(struct survey *text, const char *data, size_t size)
{
    for (size_t used = 0; used < size;) {
        size_t line = strcspn(data + used, "\n") + 1;
        if (data[used] == '#')
            add(text, data + used, line);
        used += line;
    }
}

void survey_add(struct survey *text, const struct http_response *response)
{
    static const char *const exact[] = {"Content-Type", "ETag", "Idempotency-Replayed"};
    char value[200];

    snprintf(value, sizeof value, "%u\n", response->status);
    add_text(text, value);
    for (const char *at = strstr(response->head, "\r\n"); at != NULL; at = strstr(at, "\r\n")) {
        at += 2;
        add(text, at, strcspn(at, ":\r"));
        add_text(text, "\n");
    }
    for (size_t i = 0; i < sizeof exact / sizeof *exact; i++)
        if (http_response_header(response, exact[i], value, sizeof value) != NULL)
            add_text(text, value);
    size_t used = 0;
    if (strstr(response->head, "text/plain") != NULL) {
        add_figures(text, response->body, response->body_size);
        return;
    }
    if (strstr(response->head, "ndjson") == NULL)
        used = response->body_size; /* all at once */
    if (used > 0 && !add_json(text, response->body, used))
        add_file(text, response->body, used);
    for (; used < response->body_size; used += strcspn(response->body + used, "\n") + 1)
        ck_assert(add_json(text, response->body + used, strcspn(response->body + used, "\n")));
}

static json_t *list_sessions(void)
{
    struct http_response list = survey_ask("GET", "/v1/sessions", "", NULL);
    json_t *page = json_loadb(list.body, list.body_size, 0, NULL);

    ck_assert_ptr_nonnull(page);
    http_response_free(&list);
    return page;
}

static void add_answer(struct survey *survey, const char *path)
{
    struct http_response response = survey_ask("GET", path, "", NULL);

    survey_add(survey, &response);
    http_response_free(&response);
}

struct survey *survey_take(void)
{
    struct survey *survey = calloc(1, sizeof *survey);
    json_t *page = list_sessions(), *entry;
    char path[200];
    size_t index;

    ck_assert_ptr_nonnull(survey);
    json_array_foreach(json_object_get(page, "sessions"), index, entry)
    {
        for (size_t i = 0; i < part_count; i++) {
            snprintf(path, sizeof path, "/v1/sessions/%s%s",
                     json_string_value(json_object_get(entry, "id")), parts[i]);
            add_answer(survey, path);
        }
    }
    json_decref(page);
    return survey;
}

void survey_delete(void)
{
    json_t *page = list_sessions(), *entry;
    char path[200];
    size_t index;

    json_array_foreach(json_object_get(page, "sessions"), index, entry)
    {
        snprintf(path, sizeof path, "/v1/sessions/%s",
                 json_string_value(json_object_get(entry, "id")));
        survey_demand("DELETE", path, "", NULL);
    }
    json_decref(page);
}

bool survey_same(const struct survey *a, const struct survey *b)
{
    return a->used == b->used && memcmp(a->data, b->data, a->used) == 0;
}
