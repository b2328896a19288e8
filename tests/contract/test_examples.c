/* The examples of api/openapi.json against a live server: each request is answered with the status
 * and code that its run names, and each answer that is shown is what the server says. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/base64.h"
#include "api/router.h"
#include "tests/lib/api_client.h"
#include "tests/lib/live_server.h"
#include "tests/lib/openapi.h"
#include "tests/lib/testing.h"

enum { TEXT_BYTES = 4096, TEST_TIMEOUT_S = 120 };

static const json_t *operation_of(const struct route *route)
{
    return openapi_operation(method_name(route->method), route->pattern);
}

static const json_t *run_content(const json_t *operation, const json_t *run)
{
    const json_t *content = json_object_get(json_object_get(operation, "requestBody"), "content");
    const char *type = json_string_value(json_object_get(run, "type"));

    return type == NULL ? NULL : json_object_get(content, type);
}

static const json_t *run_example(const json_t *operation, const json_t *run)
{
    const char *name = json_string_value(json_object_get(run, "example"));

    return name == NULL
               ? NULL
               : json_object_get(json_object_get(run_content(operation, run), "examples"), name);
}

static bool is_run(const json_t *operation, const json_t *example)
{
    const json_t *runs = json_object_get(operation, "x-runs");

    for (size_t i = 0; i < json_array_size(runs); i++)
        if (run_example(operation, json_array_get(runs, i)) == example)
            return true;
    return false;
}

/* What obeys its schema is a `value`, what breaks it on purpose an `x-value`; x-base64 is bytes. */
static void check_example(const json_t *operation, const json_t *content, const char *name,
                          const json_t *example)
{
    const json_t *schema = json_object_get(content, "schema");
    const json_t *broken = json_object_get(example, "x-value");

    ck_assert_msg(is_run(operation, example), "%s is not run", name);
    ck_assert_msg(json_is_string(json_object_get(example, "summary")), "%s: what is it?", name);
    if (json_object_get(example, "value") != NULL)
        openapi_check(schema, json_object_get(example, "value"), name);
    ck_assert_msg(broken == NULL || !openapi_obeys(schema, broken), "%s obeys its schema", name);
}

START_TEST(every_example_fits_its_schema_and_is_run)
{
    const struct route *route;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        const json_t *operation = operation_of(route);
        const char *type, *name;
        json_t *content, *example;
        ck_assert_msg(json_array_size(json_object_get(operation, "x-runs")) > 0, "%s is never run",
                      route->operation);
        json_object_foreach(json_object_get(json_object_get(operation, "requestBody"), "content"),
                            type, content)
        {
            ck_assert_msg(json_object_size(json_object_get(content, "examples")) > 0,
                          "%s: no example of %s", route->operation, type);
            json_object_foreach(json_object_get(content, "examples"), name, example)
                check_example(operation, content, name, example);
        }
    }
}
END_TEST

static bool is_answered(const json_t *operation, const char *status, const char *type,
                        const char *name)
{
    const json_t *runs = json_object_get(operation, "x-runs");

    for (size_t i = 0; i < json_array_size(runs); i++) {
        const json_t *run = json_array_get(runs, i);
        const char *answer = json_string_value(json_object_get(run, "answer"));
        const char *accept = json_string_value(json_object_get(run, "as"));
        if (json_integer_value(json_object_get(run, "status")) == atoi(status) && answer != NULL &&
            strcmp(answer, name) == 0 &&
            strcmp(accept == NULL ? "application/json" : accept, type) == 0)
            return true;
    }
    return false;
}

/* The other direction: an answer of success of every type has an example, and each is what a run is
 * answered with. */
START_TEST(every_answer_has_an_example_that_a_run_gets)
{
    const struct route *route;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        const json_t *operation = operation_of(route);
        const char *status, *type, *name;
        json_t *response, *content, *example;
        json_object_foreach(json_object_get(operation, "responses"), status, response)
        {
            if (status[0] != '2')
                continue;
            json_object_foreach(json_object_get(openapi_resolve(response), "content"), type,
                                content)
            {
                const json_t *examples = json_object_get(content, "examples");
                ck_assert_msg(json_object_size(examples) > 0, "%s: no example of %s %s",
                              route->operation, status, type);
                json_object_foreach((json_t *)(uintptr_t)examples, name, example)
                {
                    bool endless = json_is_true(json_object_get(example, "x-endless"));
                    ck_assert_msg(endless || is_answered(operation, status, type, name),
                                  "%s: no run gets %s of %s %s", route->operation, name, status,
                                  type);
                }
            }
        }
    }
}
END_TEST

/* --- the examples, live --- */

static struct live_server server;

/* What the last run with `keep` has kept: a name, and the number for {name} in paths. */
static char kept_name[64], kept_value[32];

static void keep(const json_t *run, const struct answer *answer)
{
    const char *name;
    json_t *member;

    json_object_foreach(json_object_get(run, "keep"), name, member)
    {
        const json_t *number = json_object_get(answer->json, json_string_value(member));
        ck_assert(json_is_integer(number));
        snprintf(kept_name, sizeof kept_name, "{%s}", name);
        snprintf(kept_value, sizeof kept_value, "%lld", (long long)json_integer_value(number));
    }
}

static void append(char *out, const char *text)
{
    ck_assert_uint_lt(strlen(out) + strlen(text), TEXT_BYTES);
    strcat(out, text);
}

struct filling {
    char *path;
    const char *rest;  /* of the pattern */
    const json_t *own; /* what the run has in place of a parameter's example */
};

static void fill(void *context, const json_t *parameter)
{
    struct filling *filling = context;
    char braced[64];

    snprintf(braced, sizeof braced, "{%s}", json_string_value(json_object_get(parameter, "name")));
    if (strncmp(filling->rest, braced, strlen(braced)) == 0) {
        const char *own = json_string_value(
            json_object_get(filling->own, json_string_value(json_object_get(parameter, "name"))));
        if (own != NULL && own[0] == '{') {
            ck_assert_str_eq(own, kept_name);
            own = kept_value;
        }
        append(filling->path, own != NULL ? own : openapi_parameter_text(parameter));
        filling->rest += strlen(braced);
    }
}

/* The pattern with the example of each parameter, and the run's query. */
static void run_path(const struct route *route, const json_t *run, char *path)
{
    struct filling filling = {
        .path = path, .rest = route->pattern, .own = json_object_get(run, "path")};
    const char *name, *before = "?";
    json_t *value;
    char piece[64];

    path[0] = '\0';
    while (*filling.rest != '\0') {
        if (*filling.rest == '{')
            openapi_parameters(method_name(route->method), route->pattern, fill, &filling);
        ck_assert_int_ne(*filling.rest, '{');
        snprintf(piece, sizeof piece, "%c", *filling.rest);
        append(path, piece);
        filling.rest += *filling.rest != '\0';
    }
    json_object_foreach(json_object_get(run, "query"), name, value)
    {
        snprintf(piece, sizeof piece, "%s%s=", before, name);
        append(path, piece);
        for (const char *c = json_string_value(value); *c != '\0'; c++) {
            snprintf(piece, sizeof piece, "%%%02X", (unsigned)(unsigned char)*c);
            append(path, piece);
        }
        before = "&";
    }
}

static void run_headers(const json_t *run, char *headers)
{
    const char *type = json_string_value(json_object_get(run, "type")), *name;
    json_t *value;
    char line[256];

    headers[0] = '\0';
    if (type != NULL) {
        snprintf(line, sizeof line, "Content-Type: %s\r\n", type);
        append(headers, line);
    }
    json_object_foreach(json_object_get(run, "headers"), name, value)
    {
        snprintf(line, sizeof line, "%s: %s\r\n", name, json_string_value(value));
        append(headers, line);
    }
}

/* The bytes of an example, malloc'ed; NULL for none. */
static char *example_body(const json_t *example, size_t *size)
{
    const char *text = json_string_value(json_object_get(example, "x-base64"));
    const json_t *value = json_object_get(example, "value");
    char *body;

    *size = 0;
    if (example == NULL)
        return NULL;
    if (text == NULL) {
        body = json_dumps(value != NULL ? value : json_object_get(example, "x-value"),
                          JSON_REAL_PRECISION(17));
        ck_assert_ptr_nonnull(body);
        *size = strlen(body);
        return body;
    }
    size_t length = strlen(text);
    *size = length / 4 * 3 - (text[length - 1] == '=') - (text[length - 2] == '=');
    body = malloc(*size);
    ck_assert_ptr_nonnull(body);
    ck_assert(base64_read(text, length, (unsigned char *)body, *size));
    return body;
}

/* The documented headers that are required are there, the body is of a documented type, and JSON
 * obeys the schema. */
static void check_documented(const json_t *operation, const struct answer *answer, const char *what)
{
    const json_t *response = openapi_response(operation, answer->http.status);
    const json_t *content = json_object_get(response, "content");
    char value[256];
    const char *name;
    json_t *header;

    ck_assert_msg(response != NULL, "%s: %u is not documented", what, answer->http.status);
    json_object_foreach(json_object_get(response, "headers"), name, header)
    {
        if (json_is_true(json_object_get(openapi_resolve(header), "required")))
            ck_assert_msg(http_response_header(&answer->http, name, value, sizeof value) != NULL,
                          "%s: %s is missing", what, name);
    }
    bool typed = http_response_header(&answer->http, "Content-Type", value, sizeof value) != NULL;
    ck_assert_msg(typed == (content != NULL), "%s: a body was not expected, or was", what);
    if (!typed)
        return;
    ck_assert_msg(json_object_get(content, value) != NULL, "%s: %s is not documented", what, value);
    if (answer->json != NULL)
        openapi_check(json_object_get(json_object_get(content, value), "schema"), answer->json,
                      what);
}

/* What is another at every run, by its name. */
static bool varies(const char *name)
{
    size_t size = strlen(name);

    return strcmp(name, "created_at") == 0 || strcmp(name, "last_seen") == 0 ||
           strcmp(name, "number") == 0 || /* of what is in quarantine: counted over all sessions */
           (size > 3 && strcmp(name + size - 3, "_ms") == 0);
}

/* Whether an answer is the one that the example shows: the same members and values, but for what
 * varies; a list may go on where the example ends. An id of the server's choice is one. */
static bool shows(const json_t *example, const json_t *answer)
{
    const char *name;
    json_t *member;

    if (json_is_array(example) && json_is_array(answer)) {
        bool all = json_array_size(example) <= json_array_size(answer);
        for (size_t i = 0; all && i < json_array_size(example); i++)
            all = shows(json_array_get(example, i), json_array_get(answer, i));
        return all && (json_array_size(example) > 0 || json_array_size(answer) == 0);
    }
    if (json_is_object(example) && json_is_object(answer)) {
        bool all = json_object_size(example) == json_object_size(answer);
        json_object_foreach((json_t *)(uintptr_t)example, name, member)
        {
            const json_t *other = json_object_get(answer, name);
            all = all && other != NULL && (varies(name) || shows(member, other));
        }
        return all;
    }
    if (json_is_string(example) && json_is_string(answer) &&
        strncmp(json_string_value(example), "ses_", 4) == 0)
        return strncmp(json_string_value(answer), "ses_", 4) == 0;
    return json_equal(example, answer);
}

/* Holds an answer against the example that the run names: one of its status and media type. */
static void check_shown(const json_t *operation, const json_t *run, const struct answer *answer,
                        const char *what)
{
    const char *name = json_string_value(json_object_get(run, "answer"));
    const json_t *content =
        json_object_get(openapi_response(operation, answer->http.status), "content");
    char type[128] = "";
    size_t size;

    http_response_header(&answer->http, "Content-Type", type, sizeof type);
    const char *as = json_string_value(json_object_get(run, "as"));
    ck_assert_msg(name == NULL || strcmp(type, as == NULL ? "application/json" : as) == 0,
                  "%s: it is %s", what, type);
    if (name == NULL)
        return;
    const json_t *example =
        json_object_get(json_object_get(json_object_get(content, type), "examples"), name);
    ck_assert_msg(example != NULL, "%s: there is no %s", what, name);
    bool any = json_is_true(json_object_get(example, "x-varies"));
    if (answer->json != NULL && json_object_get(example, "value") != NULL) {
        openapi_check(json_object_get(json_object_get(content, type), "schema"),
                      json_object_get(example, "value"), what);
        ck_assert_msg(any || shows(json_object_get(example, "value"), answer->json),
                      "%s: %s is not what is answered: %s", what, name, answer->http.body);
        return;
    }
    if (any)
        return;
    char *bytes = example_body(example, &size);
    ck_assert_msg(size == answer->http.body_size && memcmp(bytes, answer->http.body, size) == 0,
                  "%s: %s is not what is answered", what, name);
    free(bytes);
}

static void run_one(const struct route *route, const json_t *run)
{
    const json_t *operation = operation_of(route);
    const json_t *example = run_example(operation, run);
    const json_t *code = json_object_get(run, "code");
    json_int_t status = json_integer_value(json_object_get(run, "status"));
    char path[TEXT_BYTES], headers[TEXT_BYTES], what[TEXT_BYTES + 256];
    size_t size;
    char *body = example_body(example, &size);

    ck_assert_msg((example != NULL) == (json_object_get(run, "example") != NULL),
                  "%s: a run names an example that is not there", route->operation);
    run_path(route, run, path);
    run_headers(run, headers);
    snprintf(what, sizeof what, "%s %s %s", route->operation,
             example == NULL ? "" : json_string_value(json_object_get(run, "example")), path);
    struct answer answer =
        api_send(server.port, method_name(route->method), path, headers, body, size);
    ck_assert_msg(answer.http.status == status, "%s: %s%s", what, answer.http.head,
                  answer.http.body);
    ck_assert_msg((status >= 400) == (code != NULL), "%s: a problem has a code", what);
    if (code != NULL)
        ck_assert_str_eq(answer_code(&answer), json_string_value(code));
    keep(run, &answer);
    check_documented(operation, &answer, what);
    check_shown(operation, run, &answer, what);
    answer_close(&answer);
    free(body);
}

/* A run, as often as it says. */
static void run_times(const struct route *route, const json_t *run)
{
    const json_t *times = json_object_get(run, "times");

    for (json_int_t i = 0; i < (times == NULL ? 1 : json_integer_value(times)); i++)
        run_one(route, run);
}

/* The route with the smallest x-order above `order`. */
static const struct route *route_after(json_int_t order)
{
    const struct route *route, *found = NULL;
    json_int_t least = 0;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        json_int_t mine = json_integer_value(json_object_get(operation_of(route), "x-order"));
        ck_assert_msg(mine > 0, "%s has no x-order", route->operation);
        if (mine > order && (found == NULL || mine < least)) {
            found = route;
            least = mine;
        }
    }
    return found;
}

START_TEST(examples_answer_as_documented)
{
    const struct route *route;
    size_t routes = 0, count = 0;

    live_server_start(&server, testing_folder(), NULL);
    for (json_int_t order = 0; (route = route_after(order)) != NULL; routes++) {
        const json_t *runs = json_object_get(operation_of(route), "x-runs");
        order = json_integer_value(json_object_get(operation_of(route), "x-order"));
        for (size_t i = 0; i < json_array_size(runs); i++)
            run_times(route, json_array_get(runs, i));
        count += json_array_size(runs);
    }
    ck_assert_msg(router_at(routes) == NULL, "two operations have the same x-order");
    ck_assert_uint_gt(count, 0);
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

Suite *suite_examples(void);
Suite *suite_examples(void)
{
    Suite *suite = suite_create("examples");
    TCase *tests = tcase_create("examples");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_test(tests, every_example_fits_its_schema_and_is_run);
    tcase_add_test(tests, every_answer_has_an_example_that_a_run_gets);
    tcase_add_test(tests, examples_answer_as_documented);
    suite_add_tcase(suite, tests);
    return suite;
}
