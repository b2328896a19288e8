/* Requests to a live server whose answers are JSON. */
#include "tests/lib/api_client.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

enum { WAIT_S = 60 };

struct answer api_send(unsigned port, const char *method, const char *path, const char *headers,
                       const void *body, size_t body_size)
{
    struct http_client *client = http_client_open(port, WAIT_S);
    struct answer answer = {.json = NULL};
    char type[128] = "";

    ck_assert_msg(http_client_request(client, method, path, headers, body, body_size, &answer.http),
                  "%s %s: no answer", method, path);
    http_response_header(&answer.http, "Content-Type", type, sizeof type);
    bool is_json = strstr(type, "/json") != NULL || strstr(type, "+json") != NULL;
    if (is_json && strcmp(method, "HEAD") != 0 && answer.http.body_size > 0) {
        answer.json =
            json_loadb(answer.http.body, answer.http.body_size, JSON_REJECT_DUPLICATES, NULL);
        ck_assert_msg(answer.json != NULL, "%s %s: no JSON: %s", method, path, answer.http.body);
    }
    http_client_close(client);
    return answer;
}

struct answer api_send_json(unsigned port, const char *method, const char *path, const char *json)
{
    return api_send(port, method, path, "Content-Type: application/json\r\n", json, strlen(json));
}

void answer_close(struct answer *answer)
{
    http_response_free(&answer->http);
    json_decref(answer->json);
    answer->json = NULL;
}

static const char *member(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));

    return text != NULL ? text : "";
}

const char *answer_code(const struct answer *answer)
{
    return member(answer->json, "code");
}

const char *answer_detail(const struct answer *answer)
{
    return member(answer->json, "detail");
}

const char *answer_pointer(const struct answer *answer)
{
    return member(json_array_get(json_object_get(answer->json, "errors"), 0), "pointer");
}

void answer_check_problem(const struct answer *answer, unsigned status, const char *code,
                          const char *what)
{
    char value[128] = "", wanted[128];

    ck_assert_msg(answer->http.status == status && strcmp(answer_code(answer), code) == 0,
                  "%s: %u %s was expected: %s%s", what, status, code, answer->http.head,
                  answer->http.body);
    http_response_header(&answer->http, "Content-Type", value, sizeof value);
    ck_assert_msg(strcmp(value, "application/problem+json") == 0, "%s: it is %s", what, value);
    snprintf(wanted, sizeof wanted, "/problems/%s", code);
    ck_assert_msg(strcmp(member(answer->json, "type"), wanted) == 0, "%s: %s", what,
                  answer->http.body);
    ck_assert_msg(member(answer->json, "title")[0] != '\0' && answer_detail(answer)[0] != '\0',
                  "%s: %s", what, answer->http.body);
    ck_assert_msg(json_integer_value(json_object_get(answer->json, "status")) == status, "%s: %s",
                  what, answer->http.body);
    ck_assert_ptr_nonnull(http_response_header(&answer->http, "Request-Id", value, sizeof value));
    ck_assert_str_eq(member(answer->json, "request_id"), value);
}
