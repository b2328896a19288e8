/* traceparent: what is taken and what is ignored, after W3C Trace Context, 3.2. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "api/trace.h"

#define TRACE "0af7651916cd43dd8448eb211c80319c"
#define SPAN "b7ad6b7169203331"

static const char *const good[] = {
    "00-" TRACE "-" SPAN "-00",
    "00-" TRACE "-" SPAN "-01",
    "00-" TRACE "-" SPAN "-ff", /* flags that are not known yet */
    "01-" TRACE "-" SPAN "-01", /* a version that is not known yet, read as far as 00 goes */
    "fe-" TRACE "-" SPAN "-01-what-ever comes",
    "cc-" TRACE "-" SPAN "-01-",
};

static const char *const bad[] = {
    "",
    "00",
    "-",
    "00-" TRACE,
    "00-" TRACE "-" SPAN,
    "00-" TRACE "-" SPAN "-",
    "00-" TRACE "-" SPAN "-1",
    "00-" TRACE "-" SPAN "-011",
    "00-" TRACE "-" SPAN "-01-",
    "00-" TRACE "-" SPAN "-01-more",
    "00-" TRACE "-" SPAN "-01 ",
    " 00-" TRACE "-" SPAN "-01",
    "00_" TRACE "-" SPAN "-01",
    "00-" TRACE "_" SPAN "-01",
    "00-" TRACE "-" SPAN "_01",
    "ff-" TRACE "-" SPAN "-01",
    "ff-" TRACE "-" SPAN "-01-more",
    "0-" TRACE "-" SPAN "-01",
    "000-" TRACE "-" SPAN "-01",
    "0g-" TRACE "-" SPAN "-01",
    "0A-" TRACE "-" SPAN "-01",
    "01-" TRACE "-" SPAN "-01.more",
    "01-" TRACE "-" SPAN "-012",
    "00-00000000000000000000000000000000-" SPAN "-01",
    "01-00000000000000000000000000000000-" SPAN "-01",
    "00-" TRACE "-0000000000000000-01",
    "00-0AF7651916CD43DD8448EB211C80319C-" SPAN "-01",
    "00-" TRACE "-B7AD6B7169203331-01",
    "00-" TRACE "-" SPAN "-0A",
    "00-0af7651916cd43dd8448eb211c80319-" SPAN "-01",
    "00-0af7651916cd43dd8448eb211c80319cc-" SPAN "-01",
    "00-" TRACE "-b7ad6b716920333-01",
    "00-" TRACE "-b7ad6b71692033311-01",
    "00-0af7651916cd43dd8448eb211c80319g-" SPAN "-01",
    "00-" TRACE "\n-" SPAN "-01",
};

enum { GOOD = sizeof good / sizeof *good, BAD = sizeof bad / sizeof *bad };

START_TEST(valid_ids_are_taken)
{
    struct trace trace;

    ck_assert_msg(trace_parse(good[_i], &trace), "%s", good[_i]);
    ck_assert_str_eq(trace.trace_id, TRACE);
    ck_assert_str_eq(trace.span_id, SPAN);
}
END_TEST

START_TEST(what_is_invalid_is_ignored)
{
    struct trace trace;

    ck_assert_msg(!trace_parse(bad[_i], &trace), "%s", bad[_i]);
}
END_TEST

START_TEST(every_beginning_is_too_short)
{
    struct trace trace;
    char text[64];

    strcpy(text, good[0]);
    for (size_t size = strlen(text); size-- > 0;) {
        char *cut = strndup(text, size); /* its own memory, for who reads past its end */
        ck_assert_msg(!trace_parse(cut, &trace), "%s", cut);
        free(cut);
    }
}
END_TEST

Suite *suite_trace(void);
Suite *suite_trace(void)
{
    Suite *suite = suite_create("trace");
    TCase *tests = tcase_create("trace");

    tcase_add_loop_test(tests, valid_ids_are_taken, 0, GOOD);
    tcase_add_loop_test(tests, what_is_invalid_is_ignored, 0, BAD);
    tcase_add_test(tests, every_beginning_is_too_short);
    suite_add_tcase(suite, tests);
    return suite;
}
