/* Which names are nearest. */
#include <check.h>
#include <string.h>

#include "api/suggest.h"

static const char *const catalogue[] = {
    "sgd", "adam", "adamw", "adamax", "yogi", "mxnet.Adam", "torch.optim.Adam", NULL};

static const char *name_at(size_t index)
{
    return catalogue[index];
}

static void check_first(const char *wanted, const char *first)
{
    char out[200];

    suggest(wanted, name_at, 1, out, sizeof out);
    ck_assert_msg(strncmp(out, first, strlen(first)) == 0 && out[strlen(first)] == ',',
                  "%s: %s is not %s", wanted, out, first);
}

START_TEST(the_nearest_name_comes_first)
{
    check_first("AdamW", "adamw");
    check_first("adamm", "adam");
    check_first("ADAM", "adam");
    check_first("torch.opt.Adam", "torch.optim.Adam");
    check_first("TORCH.optim.adam", "torch.optim.Adam");
    check_first("mxnet.Adamm", "mxnet.Adam");
    check_first("", "sgd");
    check_first("sdg", "sgd");
}
END_TEST

START_TEST(what_does_not_fit_is_left_out_and_said_to_be)
{
    char out[200];

    ck_assert_str_eq(suggest("sgd", name_at, 2, out, sizeof out), "sgd, adam, ...");
    ck_assert_str_eq(suggest("sgd", name_at, 7, out, 20), "sgd, adam, ...");
    suggest("sgd", name_at, 7, out, sizeof out);
    ck_assert_ptr_null(strstr(out, "..."));
    for (size_t i = 0; catalogue[i] != NULL; i++)
        ck_assert_ptr_nonnull(strstr(out, catalogue[i]));
    for (size_t size = 8; size < sizeof out; size++) {
        memset(out, '#', sizeof out);
        suggest("adam", name_at, 7, out, size);
        ck_assert_uint_lt(strnlen(out, sizeof out), size);
    }
}
END_TEST

START_TEST(long_names_are_compared_by_their_beginnings)
{
    char name[1000], out[200];

    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    memcpy(name, "adamw", 5);
    suggest(name, name_at, 1, out, sizeof out);
    ck_assert_str_eq(out, "adamw, ...");
}
END_TEST

Suite *suite_suggest(void);
Suite *suite_suggest(void)
{
    Suite *suite = suite_create("suggest");
    TCase *tests = tcase_create("suggest");

    tcase_add_test(tests, the_nearest_name_comes_first);
    tcase_add_test(tests, what_does_not_fit_is_left_out_and_said_to_be);
    tcase_add_test(tests, long_names_are_compared_by_their_beginnings);
    suite_add_tcase(suite, tests);
    return suite;
}
