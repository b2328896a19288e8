/* Configuration: precedence, ranges, and errors that name the option. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/config.h"
#include "tests/lib/testing.h"

static char *text(const char *value)
{
    static char copies[64][320]; /* reused: a test needs a few */
    static size_t next;
    char *copy = copies[next++ % 64];

    ck_assert_uint_lt(strlen(value), sizeof *copies);
    strcpy(copy, value);
    return copy;
}

static const char *write_file(const char *content)
{
    static char path[300];

    snprintf(path, sizeof path, "%s/descent.conf", testing_folder());
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fputs(content, file);
    ck_assert_int_eq(fclose(file), 0);
    return path;
}

static struct config read_good(char *const *arguments)
{
    struct config config;
    struct fault fault = {.status = STATUS_OK};
    enum status status = config_read(arguments, &config, &fault);

    ck_assert_msg(status == STATUS_OK, "%s", fault.detail);
    return config;
}

/* The fault of arguments that must be refused; a static copy of its text. */
static const char *read_bad(char *const *arguments)
{
    static struct fault fault;
    struct config config;

    ck_assert_int_ne(config_read(arguments, &config, &fault), STATUS_OK);
    ck_assert_ptr_null(strchr(fault.detail, '\n'));
    return fault.detail;
}

START_TEST(nothing_given_means_defaults)
{
    char *arguments[] = {NULL};
    struct config config = read_good(arguments);

    ck_assert_str_eq(config.listen, "127.0.0.1:8080");
    ck_assert_str_eq(config.data, "./descent-data");
    ck_assert_uint_eq(config.body_bytes_max, 1073741824);
    ck_assert_int_eq(config_log_level(&config), LOG_INFO);
    config_close(&config);
}
END_TEST

START_TEST(flags_win_over_environment_over_file_over_defaults)
{
    const char *path = write_file("# a comment\n\n listen = 1.1.1.1:1 \r\nidle-s=11\n"
                                  "header-timeout-s = 12\nlog=error");
    char *arguments[] = {text("--config"), text(path), text("--listen=3.3.3.3:3"), NULL};

    setenv("DESCENT_LISTEN", "2.2.2.2:2", 1);
    setenv("DESCENT_IDLE_S", "22", 1);
    setenv("DESCENT_DATA", "", 1); /* empty counts as unset */
    struct config config = read_good(arguments);
    ck_assert_str_eq(config.listen, "3.3.3.3:3");
    ck_assert_uint_eq(config.idle_s, 22);
    ck_assert_uint_eq(config.header_timeout_s, 12);
    ck_assert_str_eq(config.log, "error");
    ck_assert_int_eq(config_log_level(&config), LOG_ERROR);
    ck_assert_str_eq(config.data, "./descent-data");
    config_close(&config);
}
END_TEST

START_TEST(file_can_be_named_by_environment)
{
    char *arguments[] = {NULL};

    setenv("DESCENT_CONFIG", write_file("sessions-max = 7\n"), 1);
    struct config config = read_good(arguments);
    ck_assert_uint_eq(config.sessions_max, 7);
    config_close(&config);
}
END_TEST

START_TEST(both_spellings_of_a_flag_work_and_the_last_wins)
{
    char *arguments[] = {text("--idle-s"), text("5"), text("--idle-s=6"), NULL};
    struct config config = read_good(arguments);

    ck_assert_uint_eq(config.idle_s, 6);
    config_close(&config);
}
END_TEST

static const struct {
    const char *flag;
    const char *value; /* NULL: none */
    const char *says;
} refused[] = {
    {"--idle-s", "0", "--idle-s is \"0\"; it must be a whole number of seconds from 1 to 86400"},
    {"--idle-s", "86401", "from 1 to 86400"},
    {"--idle-s", "-1", "--idle-s"},
    {"--idle-s", "+1", "--idle-s"},
    {"--idle-s", "1.0", "--idle-s"},
    {"--idle-s", "1e3", "--idle-s"},
    {"--idle-s", " 1", "--idle-s"},
    {"--idle-s", "", "--idle-s"},
    {"--idle-s", NULL, "--idle-s needs a value"},
    {"--body-bytes-max", "1023", "bytes from 1024 to 1099511627776"},
    {"--body-bytes-max", "18446744073709551616", "--body-bytes-max"},
    {"--body-bytes-max", "99999999999999999999999", "--body-bytes-max"},
    {"--log", "loud", "--log is \"loud\"; it must be debug, info, warning, error or off"},
    {"--listen", "", "--listen is empty"},
    {"--nonsense", "1", "no option --nonsense"},
    {"-l", "1", "\"-l\" is not an option"},
    {"stray", NULL, "\"stray\" is not an option"},
    {"--", NULL, "no option --"},
    {"--config", "/nonexistent/descent.conf", "/nonexistent/descent.conf cannot be read"},
    {"--config", "/dev/null/x", "/dev/null/x cannot be read"},
    {"--data", "a\nb", "--data has a control character"},
    {"--data", " a", "--data has a control character, or a space at an end"},
    {"--data", "a ", "--data has a control character, or a space at an end"},
};

START_TEST(bad_flags_are_refused_naming_the_option)
{
    char *arguments[] = {text(refused[_i].flag),
                         refused[_i].value != NULL ? text(refused[_i].value) : NULL, NULL};
    const char *detail = read_bad(arguments);

    ck_assert_msg(strstr(detail, refused[_i].says) != NULL, "it says: %s", detail);
}
END_TEST

START_TEST(bad_environment_is_refused_naming_the_variable)
{
    char *arguments[] = {NULL};

    setenv("DESCENT_BODY_TIMEOUT_S", "soon", 1);
    ck_assert_ptr_nonnull(strstr(read_bad(arguments), "DESCENT_BODY_TIMEOUT_S is \"soon\""));
}
END_TEST

static const struct {
    const char *content;
    const char *says;
} bad_files[] = {
    {"\nidle-s = 0\n", "descent.conf:2: idle-s is \"0\""},
    {"idle-s\n", "descent.conf:1: a line must be `name = value`"},
    {"\n\nspeed = 9", "descent.conf:3: there is no option \"speed\""},
    {"config = other.conf\n", "descent.conf:1: there is no option \"config\""},
    {"--idle-s = 9", "descent.conf:1: there is no option \"--idle-s\""},
    {"idle-s = 9\n\nidle-s = 9\n", "descent.conf:3: idle-s is in line 1 already"},
    {"IDLE-S = 9", "descent.conf:1: there is no option \"IDLE-S\""},
    {"idle_s = 9", "descent.conf:1: there is no option \"idle_s\""},
    {"idle-s = 9 # nine", "descent.conf:1: idle-s is \"9 # nine\""},
    {"log = inf\too", "descent.conf:1: log"},
};

START_TEST(bad_file_is_refused_naming_file_and_line)
{
    char *arguments[] = {text("--config"), text(write_file(bad_files[_i].content)), NULL};
    const char *detail = read_bad(arguments);

    /* The folder of the file may be long: its path is cut in front of the message. */
    const char *says =
        strlen(arguments[1]) < 80 ? bad_files[_i].says : strchr(bad_files[_i].says, ' ');
    ck_assert_msg(strstr(detail, says) != NULL, "it says: %s", detail);
}
END_TEST

static const struct config_source *source_of(const struct config *config, const char *flag)
{
    static const char *const flags[] = {
#define OPTION(field, type, flag, ...) flag,
#include "api/config.def"
#undef OPTION
    };

    for (size_t i = 0; i < CONFIG_OPTIONS; i++)
        if (strcmp(flags[i], flag) == 0)
            return &config->sources[i];
    ck_abort_msg("there is no %s", flag);
}

START_TEST(every_value_knows_where_it_came_from)
{
    const char *path = write_file("# one\nidle-s = 5\nlog = error\n\nwait-s-max = 7\n");
    char *arguments[] = {text("--config"), text(path), text("--log=off"), NULL};

    setenv("DESCENT_WAIT_S_MAX", "8", 1);
    struct config config = read_good(arguments);
    ck_assert_int_eq(source_of(&config, "idle-s")->kind, CONFIG_FROM_FILE);
    ck_assert_uint_eq(source_of(&config, "idle-s")->line, 2);
    ck_assert_int_eq(source_of(&config, "log")->kind, CONFIG_FROM_FLAG);
    ck_assert_int_eq(source_of(&config, "wait-s-max")->kind, CONFIG_FROM_ENVIRONMENT);
    ck_assert_int_eq(source_of(&config, "listen")->kind, CONFIG_FROM_DEFAULT);
    config_close(&config);
}
END_TEST

/* What config_print writes. */
static char *printed(const struct config *config)
{
    char *out = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&out, &size);

    config_print(config, file);
    ck_assert_int_eq(fclose(file), 0);
    return out;
}

START_TEST(what_is_printed_is_a_file_that_says_the_same)
{
    char *arguments[] = {text("--data=/a = b#c"), text("--idle-s=3"), text("--tls-key="), NULL};
    struct config first = read_good(arguments);
    char *once = printed(&first);
    char *again[] = {text("--config"), text(write_file(once)), NULL};
    struct config second = read_good(again);

    ck_assert_str_eq(second.data, "/a = b#c");
    ck_assert_uint_eq(second.idle_s, 3);
    ck_assert_str_eq(second.tls_key, "");
#define OPTION(field, type, flag, ...) COMPARE_##type(first.field, second.field, flag);
#define COMPARE_TEXT(a, b, flag) ck_assert(strcmp(flag, "config") == 0 || strcmp(a, b) == 0)
#define COMPARE_COUNT(a, b, flag) ck_assert_msg(a == b, "%s", flag)
#define COMPARE_FLAG(a, b, flag) ck_assert_msg(a == b, "%s", flag)
#include "api/config.def"
#undef OPTION
    free(once);
    config_close(&first);
    config_close(&second);
}
END_TEST

START_TEST(commands_take_the_flags_that_mean_something_to_them)
{
    static const char *const flags[] = {"data", "log", NULL};
    char *good[] = {text("--data=x"), NULL}, *bad[] = {text("--idle-s=3"), NULL};
    struct config config;
    struct fault fault;

    setenv("DESCENT_IDLE_S", "4", 1); /* the environment is shared by all */
    ck_assert_int_eq(config_read_some(good, flags, &config, &fault), STATUS_OK);
    ck_assert_str_eq(config.data, "x");
    ck_assert_uint_eq(config.idle_s, 4);
    config_close(&config);
    ck_assert_int_ne(config_read_some(bad, flags, &config, &fault), STATUS_OK);
    ck_assert_ptr_nonnull(strstr(fault.detail, "--idle-s means nothing to this command"));
}
END_TEST

START_TEST(help_names_every_option)
{
    static const char *const flags[] = {
#define OPTION(field, type, flag, ...) "--" flag,
#include "api/config.def"
#undef OPTION
    };
    char *help = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&help, &size);

    config_help(out);
    ck_assert_int_eq(fclose(out), 0);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        ck_assert_msg(strstr(help, flags[i]) != NULL, "%s is not in the help", flags[i]);
    ck_assert_ptr_nonnull(strstr(help, "DESCENT_BODY_BYTES_MAX"));
    free(help);
}
END_TEST

Suite *suite_config(void);
Suite *suite_config(void)
{
    Suite *suite = suite_create("config");
    TCase *tests = tcase_create("config");

    tcase_add_test(tests, nothing_given_means_defaults);
    tcase_add_test(tests, flags_win_over_environment_over_file_over_defaults);
    tcase_add_test(tests, file_can_be_named_by_environment);
    tcase_add_test(tests, both_spellings_of_a_flag_work_and_the_last_wins);
    tcase_add_loop_test(tests, bad_flags_are_refused_naming_the_option, 0,
                        sizeof refused / sizeof *refused);
    tcase_add_test(tests, bad_environment_is_refused_naming_the_variable);
    tcase_add_loop_test(tests, bad_file_is_refused_naming_file_and_line, 0,
                        sizeof bad_files / sizeof *bad_files);
    tcase_add_test(tests, every_value_knows_where_it_came_from);
    tcase_add_test(tests, what_is_printed_is_a_file_that_says_the_same);
    tcase_add_test(tests, commands_take_the_flags_that_mean_something_to_them);
    tcase_add_test(tests, help_names_every_option);
    suite_add_tcase(suite, tests);
    return suite;
}
