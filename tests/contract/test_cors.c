/* Browsers: which pages may call, what they hear, and that nothing is said to others. */
#include <check.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "api/config.h"
#include "api/cors.h"
#include "api/router.h"
#include "tests/lib/api_client.h"
#include "tests/lib/live_server.h"
#include "tests/lib/openapi.h"
#include "tests/lib/testing.h"

enum { TEST_TIMEOUT_S = 60, VALUE_BYTES = 1024 };

static struct arena arena;
static struct config config;
static struct request request;

static void setup(void)
{
    arena_init(&arena);
    config = (struct config){.cors_origins = "", .hosts = ""};
    request = (struct request){.arena = &arena, .config = &config, .method = METHOD_POST};
}

static void teardown(void)
{
    arena_close(&arena);
}

static void set_header(const char *name, const char *value)
{
    if (value != NULL)
        request.headers[request.header_count++] = (struct header){name, value};
}

/* --- the option --- */

static const struct {
    const char *text;
    bool good;
} options[] = {
    {"", true},
    {" , ", true},
    {"*", true},
    {"https://a.example", true},
    {"http://localhost:5173", true},
    {"https://a.example,http://b.example:8080", true},
    {"https://a.example , http://[::1]:3000\thttp://[::1]", true},
    {"tauri://localhost", true},
    {"chrome-extension://abcdefgh", true},
    {"*, https://a.example", false},
    {"https://*", false},
    {"https://*.example", false},
    {"null", false},
    {"a.example", false},
    {"//a.example", false},
    {"https://", false},
    {"https:a.example", false},
    {"https://a.example/", false},
    {"https://a.example/app", false},
    {"https://a.example?x", false},
    {"https://user@a.example", false},
    {"HTTPS://a.example", false},
    {"https://a.example:", false},
    {"https://a.example:x", false},
    {"https://a.example:123456", false},
    {"https://a.example:443", false},
    {"http://a.example:80", false},
    {"https://:8080", false},
    {"https://[::1", false},
    {"https://a.example;https://b.example", false},
};

START_TEST(only_origins_can_be_listed)
{
    struct fault fault;

    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        enum status status = cors_check_origins(options[i].text, &fault);
        ck_assert_msg(status == (options[i].good ? STATUS_OK : STATUS_INVALID_FIELD), "%s",
                      options[i].text);
    }
}
END_TEST

START_TEST(the_server_does_not_start_with_another)
{
    static const char *const arguments[] = {"serve",  "--cors-origins", "a.example",
                                            "--data", "memory:",        NULL};
    char out[VALUE_BYTES];

    ck_assert_int_ne(live_server_run(arguments, out, sizeof out), 0);
    ck_assert_msg(strstr(out, "cors-origins has \"a.example\"") != NULL, "%s", out);
}
END_TEST

/* --- what is let in, where nobody is asked for a token --- */

static const struct {
    const char *origins, *hosts, *host, *origin;
    bool loopback, elsewhere; /* let in where only this machine comes, and where others do */
} admissions[] = {
    /* No browser. */
    {"", "", "127.0.0.1:8080", NULL, true, true},
    {"", "", NULL, NULL, true, true},
    {"", "", "descent:8080", NULL, true, true},
    {"", "", "a.example", NULL, false, true},
    /* The page is the server's own. */
    {"", "", "127.0.0.1:8080", "http://127.0.0.1:8080", true, true},
    {"", "", "localhost:8080", "http://LOCALHOST:8080", true, true},
    {"", "", "[::1]:8080", "http://[::1]:8080", true, true},
    {"", "a.example", "a.example", "https://a.example", true, true},
    /* It is another's. */
    {"", "", "127.0.0.1:8080", "https://evil.example", false, false},
    {"", "", "127.0.0.1:8080", "http://127.0.0.1:8081", false, false},
    {"", "", "127.0.0.1:8080", "http://localhost:8080", false, false},
    {"", "", "127.0.0.1:8080", "null", false, false},
    {"", "", "127.0.0.1:8080", "", false, false},
    {"", "", "127.0.0.1:8080", "127.0.0.1:8080", false, false},
    {"", "", "localhost", "http://localhost.evil.example", false, false},
    /* It is listed. */
    {"*", "", "127.0.0.1:8080", "https://evil.example", true, true},
    {"*", "", "127.0.0.1:8080", "null", true, true},
    {"http://b, https://a.example", "", "127.0.0.1:8080", "https://a.example", true, true},
    {"http://b, https://a.example", "", "127.0.0.1:8080", "https://A.example", true, true},
    {"http://b, https://a.example", "", "127.0.0.1:8080", "http://a.example", false, false},
    {"http://b, https://a.example", "", "127.0.0.1:8080", "https://a.example:8443", false, false},
    {"http://b, https://a.example", "", "127.0.0.1:8080", "https://a.exampl", false, false},
    {"http://b, https://a.example", "", "127.0.0.1:8080", "https://a.example.evil", false, false},
    /* A name that somebody can buy leads here: the page and the server have one origin. */
    {"", "", "evil.example:8080", "http://evil.example:8080", false, true},
    {"*", "", "evil.example:8080", NULL, false, true},
    {"", "", "localhost.evil.example", NULL, false, true},
    {"", "", "127.0.0.1.evil.example", NULL, false, true},
    {"", "", "1.2.3.4.5", NULL, false, true},
    {"", "", "evil.example.", NULL, false, true},
    {"", "b.example, a.example", "A.example.:80", NULL, true, true},
    {"", "b.example, a.example", "c.a.example", NULL, false, true},
    {"", "*", "evil.example", NULL, true, true},
    {"", "", "app.localhost:80", NULL, true, true},
    {"", "", "localhost.", NULL, true, true},
    {"", "", "[fe80::1]:80", NULL, true, true},
    {"", "", "[evil.example]", NULL, false, true},
};

START_TEST(pages_of_others_are_kept_out)
{
    struct fault fault;

    for (size_t i = 0; i < 2 * sizeof admissions / sizeof *admissions; i++) {
        bool loopback = i % 2 == 0;
        bool good = loopback ? admissions[i / 2].loopback : admissions[i / 2].elsewhere;
        setup();
        config.cors_origins = admissions[i / 2].origins;
        config.hosts = admissions[i / 2].hosts;
        set_header("Host", admissions[i / 2].host);
        set_header("Origin", admissions[i / 2].origin);
        ck_assert_msg(cors_admit(&request, loopback, &fault) ==
                          (good ? STATUS_OK : STATUS_FORBIDDEN),
                      "line %zu: Host %s, Origin %s", i / 2, admissions[i / 2].host,
                      admissions[i / 2].origin);
        teardown();
    }
    setup();
}
END_TEST

/* --- what is told --- */

static const char *told(const struct reply *reply, const char *name)
{
    for (size_t i = 0; i < reply->header_count; i++)
        if (strcasecmp(reply->headers[i].name, name) == 0)
            return reply->headers[i].value;
    return NULL;
}

START_TEST(a_listed_origin_hears_and_another_does_not)
{
    static const struct {
        const char *origins, *origin, *allowed, *vary;
    } cases[] = {
        {"", "https://a.example", NULL, "Accept"},
        {"https://a.example", NULL, NULL, "Accept, Origin"},
        {"https://a.example", "https://b.example", NULL, "Accept, Origin"},
        {"https://a.example", "https://a.example", "https://a.example", "Accept, Origin"},
        {"*", NULL, NULL, "Accept"},
        {"*", "https://a.example", "*", "Accept"},
    };
    static const unsigned statuses[] = {200, 304, 404, 503};

    for (size_t i = 0; i < 4 * sizeof cases / sizeof *cases; i++) {
        struct reply reply = reply_empty(statuses[i % 4]);
        setup();
        config.cors_origins = cases[i / 4].origins;
        set_header("Origin", cases[i / 4].origin);
        reply_header(&reply, "Vary", "Accept");
        cors_tell(&request, &reply);
        ck_assert_pstr_eq(told(&reply, "Access-Control-Allow-Origin"), cases[i / 4].allowed);
        ck_assert_str_eq(told(&reply, "Vary"), cases[i / 4].vary);
        ck_assert_int_eq(told(&reply, "Access-Control-Expose-Headers") != NULL,
                         cases[i / 4].allowed != NULL);
        ck_assert_ptr_null(told(&reply, "Access-Control-Allow-Credentials"));
        ck_assert_ptr_null(told(&reply, "Access-Control-Allow-Methods"));
        teardown();
    }
    setup();
}
END_TEST

/* Whether a list has the word. */
static bool lists(const char *list, const char *word)
{
    size_t size = strlen(word);

    for (const char *at = list; *at != '\0'; at += strspn(at, ", ")) {
        size_t length = strcspn(at, ", ");
        if (length == size && strncasecmp(at, word, size) == 0)
            return true;
        at += length;
    }
    return false;
}

START_TEST(scripts_can_read_every_field_that_is_documented)
{
    /* They always can, or need not. */
    static const char given[] =
        "Cache-Control, Content-Length, Content-Type, Vary, X-Accel-Buffering";
    struct reply reply = reply_empty(200);
    const struct route *route;
    size_t count = 0;

    config.cors_origins = "*";
    set_header("Origin", "https://a.example");
    cors_tell(&request, &reply);
    const char *exposed = told(&reply, "Access-Control-Expose-Headers");
    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        const json_t *operation = openapi_operation(method_name(route->method), route->pattern);
        const char *status, *name;
        json_t *response, *header;
        json_object_foreach(json_object_get(operation, "responses"), status, response)
        {
            json_object_foreach(json_object_get(openapi_resolve(response), "headers"), name, header)
            {
                ck_assert_msg(lists(exposed, name) || lists(given, name), "%s of %s", name,
                              route->operation);
                count++;
            }
        }
    }
    ck_assert_uint_gt(count, 50);
}
END_TEST

static void check_sent(void *context, const json_t *parameter)
{
    const char *sent = context, *name = json_string_value(json_object_get(parameter, "name"));

    if (strcmp(json_string_value(json_object_get(parameter, "in")), "header") == 0)
        ck_assert_msg(lists(sent, name), "%s", name);
}

START_TEST(pages_can_send_every_field_that_is_documented)
{
    struct reply reply = reply_empty(204);
    const struct route *route;
    char sent[VALUE_BYTES];

    config.cors_origins = "*";
    request.method = METHOD_OPTIONS;
    set_header("Origin", "https://a.example");
    set_header("Access-Control-Request-Method", "POST");
    reply_header(&reply, "Allow", "POST");
    cors_tell(&request, &reply);
    /* These they always can. */
    snprintf(sent, sizeof sent, "%s, Accept-Encoding",
             told(&reply, "Access-Control-Allow-Headers"));
    for (size_t r = 0; (route = router_at(r)) != NULL; r++)
        openapi_parameters(method_name(route->method), route->pattern, check_sent, sent);
}
END_TEST

/* --- live --- */

static struct live_server server;

static void check_value(const struct answer *answer, const char *name, const char *expected)
{
    char value[VALUE_BYTES];

    ck_assert_pstr_eq(http_response_header(&answer->http, name, value, sizeof value), expected);
}

#define ORIGIN "Origin: https://a.example\r\n"
#define ASKS "Access-Control-Request-Method: POST\r\n"

START_TEST(a_preflight_says_what_may_be_sent)
{
    static const char *const flags[] = {"--cors-origins", "https://a.example", NULL};
    static const char *const fields[] = {"authorization", "content-type",  "idempotency-key",
                                         "if-match",      "if-none-match", "last-event-id",
                                         "prefer",        "traceparent",   "x-request-id"};
    char allow[VALUE_BYTES], value[VALUE_BYTES];
    const struct route *route;

    live_server_start(&server, "memory:", flags);
    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        char path[256];
        size_t used = 0;
        for (const char *at = route->pattern; *at != '\0'; at++) {
            path[used++] = *at;
            if (*at == '{') {
                path[used - 1] = 'x';
                at += strcspn(at, "}");
            }
        }
        path[used] = '\0';
        struct answer answer = api_send(server.port, "OPTIONS", path, ORIGIN ASKS, NULL, 0);
        ck_assert_uint_eq(answer.http.status, 204);
        ck_assert_ptr_nonnull(http_response_header(&answer.http, "Allow", allow, sizeof allow));
        ck_assert(lists(allow, method_name(route->method)));
        check_value(&answer, "Access-Control-Allow-Methods", allow);
        check_value(&answer, "Access-Control-Allow-Origin", "https://a.example");
        check_value(&answer, "Access-Control-Max-Age", "7200");
        check_value(&answer, "Vary", "Origin");
        http_response_header(&answer.http, "Access-Control-Allow-Headers", value, sizeof value);
        for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
            ck_assert_msg(lists(value, fields[i]), "%s", fields[i]);
        answer_close(&answer);
    }
    struct answer answer = api_send(server.port, "OPTIONS", "/livez", ORIGIN, NULL, 0);
    check_value(&answer, "Allow", "GET, HEAD, OPTIONS"); /* asks, but for itself */
    check_value(&answer, "Access-Control-Allow-Methods", NULL);
    answer_close(&answer);
    answer =
        api_send(server.port, "OPTIONS", "/livez", "Origin: https://b.example\r\n" ASKS, NULL, 0);
    ck_assert_uint_eq(answer.http.status, 204);
    check_value(&answer, "Access-Control-Allow-Origin", NULL);
    check_value(&answer, "Access-Control-Allow-Methods", NULL);
    check_value(&answer, "Vary", "Origin");
    answer_close(&answer);
    answer = api_send(server.port, "OPTIONS", "/v1/sessions", "", NULL, 0);
    check_value(&answer, "Allow", "POST, GET, HEAD, OPTIONS");
    answer_close(&answer);
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

START_TEST(errors_are_readable_too_and_strangers_change_nothing)
{
    static const char *const flags[] = {"--cors-origins", "https://a.example", NULL};
    static const char create[] = "{\"optimizer\": \"sgd\", \"parameters\": {\"w\": [1]}}";
    static const char *const strangers[] = {"Origin: https://b.example\r\n", "Origin: null\r\n",
                                            "Host: evil.example\r\n"};
    static const struct {
        const char *method, *path, *headers;
        unsigned status;
    } cases[] = {
        {"GET", "/v1/sessions/none", "", 404}, {"BREW", "/livez", "", 405},
        {"GET", "/livez?x=1", "", 400},        {"GET", "/livez", "Expect: x\r\n", 417},
        {"GET", "/nowhere", "", 404},          {"GET", "/v1/optimizers", "Accept: a/b\r\n", 0},
    };

    live_server_start(&server, "memory:", flags);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char headers[128];
        snprintf(headers, sizeof headers, ORIGIN "%s", cases[i].headers);
        struct answer answer =
            api_send(server.port, cases[i].method, cases[i].path, headers, NULL, 0);
        ck_assert(cases[i].status == 0 || answer.http.status == cases[i].status);
        check_value(&answer, "Access-Control-Allow-Origin", "https://a.example");
        answer_close(&answer);
    }
    for (size_t i = 0; i < 2; i++) {
        struct answer answer =
            api_send(server.port, "PUT", "/v1/sessions/s", strangers[i], create, strlen(create));
        answer_check_problem(&answer, 403, "forbidden", strangers[i]);
        check_value(&answer, "Access-Control-Allow-Origin", NULL);
        answer_close(&answer);
    }
    struct http_client *client = http_client_open(server.port, 10);
    struct answer answer = {.json = NULL};
    ck_assert(
        http_client_send_text(client, "GET /v1/sessions HTTP/1.1\r\nHost: evil.example\r\n\r\n"));
    ck_assert(http_client_receive(client, false, &answer.http));
    ck_assert_uint_eq(answer.http.status, 403);
    answer_close(&answer);
    /* Who watches over the server may call it anything. */
    ck_assert(http_client_send_text(client, "GET /readyz HTTP/1.1\r\nHost: evil.example\r\n\r\n"));
    ck_assert(http_client_receive(client, false, &answer.http));
    ck_assert_uint_eq(answer.http.status, 200);
    answer_close(&answer);
    http_client_close(client);
    answer = api_send(server.port, "GET", "/v1/sessions/s", "", NULL, 0);
    ck_assert_uint_eq(answer.http.status, 404);
    answer_close(&answer);
    answer = api_send(server.port, "PUT", "/v1/sessions/s", ORIGIN, create, strlen(create));
    ck_assert_uint_eq(answer.http.status, 201);
    check_value(&answer, "Access-Control-Allow-Origin", "https://a.example");
    answer_close(&answer);
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

Suite *suite_cors(void);
Suite *suite_cors(void)
{
    Suite *suite = suite_create("cors");
    TCase *table = tcase_create("table"), *live = tcase_create("live");

    tcase_add_checked_fixture(table, setup, teardown);
    tcase_add_test(table, only_origins_can_be_listed);
    tcase_add_test(table, pages_of_others_are_kept_out);
    tcase_add_test(table, a_listed_origin_hears_and_another_does_not);
    tcase_add_test(table, scripts_can_read_every_field_that_is_documented);
    tcase_add_test(table, pages_can_send_every_field_that_is_documented);
    suite_add_tcase(suite, table);
    tcase_set_timeout(live, TEST_TIMEOUT_S);
    tcase_add_test(live, the_server_does_not_start_with_another);
    tcase_add_test(live, a_preflight_says_what_may_be_sent);
    tcase_add_test(live, errors_are_readable_too_and_strangers_change_nothing);
    suite_add_tcase(suite, live);
    return suite;
}
