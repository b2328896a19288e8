/* Lines of the log: both formats read back by readers of their own, whatever is logged. */
#include <check.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "service/core/log.h"
#include "service/core/utf8.h"
#include "tests/lib/testing.h"

enum { FILE_MAX = 8 << 20 };

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

/* Nothing that a terminal or a reader of lines would obey. One assertion: each costs a write. */
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
    "\xC2\x9B[31m and \xC2\x85",
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
    suite_add_tcase(suite, tests);
    return suite;
}
