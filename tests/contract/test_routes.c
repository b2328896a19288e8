/* What every line of routes.def must do, whatever it does besides. What a route takes is read from
 * api/openapi.json, so that a new route needs no word here. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/router.h"
#include "tests/lib/api_client.h"
#include "tests/lib/live_server.h"
#include "tests/lib/openapi.h"
#include "tests/lib/testing.h"

enum { TEST_TIMEOUT_S = 120, BODY_BYTES_MAX = 4096 };

#define ID "routes"
#define JSON "Content-Type: application/json\r\n"

static const char *const options[] = {"--body-bytes-max", "4096", NULL};
static struct live_server server;

/* --- routes --- */

static const json_t *operation_of(const struct route *route)
{
    return openapi_operation(method_name(route->method), route->pattern);
}

static bool has_id(const struct route *route)
{
    return strstr(route->pattern, "{id}") != NULL;
}

static bool documents(const struct route *route, const char *status)
{
    return json_object_get(json_object_get(operation_of(route), "responses"), status) != NULL;
}

static const json_t *content_of(const struct route *route)
{
    return json_object_get(json_object_get(operation_of(route), "requestBody"), "content");
}

static char *path_of(const struct route *route, const char *id, char path[OPENAPI_PATH_BYTES])
{
    return openapi_path(method_name(route->method), route->pattern, id, path);
}

static struct answer send_to(const struct route *route, const char *id, const char *headers,
                             const char *body, size_t size)
{
    char path[OPENAPI_PATH_BYTES];

    return api_send(server.port, method_name(route->method), path_of(route, id, path), headers,
                    body, size);
}

static struct answer send_json(const struct route *route, const json_t *value)
{
    char *text = json_dumps(value, 0);
    struct answer answer = send_to(route, ID, JSON, text, strlen(text));

    free(text);
    return answer;
}

/* A whole request of a route that takes JSON: the first example of its kind. */
static json_t *example_of(const struct route *route)
{
    const json_t *examples =
        json_object_get(json_object_get(content_of(route), "application/json"), "examples");
    void *first = json_object_iter((json_t *)(uintptr_t)examples);

    ck_assert_msg(first != NULL, "%s has no example in JSON", route->operation);
    return json_deep_copy(json_object_get(json_object_iter_value(first), "value"));
}

static const json_t *properties_of(const struct route *route)
{
    const json_t *schema = openapi_resolve(
        json_object_get(json_object_get(content_of(route), "application/json"), "schema"));

    return json_object_get(schema, "properties");
}

/* A problem of this code, of a status that the route documents. */
static void check_refused(const struct route *route, const struct answer *answer, unsigned status,
                          const char *code)
{
    const json_t *response = openapi_response(operation_of(route), status);

    answer_check_problem(answer, status, code, route->operation);
    ck_assert_msg(openapi_lists(openapi_codes(response), code), "%s does not document %u %s",
                  route->operation, status, code);
    openapi_check(json_object_get(json_object_get(json_object_get(response, "content"),
                                                  "application/problem+json"),
                                  "schema"),
                  answer->json, route->operation);
}

/* A server with a session whose layout is that of the examples. */
static void start(void)
{
    live_server_start(&server, testing_folder(), options);
    struct answer answer =
        api_send_json(server.port, "PUT", "/v1/sessions/" ID,
                      "{\"optimizer\": \"adam\", \"parameters\": {\"w\": [[0, 0], [0, 0]], "
                      "\"b\": [0, 0]}}");
    ck_assert_uint_eq(answer.http.status, 201);
    answer_close(&answer);
}

static void stop(void)
{
    ck_assert_int_eq(live_server_stop(&server), 0);
}

/* --- addresses and methods --- */

START_TEST(absent_session_is_not_found)
{
    static const char *const ids[] = {"absent", "NO-ID", "no%2Fid", "-x"};
    const struct route *route;
    size_t count = 0;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        /* What answers 201 makes the session. */
        if (!has_id(route) || documents(route, "201"))
            continue;
        json_t *example = route->takes_body ? example_of(route) : NULL;
        char *body = example == NULL ? NULL : json_dumps(example, 0);
        for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
            struct answer answer = send_to(route, ids[i], body == NULL ? "" : JSON, body,
                                           body == NULL ? 0 : strlen(body));
            check_refused(route, &answer, 404, "session_not_found");
            answer_close(&answer);
        }
        free(body);
        json_decref(example);
        count++;
    }
    ck_assert_uint_gt(count, 0);
    stop();
}
END_TEST

/* The methods of a pattern as Allow lists them. */
static bool takes(const char *pattern, const char *method)
{
    const struct route *route;

    if (strcmp(method, "OPTIONS") == 0)
        return true;
    for (size_t r = 0; (route = router_at(r)) != NULL; r++)
        if (strcmp(route->pattern, pattern) == 0 &&
            strcmp(method_name(route->method), strcmp(method, "HEAD") == 0 ? "GET" : method) == 0)
            return true;
    return false;
}

static void check_allow(const char *pattern, const struct answer *answer)
{
    static const char *const methods[] = {"GET",   "HEAD",   "POST",    "PUT",
                                          "PATCH", "DELETE", "OPTIONS", "BREW"};
    char allow[256], listed[300], wanted[32];

    ck_assert_msg(http_response_header(&answer->http, "Allow", allow, sizeof allow) != NULL,
                  "%s: no Allow", pattern);
    snprintf(listed, sizeof listed, ", %s,", allow);
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        snprintf(wanted, sizeof wanted, ", %s,", methods[i]);
        ck_assert_msg((strstr(listed, wanted) != NULL) == takes(pattern, methods[i]),
                      "%s: Allow is %s", pattern, allow);
    }
}

START_TEST(other_methods_are_refused_with_the_allowed_ones)
{
    static const char *const methods[] = {"GET",    "POST", "PUT",   "PATCH",
                                          "DELETE", "BREW", "TRACE", "OPTIONS"};
    const struct route *route;
    char path[OPENAPI_PATH_BYTES];

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        path_of(route, ID, path);
        for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
            bool asks = strcmp(methods[i], "OPTIONS") == 0;
            if (!asks && takes(route->pattern, methods[i]))
                continue;
            struct answer answer = api_send(server.port, methods[i], path, "", NULL, 0);
            if (asks)
                ck_assert_uint_eq(answer.http.status, 204);
            else
                answer_check_problem(&answer, 405, "method_not_allowed", path);
            check_allow(route->pattern, &answer);
            answer_close(&answer);
        }
    }
    stop();
}
END_TEST

/* 200, but where the path names something that a new session does not have. */
static bool is_found(const struct route *route, unsigned status)
{
    const char *id = strstr(route->pattern, "{id}");
    bool names = id != NULL && strchr(id + 1, '{') != NULL;

    return status == (names ? 404 : 200);
}

START_TEST(head_is_get_without_the_body)
{
    const struct route *route;
    char path[OPENAPI_PATH_BYTES], got[128], headed[128];
    static const char *const headers[] = {"Content-Type", "Content-Length", "ETag"};
    size_t count = 0;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        if (route->method != METHOD_GET)
            continue;
        struct answer get = api_send(server.port, "GET", path_of(route, ID, path), "", NULL, 0);
        struct http_client *client = http_client_open(server.port, 10);
        struct http_response head, after;
        ck_assert(http_client_request(client, "HEAD", path, "", NULL, 0, &head));
        ck_assert_msg(is_found(route, get.http.status), "%s: %u", path, get.http.status);
        ck_assert_msg(head.status == get.http.status, "%s: %u", path, head.status);
        for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
            const char *mine = http_response_header(&get.http, headers[i], got, sizeof got);
            const char *other = http_response_header(&head, headers[i], headed, sizeof headed);
            ck_assert_msg((mine == NULL) == (other == NULL), "%s: %s", path, headers[i]);
            /* The figures of the service are others at every look. */
            if (strcmp(route->operation, "metrics") == 0 &&
                strcmp(headers[i], "Content-Length") == 0)
                continue;
            ck_assert_msg(mine == NULL || strcmp(mine, other) == 0, "%s: %s", path, headers[i]);
        }
        /* A body would be taken for the head of the next answer. */
        ck_assert(http_client_request(client, "HEAD", path, "", NULL, 0, &after));
        ck_assert_msg(after.status == head.status, "%s: HEAD has a body", path);
        http_response_free(&after);
        http_response_free(&head);
        http_client_close(client);
        answer_close(&get);
        count++;
    }
    ck_assert_uint_gt(count, 0);
    stop();
}
END_TEST

/* --- queries --- */

START_TEST(unknown_query_parameter_is_named)
{
    const struct route *route;
    char path[OPENAPI_PATH_BYTES], asked[OPENAPI_PATH_BYTES + 32];

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        json_t *example = route->takes_body ? example_of(route) : NULL;
        char *body = example == NULL ? NULL : json_dumps(example, 0);
        snprintf(asked, sizeof asked, "%s?no_such_key=1", path_of(route, ID, path));
        struct answer answer =
            api_send(server.port, method_name(route->method), asked, body == NULL ? "" : JSON, body,
                     body == NULL ? 0 : strlen(body));
        check_refused(route, &answer, 400, "invalid_request");
        ck_assert_msg(strstr(answer_detail(&answer), "no_such_key") != NULL, "%s: %s",
                      route->operation, answer_detail(&answer));
        answer_close(&answer);
        free(body);
        json_decref(example);
    }
    stop();
}
END_TEST

static void check_query_known(void *context, const json_t *parameter)
{
    const struct route *route = context;
    const char *name = json_string_value(json_object_get(parameter, "name"));
    char path[OPENAPI_PATH_BYTES], asked[OPENAPI_PATH_BYTES + 64];

    if (strcmp(json_string_value(json_object_get(parameter, "in")), "query") != 0)
        return;
    snprintf(asked, sizeof asked, "%s?%s=%%01", path_of(route, ID, path), name);
    struct answer answer =
        api_send(server.port, method_name(route->method), asked,
                 "Content-Type: application/octet-stream\r\nAccept: application/octet-stream, "
                 "application/json;q=0.5, */*;q=0.1\r\n",
                 route->takes_body ? "x" : NULL, 1);
    ck_assert_msg(strstr(answer_detail(&answer), "no query parameter") == NULL, "%s: %s",
                  route->operation, answer_detail(&answer));
    /* Text takes anything; what a byte of 1 cannot be is refused, saying where. */
    bool text = strcmp(answer_code(&answer), "length_mismatch") == 0 || answer.http.status == 200;
    char wanted[64];
    snprintf(wanted, sizeof wanted, "/%s", name);
    ck_assert_msg(text || strcmp(answer_pointer(&answer), wanted) == 0, "%s: %s", asked,
                  answer.http.body);
    answer_close(&answer);
}

START_TEST(documented_query_parameters_exist)
{
    const struct route *route;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++)
        openapi_parameters(method_name(route->method), route->pattern, check_query_known,
                           (void *)(uintptr_t)route);
    stop();
}
END_TEST

/* --- JSON members --- */

/* {"<object>": {"no_such_field": 1}}, or the member itself where `object` is NULL. */
static void check_unknown_member(const struct route *route, const char *object)
{
    json_t *body = example_of(route);
    json_t *place = body;
    char wanted[128];

    if (object != NULL) {
        place = json_object();
        json_object_set_new(body, object, place);
    }
    json_object_set_new(place, "no_such_field", json_integer(1));
    snprintf(wanted, sizeof wanted, "%s%s/no_such_field", object != NULL ? "/" : "",
             object != NULL ? object : "");
    struct answer answer = send_json(route, body);
    check_refused(route, &answer, 422, "unknown_field");
    ck_assert_msg(strcmp(answer_pointer(&answer), wanted) == 0, "%s: %s is not %s",
                  route->operation, answer_pointer(&answer), wanted);
    answer_close(&answer);
    json_decref(body);
}

START_TEST(unknown_field_is_refused_with_its_pointer)
{
    const struct route *route;
    const char *name;
    json_t *property;
    size_t count = 0;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        if (!route->takes_body)
            continue;
        check_unknown_member(route, NULL);
        json_object_foreach((json_t *)(uintptr_t)properties_of(route), name, property)
        {
            const json_t *schema = openapi_resolve(property);
            if (json_object_get(schema, "properties") == NULL)
                continue;
            check_unknown_member(route, name);
            count++;
        }
    }
    ck_assert_uint_gt(count, 0);
    stop();
}
END_TEST

/* A field that did not exist would be an unknown one. */
START_TEST(every_documented_field_exists_and_has_a_type)
{
    const struct route *route;
    const char *name;
    json_t *property;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        json_object_foreach((json_t *)(uintptr_t)properties_of(route), name, property)
        {
            json_t *body = example_of(route);
            char wanted[64];
            bool flag = openapi_is_boolean(property);
            json_object_set_new(body, name, flag ? json_integer(1) : json_false());
            snprintf(wanted, sizeof wanted, "/%s", name);
            struct answer answer = send_json(route, body);
            check_refused(route, &answer, 422, "invalid_field");
            ck_assert_msg(strcmp(answer_pointer(&answer), wanted) == 0, "%s: %s is not %s",
                          route->operation, answer_pointer(&answer), wanted);
            answer_close(&answer);
            json_decref(body);
        }
    }
    stop();
}
END_TEST

/* The refusal of an unknown field lists the known ones. */
START_TEST(every_field_that_exists_is_documented)
{
    const struct route *route;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        if (!route->takes_body)
            continue;
        json_t *body = json_pack("{s:i}", "no_such_field", 1);
        struct answer answer = send_json(route, body);
        const char *list = strstr(answer_detail(&answer), "there are: ");
        size_t count = 0;
        ck_assert_msg(list != NULL, "%s: %s", route->operation, answer_detail(&answer));
        for (list += strlen("there are: "); *list != '\0'; count++) {
            char name[64];
            size_t size = strcspn(list, ",");
            snprintf(name, sizeof name, "%.*s", (int)size, list);
            ck_assert_msg(json_object_get(properties_of(route), name) != NULL,
                          "%s does not document %s", route->operation, name);
            list += size + strspn(list + size, ", ");
        }
        ck_assert_uint_eq(count, json_object_size(properties_of(route)));
        answer_close(&answer);
        json_decref(body);
    }
    stop();
}
END_TEST

/* --- bodies --- */

START_TEST(a_body_is_refused_where_none_is_taken)
{
    const struct route *route;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        if (route->takes_body)
            continue;
        struct answer answer = send_to(route, ID, JSON, "{}", 2);
        check_refused(route, &answer, 400, "invalid_request");
        answer_close(&answer);
    }
    struct answer answer = api_send(server.port, "GET", "/v1/sessions/" ID, "", NULL, 0);
    ck_assert_uint_eq(answer.http.status, 200); /* nothing was deleted */
    answer_close(&answer);
    stop();
}
END_TEST

START_TEST(a_missing_body_is_refused_where_one_is_needed)
{
    const struct route *route;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        if (!route->takes_body)
            continue;
        struct answer answer = send_to(route, ID, JSON, NULL, 0);
        check_refused(route, &answer, 400, "invalid_request");
        answer_close(&answer);
        answer = send_to(route, ID, JSON, "", 0);
        check_refused(route, &answer, 400, "invalid_request");
        answer_close(&answer);
    }
    stop();
}
END_TEST

START_TEST(an_oversize_body_is_refused)
{
    static char body[BODY_BYTES_MAX + 1];
    const struct route *route;

    memset(body, ' ', sizeof body);
    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        if (!route->takes_body)
            continue;
        struct answer answer = send_to(route, ID, JSON, body, sizeof body);
        check_refused(route, &answer, 413, "too_large");
        answer_close(&answer);
        answer = send_to(route, ID, JSON, body, sizeof body - 1); /* just fits, but is no JSON */
        check_refused(route, &answer, 400, "invalid_json");
        answer_close(&answer);
    }
    stop();
}
END_TEST

static bool field_lists(const struct answer *answer, const char *name, const char *word)
{
    char value[256];

    return http_response_header(&answer->http, name, value, sizeof value) != NULL &&
           strstr(value, word) != NULL;
}

START_TEST(another_media_type_is_refused_with_the_list)
{
    static const char *const types[] = {"text/plain",
                                        "application/jsonx",
                                        "application/json, text/plain",
                                        "json",
                                        "multipart/form-data; boundary=json",
                                        "application/x-www-form-urlencoded"};
    const struct route *route;
    char header[128];

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        for (size_t i = 0; route->takes_body && i < sizeof types / sizeof *types; i++) {
            const char *known;
            json_t *content;
            snprintf(header, sizeof header, "Content-Type: %s\r\n", types[i]);
            struct answer answer = send_to(route, ID, header, "{}", 2);
            check_refused(route, &answer, 415, "unsupported_media_type");
            json_object_foreach((json_t *)(uintptr_t)content_of(route), known, content)
                ck_assert_msg(strstr(answer_detail(&answer), known) != NULL &&
                                  field_lists(&answer, "Accept", known) &&
                                  (route->method != METHOD_PATCH ||
                                   field_lists(&answer, "Accept-Patch", known)),
                              "%s: %s is not in: %s", route->operation, known, answer.http.head);
            answer_close(&answer);
        }
    }
    stop();
}
END_TEST

/* RFC 8259, 8.1: there is no other JSON. */
START_TEST(json_in_another_charset_is_refused)
{
    static const char *const charsets[] = {"iso-8859-1", "\"UTF-16\"", "utf-8x", "utf-"};
    static const char *const right[] = {"utf-8", "\"UTF-8\"", "utf8", "us-ascii", ""};
    const struct route *route;
    char header[128];

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        for (size_t i = 0; route->takes_body && i < sizeof charsets / sizeof *charsets; i++) {
            snprintf(header, sizeof header, "Content-Type: application/json; a=b;charset=%s\r\n",
                     charsets[i]);
            struct answer answer = send_to(route, ID, header, "[", 1);
            check_refused(route, &answer, 415, "unsupported_media_type");
            ck_assert_ptr_nonnull(strstr(answer_detail(&answer), "UTF-8"));
            answer_close(&answer);
        }
        for (size_t i = 0; route->takes_body && i < sizeof right / sizeof *right; i++) {
            snprintf(header, sizeof header, "Content-Type: application/json; charset=%s\r\n",
                     right[i]);
            struct answer answer = send_to(route, ID, header, "[", 1);
            check_refused(route, &answer, 400, "invalid_json");
            answer_close(&answer);
        }
    }
    stop();
}
END_TEST

START_TEST(media_types_are_known_in_any_case_and_with_parameters)
{
    const struct route *route;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        const char *known;
        json_t *content;
        json_object_foreach((json_t *)(uintptr_t)content_of(route), known, content)
        {
            char header[160] = "Content-Type: ";
            size_t used = strlen(header);
            for (const char *c = known; *c != '\0'; c++)
                header[used++] = (char)(*c >= 'a' && *c <= 'z' ? *c - 32 : *c);
            snprintf(header + used, sizeof header - used, " ; charset=UTF-8\r\n");
            struct answer answer = send_to(route, ID, header, "[", 1);
            ck_assert_msg(answer.http.status == 400 || answer.http.status == 422, "%s: %s: %s",
                          route->operation, header, answer.http.body);
            answer_close(&answer);
        }
    }
    stop();
}
END_TEST

/* --- what comes back --- */

/* There is a choice of media types; else 406 is about codings alone. */
static bool negotiates(const struct route *route)
{
    const json_t *response =
        json_object_get(json_object_get(operation_of(route), "responses"), "406");

    return strcmp(json_string_value(json_object_get(response, "$ref")),
                  "#/components/responses/NotAcceptable") == 0;
}

START_TEST(an_unacceptable_type_is_refused_with_the_list)
{
    static const char headers[] =
        JSON "Prefer: return=representation\r\nAccept: image/png, application/json;q=0\r\n";
    const struct route *route;
    size_t count = 0;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        if (!negotiates(route))
            continue;
        json_t *example = route->takes_body ? example_of(route) : NULL;
        char *body = example == NULL ? NULL : json_dumps(example, 0);
        const json_t *served = json_object_get(
            json_object_get(json_object_get(operation_of(route), "responses"), "200"), "content");
        const char *type;
        json_t *content;
        struct answer answer = send_to(route, ID, headers, body, body == NULL ? 0 : strlen(body));
        check_refused(route, &answer, 406, "not_acceptable");
        json_object_foreach((json_t *)(uintptr_t)served, type, content)
            ck_assert_msg(strstr(answer_detail(&answer), type) != NULL, "%s: %s is not in: %s",
                          route->operation, type, answer_detail(&answer));
        answer_close(&answer);
        free(body);
        json_decref(example);
        count++;
    }
    ck_assert_uint_gt(count, 0);
    struct answer answer = api_send(server.port, "GET", "/v1/sessions/" ID, "", NULL, 0);
    ck_assert_int_eq(json_integer_value(json_object_get(answer.json, "step")), 0);
    answer_close(&answer);
    stop();
}
END_TEST

START_TEST(a_request_id_is_taken_over_if_it_is_sane)
{
    const struct route *route;
    char value[128];

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        char path[OPENAPI_PATH_BYTES], asked[OPENAPI_PATH_BYTES + 16];
        snprintf(asked, sizeof asked, "%s?a&a", path_of(route, ID, path));
        struct answer answer = api_send(server.port, method_name(route->method), asked,
                                        "X-Request-Id: my-own.id\r\n", NULL, 0);
        check_refused(route, &answer, 400, "invalid_request"); /* compares body and header */
        ck_assert_str_eq(http_response_header(&answer.http, "Request-Id", value, sizeof value),
                         "my-own.id");
        answer_close(&answer);
        answer = api_send(server.port, method_name(route->method), asked,
                          "X-Request-Id: my \"own\"\r\n", NULL, 0);
        ck_assert_str_ne(http_response_header(&answer.http, "Request-Id", value, sizeof value),
                         "my \"own\"");
        answer_close(&answer);
    }
    stop();
}
END_TEST

Suite *suite_routes(void);
Suite *suite_routes(void)
{
    Suite *suite = suite_create("routes");
    TCase *tests = tcase_create("routes");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, NULL);
    tcase_add_test(tests, absent_session_is_not_found);
    tcase_add_test(tests, other_methods_are_refused_with_the_allowed_ones);
    tcase_add_test(tests, head_is_get_without_the_body);
    tcase_add_test(tests, unknown_query_parameter_is_named);
    tcase_add_test(tests, documented_query_parameters_exist);
    tcase_add_test(tests, unknown_field_is_refused_with_its_pointer);
    tcase_add_test(tests, every_documented_field_exists_and_has_a_type);
    tcase_add_test(tests, every_field_that_exists_is_documented);
    tcase_add_test(tests, a_body_is_refused_where_none_is_taken);
    tcase_add_test(tests, a_missing_body_is_refused_where_one_is_needed);
    tcase_add_test(tests, an_oversize_body_is_refused);
    tcase_add_test(tests, another_media_type_is_refused_with_the_list);
    tcase_add_test(tests, json_in_another_charset_is_refused);
    tcase_add_test(tests, media_types_are_known_in_any_case_and_with_parameters);
    tcase_add_test(tests, an_unacceptable_type_is_refused_with_the_list);
    tcase_add_test(tests, a_request_id_is_taken_over_if_it_is_sane);
    suite_add_tcase(suite, tests);
    return suite;
}
