/* The process: how it stops, what it says when it cannot start, its command line. */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "tests/lib/http_checks.h"
#include "tests/lib/http_client.h"
#include "tests/lib/live_server.h"
#include "tests/lib/testing.h"

enum { TEST_TIMEOUT_S = 60 };

#define POST_SESSIONS "POST /v1/sessions HTTP/1.1\r\nHost: test\r\n"

START_TEST(stop_lets_running_requests_finish)
{
    struct http_response response;

    http_start(NULL);
    struct http_client *client = http_dial(), *idle = http_dial();
    ck_assert_uint_eq(get_status(idle, "/readyz"), 200);
    ck_assert(http_client_send_text(client, POST_SESSIONS "Content-Type: application/json\r\n"
                                                          "Content-Length: 3\r\n\r\n{"));
    sleep_ms(100);
    live_server_signal(&http_server, SIGTERM);
    sleep_ms(200);
    live_server_signal(&http_server, SIGTERM); /* a second one changes nothing */
    ck_assert(!http_client_can_connect(http_server.port));
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
    ck_assert_int_eq(live_server_wait(&http_server), 0);
    http_client_close(client);
    http_client_close(idle);
}
END_TEST

START_TEST(stop_does_not_wait_for_ever)
{
    static const char *const options[] = {"--drain-timeout-s", "1", NULL};

    http_start(options);
    struct http_client *client = http_dial();
    ck_assert(http_client_send_text(client, POST_SESSIONS "Content-Length: 3\r\n\r\n{"));
    sleep_ms(100);
    double begin = now_s();
    ck_assert_int_eq(live_server_stop(&http_server), 1);
    ck_assert(now_s() - begin < 5);
    http_client_close(client);
}
END_TEST

START_TEST(idle_connections_do_not_hold_up_the_stop)
{
    http_start(NULL);
    struct http_client *client = http_dial(), *silent = http_dial();
    ck_assert_uint_eq(get_status(client, "/livez"), 200);
    double begin = now_s();
    ck_assert_int_eq(live_server_stop(&http_server), 0);
    ck_assert(now_s() - begin < 5);
    http_client_close(client);
    http_client_close(silent);
}
END_TEST

/* Whoever is refused, for want of a token or of an address, may take his time for the body. */
START_TEST(refused_requests_do_not_hold_up_the_stop)
{
    http_start(NULL);
    struct http_client *client = http_dial();
    ck_assert(http_client_send_text(client, "POST /nowhere HTTP/1.1\r\nHost: test\r\n"
                                            "Content-Length: 3\r\n\r\n{"));
    sleep_ms(100);
    double begin = now_s();
    ck_assert_int_eq(live_server_stop(&http_server), 0);
    ck_assert(now_s() - begin < 5);
    http_client_close(client);
}
END_TEST

START_TEST(second_server_on_the_folder_is_refused)
{
    char out[2048];

    http_start(NULL);
    const char *arguments[] = {"serve",  "--listen",         "127.0.0.1:0",
                               "--data", http_server.folder, NULL};
    ck_assert_int_eq(live_server_run(arguments, out, sizeof out), 1);
    ck_assert_msg(strncmp(out, "descent: ", 9) == 0, "%s", out);
    ck_assert_msg(strchr(out, '\n') == out + strlen(out) - 1, "not one line: %s", out);
    struct http_client *client = http_dial();
    ck_assert_uint_eq(get_status(client, "/readyz"), 200);
    http_client_close(client);
    live_server_kill(&http_server);
    live_server_restart(&http_server); /* what a killed one leaves behind is no obstacle */
    ck_assert_int_eq(live_server_stop(&http_server), 0);
}
END_TEST

START_TEST(port_in_use_is_said_in_one_line)
{
    char out[2048], address[32];

    http_start(NULL);
    snprintf(address, sizeof address, "127.0.0.1:%u", http_server.port);
    const char *arguments[] = {"serve", "--listen", address, "--data", testing_folder(), NULL};
    ck_assert_int_eq(live_server_run(arguments, out, sizeof out), 1);
    ck_assert_msg(strstr(out, address) != NULL, "%s", out);
    ck_assert_msg(strchr(out, '\n') == out + strlen(out) - 1, "not one line: %s", out);
    ck_assert_int_eq(live_server_stop(&http_server), 0);
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

    http_start(NULL);
    snprintf(address, sizeof address, "127.0.0.1:%u", http_server.port);
    const char *arguments[] = {"health", "--listen", address, NULL};
    ck_assert_msg(live_server_run(arguments, out, sizeof out) == 0, "%s", out);
    ck_assert_str_eq(out, "");
    ck_assert_int_eq(live_server_stop(&http_server), 0);
    ck_assert_int_eq(live_server_run(arguments, out, sizeof out), 1);
}
END_TEST

Suite *suite_http_stop(void);
Suite *suite_http_stop(void)
{
    Suite *suite = suite_create("http_stop");
    TCase *tests = tcase_create("http_stop");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_test(tests, stop_lets_running_requests_finish);
    tcase_add_test(tests, stop_does_not_wait_for_ever);
    tcase_add_test(tests, idle_connections_do_not_hold_up_the_stop);
    tcase_add_test(tests, refused_requests_do_not_hold_up_the_stop);
    tcase_add_test(tests, second_server_on_the_folder_is_refused);
    tcase_add_test(tests, port_in_use_is_said_in_one_line);
    tcase_add_loop_test(tests, command_line_answers_clearly, 0, sizeof commands / sizeof *commands);
    tcase_add_test(tests, health_asks_a_running_server);
    suite_add_tcase(suite, tests);
    return suite;
}
