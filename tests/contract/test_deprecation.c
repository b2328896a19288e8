/* What is told of operations that will go; the table against api/openapi.json. */
#include <check.h>
#include <string.h>

#include "api/deprecation.h"
#include "api/router.h"
#include "tests/lib/openapi.h"

static const char *told(const struct reply *reply, const char *name)
{
    for (size_t i = 0; i < reply->header_count; i++)
        if (strcmp(reply->headers[i].name, name) == 0)
            return reply->headers[i].value;
    return NULL;
}

START_TEST(dates_are_those_of_the_calendar)
{
    static const struct {
        const char *text;
        int64_t unix_s; /* -1: no date */
    } dates[] = {
        {"1970-01-02", 86400},
        {"2024-02-29", 1709164800},
        {"2027-01-31", 1801353600},
        {"2038-01-20", 2147558400},
        {"2023-02-29", -1},
        {"2027-06-31", -1},
        {"2027-13-01", -1},
        {"2027-00-01", -1},
        {"2027-01-00", -1},
        {"2027-1-31", -1},
        {"", -1},
        {"27-01-31xx", -1},
        {"2027/01/31", -1},
        {"+027-01-31", -1},
        {"2027-01-3x", -1},
    };

    for (size_t i = 0; i < sizeof dates / sizeof *dates; i++) {
        int64_t found = -1;
        bool good = deprecation_date(dates[i].text, &found);
        ck_assert_msg(good == (dates[i].unix_s >= 0), "%s", dates[i].text);
        if (good)
            ck_assert_int_eq(found, dates[i].unix_s);
    }
}
END_TEST

START_TEST(an_operation_that_goes_says_so)
{
    static const struct deprecation goes = {"livez", "2027-01-31", "2027-12-05",
                                            "https://descent.example/changes#livez"};
    static const struct deprecation undecided = {"livez", "2027-01-31", "", "/changes"};
    struct reply reply = reply_empty(200), other = reply_empty(404), none = reply_empty(200);
    struct arena arena;

    arena_init(&arena);
    deprecation_tell(&goes, &arena, &reply);
    ck_assert_str_eq(told(&reply, "Deprecation"), "@1801353600");
    ck_assert_str_eq(told(&reply, "Sunset"), "Sun, 05 Dec 2027 00:00:00 GMT");
    ck_assert_str_eq(
        told(&reply, "Link"),
        "<https://descent.example/changes#livez>; rel=\"deprecation\"; type=\"text/html\"");
    deprecation_tell(&undecided, &arena, &other);
    ck_assert_str_eq(told(&other, "Deprecation"), "@1801353600");
    ck_assert_ptr_null(told(&other, "Sunset"));
    deprecation_tell(NULL, &arena, &none);
    ck_assert_uint_eq(none.header_count, 0);
    arena_close(&arena);
}
END_TEST

START_TEST(the_table_is_sound)
{
    const struct deprecation *line;

    for (size_t i = 0; (line = deprecation_at(i)) != NULL; i++) {
        const struct route *route;
        int64_t since, sunset;
        size_t found = 0;
        for (size_t r = 0; (route = router_at(r)) != NULL; r++)
            found += strcmp(route->operation, line->operation) == 0;
        ck_assert_msg(found == 1, "%s is no operation", line->operation);
        ck_assert_msg(deprecation_find(line->operation) == line, "%s is there twice",
                      line->operation);
        ck_assert_msg(deprecation_date(line->since, &since), "%s: %s", line->operation,
                      line->since);
        if (line->sunset[0] != '\0') /* RFC 9745, 4: not before */
            ck_assert(deprecation_date(line->sunset, &sunset) && sunset >= since);
        ck_assert_msg(line->link[0] != '\0' && strpbrk(line->link, "<> \"") == NULL, "%s: %s",
                      line->operation, line->link);
    }
}
END_TEST

START_TEST(the_document_says_the_same)
{
    const struct route *route;

    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        const json_t *operation = openapi_operation(method_name(route->method), route->pattern);
        bool said = json_is_true(json_object_get(operation, "deprecated"));
        ck_assert_msg(said == (deprecation_find(route->operation) != NULL), "%s", route->operation);
    }
    ck_assert_ptr_null(deprecation_find("nothing"));
}
END_TEST

Suite *suite_deprecation(void);
Suite *suite_deprecation(void)
{
    Suite *suite = suite_create("deprecation");
    TCase *tests = tcase_create("deprecation");

    tcase_add_test(tests, dates_are_those_of_the_calendar);
    tcase_add_test(tests, an_operation_that_goes_says_so);
    tcase_add_test(tests, the_table_is_sound);
    tcase_add_test(tests, the_document_says_the_same);
    suite_add_tcase(suite, tests);
    return suite;
}
