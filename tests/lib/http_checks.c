/* What the tests of the HTTP shell share. */
#include "tests/lib/http_checks.h"

#include <check.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tests/lib/testing.h"

struct live_server http_server;

void http_start(const char *const *options)
{
    live_server_start(&http_server, testing_folder(), options);
}

struct http_client *http_dial(void)
{
    return http_client_open(http_server.port, HTTP_WAIT_S);
}

double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void sleep_ms(long ms)
{
    struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    nanosleep(&pause, NULL);
}

unsigned get_status(struct http_client *client, const char *path)
{
    struct http_response response;

    ck_assert(http_client_request(client, "GET", path, "", NULL, 0, &response));
    unsigned status = response.status;
    http_response_free(&response);
    return status;
}

void check_problem(const struct http_response *response, const char *code)
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
