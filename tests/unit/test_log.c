/* The log: both formats read back by readers of their own, whatever is logged; lines of many
 * threads while the file is moved away; readers that do not read. */
#include <check.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "service/core/clock.h"
#include "service/core/log.h"
#include "service/core/metric.h"
#include "service/core/utf8.h"
#include "tests/lib/testing.h"

enum { FILE_MAX = 8 << 20, THREADS = 8, EACH = 400 };

static char path[PATH_MAX];
static char *content;
static off_t seen_bytes; /* of the file */

static void set_up(void)
{
    struct fault fault;

    snprintf(path, sizeof path, "%s/log", testing_folder());
    content = malloc(FILE_MAX);
    seen_bytes = 0;
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

/* The only line since the one before, without its end. */
static char *only_line(void)
{
    int file = open(path, O_RDONLY);

    ck_assert_int_ge(file, 0);
    ssize_t size = pread(file, content, FILE_MAX - 1, seen_bytes);
    close(file);
    ck_assert_int_gt(size, 0);
    ck_assert_int_le(size, LOG_LINE_BYTES);
    seen_bytes += size;
    content[size] = '\0';
    ck_assert_uint_eq(strlen(content), (size_t)size);
    ck_assert_ptr_eq(strchr(content, '\n'), content + size - 1);
    content[size - 1] = '\0';
    return content;
}

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* Nothing that a terminal or a reader of lines would obey. One assertion, for each costs a write. */
static void check_harmless(const char *line)
{
    const char *at = line;
    size_t length = 1;

    for (size_t rest = strlen(line); rest > 0 && length > 0; rest -= length, at += length) {
        length = utf8_length(at, rest);
        if ((unsigned char)*at < 0x20 || *at == 0x7F || begins(at, "\xC2\x9B") ||
            begins(at, "\xC2\x85") || begins(at, "\xE2\x80\xAE") || begins(at, "\xE2\x80\xA8") ||
            begins(at, "\xE2\x81\xA6"))
            length = 0;
    }
    ck_assert_msg(length > 0, "%02x at %td: %s", (unsigned)(unsigned char)*at, at - line, line);
}

/* --- reading text back --- */

static char *take_hex(const char **at, int digits, char *out)
{
    char text[5] = {0};

    memcpy(text, *at, (size_t)digits);
    *at += digits;
    unsigned long code = strtoul(text, NULL, 16);
    if (digits == 2) {
        *out++ = (char)code;
    } else if (code < 0x800) {
        *out++ = (char)(0xC0 | code >> 6);
        *out++ = (char)(0x80 | (code & 0x3F));
    } else {
        *out++ = (char)(0xE0 | code >> 12);
        *out++ = (char)(0x80 | (code >> 6 & 0x3F));
        *out++ = (char)(0x80 | (code & 0x3F));
    }
    return out;
}

/* Takes what stands at *at up to `end`, which it moves past, with its escapes undone. */
static void take(const char **at, char end, char *out)
{
    while (**at != '\0' && **at != end) {
        if (**at != '\\') {
            *out++ = *(*at)++;
            continue;
        }
        char kind = (*at)[1];
        *at += 2;
        if (kind == 'x' || kind == 'u')
            out = take_hex(at, kind == 'x' ? 2 : 4, out);
        else
            *out++ = kind;
    }
    *out = '\0';
    *at += **at != '\0';
}

/* The value of the field, out of " name=value" or " name=\"value\"". */
static void text_field(const char *line, const char *name, char *out)
{
    char start[64];

    snprintf(start, sizeof start, " %s=", name);
    const char *at = strstr(line, start);
    ck_assert_msg(at != NULL, "%s is not in %s", name, line);
    at += strlen(start);
    bool quoted = *at == '"';
    at += quoted;
    take(&at, quoted ? '"' : ' ', out);
}

/* --- what is logged --- */

static const char *const hostile[] = {
    "plain",
    "",
    " ",
    "two words",
    "a=b",
    "\"quoted\"",
    "back\\slash \\x41 \\u0041 \\",
    "line\nfeed\r\n2026-01-01T00:00:00.000000Z error forged",
    "\x1B[2J\x1B]0;title\x07",
    "\x01\x02\x1F\x7F\t",
    "caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80",
    "\xC2\x9B"
    "31m and \xC2\x85",
    "right \xE2\x80\xAE to left \xE2\x81\xA6",
    "break \xE2\x80\xA8 and \xE2\x80\xA9",
    "{\"level\":\"error\"}",
    "','\"],}",
};
/* And what is not UTF-8, with what JSON makes of it. */
static const char *const broken[][2] = {
    {"\xFF", "\xEF\xBF\xBD"},
    {"a\x80z", "a\xEF\xBF\xBDz"},
    {"\xC3", "\xEF\xBF\xBD"},
    {"\xE2\x82", "\xEF\xBF\xBD\xEF\xBF\xBD"},
    {"\xC0\xAF", "\xEF\xBF\xBD\xEF\xBF\xBD"},
    {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
    {"\xF4\x90\x80\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
};

enum { HOSTILE = sizeof hostile / sizeof *hostile, BROKEN = sizeof broken / sizeof *broken };

static const char *sample(int index)
{
    return index < HOSTILE ? hostile[index] : broken[index - HOSTILE][0];
}

static void log_sample(const char *value)
{
    const struct log_field fields[] = {{.name = "first", .text = value},
                                       {.name = "number", .number = INT64_MAX},
                                       {.name = "second", .text = value},
                                       {.name = "zero", .number = 0}};

    log_fields(LOG_WARNING, value, fields, 4);
}

START_TEST(text_is_read_back)
{
    const char *value = sample(_i);
    char back[LOG_LINE_BYTES];

    log_sample(value);
    const char *line = only_line();
    check_harmless(line);
    ck_assert_int_eq(line[26], 'Z');
    ck_assert_int_eq(strncmp(line + 27, " warning ", 9), 0);
    text_field(line, "first", back);
    ck_assert_str_eq(back, value);
    text_field(line, "second", back);
    ck_assert_str_eq(back, value);
    text_field(line, "number", back);
    ck_assert_str_eq(back, "9223372036854775807");
    text_field(line, "zero", back);
    ck_assert_str_eq(back, "0");
    const char *words = line + 36, *end = strstr(words, " first=");
    ck_assert_ptr_nonnull(end);
    char *alone = strndup(words, (size_t)(end - words));
    const char *at = alone;
    take(&at, '\0', back);
    ck_assert_str_eq(back, value);
    free(alone);
}
END_TEST

START_TEST(json_is_read_back)
{
    const char *value = _i < HOSTILE ? hostile[_i] : broken[_i - HOSTILE][1];
    const char *time, *level, *message, *first, *second;
    json_error_t error;

    log_set_format(LOG_JSON);
    log_sample(sample(_i));
    const char *line = only_line();
    check_harmless(line);
    json_t *root = json_loads(line, JSON_REJECT_DUPLICATES, &error), *number, *zero;
    ck_assert_msg(root != NULL, "%s", error.text);
    ck_assert_int_eq(json_unpack_ex(root, &error, JSON_STRICT, "{s:s,s:s,s:s,s:s,s:o,s:s,s:o}",
                                    "time", &time, "level", &level, "message", &message, "first",
                                    &first, "number", &number, "second", &second, "zero", &zero),
                     0);
    ck_assert_uint_eq(strlen(time), 27);
    ck_assert_str_eq(level, "warning");
    ck_assert_str_eq(message, value);
    ck_assert_str_eq(first, value);
    ck_assert_str_eq(second, value);
    ck_assert_int_eq(json_integer_value(number), INT64_MAX);
    ck_assert(json_is_integer(zero) && json_integer_value(zero) == 0);
    json_decref(root);
}
END_TEST

/* --- too long --- */

/* So many bytes, one to four of them a character, some to be escaped. */
static char *long_text(uint64_t *state, size_t size)
{
    static const char *const pieces[] = {
        "a", "\n", "\"", "\xC3\xA9", "\\", "\xE2\x80\xAE", "\xF0\x9F\x98\x80", "\xFF"};
    char *text = calloc(size + 5, 1);
    size_t used = 0;

    ck_assert_ptr_nonnull(text);
    while (used < size) {
        const char *piece = pieces[testing_random(state) % 8];
        memcpy(text + used, piece, strlen(piece));
        used += strlen(piece);
    }
    return text;
}

START_TEST(whatever_the_length_a_line_is_whole)
{
    uint64_t state = testing_seed() ^ 2;
    json_error_t error;

    log_set_format(LOG_JSON);
    for (size_t size = 0; size < 5000; size += 1 + size / 97) {
        char *text = long_text(&state, size);
        struct log_field fields[12];
        for (size_t i = 0; i < 12; i++)
            fields[i] =
                (struct log_field){.name = (const char *[]){"a", "b", "c", "d", "e", "f", "g", "h",
                                                            "i", "j", "k", "l"}[i],
                                   .text = i % 3 == 2 ? NULL : text,
                                   .number = i};
        log_fields(LOG_ERROR, text, fields, 12);
        const char *line = only_line();
        check_harmless(line);
        json_t *root = json_loads(line, JSON_REJECT_DUPLICATES, &error);
        ck_assert_msg(root != NULL, "%zu: %s: %s", size, error.text, line);
        const char *first = json_string_value(json_object_get(root, "a"));
        bool cut = json_is_true(json_object_get(root, "cut"));
        if (cut && first != NULL && strlen(first) > 3 && size > LOG_LINE_BYTES)
            ck_assert_str_eq(first + strlen(first) - 3, "...");
        if (size < 40)
            ck_assert_msg(!cut && json_object_size(root) == 15, "%s", line);
        if (size > LOG_LINE_BYTES)
            ck_assert_msg(cut, "%s", line);
        json_decref(root);
        log_set_format(LOG_TEXT);
        log_fields(LOG_ERROR, text, fields, 12);
        check_harmless(only_line());
        log_set_format(LOG_JSON);
        free(text);
    }
}
END_TEST

START_TEST(words_of_a_format_are_cut_to_fit)
{
    char *text = malloc(100001);

    ck_assert_ptr_nonnull(text);
    memset(text, 'x', 100000);
    text[100000] = '\0';
    log_error("begin %s", text);
    const char *line = only_line();
    ck_assert_ptr_nonnull(strstr(line, " error begin xxx"));
    ck_assert_str_eq(line + strlen(line) - 6, "xxx...");
    free(text);
}
END_TEST

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

Suite *suite_log(void);
Suite *suite_log(void)
{
    Suite *suite = suite_create("log");
    TCase *tests = tcase_create("log");

    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_loop_test(tests, text_is_read_back, 0, HOSTILE + BROKEN);
    tcase_add_loop_test(tests, json_is_read_back, 0, HOSTILE + BROKEN);
    tcase_add_test(tests, whatever_the_length_a_line_is_whole);
    tcase_add_test(tests, words_of_a_format_are_cut_to_fit);
    tcase_add_test(tests, levels_below_the_threshold_are_not_written);
    tcase_add_test(tests, a_file_is_appended_to_and_private);
    tcase_add_test(tests, a_file_that_cannot_be_opened_again_stays);
    tcase_add_test(tests, no_line_is_lost_or_torn_while_the_file_is_moved);
    tcase_add_loop_test(tests, nobody_waits_for_who_does_not_read, 0, KINDS);
    suite_add_tcase(suite, tests);
    return suite;
}
