/* The HTTP shell against a live server: one defined answer to everything, never a hang, never an
 * answer to something that was inside a body. */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/http_client.h"
#include "tests/lib/live_server.h"
#include "tests/lib/testing.h"

enum { WAIT_S = 10, TEST_TIMEOUT_S = 60 };

#define HIDDEN "GET /livez HTTP/1.1\r\nHost: hidden\r\n\r\n" /* 37 bytes: 0x25 */
#define GET_LIVEZ "GET /livez HTTP/1.1\r\nHost: test\r\n"
#define POST_SESSIONS "POST /v1/sessions HTTP/1.1\r\nHost: test\r\n"

static struct live_server server;

static void start(const char *const *options)
{
    live_server_start(&server, testing_folder(), options);
}

static struct http_client *dial(void)
{
    return http_client_open(server.port, WAIT_S);
}

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void sleep_ms(long ms)
{
    struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    nanosleep(&pause, NULL);
}

static unsigned get_status(struct http_client *client, const char *path)
{
    struct http_response response;

    ck_assert(http_client_request(client, "GET", path, "", NULL, 0, &response));
    unsigned status = response.status;
    http_response_free(&response);
    return status;
}

/* A problem document of this code, with the request id of the header. */
static void check_problem(const struct http_response *response, const char *code)
{
    char value[128], wanted[192];

    ck_assert_str_eq(http_response_header(response, "Content-Type", value, sizeof value),
                     "application/problem+json");
    snprintf(wanted, sizeof wanted, "\"code\":\"%s\"", code);
    ck_assert_msg(strstr(response->body, wanted) != NULL, "%s is not in %s", wanted,
                  response->body);
    ck_assert_ptr_nonnull(http_response_header(response, "Request-Id", value, sizeof value));
    snprintf(wanted, sizeof wanted, "\"request_id\":\"%s\"", value);
    ck_assert_ptr_nonnull(strstr(response->body, wanted));
}

/* --- the table
 * ------------------------------------------------------------------------------------------
 */

#define TEXT(text) text, sizeof text - 1

static const struct {
    const char *name;
    const char *bytes;
    size_t size;
    unsigned status;
    const char
        *code; /* NULL: a success, or libmicrohttpd's own page; "": that with its header twice */
} cases[] = {
    {"plain", TEXT(GET_LIVEZ "\r\n"), 200, NULL},
    {"spare empty line before", TEXT("\r\n" GET_LIVEZ "\r\n"), 200, NULL},
    {"HTTP/1.0 without Host", TEXT("GET /livez HTTP/1.0\r\n\r\n"), 200, NULL},
    {"trailing space of a value",
     TEXT("GET /livez HTTP/1.1\r\nHost: test \t\r\nExpect:  100-continue \r\n\r\n"), 200, NULL},

    {"length and encoding",
     TEXT(POST_SESSIONS "Content-Length: 37\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" HIDDEN),
     400, "invalid_request"},
    {"encoding and length",
     TEXT(POST_SESSIONS "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" HIDDEN),
     400, "invalid_request"},
    {"two lengths", TEXT(POST_SESSIONS "Content-Length: 0\r\nContent-Length: 37\r\n\r\n" HIDDEN),
     400, "invalid_request"},
    {"the same length twice",
     TEXT(POST_SESSIONS "Content-Length: 37\r\ncontent-length: 37\r\n\r\n" HIDDEN), 400,
     "invalid_request"},
    {"two encodings",
     TEXT(POST_SESSIONS
          "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" HIDDEN),
     400, "invalid_request"},
    {"two hosts", TEXT(GET_LIVEZ "Host: other\r\n\r\n"), 400, "invalid_request"},
    {"no host", TEXT("GET /livez HTTP/1.1\r\n\r\n"), 400, "invalid_request"},
    {"space before the colon", TEXT(POST_SESSIONS "Content-Length : 37\r\n\r\n" HIDDEN), 400,
     "invalid_request"},
    {"tab before the colon", TEXT(POST_SESSIONS "Transfer-Encoding\t: chunked\r\n\r\n" HIDDEN), 400,
     "invalid_request"},
    {"name with a slash", TEXT(GET_LIVEZ "a/b: c\r\n\r\n"), 400, "invalid_request"},
    {"empty name", TEXT(GET_LIVEZ ": c\r\n\r\n"), 400, "invalid_request"},
    {"gzip", TEXT(POST_SESSIONS "Transfer-Encoding: gzip\r\n\r\n" HIDDEN), 400, "invalid_request"},
    {"gzip, chunked", TEXT(POST_SESSIONS "Transfer-Encoding: gzip, chunked\r\n\r\n" HIDDEN), 400,
     "invalid_request"},
    {"xchunked", TEXT(POST_SESSIONS "Transfer-Encoding: xchunked\r\n\r\n" HIDDEN), 400,
     "invalid_request"},
    {"chunked in HTTP/1.0",
     TEXT("POST /v1/sessions HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" HIDDEN), 400,
     "invalid_request"},
    {"NUL in a value", TEXT(GET_LIVEZ "X: a\0b\r\n\r\n"), 400, "invalid_request"},
    {"NUL hides a second length",
     TEXT(POST_SESSIONS "Content-Length: 0\0Content-Length: 37\r\n\r\n" HIDDEN), 400,
     "invalid_request"},
    {"NUL in the target", TEXT("GET /livez\0/x HTTP/1.1\r\nHost: test\r\n\r\n"), 400,
     "invalid_request"},
    {"control character in a value", TEXT(GET_LIVEZ "X: a\001b\r\n\r\n"), 400, "invalid_request"},
    {"bare line feeds", TEXT("GET /livez HTTP/1.1\nHost: test\n\n"), 400, "invalid_request"},
    {"one bare line feed", TEXT(POST_SESSIONS "X: a\nContent-Length: 37\r\n\r\n" HIDDEN), 400,
     "invalid_request"},
    {"folded line", TEXT(POST_SESSIONS "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" HIDDEN),
     400, "invalid_request"},
    {"folded last line", TEXT(GET_LIVEZ "X: a\r\n b\r\n\r\n"), 400, "invalid_request"},
    {"two spaces", TEXT("GET  /livez HTTP/1.1\r\nHost: test\r\n\r\n"), 400, "invalid_request"},
    {"space in the target", TEXT("GET /livez x HTTP/1.1\r\nHost: test\r\n\r\n"), 400,
     "invalid_request"},
    {"method is no token", TEXT("G@T /livez HTTP/1.1\r\nHost: test\r\n\r\n"), 400,
     "invalid_request"},
    {"absolute form", TEXT("GET http://test/livez HTTP/1.1\r\nHost: test\r\n\r\n"), 400,
     "invalid_request"},
    {"asterisk", TEXT("OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n"), 400, "invalid_request"},
    {"authority", TEXT("CONNECT test:80 HTTP/1.1\r\nHost: test\r\n\r\n"), 400, "invalid_request"},
    {"relative", TEXT("GET livez HTTP/1.1\r\nHost: test\r\n\r\n"), 400, "invalid_request"},
    {"fragment", TEXT("GET /livez#a HTTP/1.1\r\nHost: test\r\n\r\n"), 400, "invalid_request"},
    {"raw UTF-8", TEXT("GET /liv\303\251z HTTP/1.1\r\nHost: test\r\n\r\n"), 400, "invalid_request"},
    {"other expectation", TEXT(GET_LIVEZ "Expect: bananas\r\n\r\n"), 417, "invalid_request"},
    {"two expectations", TEXT(GET_LIVEZ "Expect: 100-continue\r\nExpect: x\r\n\r\n"), 417,
     "invalid_request"},

    {"body on GET", TEXT(GET_LIVEZ "Content-Length: 37\r\n\r\n" HIDDEN), 400, "invalid_request"},
    {"chunked body on GET",
     TEXT(GET_LIVEZ "Transfer-Encoding: chunked\r\n\r\n25\r\n" HIDDEN "\r\n0\r\n\r\n"), 400,
     "invalid_request"},
    {"empty body on GET", TEXT(GET_LIVEZ "Content-Length: 0\r\n\r\n"), 200, NULL},
    {"unknown path with a body",
     TEXT("POST /nowhere HTTP/1.1\r\nHost: test\r\nContent-Length: 37\r\n\r\n" HIDDEN), 404,
     "not_found"},
    {"wrong method with a body",
     TEXT("DELETE /livez HTTP/1.1\r\nHost: test\r\nContent-Length: 37\r\n\r\n" HIDDEN), 405,
     "method_not_allowed"},
    {"unknown method", TEXT("BREW /livez HTTP/1.1\r\nHost: test\r\n\r\n"), 405,
     "method_not_allowed"},
    {"lower case method", TEXT("get /livez HTTP/1.1\r\nHost: test\r\n\r\n"), 405,
     "method_not_allowed"},
    {"unknown method on an unknown path", TEXT("BREW /nowhere HTTP/1.1\r\nHost: test\r\n\r\n"), 404,
     "not_found"},
    {"options", TEXT("OPTIONS /livez HTTP/1.1\r\nHost: test\r\n\r\n"), 204, NULL},
    {"body that is HTTP",
     TEXT(POST_SESSIONS "Content-Type: application/json\r\nContent-Length: 37\r\n\r\n" HIDDEN), 400,
     "invalid_json"},
    {"chunked body that is HTTP",
     TEXT(POST_SESSIONS "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                        "25\r\n" HIDDEN "\r\n0\r\n\r\n"),
     400, "invalid_json"},

    {"query key twice", TEXT("GET /livez?a=1&a=2 HTTP/1.1\r\nHost: test\r\n\r\n"), 400,
     "invalid_request"},
    {"unknown query key", TEXT("GET /livez?a=1 HTTP/1.1\r\nHost: test\r\n\r\n"), 400,
     "invalid_request"},
    {"broken escape", TEXT("GET /livez?a=%4 HTTP/1.1\r\nHost: test\r\n\r\n"), 400,
     "invalid_request"},
    {"escaped NUL", TEXT("GET /livez%00 HTTP/1.1\r\nHost: test\r\n\r\n"), 400, "invalid_request"},
    {"escaped slash is no separator", TEXT("GET /v1%2Fsessions HTTP/1.1\r\nHost: test\r\n\r\n"),
     404, "not_found"},
    {"escaped letter", TEXT("GET /%6civez HTTP/1.1\r\nHost: test\r\n\r\n"), 200, NULL},
    {"empty query", TEXT("GET /livez? HTTP/1.1\r\nHost: test\r\n\r\n"), 200, NULL},

    /* Answered by the library before any of our code runs. */
    {"header without a colon", TEXT(GET_LIVEZ "nonsense\r\n\r\n"), 400, NULL},
    {"negative length", TEXT(POST_SESSIONS "Content-Length: -1\r\n\r\n" HIDDEN), 400, ""},
    {"signed length", TEXT(POST_SESSIONS "Content-Length: +37\r\n\r\n" HIDDEN), 400, ""},
    {"hexadecimal length", TEXT(POST_SESSIONS "Content-Length: 0x25\r\n\r\n" HIDDEN), 400, ""},
    {"list of lengths", TEXT(POST_SESSIONS "Content-Length: 37, 37\r\n\r\n" HIDDEN), 400, ""},
    {"empty length", TEXT(POST_SESSIONS "Content-Length:\r\n\r\n" HIDDEN), 400, ""},
    {"length beyond 64 bits",
     TEXT(POST_SESSIONS "Content-Length: 99999999999999999999\r\n\r\n" HIDDEN), 413, ""},
    {"HTTP/2.0", TEXT("GET /livez HTTP/2.0\r\nHost: test\r\n\r\n"), 505, NULL},
    {"HTTP/0.9", TEXT("GET /livez HTTP/0.9\r\nHost: test\r\n\r\n"), 505, NULL},
    {"not HTTP", TEXT("\026\003\001\002 hello there\r\n\r\n"), 400, NULL},
    {"bad chunk size", TEXT(POST_SESSIONS "Transfer-Encoding: chunked\r\n\r\nzz\r\n" HIDDEN), 400,
     NULL},
    {"chunk longer than it says",
     TEXT(POST_SESSIONS "Transfer-Encoding: chunked\r\n\r\n2\r\nabcdef\r\n0\r\n\r\n" HIDDEN), 400,
     NULL},
    {"chunk size beyond 64 bits",
     TEXT(POST_SESSIONS "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n" HIDDEN), 413,
     NULL},
};

/* Nothing comes after the answer, above all no answer to what was inside the body. */
static void check_last(struct http_client *client, size_t index)
{
    if (cases[index].code != NULL && cases[index].code[0] == '\0')
        ck_assert_msg(!http_client_hears(client, " 200 "), "%s: it hears the body",
                      cases[index].name);
    else
        ck_assert_msg(http_client_at_end(client), "%s: a second answer", cases[index].name);
}

START_TEST(every_odd_request_has_one_answer)
{
    start(NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http_client *client = dial();
        struct http_response response;
        http_client_send(client, cases[i].bytes, cases[i].size);
        http_client_finish(client);
        ck_assert_msg(http_client_receive(client, false, &response), "%s: no answer",
                      cases[i].name);
        ck_assert_msg(response.status == cases[i].status, "%s: %s%s", cases[i].name, response.head,
                      response.body);
        if (cases[i].code != NULL && cases[i].code[0] != '\0')
            check_problem(&response, cases[i].code);
        check_last(client, i);
        http_response_free(&response);
        http_client_close(client);
    }
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

/* The same, a byte at a time: the server must not depend on how the bytes arrive. */
START_TEST(odd_requests_in_single_bytes_have_the_same_answer)
{
    start(NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i += 5) {
        struct http_client *client = dial();
        struct http_response response;
        for (size_t k = 0; k < cases[i].size; k++)
            if (!http_client_send(client, cases[i].bytes + k, 1))
                break;
        http_client_finish(client);
        ck_assert_msg(http_client_receive(client, false, &response), "%s: no answer",
                      cases[i].name);
        ck_assert_msg(response.status == cases[i].status, "%s: %s", cases[i].name, response.head);
        check_last(client, i);
        http_response_free(&response);
        http_client_close(client);
    }
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

START_TEST(long_headers_and_addresses_are_refused)
{
    struct http_response response;
    char *text = malloc(400000);

    start(NULL);
    /* too many fields: ours */
    size_t used = (size_t)sprintf(text, GET_LIVEZ);
    for (int i = 0; i < 64; i++)
        used += (size_t)sprintf(text + used, "X-%d: 1\r\n", i);
    sprintf(text + used, "\r\n");
    struct http_client *client = dial();
    ck_assert(http_client_send_text(client, text));
    ck_assert(http_client_receive(client, false, &response));
    ck_assert_uint_eq(response.status, 431);
    check_problem(&response, "headers_too_large");
    http_response_free(&response);
    http_client_close(client);

    /* a long address: ours */
    memset(text, 'a', 9000);
    memcpy(text, "GET /", 5);
    sprintf(text + 9000, " HTTP/1.1\r\nHost: test\r\n\r\n");
    client = dial();
    ck_assert(http_client_send_text(client, text));
    ck_assert(http_client_receive(client, false, &response));
    ck_assert_uint_eq(response.status, 414);
    check_problem(&response, "too_large");
    http_response_free(&response);
    http_client_close(client);

    /* a header beyond the library's memory, and a line that never ends */
    for (int round = 0; round < 2; round++) {
        memset(text, 'a', 390000);
        memcpy(text, GET_LIVEZ "X: ", sizeof GET_LIVEZ "X: " - 1);
        text[390000] = '\0';
        client = dial();
        http_client_send_text(client, round == 0 ? text : text + sizeof GET_LIVEZ "X: ");
        ck_assert(http_client_receive(client, false, &response));
        ck_assert_msg(response.status == (round == 0 ? 431 : 414), "%s", response.head);
        http_response_free(&response);
        http_client_close(client);
    }
    free(text);
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

/* --- ordinary behaviour
 * ------------------------------------------------------------------------------------------ */

START_TEST(pipelined_requests_are_answered_in_order)
{
    static const unsigned statuses[] = {200, 404, 400, 405, 200};
    struct http_response response;

    start(NULL);
    struct http_client *client = dial();
    ck_assert(http_client_send_text(
        client, GET_LIVEZ "\r\n"
                          "GET /nowhere HTTP/1.1\r\nHost: test\r\n\r\n" POST_SESSIONS
                          "Content-Type: application/json\r\nContent-Length: 3\r\n\r\n{]}"
                          "PUT /livez HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nab"
                          "GET /livez HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"));
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++) {
        ck_assert(http_client_receive(client, false, &response));
        ck_assert_uint_eq(response.status, statuses[i]);
        http_response_free(&response);
    }
    ck_assert(http_client_at_end(client));
    http_client_close(client);
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

START_TEST(head_has_the_headers_of_get_and_no_body)
{
    struct http_response get, head;
    char of_get[64], of_head[64];

    start(NULL);
    struct http_client *client = dial();
    ck_assert(http_client_request(client, "GET", "/livez", "", NULL, 0, &get));
    ck_assert(http_client_request(client, "HEAD", "/livez", "", NULL, 0, &head));
    ck_assert_uint_eq(head.status, 200);
    ck_assert_str_eq(http_response_header(&head, "Content-Length", of_head, sizeof of_head),
                     http_response_header(&get, "Content-Length", of_get, sizeof of_get));
    ck_assert_uint_gt(get.body_size, 0);
    http_response_free(&get);
    http_response_free(&head);
    ck_assert_uint_eq(get_status(client, "/livez"), 200); /* nothing of a body was in the way */
    ck_assert(http_client_request(client, "HEAD", "/nowhere", "", NULL, 0, &head));
    ck_assert_uint_eq(head.status, 404);
    http_response_free(&head);
    ck_assert_uint_eq(get_status(client, "/livez"), 200);
    http_client_close(client);
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

START_TEST(every_reply_has_id_date_and_no_store)
{
    struct http_response response;
    char first[128], second[128], value[128];

    start(NULL);
    struct http_client *client = dial();
    ck_assert(http_client_request(client, "GET", "/livez", "", NULL, 0, &response));
    ck_assert_ptr_nonnull(http_response_header(&response, "Request-Id", first, sizeof first));
    ck_assert_ptr_nonnull(http_response_header(&response, "Date", value, sizeof value));
    ck_assert_str_eq(http_response_header(&response, "Cache-Control", value, sizeof value),
                     "no-store");
    http_response_free(&response);
    ck_assert(http_client_request(client, "GET", "/livez", "X-Request-Id: bad id\r\n", NULL, 0,
                                  &response));
    ck_assert_ptr_nonnull(http_response_header(&response, "Request-Id", second, sizeof second));
    ck_assert_str_ne(first, second);
    ck_assert_str_ne(second, "bad id");
    http_response_free(&response);
    ck_assert(
        http_client_request(client, "GET", "/x", "X-Request-Id: mine-7\r\n", NULL, 0, &response));
    ck_assert_str_eq(http_response_header(&response, "Request-Id", value, sizeof value), "mine-7");
    check_problem(&response, "not_found");
    http_response_free(&response);
    http_client_close(client);
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

START_TEST(wrong_method_says_which_are_right)
{
    struct http_response response;
    char value[128];

    start(NULL);
    struct http_client *client = dial();
    ck_assert(http_client_request(client, "DELETE", "/livez", "", NULL, 0, &response));
    ck_assert_uint_eq(response.status, 405);
    ck_assert_str_eq(http_response_header(&response, "Allow", value, sizeof value),
                     "GET, HEAD, OPTIONS");
    http_response_free(&response);
    http_client_close(client);
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

START_TEST(ranges_of_parameters_are_served)
{
    static const char json[] = "{\"optimizer\":{\"name\":\"sgd\",\"lr\":1},"
                               "\"parameters\":{\"w\":[1,2,3,4,5,6,7]}}";
    static const struct {
        const char *headers;
        unsigned status;
        size_t first, size;
        const char *content_range;
    } wanted[] = {
        {"", 200, 0, 28, NULL},
        {"Range: bytes=4-11\r\n", 206, 4, 8, "bytes 4-11/28"},
        {"Range: bytes=-4\r\n", 206, 24, 4, "bytes 24-27/28"},
        {"Range: bytes=0-0,4-5\r\n", 200, 0, 28, NULL},
        {"Range: bytes=4-7\r\nIf-Range: \"0-0\"\r\n", 206, 4, 4, "bytes 4-7/28"},
        {"Range: bytes=4-7\r\nIf-Range: \"0-1\"\r\n", 200, 0, 28, NULL},
        {"Range: bytes=28-\r\n", 416, 0, 0, "bytes */28"},
    };
    const float weights[] = {1, 2, 3, 4, 5, 6, 7};
    struct http_response response;
    char value[64], headers[160];

    start(NULL);
    struct http_client *client = dial();
    ck_assert(http_client_request(client, "PUT", "/v1/sessions/r",
                                  "Content-Type: application/json\r\n", json, sizeof json - 1,
                                  &response));
    ck_assert_msg(response.status == 201, "%s", response.body);
    http_response_free(&response);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        snprintf(headers, sizeof headers, "Accept: application/octet-stream\r\n%s",
                 wanted[i].headers);
        ck_assert(http_client_request(client, "GET", "/v1/sessions/r/parameters", headers, NULL, 0,
                                      &response));
        ck_assert_msg(response.status == wanted[i].status, "%s%s", headers, response.head);
        if (wanted[i].content_range != NULL)
            ck_assert_str_eq(http_response_header(&response, "Content-Range", value, sizeof value),
                             wanted[i].content_range);
        if (response.status < 300) {
            ck_assert_str_eq(http_response_header(&response, "Accept-Ranges", value, sizeof value),
                             "bytes");
            ck_assert_uint_eq(response.body_size, wanted[i].size);
            ck_assert_mem_eq(response.body, (const char *)weights + wanted[i].first,
                             wanted[i].size);
        }
        http_response_free(&response);
    }
    ck_assert(http_client_request(client, "HEAD", "/v1/sessions/r/parameters",
                                  "Accept: application/octet-stream\r\nRange: bytes=0-3\r\n", NULL,
                                  0, &response));
    ck_assert_uint_eq(response.status, 200);
    ck_assert_str_eq(http_response_header(&response, "Content-Length", value, sizeof value), "28");
    http_response_free(&response);
    http_client_close(client);
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

/* --- limits
 * ------------------------------------------------------------------------------------------
 */

static const char *const small_bodies[] = {"--body-bytes-max", "100000", NULL};

START_TEST(body_of_declared_size_beyond_the_limit_gets_413_and_the_connection_lives)
{
    struct http_response response;
    char *body = calloc(1, 3000000);

    start(small_bodies);
    struct http_client *client = dial();
    for (size_t size = 100001; size < 3000000; size *= 4) {
        ck_assert(http_client_request(client, "POST", "/v1/sessions",
                                      "Content-Type: application/json\r\n", body, size, &response));
        ck_assert_uint_eq(response.status, 413);
        check_problem(&response, "too_large");
        http_response_free(&response);
    }
    ck_assert(http_client_request(client, "POST", "/v1/sessions",
                                  "Content-Type: application/json\r\n", body, 100000, &response));
    ck_assert_uint_eq(response.status, 400); /* the limit itself is allowed; NULs are no JSON */
    http_response_free(&response);
    http_client_close(client);
    free(body);
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

START_TEST(chunked_body_beyond_the_limit_gets_413)
{
    struct http_response response;
    char *chunk = calloc(1, 10000);

    start(small_bodies);
    struct http_client *client = dial();
    ck_assert(http_client_send_text(client, POST_SESSIONS "Content-Type: application/json\r\n"
                                                          "Transfer-Encoding: chunked\r\n\r\n"));
    for (int i = 0; i < 11; i++) {
        ck_assert(http_client_send(client, "2710\r\n", 6));
        ck_assert(http_client_send(client, chunk, 10000));
        ck_assert(http_client_send(client, "\r\n", 2));
    }
    ck_assert(http_client_send_text(client, "0\r\n\r\n" GET_LIVEZ "\r\n"));
    ck_assert(http_client_receive(client, false, &response));
    ck_assert_uint_eq(response.status, 413);
    check_problem(&response, "too_large");
    http_response_free(&response);
    ck_assert(http_client_receive(client, false, &response));
    ck_assert_uint_eq(response.status, 200);
    http_response_free(&response);
    http_client_close(client);
    free(chunk);
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

START_TEST(body_far_beyond_the_limit_is_answered_at_once_and_closed)
{
    struct http_response response;

    start(small_bodies);
    struct http_client *client = dial();
    ck_assert(http_client_send_text(client, POST_SESSIONS "Content-Length: 9000000000\r\n\r\nabc"));
    ck_assert(http_client_receive(client, false, &response));
    ck_assert_uint_eq(response.status, 413);
    http_response_free(&response);
    ck_assert(http_client_at_end(client));
    http_client_close(client);
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

START_TEST(endless_chunked_body_is_cut_off)
{
    char *chunk = calloc(1, 1 << 20);
    size_t sent = 0;

    start(small_bodies);
    struct http_client *client = dial();
    ck_assert(http_client_send_text(client, POST_SESSIONS "Transfer-Encoding: chunked\r\n\r\n"));
    while (sent < 200 && http_client_send(client, "100000\r\n", 8) &&
           http_client_send(client, chunk, 1 << 20) && http_client_send(client, "\r\n", 2))
        sent++;
    ck_assert_uint_lt(sent, 100); /* 64 MiB and what fits into socket buffers */
    http_client_close(client);
    free(chunk);
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

START_TEST(expectation_of_a_body_too_large_is_refused_before_it_is_sent)
{
    struct http_response response;

    start(small_bodies);
    struct http_client *client = dial();
    ck_assert(http_client_send_text(client, POST_SESSIONS "Content-Length: 100001\r\n"
                                                          "Expect: 100-continue\r\n\r\n"));
    ck_assert(http_client_receive(client, false, &response));
    ck_assert_uint_eq(response.status, 413);
    http_response_free(&response);
    ck_assert(http_client_at_end(client));
    http_client_close(client);

    client = dial();
    ck_assert(http_client_send_text(client, POST_SESSIONS "Content-Type: application/json\r\n"
                                                          "Content-Length: 3\r\n"
                                                          "Expect: 100-continue\r\n\r\n"));
    ck_assert(http_client_receive(client, false, &response));
    ck_assert_uint_eq(response.status, 100);
    http_response_free(&response);
    ck_assert(http_client_send_text(client, "{]}"));
    ck_assert(http_client_receive(client, false, &response));
    ck_assert_uint_eq(response.status, 400);
    check_problem(&response, "invalid_json");
    http_response_free(&response);
    http_client_close(client);
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

/* Runs a shell line with $PORT; its first line of output. */
static const char *shell(const char *line)
{
    static char out[256];
    char port[16];

    snprintf(port, sizeof port, "%u", server.port);
    setenv("PORT", port, 1);
    FILE *pipe = popen(line, "r");
    ck_assert_ptr_nonnull(pipe);
    out[0] = '\0';
    if (fgets(out, sizeof out, pipe) == NULL)
        out[0] = '\0';
    pclose(pipe);
    out[strcspn(out, "\n")] = '\0';
    return out;
}

START_TEST(python_and_curl_see_413)
{
    start(small_bodies);
    ck_assert_str_eq(
        shell("/usr/bin/python3 -c '\n"
              "import http.client, os\n"
              "c = http.client.HTTPConnection(\"127.0.0.1\", int(os.environ[\"PORT\"]))\n"
              "c.request(\"POST\", \"/v1/sessions\", b\"x\" * 8000000)\n"
              "r = c.getresponse(); r.read(); a = r.status\n"
              "c.request(\"GET\", \"/livez\")\n"
              "print(a, c.getresponse().status)'"),
        "413 200");
    ck_assert_str_eq(shell("head -c 8000000 /dev/zero | curl -s -o /dev/null -w '%{http_code}\\n' "
                           "--data-binary @- http://127.0.0.1:$PORT/v1/sessions"),
                     "413");
    ck_assert_str_eq(shell("head -c 8000000 /dev/zero | curl -s -o /dev/null -w '%{http_code}\\n' "
                           "-H 'Transfer-Encoding: chunked' -H 'Expect:' "
                           "--data-binary @- http://127.0.0.1:$PORT/v1/sessions"),
                     "413");
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

START_TEST(bodies_under_way_have_a_common_limit)
{
    static const char *const options[] = {"--inflight-bytes-max", "5000", NULL};
    struct http_response response;
    char value[16], body[5001] = "";

    start(options);
    struct http_client *first = dial(), *second = dial();
    ck_assert(http_client_request(second, "POST", "/v1/sessions", "", body, 5001, &response));
    ck_assert_uint_eq(response.status, 503);
    check_problem(&response, "overloaded");
    ck_assert_str_eq(http_response_header(&response, "Retry-After", value, sizeof value), "1");
    http_response_free(&response);

    ck_assert(http_client_send_text(first, POST_SESSIONS "Content-Type: application/json\r\n"
                                                         "Content-Length: 3000\r\n\r\nabc"));
    sleep_ms(200); /* the first must be under way */
    ck_assert(http_client_request(second, "POST", "/v1/sessions", "", body, 3000, &response));
    ck_assert_uint_eq(response.status, 503);
    http_response_free(&response);

    ck_assert(http_client_send(first, body, 2997));
    ck_assert(http_client_receive(first, false, &response));
    ck_assert_uint_eq(response.status, 400);
    http_response_free(&response);
    ck_assert(http_client_request(second, "POST", "/v1/sessions",
                                  "Content-Type: application/json\r\n", body, 3000, &response));
    ck_assert_uint_eq(response.status, 400);
    http_response_free(&response);
    http_client_close(first);
    http_client_close(second);
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

START_TEST(connections_beyond_the_limit_get_503)
{
    static const char *const options[] = {"--connections-max", "2", NULL};
    struct http_response response;

    start(options);
    struct http_client *first = dial(), *second = dial();
    ck_assert_uint_eq(get_status(first, "/livez"), 200);
    ck_assert_uint_eq(get_status(second, "/livez"), 200);
    struct http_client *third = dial();
    ck_assert(http_client_request(third, "GET", "/livez", "", NULL, 0, &response));
    ck_assert_uint_eq(response.status, 503);
    check_problem(&response, "overloaded");
    http_response_free(&response);
    ck_assert(http_client_at_end(third));
    http_client_close(third);
    ck_assert_uint_eq(get_status(first, "/livez"), 200);
    http_client_close(first);
    http_client_close(second);
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

/* --- deadlines
 * ------------------------------------------------------------------------------------------
 */

static const char *const short_times[] = {
    "--header-timeout-s", "1", "--body-timeout-s", "1", "--keepalive-timeout-s", "1", NULL,
};

static const char *const slow[] = {
    "",                                                                        /* says nothing */
    "GET /live",                                                               /* half a line */
    GET_LIVEZ "X: ",                                                           /* half a header */
    POST_SESSIONS "Content-Length: 1000\r\n\r\nabc",                           /* half a body */
    POST_SESSIONS "Transfer-Encoding: chunked\r\n\r\n5\r\nab",                 /* half a chunk */
    "POST /nowhere HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\nabc", /* half a refused one
                                                                                */
};

START_TEST(request_that_stops_gets_408)
{
    struct http_response response;

    start(short_times);
    double begin = now_s();
    struct http_client *client = dial();
    ck_assert(http_client_send_text(client, slow[_i]));
    ck_assert(http_client_receive(client, false, &response));
    ck_assert_uint_eq(response.status, 408);
    ck_assert_ptr_nonnull(strstr(response.body, "\"code\":\"request_timeout\""));
    ck_assert(now_s() - begin > 0.9 && now_s() - begin < 5);
    http_response_free(&response);
    ck_assert(http_client_at_end(client));
    http_client_close(client);
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

START_TEST(request_that_drips_gets_408_all_the_same)
{
    struct http_response response;

    start(short_times);
    struct http_client *client = dial();
    double begin = now_s();
    ck_assert(http_client_send_text(client, slow[_i]));
    while (now_s() - begin < 4 && http_client_send(client, "a", 1))
        sleep_ms(100);
    ck_assert(http_client_receive(client, false, &response));
    ck_assert_uint_eq(response.status, 408);
    http_response_free(&response);
    http_client_close(client);
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

START_TEST(idle_connection_is_closed_without_a_word)
{
    start(short_times);
    struct http_client *client = dial();
    ck_assert_uint_eq(get_status(client, "/livez"), 200);
    ck_assert(http_client_at_end(client));
    http_client_close(client);
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

START_TEST(steady_body_may_take_longer_than_the_header)
{
    struct http_response response;
    static const char *const options[] = {"--header-timeout-s", "1", "--body-timeout-s", "10",
                                          NULL};

    start(options);
    struct http_client *client = dial();
    ck_assert(http_client_send_text(client, POST_SESSIONS "Content-Type: application/json\r\n"
                                                          "Content-Length: 20\r\n\r\n"));
    for (int i = 0; i < 20; i++) {
        sleep_ms(100);
        ck_assert(http_client_send(client, "x", 1));
    }
    ck_assert(http_client_receive(client, false, &response));
    ck_assert_uint_eq(response.status, 400);
    check_problem(&response, "invalid_json");
    http_response_free(&response);
    http_client_close(client);
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

/* --- the process
 * ------------------------------------------------------------------------------------------
 */

START_TEST(stop_lets_running_requests_finish)
{
    struct http_response response;

    start(NULL);
    struct http_client *client = dial(), *idle = dial();
    ck_assert_uint_eq(get_status(idle, "/readyz"), 200);
    ck_assert(http_client_send_text(client, POST_SESSIONS "Content-Type: application/json\r\n"
                                                          "Content-Length: 3\r\n\r\n{"));
    sleep_ms(100);
    live_server_signal(&server, SIGTERM);
    sleep_ms(200);
    live_server_signal(&server, SIGTERM); /* a second one changes nothing */
    ck_assert(!http_client_can_connect(server.port));
    ck_assert(http_client_request(idle, "GET", "/readyz", "", NULL, 0, &response));
    ck_assert_uint_eq(response.status, 503);
    check_problem(&response, "draining");
    http_response_free(&response);
    ck_assert(http_client_at_end(idle));
    ck_assert(http_client_send_text(client, "]}"));
    ck_assert(http_client_receive(client, false, &response));
    ck_assert_uint_eq(response.status, 400);
    check_problem(&response, "invalid_json");
    http_response_free(&response);
    ck_assert_int_eq(live_server_wait(&server), 0);
    http_client_close(client);
    http_client_close(idle);
}
END_TEST

START_TEST(stop_does_not_wait_for_ever)
{
    static const char *const options[] = {"--drain-timeout-s", "1", NULL};

    start(options);
    struct http_client *client = dial();
    ck_assert(http_client_send_text(client, POST_SESSIONS "Content-Length: 3\r\n\r\n{"));
    sleep_ms(100);
    double begin = now_s();
    ck_assert_int_eq(live_server_stop(&server), 1);
    ck_assert(now_s() - begin < 5);
    http_client_close(client);
}
END_TEST

START_TEST(idle_connections_do_not_hold_up_the_stop)
{
    start(NULL);
    struct http_client *client = dial(), *silent = dial();
    ck_assert_uint_eq(get_status(client, "/livez"), 200);
    double begin = now_s();
    ck_assert_int_eq(live_server_stop(&server), 0);
    ck_assert(now_s() - begin < 5);
    http_client_close(client);
    http_client_close(silent);
}
END_TEST

START_TEST(second_server_on_the_folder_is_refused)
{
    char out[2048];

    start(NULL);
    const char *arguments[] = {"serve", "--listen", "127.0.0.1:0", "--data", server.folder, NULL};
    ck_assert_int_eq(live_server_run(arguments, out, sizeof out), 1);
    ck_assert_msg(strncmp(out, "descent: ", 9) == 0, "%s", out);
    ck_assert_msg(strchr(out, '\n') == out + strlen(out) - 1, "not one line: %s", out);
    struct http_client *client = dial();
    ck_assert_uint_eq(get_status(client, "/readyz"), 200);
    http_client_close(client);
    live_server_kill(&server);
    live_server_restart(&server); /* what a killed one leaves behind is no obstacle */
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

START_TEST(port_in_use_is_said_in_one_line)
{
    char out[2048], address[32];

    start(NULL);
    snprintf(address, sizeof address, "127.0.0.1:%u", server.port);
    const char *arguments[] = {"serve", "--listen", address, "--data", testing_folder(), NULL};
    ck_assert_int_eq(live_server_run(arguments, out, sizeof out), 1);
    ck_assert_msg(strstr(out, address) != NULL, "%s", out);
    ck_assert_msg(strchr(out, '\n') == out + strlen(out) - 1, "not one line: %s", out);
    ck_assert_int_eq(live_server_stop(&server), 0);
}
END_TEST

static const struct {
    const char *arguments[6];
    int code;
    const char *says;
} commands[] = {
    {{"--version"}, 0, "descent "},
    {{"--help"}, 0, "--body-bytes-max"},
    {{"serve", "--help"}, 0, "DESCENT_LISTEN"},
    {{NULL}, 2, "--help"},
    {{"dance"}, 2, "there is no command \"dance\""},
    {{"serve", "--speed", "9"}, 2, "there is no option --speed"},
    {{"serve", "--idle-s", "0"}, 2, "--idle-s is \"0\""},
    {{"serve", "--idle-s"}, 2, "--idle-s needs a value"},
    {{"serve", "--data", "memory:", "--listen", "nonsense"}, 1, "must be HOST:PORT"},
    {{"serve", "--data", "memory:", "--listen", "127.0.0.1:65536"}, 1, "must be HOST:PORT"},
    {{"serve", "--data", "memory:", "--listen", "::1:8080"}, 1, "must be HOST:PORT"},
    {{"serve", "--data", "memory:", "--listen", "192.0.2.1:0"}, 1, "192.0.2.1:0"},
    {{"serve", "--data", "/dev/null/folder", "--listen=127.0.0.1:0"}, 1, "/dev/null/folder"},
    {{"serve", "--data", "/proc/folder", "--listen=127.0.0.1:0"}, 1, "/proc/folder"},
    {{"health", "--listen", "127.0.0.1:1"}, 1, "127.0.0.1:1"},
};

START_TEST(command_line_answers_clearly)
{
    char out[16384];
    int code = live_server_run(commands[_i].arguments, out, sizeof out);

    ck_assert_msg(code == commands[_i].code, "%d: %s", code, out);
    ck_assert_msg(strstr(out, commands[_i].says) != NULL, "%s", out);
    if (code != 0)
        ck_assert_msg(strchr(out, '\n') == out + strlen(out) - 1, "not one line: %s", out);
}
END_TEST

START_TEST(health_asks_a_running_server)
{
    char out[1024], address[32];

    start(NULL);
    snprintf(address, sizeof address, "127.0.0.1:%u", server.port);
    const char *arguments[] = {"health", "--listen", address, NULL};
    ck_assert_msg(live_server_run(arguments, out, sizeof out) == 0, "%s", out);
    ck_assert_str_eq(out, "");
    ck_assert_int_eq(live_server_stop(&server), 0);
    ck_assert_int_eq(live_server_run(arguments, out, sizeof out), 1);
}
END_TEST

Suite *suite_http_guards(void);
Suite *suite_http_guards(void)
{
    Suite *suite = suite_create("http_guards");
    TCase *tests = tcase_create("http_guards");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_test(tests, every_odd_request_has_one_answer);
    tcase_add_test(tests, odd_requests_in_single_bytes_have_the_same_answer);
    tcase_add_test(tests, long_headers_and_addresses_are_refused);
    tcase_add_test(tests, pipelined_requests_are_answered_in_order);
    tcase_add_test(tests, head_has_the_headers_of_get_and_no_body);
    tcase_add_test(tests, every_reply_has_id_date_and_no_store);
    tcase_add_test(tests, wrong_method_says_which_are_right);
    tcase_add_test(tests, ranges_of_parameters_are_served);
    tcase_add_test(tests, body_of_declared_size_beyond_the_limit_gets_413_and_the_connection_lives);
    tcase_add_test(tests, chunked_body_beyond_the_limit_gets_413);
    tcase_add_test(tests, body_far_beyond_the_limit_is_answered_at_once_and_closed);
    tcase_add_test(tests, endless_chunked_body_is_cut_off);
    tcase_add_test(tests, expectation_of_a_body_too_large_is_refused_before_it_is_sent);
    tcase_add_test(tests, python_and_curl_see_413);
    tcase_add_test(tests, bodies_under_way_have_a_common_limit);
    tcase_add_test(tests, connections_beyond_the_limit_get_503);
    tcase_add_loop_test(tests, request_that_stops_gets_408, 0, sizeof slow / sizeof *slow);
    tcase_add_loop_test(tests, request_that_drips_gets_408_all_the_same, 1, 4);
    tcase_add_test(tests, idle_connection_is_closed_without_a_word);
    tcase_add_test(tests, steady_body_may_take_longer_than_the_header);
    tcase_add_test(tests, stop_lets_running_requests_finish);
    tcase_add_test(tests, stop_does_not_wait_for_ever);
    tcase_add_test(tests, idle_connections_do_not_hold_up_the_stop);
    tcase_add_test(tests, second_server_on_the_folder_is_refused);
    tcase_add_test(tests, port_in_use_is_said_in_one_line);
    tcase_add_loop_test(tests, command_line_answers_clearly, 0, sizeof commands / sizeof *commands);
    tcase_add_test(tests, health_asks_a_running_server);
    suite_add_tcase(suite, tests);
    return suite;
}
