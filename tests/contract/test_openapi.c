/* api/openapi.json against the tables it describes (routes.def, status.def), and its example
 * requests against a live server. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/base64.h"
#include "api/router.h"
#include "service/core/status.h"
#include "tests/lib/api_client.h"
#include "tests/lib/live_server.h"
#include "tests/lib/openapi.h"
#include "tests/lib/testing.h"

enum { TEXT_BYTES = 4096, TEST_TIMEOUT_S = 120 };

static const json_t *operation_of(const struct route *route)
{
    return openapi_operation(method_name(route->method), route->pattern);
}

/* --- routes.def --- */

START_TEST(every_route_is_described_under_its_name)
{
    const struct route *route;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        const char *id = json_string_value(json_object_get(operation_of(route), "operationId"));
        ck_assert_msg(id != NULL, "%s is not described", route->operation);
        ck_assert_str_eq(id, route->operation);
        bool takes_body = json_object_get(operation_of(route), "requestBody") != NULL;
        ck_assert_msg(takes_body == route->takes_body, "%s: requestBody", route->operation);
    }
}
END_TEST

static bool in_table(const char *method, const char *pattern)
{
    const struct route *route;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++)
        if (strcasecmp(method_name(route->method), method) == 0 &&
            strcmp(route->pattern, pattern) == 0)
            return true;
    return false;
}

START_TEST(nothing_is_described_that_is_no_route)
{
    const char *pattern, *method;
    json_t *item, *operation;

    json_object_foreach(json_object_get(openapi_document(), "paths"), pattern, item)
    {
        json_object_foreach(item, method, operation)
        {
            if (strcmp(method, "parameters") != 0)
                ck_assert_msg(in_table(method, pattern), "%s %s is no route", method, pattern);
        }
    }
}
END_TEST

struct path_count {
    const char *pattern;
    size_t count;
};

static void count_path_parameter(void *context, const json_t *parameter)
{
    struct path_count *found = context;
    char braced[64];

    if (strcmp(json_string_value(json_object_get(parameter, "in")), "path") != 0)
        return;
    snprintf(braced, sizeof braced, "{%s}", json_string_value(json_object_get(parameter, "name")));
    ck_assert_msg(strstr(found->pattern, braced) != NULL, "%s has no %s", found->pattern, braced);
    ck_assert(json_is_true(json_object_get(parameter, "required")));
    ck_assert(json_is_string(json_object_get(parameter, "example")));
    found->count++;
}

START_TEST(every_path_parameter_is_declared_once)
{
    const struct route *route;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        struct path_count found = {.pattern = route->pattern};
        size_t braces = 0;
        for (const char *c = route->pattern; *c != '\0'; c++)
            braces += *c == '{';
        openapi_parameters(method_name(route->method), route->pattern, count_path_parameter,
                           &found);
        ck_assert_msg(found.count == braces, "%s declares %zu of its %zu parameters",
                      route->operation, found.count, braces);
    }
}
END_TEST

/* --- status.def --- */

START_TEST(codes_are_those_of_the_status_table)
{
    const json_t *problem = json_object_get(
        json_object_get(json_object_get(openapi_document(), "components"), "schemas"), "Problem");
    const json_t *codes =
        json_object_get(json_object_get(json_object_get(problem, "properties"), "code"), "enum");

    for (int status = STATUS_OK + 1; status < STATUS_COUNT; status++)
        ck_assert_msg(openapi_lists(codes, status_code((enum status)status)), "%s is not listed",
                      status_code((enum status)status));
    for (size_t i = 0; i < json_array_size(codes); i++) {
        const char *code = json_string_value(json_array_get(codes, i));
        bool known = false;
        for (int status = STATUS_OK + 1; status < STATUS_COUNT; status++)
            known |= strcmp(status_code((enum status)status), code) == 0;
        ck_assert_msg(known, "%s is in no table", code);
        for (size_t k = 0; k < i; k++)
            ck_assert_str_ne(json_string_value(json_array_get(codes, k)), code);
    }
}
END_TEST

/* Each status of the table is documented by an operation, with its code under its HTTP number. */
START_TEST(every_status_is_documented_with_its_code)
{
    const struct route *route;

    for (int status = STATUS_OK + 1; status < STATUS_COUNT; status++) {
        unsigned http = status_http((enum status)status);
        const char *code = status_code((enum status)status);
        bool found = false;
        for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
            const json_t *response = openapi_response(operation_of(route), http);
            found |= openapi_lists(json_object_get(response, "x-codes"), code);
        }
        ck_assert_msg(found, "%u %s is documented nowhere", http, code);
    }
}
END_TEST

static bool is_status(unsigned http, const char *code)
{
    for (int status = STATUS_OK + 1; status < STATUS_COUNT; status++)
        if (status_http((enum status)status) == http &&
            strcmp(status_code((enum status)status), code) == 0)
            return true;
    return false;
}

static void check_response_codes(const struct route *route, const char *key, const json_t *response)
{
    const json_t *codes = json_object_get(response, "x-codes");
    const json_t *statuses = json_object_get(response, "x-statuses");

    if (key[0] == '2' || key[0] == '3')
        return;
    ck_assert_msg(json_array_size(codes) > 0, "%s: %s has no codes", route->operation, key);
    for (size_t i = 0; i < json_array_size(codes); i++) {
        const char *code = json_string_value(json_array_get(codes, i));
        bool known = statuses == NULL && is_status((unsigned)atoi(key), code);
        for (size_t k = 0; k < json_array_size(statuses); k++)
            known |= is_status((unsigned)json_integer_value(json_array_get(statuses, k)), code);
        ck_assert_msg(known, "%s: %s does not come with %s", route->operation, code, key);
    }
}

START_TEST(no_status_is_documented_with_a_code_of_another)
{
    const struct route *route;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        const char *key;
        json_t *response;
        json_object_foreach(json_object_get(operation_of(route), "responses"), key, response)
            check_response_codes(route, key, openapi_resolve(response));
    }
}
END_TEST

/* --- the document itself --- */

static bool refers(const json_t *node, const char *reference)
{
    const char *name;
    json_t *member;

    for (size_t i = 0; i < json_array_size(node); i++)
        if (refers(json_array_get(node, i), reference))
            return true;
    json_object_foreach((json_t *)(uintptr_t)node, name, member)
    {
        const char *text = json_string_value(member);
        if (strcmp(name, "$ref") == 0 && text != NULL) {
            (void)openapi_resolve(node);
            if (strcmp(text, reference) == 0)
                return true;
        } else if (refers(member, reference)) {
            return true;
        }
    }
    return false;
}

/* A scheme is not referred to, but named where it is needed. */
static bool is_required(const char *scheme)
{
    const struct route *route;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        const json_t *security = json_object_get(operation_of(route), "security");
        for (size_t i = 0; i < json_array_size(security); i++)
            if (json_object_get(json_array_get(security, i), scheme) != NULL)
                return true;
    }
    return false;
}

START_TEST(every_reference_leads_somewhere_and_every_component_is_referred_to)
{
    const char *kind, *name;
    json_t *components, *component;
    char reference[128];

    ck_assert(!refers(openapi_document(), "#/nowhere")); /* walks all of it */
    json_object_foreach(json_object_get(openapi_document(), "components"), kind, components)
    {
        json_object_foreach(components, name, component)
        {
            snprintf(reference, sizeof reference, "#/components/%s/%s", kind, name);
            bool scheme = strcmp(kind, "securitySchemes") == 0;
            ck_assert_msg(scheme ? is_required(name) : refers(openapi_document(), reference),
                          "%s is not used", reference);
        }
    }
}
END_TEST

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
            const json_t *examples = json_object_get(content, "examples");
            ck_assert_msg(json_object_size(examples) > 0, "%s: no example of %s", route->operation,
                          type);
            json_object_foreach((json_t *)(uintptr_t)examples, name, example)
            {
                const json_t *value = json_object_get(example, "value");
                ck_assert_msg(is_run(operation, example), "%s: %s is not run", route->operation,
                              name);
                if (value != NULL)
                    openapi_check(json_object_get(content, "schema"), value, name);
            }
        }
    }
}
END_TEST

/* --- the examples, live --- */

static struct live_server server;

static void append(char *out, const char *text)
{
    ck_assert_uint_lt(strlen(out) + strlen(text), TEXT_BYTES);
    strcat(out, text);
}

struct filling {
    char *path;
    const char *rest; /* of the pattern */
};

static void fill(void *context, const json_t *parameter)
{
    struct filling *filling = context;
    char braced[64];

    snprintf(braced, sizeof braced, "{%s}", json_string_value(json_object_get(parameter, "name")));
    if (strncmp(filling->rest, braced, strlen(braced)) == 0) {
        append(filling->path, json_string_value(json_object_get(parameter, "example")));
        filling->rest += strlen(braced);
    }
}

/* The pattern with the example of each parameter, and the run's query. */
static void run_path(const struct route *route, const json_t *run, char *path)
{
    struct filling filling = {.path = path, .rest = route->pattern};
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

/* The body of an example, malloc'ed; NULL for none. */
static char *example_body(const json_t *example, size_t *size)
{
    const char *text = json_string_value(json_object_get(example, "x-base64"));
    char *body;

    *size = 0;
    if (example == NULL)
        return NULL;
    if (text == NULL) {
        body = json_dumps(json_object_get(example, "value"), JSON_REAL_PRECISION(17));
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

static void run_one(const struct route *route, const json_t *run)
{
    const json_t *operation = operation_of(route);
    const json_t *example = run_example(operation, run);
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
    ck_assert_msg(answer.http.status == json_integer_value(json_object_get(run, "status")),
                  "%s: %s%s", what, answer.http.head, answer.http.body);
    check_documented(operation, &answer, what);
    answer_close(&answer);
    free(body);
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
            run_one(route, json_array_get(runs, i));
        count += json_array_size(runs);
    }
    ck_assert_msg(router_at(routes) == NULL, "two operations have the same x-order");
    ck_assert_uint_gt(count, 0);
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

START_TEST(the_server_hands_out_this_document)
{
    live_server_start(&server, testing_folder(), NULL);
    struct answer answer = api_send(server.port, "GET", "/openapi.json", "", NULL, 0);
    ck_assert_msg(json_equal(answer.json, openapi_document()), "build/descent has another one");
    answer_close(&answer);
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

Suite *suite_openapi(void);
Suite *suite_openapi(void)
{
    Suite *suite = suite_create("openapi");
    TCase *tests = tcase_create("openapi");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_test(tests, every_route_is_described_under_its_name);
    tcase_add_test(tests, nothing_is_described_that_is_no_route);
    tcase_add_test(tests, every_path_parameter_is_declared_once);
    tcase_add_test(tests, codes_are_those_of_the_status_table);
    tcase_add_test(tests, every_status_is_documented_with_its_code);
    tcase_add_test(tests, no_status_is_documented_with_a_code_of_another);
    tcase_add_test(tests, every_reference_leads_somewhere_and_every_component_is_referred_to);
    tcase_add_test(tests, every_example_fits_its_schema_and_is_run);
    tcase_add_test(tests, examples_answer_as_documented);
    tcase_add_test(tests, the_server_hands_out_this_document);
    suite_add_tcase(suite, tests);
    return suite;
}
