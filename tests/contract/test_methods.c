/* Methods, over every line of routes.def: HEAD says what GET says, OPTIONS what there is, and the
 * rest has one defined answer. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/router.h"
#include "tests/lib/api_client.h"
#include "tests/lib/live_server.h"
#include "tests/lib/remote.h"
#include "tests/lib/testing.h"

enum { TEST_TIMEOUT_S = 60, PATH_BYTES = 256, LINES_MAX = 64 };

#define ID "methods"

static struct live_server server;

/* A session with steps and a snapshot that is ready. */
static void start(void)
{
    live_server_start(&server, "memory:", NULL);
    struct remote remote =
        remote_create(server.port, ID, "\"optimizer\": \"sgd\", \"svrg\": {\"update_freq\": null}");
    remote_steps(&remote, 1, 3);
    struct answer answer = remote_send(&remote, "POST", "/snapshots", "{\"workers\": 1}", 201);
    answer_close(&answer);
}

static void stop(void)
{
    ck_assert_int_eq(live_server_stop(&server), 0);
}

/* The pattern with its places filled: ids, numbers, names. */
static const char *path_of(const char *pattern, char path[PATH_BYTES])
{
    path[0] = '\0';
    for (const char *at = pattern; *at != '\0';) {
        size_t size = strcspn(at, "{");
        strncat(path, at, size);
        at += size;
        if (*at == '{') {
            strcat(path, strncmp(at, "{id}", 4) == 0             ? ID
                         : strncmp(at, "{number}", 8) == 0       ? "1"
                         : strstr(pattern, "optimizers") != NULL ? "adam"
                                                                 : "w0");
            at += strcspn(at, "}") + 1;
        }
    }
    return path;
}

static int compare_lines(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The field lines that do not change from one answer to the next, sorted. */
static size_t lines_of(char *head, char *lines[LINES_MAX])
{
    static const char *const changing[] = {
        "Date:", "Request-Id:", "Connection:", "Transfer-Encoding:"};
    size_t count = 0;

    for (char *line = strtok(head, "\r\n"); line != NULL; line = strtok(NULL, "\r\n")) {
        bool changes = false;
        for (size_t i = 0; i < sizeof changing / sizeof *changing; i++)
            changes |= strncasecmp(line, changing[i], strlen(changing[i])) == 0;
        ck_assert_uint_lt(count, LINES_MAX);
        if (!changes)
            lines[count++] = line;
    }
    qsort(lines, count, sizeof *lines, compare_lines);
    return count;
}

static void check_head(const char *path, const char *headers)
{
    struct answer get = api_send(server.port, "GET", path, headers, NULL, 0);
    struct answer head = api_send(server.port, "HEAD", path, headers, NULL, 0);
    char *of_get[LINES_MAX], *of_head[LINES_MAX];

    ck_assert_uint_eq(head.http.body_size, 0);
    size_t count = lines_of(get.http.head, of_get);
    size_t head_count = lines_of(head.http.head, of_head);
    ck_assert_uint_gt(count, 2);
    for (size_t i = 0; i < count && i < head_count; i++)
        ck_assert_msg(strcmp(of_get[i], of_head[i]) == 0, "%s: GET %s, HEAD %s", path, of_get[i],
                      of_head[i]);
    ck_assert_uint_eq(head_count, count);
    answer_close(&get);
    answer_close(&head);
}

START_TEST(head_says_what_get_says)
{
    char path[PATH_BYTES];
    const struct route *route;
    size_t count = 0;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        if (route->method != METHOD_GET || strcmp(route->operation, "metrics") == 0)
            continue; /* the length of what is counted changes */
        check_head(path_of(route->pattern, path), "");
        check_head(path, "Accept: application/vnd.safetensors\r\n");
        check_head(path, "Accept: application/x-ndjson\r\n");
        check_head(path, "If-None-Match: \"0-3\"\r\n");
        strcat(path, "?none=1");
        check_head(path, "");
        count++;
    }
    ck_assert_uint_gt(count, 15);
}
END_TEST

/* RFC 9110, 14.2: only GET has ranges. */
START_TEST(head_has_no_ranges)
{
    static const char headers[] = "Accept: application/octet-stream\r\nRange: bytes=3-9\r\n";
    static const char path[] = "/v1/sessions/" ID "/parameters";
    struct answer get = api_send(server.port, "GET", path, headers, NULL, 0);
    struct answer head = api_send(server.port, "HEAD", path, headers, NULL, 0);

    ck_assert_uint_eq(get.http.status, 206);
    ck_assert_uint_eq(head.http.status, 200);
    answer_close(&get);
    answer_close(&head);
}
END_TEST

START_TEST(a_kept_connection_goes_on_after_head)
{
    struct http_client *client = http_client_open(server.port, 10);
    struct http_response response;

    for (int i = 0; i < 3; i++) {
        ck_assert(http_client_request(client, "HEAD", "/v1/sessions/" ID "/parameters", "", NULL, 0,
                                      &response));
        ck_assert_uint_eq(response.status, 200);
        http_response_free(&response);
        ck_assert(http_client_request(client, "GET", "/livez", "", NULL, 0, &response));
        ck_assert_uint_eq(response.status, 200);
        http_response_free(&response);
    }
    http_client_close(client);
}
END_TEST

START_TEST(other_methods_are_refused_with_those_there_are)
{
    static const char *const methods[] = {"TRACE", "CONNECT", "BREW", "PROPFIND", "get", "LINK"};
    char path[PATH_BYTES], allow[128];
    const struct route *route;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        struct answer answer =
            api_send(server.port, methods[r % 6], path_of(route->pattern, path), "", NULL, 0);
        answer_check_problem(&answer, 405, "method_not_allowed", path);
        ck_assert_ptr_nonnull(http_response_header(&answer.http, "Allow", allow, sizeof allow));
        ck_assert_ptr_nonnull(strstr(allow, method_name(route->method)));
        answer_close(&answer);
        answer = api_send(server.port, "OPTIONS", path, "", NULL, 0);
        char listed[128];
        ck_assert_uint_eq(answer.http.status, 204);
        ck_assert_str_eq(http_response_header(&answer.http, "Allow", listed, sizeof listed), allow);
        answer_close(&answer);
    }
    struct answer answer = api_send(server.port, "TRACE", "/nowhere", "", NULL, 0);
    answer_check_problem(&answer, 404, "not_found", "/nowhere");
    answer_close(&answer);
}
END_TEST

Suite *suite_methods(void);
Suite *suite_methods(void)
{
    Suite *suite = suite_create("methods");
    TCase *tests = tcase_create("methods");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, stop);
    tcase_add_test(tests, head_says_what_get_says);
    tcase_add_test(tests, head_has_no_ranges);
    tcase_add_test(tests, a_kept_connection_goes_on_after_head);
    tcase_add_test(tests, other_methods_are_refused_with_those_there_are);
    suite_add_tcase(suite, tests);
    return suite;
}
