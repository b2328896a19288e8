/* api/openapi.json against the tables it describes, routes.def and status.def. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/router.h"
#include "service/core/status.h"
#include "tests/lib/api_client.h"
#include "tests/lib/live_server.h"
#include "tests/lib/openapi.h"
#include "tests/lib/testing.h"

enum { TEST_TIMEOUT_S = 120, WAIT_S = 30 };

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
    ck_assert_ptr_nonnull(openapi_parameter_text(parameter));
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
        for (size_t r = 0; (route = router_at(r)) != NULL; r++)
            found |=
                openapi_lists(openapi_codes(openapi_response(operation_of(route), http)), code);
        ck_assert_msg(found, "%u %s is documented nowhere", http, code);
    }
}
END_TEST

/* The status of the table that comes with this number and code, or STATUS_OK. */
static enum status find_status(unsigned http, const char *code)
{
    for (int status = STATUS_OK + 1; status < STATUS_COUNT; status++)
        if (status_http((enum status)status) == http &&
            strcmp(status_code((enum status)status), code) == 0)
            return (enum status)status;
    return STATUS_OK;
}

/* The codes of a response are those of its status, each with an example that has its title. */
static void check_problems(const char *operation, const char *key, const json_t *response)
{
    const json_t *codes = openapi_codes(response);
    const json_t *content =
        json_object_get(json_object_get(response, "content"), "application/problem+json");
    const json_t *schema = json_object_get(content, "schema");

    ck_assert_msg(json_array_size(codes) > 0, "%s: %s has no codes", operation, key);
    ck_assert_uint_eq(json_array_size(codes),
                      json_object_size(json_object_get(content, "examples")));
    for (size_t i = 0; i < json_array_size(codes); i++) {
        const char *code = json_string_value(json_array_get(codes, i));
        enum status status = find_status((unsigned)atoi(key), code);
        ck_assert_msg(status != STATUS_OK, "%s: %s does not come with %s", operation, code, key);
        const json_t *example = json_object_get(json_object_get(content, "examples"), code);
        ck_assert_msg(example != NULL, "%s: %s has no example of %s", operation, key, code);
        const json_t *value = json_object_get(openapi_resolve(example), "value");
        openapi_check(schema, value, code);
        ck_assert_str_eq(json_string_value(json_object_get(value, "code")), code);
        ck_assert_str_eq(json_string_value(json_object_get(value, "title")), status_title(status));
        ck_assert_int_eq(json_integer_value(json_object_get(value, "status")), atoi(key));
    }
}

START_TEST(no_status_is_documented_with_a_code_of_another)
{
    const struct route *route;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        const char *key;
        json_t *response;
        json_object_foreach(json_object_get(operation_of(route), "responses"), key, response)
        {
            ck_assert_msg(strlen(key) == 3 && key[0] >= '2' && key[0] <= '5', "%s: %s",
                          route->operation, key);
            if (key[0] >= '4')
                check_problems(route->operation, key, openapi_resolve(response));
        }
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

START_TEST(the_server_hands_out_this_document)
{
    struct live_server server;

    live_server_start(&server, testing_folder(), NULL);
    struct answer answer = api_send(server.port, "GET", "/openapi.json", "", NULL, 0);
    ck_assert_msg(json_equal(answer.json, openapi_document()), "build/descent has another one");
    answer_close(&answer);
    /* It is the longest answer that is coded in steps. */
    struct http_client *client = http_client_open(server.port, WAIT_S);
    struct http_response coded;
    ck_assert(http_client_request(client, "GET", "/openapi.json", "Accept-Encoding: gzip\r\n", NULL,
                                  0, &coded));
    ck_assert_uint_eq(coded.status, 200);
    ck_assert_uint_lt(coded.body_size, json_dumpb(openapi_document(), NULL, 0, 0));
    http_response_free(&coded);
    http_client_close(client);
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
    tcase_add_test(tests, the_server_hands_out_this_document);
    suite_add_tcase(suite, tests);
    return suite;
}
