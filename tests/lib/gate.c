/* A live server that asks for tokens. */
#include "tests/lib/gate.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/clock.h"
#include "tests/lib/openapi.h"
#include "tests/lib/testing.h"

enum { HEADER_BYTES = 256 };

#define JSON "Content-Type: application/json\r\n"

struct live_server gate_server;

void gate_start(const char *const *options)
{
    const char *all[LIVE_SERVER_OPTIONS_MAX] = {"--auth", "on"};

    for (size_t i = 0; options != NULL && options[i] != NULL; i++)
        all[2 + i] = options[i];
    live_server_start(&gate_server, testing_folder(), all);
}

void gate_stop(void)
{
    ck_assert_int_eq(live_server_stop(&gate_server), 0);
}

static const char *file(void)
{
    static char path[300];

    snprintf(path, sizeof path, "%s/tokens.json", gate_server.folder);
    return path;
}

static enum status add(void *context, struct tokens *tokens, struct fault *fault)
{
    (void)fault;
    tokens->items[tokens->count++] = *(const struct token *)context;
    return STATUS_OK;
}

static enum status take_away(void *context, struct tokens *tokens, struct fault *fault)
{
    for (size_t i = 0; i < tokens->count; i++)
        if (strcmp(tokens->items[i].id, context) == 0) {
            tokens->items[i] = tokens->items[--tokens->count];
            return STATUS_OK;
        }
    return fault_set(fault, STATUS_NOT_FOUND, "", "there is no such token");
}

static void edit(enum status (*change)(void *, struct tokens *, struct fault *), void *context)
{
    struct fault fault;

    ck_assert_msg(tokens_edit(file(), change, context, &fault) == STATUS_OK, "%s", fault.detail);
}

struct pass gate_pass(const struct token *token)
{
    struct token whole = *token;
    struct pass pass;

    ck_assert(token_draw(pass.text, whole.hash) && token_draw_id(pass.id));
    whole.id = pass.id;
    whole.name = "";
    whole.tenant = token->tenant != NULL ? token->tenant : "";
    whole.created_us = clock_unix_us();
    edit(add, &whole);
    return pass;
}

struct pass gate_member(const char *tenant, enum scope scope)
{
    return gate_pass(&(struct token){.tenant = tenant, .scope = scope});
}

void gate_revoke(const struct pass *pass)
{
    edit(take_away, (void *)(uintptr_t)pass->id);
}

const char *gate_header(const struct pass *pass)
{
    static char header[HEADER_BYTES];

    snprintf(header, sizeof header, "Authorization: Bearer %s\r\n", pass->text);
    return header;
}

struct answer gate_send(const struct pass *pass, const char *method, const char *path,
                        const char *json)
{
    char headers[HEADER_BYTES + sizeof JSON];

    snprintf(headers, sizeof headers, "%s%s", pass != NULL ? gate_header(pass) : "",
             json != NULL ? JSON : "");
    return api_send(gate_server.port, method, path, headers, json, json != NULL ? strlen(json) : 0);
}

void gate_must(unsigned status, const struct pass *pass, const char *method, const char *path,
               const char *json)
{
    struct answer answer = gate_send(pass, method, path, json);

    ck_assert_msg(answer.http.status == status, "%s %s: %u was expected: %s%s", method, path,
                  status, answer.http.head, answer.http.body);
    answer_close(&answer);
}

/* malloc'ed; NULL where the route takes no body. */
static char *example_body(const struct route *route)
{
    const json_t *operation = openapi_operation(method_name(route->method), route->pattern);
    const json_t *content = json_object_get(json_object_get(operation, "requestBody"), "content");
    const json_t *examples =
        json_object_get(json_object_get(content, "application/json"), "examples");

    if (!route->takes_body)
        return NULL;
    void *first = json_object_iter((json_t *)(uintptr_t)examples);
    ck_assert_msg(first != NULL, "%s has no example in JSON", route->operation);
    return json_dumps(json_object_get(json_object_iter_value(first), "value"), 0);
}

struct answer gate_call(const struct route *route, const char *id, const char *headers)
{
    char path[OPENAPI_PATH_BYTES], all[2 * HEADER_BYTES];
    char *body = example_body(route);

    openapi_path(method_name(route->method), route->pattern, id, path);
    snprintf(all, sizeof all, "%s%s", headers, body != NULL ? JSON : "");
    struct answer answer = api_send(gate_server.port, method_name(route->method), path, all, body,
                                    body != NULL ? strlen(body) : 0);
    free(body);
    return answer;
}

struct answer gate_call_with(const struct route *route, const char *id, const struct pass *pass)
{
    char headers[HEADER_BYTES];

    snprintf(headers, sizeof headers, "%s", gate_header(pass));
    return gate_call(route, id, headers);
}
