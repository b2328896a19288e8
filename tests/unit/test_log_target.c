/* Where the log goes: files that are moved away under many threads, readers that do not read. */
#include <check.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "service/core/clock.h"
#include "service/core/log.h"
#include "service/core/metric.h"
#include "tests/lib/testing.h"

enum { FILE_MAX = 8 << 20, THREADS = 8, EACH = 400 };

static char path[PATH_MAX];
static char *content;

static void set_up(void)
{
    struct fault fault;

    snprintf(path, sizeof path, "%s/log", testing_folder());
    content = malloc(FILE_MAX);
    ck_assert_ptr_nonnull(content);
    log_set_level(LOG_INFO);
    log_set_format(LOG_TEXT);
    ck_assert_msg(log_open(path, &fault) == STATUS_OK, "%s", fault.detail);
}

static void tear_down(void)
{
    free(content);
    log_set_level(LOG_OFF);
}

/* The whole file as text. */
static const char *read_file(const char *name)
{
    int file = open(name, O_RDONLY);
    ssize_t size = 0, part;

    ck_assert_int_ge(file, 0);
    while ((part = read(file, content + size, (size_t)(FILE_MAX - 1 - size))) > 0)
        size += part;
    ck_assert_int_eq(part, 0);
    close(file);
    content[size] = '\0';
    ck_assert_uint_eq(strlen(content), (size_t)size);
    return content;
}

/* --- levels and files --- */

START_TEST(levels_below_the_threshold_are_not_written)
{
    for (int level = LOG_DEBUG; level <= LOG_OFF; level++) {
        log_set_level((enum log_level)level);
        for (int line = LOG_DEBUG; line < LOG_OFF; line++) {
            ck_assert_int_eq(log_wants((enum log_level)line), line >= level);
            log_write((enum log_level)line, "a line");
            ck_assert_int_eq(*read_file(path) != '\0', line >= level);
            ck_assert_int_eq(truncate(path, 0), 0);
        }
    }
}
END_TEST

START_TEST(a_file_is_appended_to_and_private)
{
    struct fault fault;
    struct stat about;
    char absent[PATH_MAX + 16];

    log_info("one");
    ck_assert_int_eq(stat(path, &about), 0);
    ck_assert_uint_eq(about.st_mode & 0777 & ~0640u, 0);
    ck_assert_int_eq(log_open(path, &fault), STATUS_OK);
    log_info("two");
    const char *text = read_file(path);
    ck_assert_ptr_nonnull(strstr(text, "one\n"));
    ck_assert_ptr_nonnull(strstr(text, "two\n"));
    snprintf(absent, sizeof absent, "%s/absent/log", path);
    ck_assert_int_eq(log_open(absent, &fault), STATUS_INTERNAL);
    ck_assert_ptr_nonnull(strstr(fault.detail, absent));
    log_info("three");
    ck_assert_ptr_nonnull(strstr(read_file(path), "three\n"));
}
END_TEST

/* A disk that is full takes half a line: the next one begins on its own. */
START_TEST(a_line_that_was_cut_off_is_ended)
{
    struct rlimit limit;
    struct stat about;

    signal(SIGXFSZ, SIG_IGN);
    log_info("before");
    ck_assert_int_eq(stat(path, &about), 0);
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    rlim_t whole = limit.rlim_cur;
    limit.rlim_cur = (rlim_t)about.st_size + 36;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    log_info("this line is cut off");
    log_info("this one is not begun");
    limit.rlim_cur = whole;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    log_info("after");
    log_info("end");
    static const char *const ends[] = {" info before", "", " info after", "", " info end"};
    char *line = strtok((char *)read_file(path), "\n");
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++, line = strtok(NULL, "\n")) {
        ck_assert_ptr_nonnull(line);
        ck_assert_int_eq(strncmp(line, "20", 2), 0);
        ck_assert_msg(strlen(line) >= strlen(ends[i]), "line %zu: %s", i, line);
        ck_assert_str_eq(line + strlen(line) - strlen(ends[i]), ends[i]);
    }
    ck_assert_ptr_null(line);
}
END_TEST

START_TEST(a_file_that_cannot_be_opened_again_stays)
{
    char folder[PATH_MAX], inside[PATH_MAX + 16], moved[PATH_MAX + 8];
    struct fault fault;

    snprintf(folder, sizeof folder, "%s/logs", testing_folder());
    snprintf(inside, sizeof inside, "%s/log", folder);
    snprintf(moved, sizeof moved, "%s.old", folder);
    ck_assert_int_eq(mkdir(folder, 0700), 0);
    ck_assert_int_eq(log_open(inside, &fault), STATUS_OK);
    ck_assert_int_eq(rename(folder, moved), 0);
    log_reopen();
    log_info("still here");
    snprintf(inside, sizeof inside, "%s/log", moved);
    const char *text = read_file(inside);
    ck_assert_ptr_nonnull(strstr(text, " error the log's file cannot be opened again"));
    ck_assert_ptr_nonnull(strstr(text, " info still here\n"));
}
END_TEST

/* --- many threads --- */

static atomic_bool done;

static void *log_along(void *context)
{
    for (uint64_t i = 0; i < EACH; i++)
        log_fields(LOG_INFO, "a line",
                   (const struct log_field[]){{.name = "thread", .number = (uintptr_t)context},
                                              {.name = "line", .number = i}},
                   2);
    return NULL;
}

/* Moves the file away and has it opened again, as logrotate does. */
static void *rotate(void *context)
{
    size_t *count = context;
    char old[PATH_MAX + 24];

    while (!atomic_load(&done)) {
        snprintf(old, sizeof old, "%s.%zu", path, *count);
        if (rename(path, old) == 0) {
            ++*count;
            log_reopen();
        }
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    return NULL;
}

static void count_lines(const char *name, unsigned char seen[THREADS][EACH])
{
    uint64_t thread, number;
    char *rest = NULL, *text = strdup(read_file(name));

    ck_assert_ptr_nonnull(text);
    for (char *line = strtok_r(text, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        int used = 0;
        ck_assert_uint_gt(strlen(line), 27);
        ck_assert_msg(
            sscanf(line + 27, " info a line thread=%lu line=%lu%n", &thread, &number, &used) == 2 &&
                line[27 + used] == '\0',
            "%s", line);
        ck_assert_uint_lt(thread, THREADS);
        ck_assert_uint_lt(number, EACH);
        seen[thread][number]++;
    }
    free(text);
}

START_TEST(no_line_is_lost_or_torn_while_the_file_is_moved)
{
    static unsigned char seen[THREADS][EACH];
    pthread_t threads[THREADS], rotator;
    size_t rotated = 0;
    char old[PATH_MAX + 24];

    atomic_store(&done, false);
    ck_assert_int_eq(pthread_create(&rotator, NULL, rotate, &rotated), 0);
    for (size_t i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, log_along, (void *)(uintptr_t)i), 0);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&done, true);
    pthread_join(rotator, NULL);
    ck_assert_uint_gt(rotated, 0);
    memset(seen, 0, sizeof seen);
    for (size_t i = 0; i < rotated; i++) {
        snprintf(old, sizeof old, "%s.%zu", path, i);
        count_lines(old, seen);
    }
    count_lines(path, seen);
    for (size_t thread = 0; thread < THREADS; thread++)
        for (size_t i = 0; i < EACH; i++)
            ck_assert_uint_eq(seen[thread][i], 1);
}
END_TEST

/* --- readers that do not read --- */

static uint64_t counter(enum family family, size_t cell)
{
    uint64_t *numbers = calloc(metric_numbers(), sizeof *numbers);

    ck_assert_ptr_nonnull(numbers);
    metric_read(numbers);
    uint64_t value = numbers[metric_family(family)->start + cell];
    free(numbers);
    return value;
}

/* Logs far more than fits; tells how long it took and how many lines went. */
static void flood(uint64_t *took_us, uint64_t *written, uint64_t *dropped)
{
    enum { LINES = 5000 };
    uint64_t begun = clock_monotonic_us();

    *written = counter(FAMILY_LOG_LINES, METRIC_LEVEL_INFO);
    *dropped = counter(FAMILY_LOG_DROPPED, 0);
    for (size_t i = 0; i < LINES; i++)
        log_info("one of many lines that nobody reads, and that would fill a pipe before long");
    *took_us = clock_monotonic_us() - begun;
    *written = counter(FAMILY_LOG_LINES, METRIC_LEVEL_INFO) - *written;
    *dropped = counter(FAMILY_LOG_DROPPED, 0) - *dropped;
    ck_assert_uint_eq(*written + *dropped, LINES);
    ck_assert_uint_gt(*dropped, LINES / 2);
    ck_assert_uint_gt(*written, 0);
}

/* Everything that is there to be read. */
static size_t drain(int fd)
{
    ssize_t size;
    size_t lines = 0;

    fcntl(fd, F_SETFL, O_NONBLOCK);
    while ((size = read(fd, content, FILE_MAX - 1)) > 0) {
        content[size] = '\0';
        for (const char *c = content; *c != '\0'; c++)
            lines += *c == '\n';
    }
    return lines;
}

enum { KIND_FIFO, KIND_PIPE, KIND_SOCKET, KINDS };

/* The log goes where nobody reads; returns the other end. */
static int open_unread(int kind)
{
    struct fault fault;
    char fifo[PATH_MAX];
    int ends[2];

    if (kind == KIND_FIFO) {
        snprintf(fifo, sizeof fifo, "%s/fifo", testing_folder());
        ck_assert_int_eq(mkfifo(fifo, 0600), 0);
        ends[0] = open(fifo, O_RDONLY | O_NONBLOCK);
        ck_assert_int_ge(ends[0], 0);
        ck_assert_int_eq(log_open(fifo, &fault), STATUS_OK);
        return ends[0];
    }
    ck_assert_int_eq(kind == KIND_PIPE ? pipe(ends) : socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    ck_assert_int_eq(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    close(ends[1]);
    ck_assert_int_eq(log_open("", &fault), STATUS_OK);
    return ends[0];
}

START_TEST(nobody_waits_for_who_does_not_read)
{
    uint64_t took_us, written, dropped;
    char expected[64];
    int kept = dup(STDERR_FILENO), fd = open_unread(_i);

    flood(&took_us, &written, &dropped);
    ck_assert_uint_lt(took_us, 2000000);
    ck_assert_uint_eq(drain(fd), written);
    log_info("read again");
    ck_assert_uint_eq(read(fd, content, FILE_MAX - 1) > 0, 1);
    snprintf(expected, sizeof expected, " %lu lines of log are missing", dropped);
    ck_assert_msg(strstr(content, "read again") != NULL && strstr(content, expected) != NULL,
                  "%.300s", content);
    /* A shared stderr keeps its flags. */
    if (_i != KIND_FIFO)
        ck_assert_int_eq(fcntl(STDERR_FILENO, F_GETFL) & O_NONBLOCK, 0);
    dup2(kept, STDERR_FILENO);
    close(kept);
    close(fd);
}
END_TEST

Suite *suite_log_target(void);
Suite *suite_log_target(void)
{
    Suite *suite = suite_create("log_target");
    TCase *tests = tcase_create("log_target");

    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, levels_below_the_threshold_are_not_written);
    tcase_add_test(tests, a_file_is_appended_to_and_private);
    tcase_add_test(tests, a_line_that_was_cut_off_is_ended);
    tcase_add_test(tests, a_file_that_cannot_be_opened_again_stays);
    tcase_add_test(tests, no_line_is_lost_or_torn_while_the_file_is_moved);
    tcase_add_loop_test(tests, nobody_waits_for_who_does_not_read, 0, KINDS);
    suite_add_tcase(suite, tests);
    return suite;
}
