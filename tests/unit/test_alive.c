/* What feeds the watchdog: progress, and what looks like none but is no fault. */
#include <arpa/inet.h>
#include <check.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "api/alive.h"
#include "api/config.h"
#include "api/exchange.h"
#include "api/watch.h"

enum { PATIENT_US = 60 * 1000000 };

static struct config config;
static struct commons commons;
static struct alive alive;
static int listening;
static struct sockaddr_in address;

static void prepare(void)
{
    struct fault fault;
    socklen_t size = sizeof address;

    memset(&commons, 0, sizeof commons);
    alive = (struct alive){.accepted = 0};
    config.connections_max = 4;
    commons.config = &config;
    ck_assert_int_eq(watch_new(&commons.watch, &fault), STATUS_OK);
    address = (struct sockaddr_in){.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(listening, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(listen(listening, 8), 0);
    ck_assert_int_eq(getsockname(listening, (struct sockaddr *)&address, &size), 0);
}

static void clean_up(void)
{
    watch_free(commons.watch);
    close(listening);
}

/* A client that waits to be accepted. */
static int knock(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void let_in(void)
{
    int fd = accept(listening, NULL, NULL);

    ck_assert_int_ge(fd, 0);
    close(fd);
    commons.accepted++;
}

static const char *looks(void)
{
    const char *why = "";

    return alive_look(&alive, &commons, listening, PATIENT_US, &why) ? NULL : why;
}

START_TEST(who_has_nothing_to_do_is_alive)
{
    for (int i = 0; i < 5; i++)
        ck_assert_ptr_null(looks());
}
END_TEST

START_TEST(who_lets_people_wait_once_is_alive_and_twice_is_not)
{
    int client = knock();

    ck_assert_ptr_null(looks());
    ck_assert_str_eq(looks(), "nobody accepts connections");
    ck_assert_str_eq(looks(), "nobody accepts connections");
    let_in();
    ck_assert_ptr_null(looks());
    ck_assert_ptr_null(looks());
    close(client);
}
END_TEST

START_TEST(who_accepts_one_of_many_at_a_time_is_alive)
{
    int clients[6];

    for (int i = 0; i < 6; i++)
        clients[i] = knock();
    for (int i = 0; i < 5; i++) {
        ck_assert_ptr_null(looks());
        let_in();
    }
    for (int i = 0; i < 6; i++)
        close(clients[i]);
}
END_TEST

START_TEST(who_is_full_lets_people_wait)
{
    int client = knock();

    commons.connections = config.connections_max;
    for (int i = 0; i < 5; i++)
        ck_assert_ptr_null(looks());
    /* There is room again: the first look only sees that somebody waits. */
    commons.connections--;
    ck_assert_ptr_null(looks());
    ck_assert_ptr_nonnull(looks());
    close(client);
}
END_TEST

START_TEST(who_has_no_descriptor_lets_people_wait)
{
    struct rlimit limit, none;
    int client = knock();

    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = (struct rlimit){.rlim_cur = (rlim_t)client + 1, .rlim_max = limit.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    for (int i = 0; i < 5; i++)
        ck_assert_ptr_null(looks());
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    ck_assert_ptr_null(looks());
    ck_assert_ptr_nonnull(looks());
    close(client);
}
END_TEST

START_TEST(deadlines_that_nobody_keeps_are_noticed)
{
    const struct timespec pause = {.tv_nsec = 20 * 1000000};
    const char *why = NULL;

    nanosleep(&pause, NULL);
    /* The watch looks four times a second, so it has hardly looked in the last microsecond. */
    ck_assert(!alive_look(&alive, &commons, listening, 1, &why));
    ck_assert_str_eq(why, "nobody keeps the deadlines of connections");
    ck_assert_uint_lt(watch_silence_us(commons.watch), PATIENT_US);
}
END_TEST

Suite *suite_alive(void);
Suite *suite_alive(void)
{
    Suite *suite = suite_create("alive");
    TCase *tests = tcase_create("alive");

    tcase_add_checked_fixture(tests, prepare, clean_up);
    tcase_add_test(tests, who_has_nothing_to_do_is_alive);
    tcase_add_test(tests, who_lets_people_wait_once_is_alive_and_twice_is_not);
    tcase_add_test(tests, who_accepts_one_of_many_at_a_time_is_alive);
    tcase_add_test(tests, who_is_full_lets_people_wait);
    tcase_add_test(tests, who_has_no_descriptor_lets_people_wait);
    tcase_add_test(tests, deadlines_that_nobody_keeps_are_noticed);
    suite_add_tcase(suite, tests);
    return suite;
}
