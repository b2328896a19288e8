/* The route table and its search. */
#include <check.h>
#include <string.h>

#include "api/router.h"
#include "service/core/arena.h"

static struct arena arena;
static struct match match;
static struct fault fault;

static void setup(void)
{
    arena_init(&arena);
}

static void teardown(void)
{
    arena_close(&arena);
}

static enum status find(enum method method, const char *path)
{
    return router_find(&arena, method, path, &match, &fault);
}

/* The pattern with every {name} written as `value`. */
static const char *example(const char *pattern, const char *value)
{
    char *path = arena_take(&arena, 512);
    size_t used = 0;

    while (*pattern != '\0') {
        if (*pattern == '{') {
            memcpy(path + used, value, strlen(value));
            used += strlen(value);
            pattern += strcspn(pattern, "}") + 1;
        } else {
            path[used++] = *pattern++;
        }
    }
    path[used] = '\0';
    return path;
}

START_TEST(every_route_is_found_by_its_own_path)
{
    for (size_t i = 0; router_at(i) != NULL; i++) {
        const struct route *route = router_at(i);
        ck_assert_int_eq(find(route->method, example(route->pattern, "a-1")), STATUS_OK);
        ck_assert_str_eq(match.route->operation, route->operation);
        if (strchr(route->pattern, '{') != NULL)
            ck_assert_str_eq(match.parameters[0], "a-1");
    }
}
END_TEST

START_TEST(other_methods_of_a_path_get_405_and_the_list)
{
    for (size_t i = 0; router_at(i) != NULL; i++) {
        const struct route *route = router_at(i);
        ck_assert_int_eq(find(METHOD_OTHER, example(route->pattern, "x")),
                         STATUS_METHOD_NOT_ALLOWED);
        ck_assert_ptr_nonnull(strstr(match.allow, method_name(route->method)));
        ck_assert_ptr_nonnull(strstr(match.allow, "OPTIONS"));
    }
    ck_assert_int_eq(find(METHOD_DELETE, "/livez"), STATUS_METHOD_NOT_ALLOWED);
    ck_assert_str_eq(match.allow, "GET, HEAD, OPTIONS");
    ck_assert_int_eq(find(METHOD_OPTIONS, "/livez"), STATUS_METHOD_NOT_ALLOWED);
    ck_assert_str_eq(match.allow, "GET, HEAD, OPTIONS");
}
END_TEST

START_TEST(head_goes_where_get_goes)
{
    ck_assert_int_eq(find(METHOD_HEAD, "/livez"), STATUS_OK);
    ck_assert_str_eq(match.route->operation, "livez");
}
END_TEST

static const char *const absent[] = {
    "/",
    "//",
    "/livez/",
    "//livez",
    "/LIVEZ",
    "/livezz",
    "/live",
    "/v1",
    "/v1/",
    "/v1/sessions/",
    "/./livez",
    "/v1/../livez",
    "/v1/sessions//parameters",
    "/livez%2f",
    "/v1%2fsessions",
    "/a/b/c/d/e/f/g/h/i/j/k/l",
    "/livez%20",
};

START_TEST(unknown_paths_are_not_found)
{
    ck_assert_msg(find(METHOD_GET, absent[_i]) == STATUS_NOT_FOUND, "%s is found", absent[_i]);
    ck_assert_msg(find(METHOD_DELETE, absent[_i]) == STATUS_NOT_FOUND, "%s is found", absent[_i]);
}
END_TEST

START_TEST(segments_are_decoded_one_by_one)
{
    ck_assert_int_eq(find(METHOD_GET, "/%6Civez"), STATUS_OK);
    ck_assert_int_eq(find(METHOD_GET, "/v1/sessions/a%2Fb%25+%c3%A9"), STATUS_OK);
    ck_assert_str_eq(match.route->pattern, "/v1/sessions/{id}");
    ck_assert_str_eq(match.parameters[0], "a/b%+\xC3\xA9");
}
END_TEST

static const char *const broken[] = {
    "/%",
    "/%4",
    "/%zz",
    "/livez%0",
    "/%00",
    "/v1/sessions/a%00b",
    "/v1/sessions/%ff",
    "/v1/sessions/%c0%af",
    "/v1/sessions/%ed%a0%80",
    "/v1/sessions/%f4%90%80%80",
};

START_TEST(broken_escapes_are_refused)
{
    ck_assert_msg(find(METHOD_GET, broken[_i]) == STATUS_INVALID_REQUEST, "%s", broken[_i]);
    ck_assert_uint_gt(strlen(fault.detail), 20);
}
END_TEST

START_TEST(methods_have_names)
{
    for (enum method i = METHOD_GET; i < METHOD_OTHER; i++)
        ck_assert_int_eq(method_find(method_name(i)), i);
    ck_assert_int_eq(method_find("get"), METHOD_OTHER);
    ck_assert_int_eq(method_find("TRACE"), METHOD_OTHER);
    ck_assert_int_eq(method_find("?"), METHOD_OTHER);
}
END_TEST

Suite *suite_router(void);
Suite *suite_router(void)
{
    Suite *suite = suite_create("router");
    TCase *tests = tcase_create("router");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, every_route_is_found_by_its_own_path);
    tcase_add_test(tests, other_methods_of_a_path_get_405_and_the_list);
    tcase_add_test(tests, head_goes_where_get_goes);
    tcase_add_loop_test(tests, unknown_paths_are_not_found, 0, sizeof absent / sizeof *absent);
    tcase_add_test(tests, segments_are_decoded_one_by_one);
    tcase_add_loop_test(tests, broken_escapes_are_refused, 0, sizeof broken / sizeof *broken);
    tcase_add_test(tests, methods_have_names);
    suite_add_tcase(suite, tests);
    return suite;
}
