/* Who may do what, at every route of routes.def, so that a new one needs no word here: without a
 * token, with bad ones, and with one of each scope. */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "service/core/clock.h"
#include "tests/lib/gate.h"
#include "tests/lib/openapi.h"
#include "tests/lib/testing.h"

enum { TEST_TIMEOUT_S = 120, HEADER_BYTES = 512 };

#define REALM "Bearer realm=\"descent\""
#define BAD REALM ", error=\"invalid_token\""
#define LACKS(scope) REALM ", error=\"insufficient_scope\", scope=\"" scope "\""

static bool is_open(const struct route *route)
{
    return strncmp(route->pattern, "/v1", 3) != 0 && strcmp(route->pattern, "/metrics") != 0;
}

static void check_challenge(const struct answer *answer, const char *challenge, const char *what)
{
    char value[256];

    ck_assert_msg(http_response_header(&answer->http, "WWW-Authenticate", value, sizeof value) !=
                      NULL,
                  "%s: no challenge: %s", what, answer->http.head);
    ck_assert_msg(strcmp(value, challenge) == 0, "%s: %s", what, value);
}

static void check_refused(const struct route *route, const struct answer *answer, unsigned status,
                          const char *code, const char *challenge)
{
    const json_t *operation = openapi_operation(method_name(route->method), route->pattern);

    answer_check_problem(answer, status, code, route->operation);
    check_challenge(answer, challenge, route->operation);
    ck_assert_msg(openapi_lists(openapi_codes(openapi_response(operation, status)), code),
                  "%s does not document %s", route->operation, code);
}

static void check_let_in(const struct route *route, const struct answer *answer)
{
    unsigned status = answer->http.status;

    ck_assert_msg(status != 401 && status != 403 && status != 429 && status < 500, "%s: %s%s",
                  route->operation, answer->http.head, answer->http.body);
}

/* --- the table of scopes --- */

/* Looking is read, whatever ends something is admin, and nothing but the service's own addresses is
 * open: what a slip in routes.def would give away. */
START_TEST(scopes_of_routes_are_sound)
{
    const struct route *route;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        const char *name = route->operation;
        bool looks = route->method == METHOD_GET;
        ck_assert_msg((route->scope == SCOPE_NONE) == is_open(route), "%s", name);
        ck_assert_msg(looks == (route->scope <= SCOPE_READ), "%s", name);
        if (route->method == METHOD_DELETE || route->method == METHOD_PATCH)
            ck_assert_msg(route->scope == SCOPE_ADMIN, "%s", name);
    }
}
END_TEST

START_TEST(scopes_are_documented)
{
    const struct route *route;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        const json_t *operation = openapi_operation(method_name(route->method), route->pattern);
        const json_t *scope = json_object_get(operation, "x-scope");
        const json_t *security = json_object_get(operation, "security");
        ck_assert_msg(json_is_array(security), "%s has no security", route->operation);
        if (route->scope == SCOPE_NONE) {
            ck_assert_msg(json_is_null(scope), "%s", route->operation);
            ck_assert_uint_eq(json_array_size(security), 0);
            continue;
        }
        ck_assert_msg(json_is_string(scope), "%s has no x-scope", route->operation);
        ck_assert_str_eq(json_string_value(scope), scope_name(route->scope));
        const json_t *bearer = json_object_get(json_array_get(security, 0), "bearer");
        ck_assert_msg(openapi_lists(bearer, scope_name(route->scope)), "%s", route->operation);
        for (unsigned status = 401; status <= 429; status += status == 401 ? 2 : 26)
            ck_assert_msg(openapi_response(operation, status) != NULL, "%s does not document %u",
                          route->operation, status);
    }
}
END_TEST

/* --- every route --- */

static void call_all(const char *headers, const char *challenge)
{
    const struct route *route;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        struct answer answer = gate_call(route, "some", headers);
        if (is_open(route))
            check_let_in(route, &answer);
        else
            check_refused(route, &answer, 401, "unauthorized", challenge);
        answer_close(&answer);
    }
}

START_TEST(nothing_works_without_a_good_token)
{
    struct pass one = gate_member("", SCOPE_ADMIN), revoked = gate_member("", SCOPE_ADMIN);
    struct token late = {.scope = SCOPE_ADMIN, .expires_us = clock_unix_us() - 1};
    struct pass expired = gate_pass(&late), unknown = one;
    char header[HEADER_BYTES];

    gate_must(200, &revoked, "GET", "/v1/sessions", NULL);
    gate_revoke(&revoked);
    unknown.text[10] = unknown.text[10] == 'a' ? 'b' : 'a';
    kill(gate_server.pid, SIGHUP);
    for (int i = 0; i < 100; i++) { /* until the server has heard */
        struct answer answer = gate_send(&revoked, "GET", "/v1/sessions", NULL);
        unsigned status = answer.http.status;
        answer_close(&answer);
        if (status == 401)
            break;
        usleep(20000);
    }
    call_all("", REALM);
    call_all(gate_header(&revoked), BAD);
    call_all(gate_header(&expired), BAD);
    call_all(gate_header(&unknown), BAD);
    call_all("Authorization: Bearer nonsense\r\n", BAD);
    snprintf(header, sizeof header, "X: y\r\n%s", gate_header(&one));
    gate_must(200, &one, "GET", "/v1/sessions", NULL);
}
END_TEST

START_TEST(a_scope_includes_those_below)
{
    static const char *const challenges[] = {
        [SCOPE_STEP] = LACKS("step"), [SCOPE_ADMIN] = LACKS("admin")};
    const struct route *route;
    struct pass admin = gate_member("", SCOPE_ADMIN);
    struct pass pass = gate_member("", (enum scope)_i);

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        /* The route before may have ended it. */
        gate_must(200, &admin, "GET", "/v1/sessions", NULL);
        struct answer made = gate_send(&admin, "PUT", "/v1/sessions/some", GATE_SESSION);
        answer_close(&made);
        struct answer answer = gate_call_with(route, "some", &pass);
        if ((int)route->scope <= _i)
            check_let_in(route, &answer);
        else
            check_refused(route, &answer, 403, "forbidden", challenges[route->scope]);
        answer_close(&answer);
    }
}
END_TEST

/* --- the header --- */

static const struct {
    const char *format; /* with the token for %s */
    unsigned status;
    const char *challenge;
} headers[] = {
    {"Authorization: Bearer %s\r\n", 200, NULL},
    {"authorization: bearer %s\r\n", 200, NULL},
    {"AUTHORIZATION: BEARER %s\r\n", 200, NULL},
    {"Authorization: Bearer   %s\r\n", 200, NULL},
    {"Authorization: Bearer %s  \r\n", 200, NULL}, /* blanks at the end are no part of the value */
    {"Authorization:\r\n", 401, REALM},
    {"Authorization: %s\r\n", 401, REALM},
    {"Authorization: Basic %s\r\n", 401, REALM},
    {"Authorization: Bearer%s\r\n", 401, REALM},
    {"Authorization: Bearerx %s\r\n", 401, REALM},
    {"Authorization: Bearer\t%s\r\n", 401, REALM},
    {"Authorization: Bearer\r\n", 401, BAD},
    {"Authorization: Bearer %s%s\r\n", 401, BAD},
    {"Authorization: Bearer %s, Bearer %s\r\n", 401, BAD},
    {"Authorization: Bearer \"%s\"\r\n", 401, BAD},
    {"Authorization: Bearer %s=\r\n", 401, BAD},
    {"Authorization: Bearer x%s\r\n", 401, BAD},
    {"Authorization: Bearer %s\r\nAuthorization: Bearer %s\r\n", 401, BAD},
    {"Authorization: Basic x\r\nAuthorization: Bearer %s\r\n", 401, BAD},
    {"Proxy-Authorization: Bearer %s\r\n", 401, REALM},
    {"Cookie: token=%s\r\n", 401, REALM},
};

static void check_header(const struct pass *pass, size_t index)
{
    char text[HEADER_BYTES] = "";

    for (const char *at = headers[index].format; *at != '\0'; at++) {
        bool here = strncmp(at, "%s", 2) == 0;
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "%.*s", here ? TOKEN_BYTES : 1,
                 here ? pass->text : at);
        at += here;
    }
    struct answer answer = api_send(gate_server.port, "GET", "/v1/sessions", text, NULL, 0);
    ck_assert_msg(answer.http.status == headers[index].status, "%s: %s", text, answer.http.head);
    if (headers[index].status == 401) {
        answer_check_problem(&answer, 401, "unauthorized", text);
        check_challenge(&answer, headers[index].challenge, text);
        ck_assert_msg(strstr(answer.http.body, pass->text) == NULL, "it says the token");
    }
    answer_close(&answer);
}

START_TEST(the_header_is_read_to_the_letter)
{
    struct pass pass = gate_member("", SCOPE_READ);

    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
        check_header(&pass, i);
}
END_TEST

/* --- the body --- */

/* It is neither kept nor waited for by force: the next request on the connection works. */
START_TEST(a_refused_body_is_dropped)
{
    enum { BODY_BYTES = 1 << 20 };
    struct http_client *client = http_client_open(gate_server.port, 20);
    struct pass pass = gate_member("", SCOPE_READ);
    struct http_response response;
    char *body = calloc(1, BODY_BYTES);

    /* Over --body-bytes-max and --inflight-bytes-max: who may not send hears no more than that. */
    for (int i = 0; i < 3; i++) {
        ck_assert(http_client_request(client, "POST", "/v1/sessions",
                                      i == 1 ? gate_header(&pass) : "", body, BODY_BYTES,
                                      &response));
        ck_assert_uint_eq(response.status, i == 1 ? 403 : 401);
        http_response_free(&response);
    }
    ck_assert(
        http_client_request(client, "GET", "/v1/sessions", gate_header(&pass), NULL, 0, &response));
    ck_assert_uint_eq(response.status, 200);
    http_response_free(&response);
    http_client_close(client);
    /* Who asks first is not told to send. */
    client = http_client_open(gate_server.port, 20);
    ck_assert(http_client_send_text(client,
                                    "POST /v1/sessions HTTP/1.1\r\nHost: h\r\n"
                                    "Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n"));
    ck_assert(http_client_receive(client, false, &response));
    ck_assert_uint_eq(response.status, 401);
    http_response_free(&response);
    http_client_close(client);
    free(body);
}
END_TEST

/* --- what is open to all --- */

START_TEST(health_and_addresses_ask_for_nothing)
{
    char listen[64], out[4096];
    const char *const arguments[] = {"health", "--listen", listen, NULL};

    snprintf(listen, sizeof listen, "127.0.0.1:%u", gate_server.port);
    ck_assert_int_eq(live_server_run(arguments, out, sizeof out), 0);
    gate_must(404, NULL, "GET", "/nowhere", NULL);
    gate_must(405, NULL, "POST", "/livez", NULL);
    gate_must(204, NULL, "OPTIONS", "/v1/sessions", NULL);
}
END_TEST

/* --- the command --- */

/* `arguments` end with NULL; --data is added. */
static int run(const char *const *arguments, char *out, size_t size)
{
    const char *all[16] = {"token"};
    size_t count = 1;

    for (; *arguments != NULL; arguments++)
        all[count++] = *arguments;
    all[count++] = "--data";
    all[count] = gate_server.folder;
    return live_server_run(all, out, size);
}

#define RUN(out, ...) run((const char *const[]){__VA_ARGS__, NULL}, out, sizeof(out))

/* The word that begins with `prefix`. */
static const char *word(const char *out, const char *prefix, char *to, size_t size)
{
    const char *at = strstr(out, prefix);

    ck_assert_msg(at != NULL, "no %s in %s", prefix, out);
    snprintf(to, size, "%.*s", (int)strcspn(at, " \n,;"), at);
    return to;
}

START_TEST(the_command_makes_shows_and_revokes)
{
    char out[8192];
    struct pass pass;
    bool ended = false;

    ck_assert_int_eq(RUN(out, "create", "--name", "worker 1", "--scopes", "step", "--tenant",
                         "acme", "--sessions-max=3", "--steps-per-s", "5"),
                     0);
    word(out, "dsc_", pass.text, sizeof pass.text);
    word(out, "tok_", pass.id, sizeof pass.id);
    ck_assert(token_valid(pass.text));
    gate_must(200, &pass, "GET", "/v1/sessions", NULL); /* the running server knows it at once */
    gate_must(403, &pass, "PUT", "/v1/sessions/x", GATE_SESSION);
    ck_assert_int_eq(RUN(out, "list"), 0);
    static const char *const words[] = {"scopes=read,step ", "tenant=acme", "name=worker 1",
                                        "sessions-max=3", "steps-per-s=5"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        ck_assert_msg(strstr(out, words[i]) != NULL, "no %s in %s", words[i], out);
    ck_assert_ptr_nonnull(strstr(out, pass.id));
    ck_assert_ptr_null(strstr(out, "dsc_"));
    ck_assert_int_eq(RUN(out, "revoke", pass.id), 0);
    for (int i = 0; i < 200 && !ended; i++) {
        struct answer answer = gate_send(&pass, "GET", "/v1/sessions", NULL);
        ended = answer.http.status == 401;
        answer_close(&answer);
        usleep(20000);
    }
    ck_assert_msg(ended, "it is good for four seconds more");
    ck_assert_int_eq(RUN(out, "revoke", pass.id), 1);
    ck_assert_ptr_nonnull(strstr(out, "there is no token"));
    ck_assert_int_eq(RUN(out, "list"), 0);
    ck_assert_ptr_nonnull(strstr(out, "there are no tokens"));
}
END_TEST

static const struct {
    const char *arguments[4];
    const char *says;
} mistakes[] = {
    {{NULL}, "needs create, list or revoke"},
    {{"make"}, "there is no `token make`"},
    {{"create", "--name"}, "--name must come once, with a value"},
    {{"create", "--name=a", "--name=b"}, "must come once"},
    {{"create", "--name=a\nb"}, "--name must be UTF-8"},
    {{"create", "--tenant", "A"}, "--tenant is \"A\""},
    {{"create", "--tenant", "a/b"}, "--tenant is \"a/b\""},
    {{"create", "--scopes", "root"}, "--scopes is \"root\""},
    {{"create", "--scopes", ""}, "--scopes is \"\""},
    {{"create", "--expires-s", "0"}, "--expires-s is \"0\""},
    {{"create", "--sessions-max", "-1"}, "--sessions-max is \"-1\""},
    {{"create", "--inflight-max", "99999999999999999999"}, "--inflight-max is"},
    {{"create", "--speed", "1"}, "there is no option --speed"},
    {{"list", "x"}, "not an option"},
    {{"revoke"}, "revoke which?"},
    {{"list", "--data", "memory:"}, "--tokens FILE"},
};

START_TEST(mistakes_of_the_command_are_told)
{
    const char *all[8] = {"token"};
    char out[8192];

    for (size_t i = 0; i < 4 && mistakes[_i].arguments[i] != NULL; i++)
        all[1 + i] = mistakes[_i].arguments[i];
    ck_assert_int_ne(live_server_run(all, out, sizeof out), 0);
    ck_assert_msg(strstr(out, mistakes[_i].says) != NULL, "it says: %s", out);
    ck_assert_ptr_null(strstr(out, "dsc_"));
}
END_TEST

/* --- life --- */

static void start(void)
{
    static const char *const options[] = {"--body-bytes-max", "65536", "--inflight-bytes-max",
                                          "65536", NULL};
    gate_start(options);
}

Suite *suite_access(void);
Suite *suite_access(void)
{
    Suite *suite = suite_create("access");
    TCase *tables = tcase_create("tables"), *tests = tcase_create("access");

    tcase_add_test(tables, scopes_of_routes_are_sound);
    tcase_add_test(tables, scopes_are_documented);
    tcase_add_loop_test(tables, mistakes_of_the_command_are_told, 0,
                        sizeof mistakes / sizeof *mistakes);
    suite_add_tcase(suite, tables);
    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, gate_stop);
    tcase_add_test(tests, nothing_works_without_a_good_token);
    tcase_add_loop_test(tests, a_scope_includes_those_below, SCOPE_READ, SCOPE_ADMIN + 1);
    tcase_add_test(tests, the_header_is_read_to_the_letter);
    tcase_add_test(tests, a_refused_body_is_dropped);
    tcase_add_test(tests, health_and_addresses_ask_for_nothing);
    tcase_add_test(tests, the_command_makes_shows_and_revokes);
    suite_add_tcase(suite, tests);
    return suite;
}
