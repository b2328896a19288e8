/* The HTTP shell against a live server: one defined answer to everything, never a hang, never an
 * answer to something that was inside a body. The requests are in tests/lib/odd_requests.c. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/http_checks.h"
#include "tests/lib/http_client.h"
#include "tests/lib/live_server.h"
#include "tests/lib/odd_requests.h"
#include "tests/lib/testing.h"

enum {
    TEST_TIMEOUT_S = 60,
    SPLITS = 3, /* of every odd request, at places drawn from the seed */
};

#define GET_LIVEZ "GET /livez HTTP/1.1\r\nHost: test\r\n"
#define POST_CHUNKS                                                                                \
    "POST /v1/sessions HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"               \
    "Transfer-Encoding: chunked\r\n\r\n"
#define AFTER GET_LIVEZ "X-Request-Id: after\r\nConnection: close\r\n\r\n"

/* The first final answer. */
static bool receive(struct http_client *client, bool to_head, struct http_response *out)
{
    *out = (struct http_response){.status = 0};
    do
        http_response_free(out);
    while (http_client_receive(client, to_head, out) && out->status == 100);
    return out->status != 0;
}

static void check_answer(struct http_client *client, const struct odd_request *odd,
                         struct http_response *response)
{
    bool to_head = strncmp(odd->bytes, "HEAD ", 5) == 0;

    bool answered = receive(client, to_head, response);
    ck_assert_msg(answered == (odd->status != 0), "%s: %s", odd->name,
                  answered ? response->head : "no answer");
    if (!answered)
        return;
    ck_assert_msg(response->status == odd->status, "%s: %s%s", odd->name, response->head,
                  to_head ? "" : response->body);
    if (odd->code != NULL && strcmp(odd->code, "html") == 0)
        ck_assert_msg(strstr(response->body, "<html>") != NULL, "%s: %s", odd->name,
                      response->body);
    else if (odd->code != NULL && !to_head)
        check_problem(response, odd->code);
}

/* `pieces` sends the request. Nothing comes after its answer, above all no answer to what was
 * inside a body; or, where it leaves the connection open, the answer to the request behind it. */
static void try(const struct odd_request *odd, bool followed, size_t split)
{
    struct http_client *client = http_dial();
    struct http_response response, next;
    char value[64];

    bool sent = http_client_send(client, odd->bytes, split);
    for (size_t k = split; sent && split == 0 && k < odd->size; k++)
        sent = http_client_send(client, odd->bytes + k, 1);
    if (split > 0 && split < odd->size) {
        sleep_ms(0); /* the server reads what is there */
        http_client_send(client, odd->bytes + split, odd->size - split);
    }
    if (followed)
        http_client_send(client, AFTER, sizeof AFTER - 1);
    http_client_finish(client);
    check_answer(client, odd, &response);
    if (followed && odd->status != 0 &&
        (http_response_header(&response, "Connection", value, sizeof value) == NULL ||
         strcmp(value, "close") != 0)) {
        ck_assert_msg(http_client_receive(client, false, &next), "%s: the connection is lost",
                      odd->name);
        ck_assert_uint_eq(next.status, 200);
        ck_assert_str_eq(http_response_header(&next, "Request-Id", value, sizeof value), "after");
        http_response_free(&next);
    }
    ck_assert_msg(http_client_at_end(client), "%s: a second answer (cut at %zu)", odd->name, split);
    http_response_free(&response);
    http_client_close(client);
}

START_TEST(every_odd_request_has_one_answer)
{
    http_start(NULL);
    for (size_t i = 0; i < odd_requests_count; i++)
        try(&odd_requests[i], false, odd_requests[i].size);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

/* Whoever is refused because the end of the request cannot be trusted gets no second chance on the
 * connection; all others do. */
START_TEST(request_behind_an_odd_one_is_answered_or_the_connection_closed)
{
    http_start(NULL);
    for (size_t i = 0; i < odd_requests_count; i++)
        try(&odd_requests[i], true, odd_requests[i].size);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

/* The same, a byte at a time: the server must not depend on how the bytes arrive. */
START_TEST(odd_requests_in_single_bytes_have_the_same_answer)
{
    http_start(NULL);
    for (size_t i = 0; i < odd_requests_count; i++)
        try(&odd_requests[i], false, 0);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

START_TEST(odd_requests_in_two_pieces_have_the_same_answer)
{
    uint64_t random = testing_seed() ^ 0x5917;

    http_start(NULL);
    for (size_t i = 0; i < odd_requests_count; i++)
        for (int k = 0; k < SPLITS; k++)
            try(&odd_requests[i], false, 1 + testing_random(&random) % (odd_requests[i].size - 1));
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

/* Every place where a chunked request, with all that it can have, may be cut. */
START_TEST(chunked_request_may_be_cut_anywhere)
{
    static const char bytes[] = POST_CHUNKS "1;a=b\r\n{\r\n002\r\n]}\r\n0;c\r\nX: a\r\n\r\n";
    static const struct odd_request whole = {"chunks", bytes, sizeof bytes - 1, 400,
                                             "invalid_json"};

    http_start(NULL);
    for (size_t split = 1; split < whole.size; split++)
        try(&whole, true, split);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

/* --- beyond the limits --- */

static const struct {
    const char *first, *unit;
    size_t count; /* of the unit */
    const char *last;
    unsigned status;
    const char *code; /* as odd_request */
} large[] = {
    {GET_LIVEZ, "X: 1\r\n", 63, "\r\n", 200, NULL},
    {GET_LIVEZ, "X: 1\r\n", 64, "\r\n", 431, "headers_too_large"},
    {GET_LIVEZ, "X: 1\r\n", 60000, "\r\n", 431, "headers_too_large"},
    {GET_LIVEZ "X: ", "a", 30000, "\r\n\r\n", 200, NULL},
    {GET_LIVEZ "X: ", "a", 390000, "\r\n\r\n", 431, "headers_too_large"},
    {GET_LIVEZ, "X", 390000, ": a\r\n\r\n", 431, "headers_too_large"},
    {GET_LIVEZ "Cookie: ", "a=b;", 20000, "\r\n\r\n", 431, "headers_too_large"},
    {GET_LIVEZ "X: a\r\n", " b\r\n", 60000, "\r\n\r\n", 431, "headers_too_large"},
    {"GET /", "a", 8191, " HTTP/1.1\r\nHost: test\r\n\r\n", 404, "not_found"},
    {"GET /", "a", 8192, " HTTP/1.1\r\nHost: test\r\n\r\n", 414, "too_large"},
    {"GET /", "/", 8191, " HTTP/1.1\r\nHost: test\r\n\r\n", 404, "not_found"},
    {"GET /livez?", "&", 8000, " HTTP/1.1\r\nHost: test\r\n\r\n", 400, "invalid_request"},
    {"GET /livez?", "a&", 4000, " HTTP/1.1\r\nHost: test\r\n\r\n", 400, "invalid_request"},
    {"GET /livez?", "a=b&", 10000, " HTTP/1.1\r\nHost: test\r\n\r\n", 414, "too_large"},
    {"GET /livez?a=", "%41", 2700, " HTTP/1.1\r\nHost: test\r\n\r\n", 400, "invalid_request"},
    {"GET /", "a", 390000, " HTTP/1.1\r\nHost: test\r\n\r\n", 414, "html"},
    {"", "A", 10240, " /livez HTTP/1.1\r\nHost: test\r\n\r\n", 405, "method_not_allowed"},
    {"", "A", 390000, " /livez HTTP/1.1\r\nHost: test\r\n\r\n", 414, "html"},
    {POST_CHUNKS "3;", "a", 30000, "\r\n{]}\r\n0\r\n\r\n", 400, "invalid_json"},
    {POST_CHUNKS "3;", "a", 390000, "\r\n{]}\r\n0\r\n\r\n", 413, "too_large"},
    {POST_CHUNKS, "0", 390000, "3\r\n{]}\r\n0\r\n\r\n", 413, "too_large"},
    {POST_CHUNKS "3\r\n{]}\r\n0\r\n", "X: a\r\n", 200, "\r\n", 400, "invalid_json"},
    {POST_CHUNKS "3\r\n{]}\r\n0\r\n", "X: a\r\n", 60000, "\r\n", 431, "headers_too_large"},
    {POST_CHUNKS "3\r\n{]}\r\n0\r\nX: ", "a", 390000, "\r\n\r\n", 431, "headers_too_large"},
    {POST_CHUNKS "3\r\n{]}\r\n0\r\nX: ", "a\r\n ", 60000, "\r\n\r\n", 431, "headers_too_large"},
    {POST_CHUNKS, "1\r\n \r\n", 60000, "0\r\n\r\n", 400, "invalid_json"},
};

START_TEST(every_limit_has_one_answer)
{
    http_start(NULL);
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        size_t unit = strlen(large[i].unit), size = strlen(large[i].first);
        char *bytes = malloc(size + large[i].count * unit + strlen(large[i].last) + 1);
        char name[32];
        memcpy(bytes, large[i].first, size);
        for (size_t k = 0; k < large[i].count; k++, size += unit)
            memcpy(bytes + size, large[i].unit, unit);
        memcpy(bytes + size, large[i].last, strlen(large[i].last) + 1);
        snprintf(name, sizeof name, "limit %zu", i);
        struct odd_request odd = {name, bytes, size + strlen(large[i].last), large[i].status,
                                  large[i].code};
        try(&odd, false, odd.size);
        free(bytes);
    }
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

/* What a client leaves unfinished has no answer, and leaves nothing behind. */
START_TEST(request_that_ends_early_is_dropped)
{
    static const char *const halves[] = {
        "",
        "\r\n",
        "GET",
        GET_LIVEZ,
        GET_LIVEZ "X: a",
        GET_LIVEZ "X: a\r\n",
        POST_CHUNKS,
        POST_CHUNKS "3",
        POST_CHUNKS "3\r\n{]",
        POST_CHUNKS "3\r\n{]}\r\n0\r\n",
        POST_CHUNKS "3\r\n{]}\r\n0\r\nX: a\r\n",
        POST_CHUNKS "7fffffffffffffff\r\n{]}",
        "POST /v1/sessions HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\n{]}",
        "POST /nowhere HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\n{]}",
        "\026\003\001\002\000\001\000\001\374\003\003",
    };

    http_start(NULL);
    for (size_t i = 0; i < sizeof halves / sizeof *halves; i++) {
        struct http_client *client = http_dial();
        http_client_send_text(client, halves[i]);
        http_client_finish(client);
        ck_assert_msg(http_client_at_end(client), "%s", halves[i]);
        http_client_close(client);
    }
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

Suite *suite_http_guards(void);
Suite *suite_http_guards(void)
{
    Suite *suite = suite_create("http_guards");
    TCase *tests = tcase_create("http_guards");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_test(tests, every_odd_request_has_one_answer);
    tcase_add_test(tests, request_behind_an_odd_one_is_answered_or_the_connection_closed);
    tcase_add_test(tests, odd_requests_in_single_bytes_have_the_same_answer);
    tcase_add_test(tests, odd_requests_in_two_pieces_have_the_same_answer);
    tcase_add_test(tests, chunked_request_may_be_cut_anywhere);
    tcase_add_test(tests, every_limit_has_one_answer);
    tcase_add_test(tests, request_that_ends_early_is_dropped);
    suite_add_tcase(suite, tests);
    return suite;
}
