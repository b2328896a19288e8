/* The members "aggregation" and "svrg" of a configuration: what is shown, what can be changed, what
 * cannot be. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "tests/lib/refusal.h"

enum { TEST_TIMEOUT_S = 120, TEXT_BYTES = 4096 };

#define MODEL "\"optimizer\": \"sgd\", \"parameters\": {\"w\": [0]}"
#define OTHER "/v1/sessions/other"

static void start(void)
{
    refusal_start(NULL);
}

/* --- what is shown --- */

static void check_shown(const struct answer *answer, const char *member, const char *expected)
{
    json_t *wanted = json_loads(expected, JSON_DECODE_ANY, NULL);

    ck_assert_ptr_nonnull(wanted);
    ck_assert_msg(json_equal(json_object_get(answer->json, member), wanted), "%s is not %s: %s",
                  member, expected, answer->http.body);
    json_decref(wanted);
}

#define ASYNC                                                                                      \
    "{\"mode\": \"async\", \"lease_s\": 60, \"max_staleness\": null, \"stale\": \"reject\", "      \
    "\"accumulate\": 1}"
#define SYNC(workers, quorum)                                                                      \
    "{\"mode\": \"sync\", \"lease_s\": 60, \"workers\": " workers ", \"quorum\": " quorum ", "     \
    "\"timeout_s\": null, \"reduction\": \"mean\", \"vote\": false}"

START_TEST(a_session_shows_the_fields_of_its_mode_and_takes_them_again)
{
    static const struct {
        const char *given, *shown, *svrg_given, *svrg_shown;
    } cases[] = {
        {"{}", ASYNC, "null", "null"},
        {"{\"mode\": \"async\"}", ASYNC, "{}", "{\"update_freq\": null, \"coefficient\": 1}"},
        {"{\"max_staleness\": 0, \"stale\": \"scale\", \"accumulate\": 4096, \"lease_s\": 0.5}",
         "{\"mode\": \"async\", \"lease_s\": 0.5, \"max_staleness\": 0, \"stale\": \"scale\", "
         "\"accumulate\": 4096}",
         "{\"update_freq\": 7, \"coefficient\": 0.25}",
         "{\"update_freq\": 7, \"coefficient\": 0.25}"},
        {"{\"mode\": \"sync\", \"workers\": 4}", SYNC("4", "4"), "{\"update_freq\": null}",
         "{\"update_freq\": null, \"coefficient\": 1}"},
        {"{\"mode\": \"sync\", \"workers\": 4, \"quorum\": null}", SYNC("4", "4"), "null", "null"},
        {"{\"workers\": 4, \"timeout_s\": 0, \"quorum\": 3, \"vote\": true, \"mode\": \"sync\"}",
         "{\"mode\": \"sync\", \"lease_s\": 60, \"workers\": 4, \"quorum\": 3, \"timeout_s\": 0, "
         "\"reduction\": \"mean\", \"vote\": true}",
         "null", "null"},
        {"{\"mode\": \"ssp\"}",
         "{\"mode\": \"ssp\", \"lease_s\": 60, \"staleness\": 3, \"accumulate\": 1}", "null",
         "null"},
        {"{\"mode\": \"ssp\", \"staleness\": 0, \"accumulate\": 2}",
         "{\"mode\": \"ssp\", \"lease_s\": 60, \"staleness\": 0, \"accumulate\": 2}", "null",
         "null"},
    };
    char text[TEXT_BYTES];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(text, sizeof text, "{" MODEL ", \"aggregation\": %s, \"svrg\": %s}",
                 cases[i].given, cases[i].svrg_given);
        struct answer answer = refusal_accept("PUT", OTHER, "", text, 201);
        check_shown(&answer, "aggregation", cases[i].shown);
        check_shown(&answer, "svrg", cases[i].svrg_shown);
        answer_close(&answer);
        snprintf(text, sizeof text, "{" MODEL ", \"aggregation\": %s, \"svrg\": %s}",
                 cases[i].shown, cases[i].svrg_shown);
        answer = refusal_accept("PUT", OTHER, "", text, 200); /* the same request */
        answer_close(&answer);
        snprintf(text, sizeof text, "{\"aggregation\": %s, \"svrg\": %s}", cases[i].shown,
                 cases[i].svrg_shown);
        answer = refusal_accept("PATCH", OTHER, "", text, 200);
        check_shown(&answer, "aggregation", cases[i].shown);
        check_shown(&answer, "svrg", cases[i].svrg_shown);
        answer_close(&answer);
        live_server_kill(&refusal_server);
        live_server_restart(&refusal_server);
        answer = refusal_accept("GET", OTHER, "", "", 200);
        check_shown(&answer, "aggregation", cases[i].shown);
        check_shown(&answer, "svrg", cases[i].svrg_shown);
        answer_close(&answer);
        answer = refusal_accept("DELETE", OTHER, "", "", 204);
        answer_close(&answer);
    }
}
END_TEST

START_TEST(a_patch_changes_what_it_names_and_another_mode_begins_anew)
{
    static const struct {
        const char *patch, *aggregation, *svrg;
    } cases[] = {
        {"{\"aggregation\": {\"max_staleness\": 5}}",
         "{\"mode\": \"async\", \"lease_s\": 60, \"max_staleness\": 5, \"stale\": \"reject\", "
         "\"accumulate\": 1}",
         "null"},
        {"{\"aggregation\": {\"max_staleness\": null}, \"svrg\": {\"coefficient\": 0}}", ASYNC,
         "{\"update_freq\": null, \"coefficient\": 0}"},
        {"{\"aggregation\": {\"mode\": \"sync\", \"workers\": 4}, \"svrg\": {\"update_freq\": 2}}",
         SYNC("4", "4"), "{\"update_freq\": 2, \"coefficient\": 0}"},
        /* A quorum of all follows. */
        {"{\"aggregation\": {\"workers\": 3}, \"svrg\": null}", SYNC("3", "3"), "null"},
        {"{\"aggregation\": {\"workers\": 5, \"quorum\": 5}, \"svrg\": {}}", SYNC("5", "5"),
         "{\"update_freq\": null, \"coefficient\": 1}"},
        {"{\"aggregation\": {\"quorum\": 2, \"timeout_s\": 1.5, \"lease_s\": 9}}",
         "{\"mode\": \"sync\", \"lease_s\": 9, \"workers\": 5, \"quorum\": 2, \"timeout_s\": 1.5, "
         "\"reduction\": \"mean\", \"vote\": false}",
         "{\"update_freq\": null, \"coefficient\": 1}"},
        {"{\"aggregation\": {\"mode\": \"ssp\", \"staleness\": 1}}",
         "{\"mode\": \"ssp\", \"lease_s\": 9, \"staleness\": 1, \"accumulate\": 1}",
         "{\"update_freq\": null, \"coefficient\": 1}"},
        {"{\"aggregation\": {\"mode\": \"async\", \"lease_s\": 60}}", ASYNC,
         "{\"update_freq\": null, \"coefficient\": 1}"},
    };

    struct answer answer = refusal_accept("PUT", OTHER, "", "{" MODEL "}", 201);
    answer_close(&answer);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        answer = refusal_accept("PATCH", OTHER, "", cases[i].patch, 200);
        check_shown(&answer, "aggregation", cases[i].aggregation);
        check_shown(&answer, "svrg", cases[i].svrg);
        answer_close(&answer);
    }
    /* A fork is changed in the same way. */
    answer = refusal_accept("POST", OTHER "/forks", "",
                            "{\"aggregation\": {\"mode\": \"sync\", \"workers\": 2}, \"svrg\": "
                            "null}",
                            201);
    check_shown(&answer, "aggregation", SYNC("2", "2"));
    check_shown(&answer, "svrg", "null");
    check_shown(&answer, "round", "{\"round\": 1, \"received\": 0, \"expected\": 2}");
    answer_close(&answer);
}
END_TEST

/* --- what is refused --- */

struct refused {
    const char *members, *code, *pointer, *words;
};

/* In a new session and in a PATCH of one of mode async. */
static void check_refused(const struct refused *refused)
{
    char text[TEXT_BYTES];

    snprintf(text, sizeof text, "{" MODEL ", %s}", refused->members);
    refusal_check_json("POST", "/v1/sessions", text, 422, refused->code, refused->pointer,
                       refused->words);
    snprintf(text, sizeof text, "{%s}", refused->members);
    refusal_check_json("PATCH", REFUSAL_SESSION, text, 422, refused->code, refused->pointer,
                       refused->words);
    refusal_check_json("POST", REFUSAL_SESSION "/forks", text, 422, refused->code, refused->pointer,
                       refused->words);
}

#define BAD(given, field)                                                                          \
    {                                                                                              \
        "\"aggregation\": {" given "}", "invalid_field", "/aggregation/" field, NULL               \
    }
#define FOREIGN(given, field, owner)                                                               \
    {                                                                                              \
        "\"aggregation\": {" given "}", "unknown_field", "/aggregation/" field, owner              \
    }

START_TEST(aggregation_has_types_and_ranges)
{
    static const struct refused cases[] = {
        {"\"aggregation\": null", "invalid_field", "/aggregation", "object"},
        {"\"aggregation\": \"sync\"", "invalid_field", "/aggregation", "object"},
        {"\"aggregation\": []", "invalid_field", "/aggregation", "object"},
        BAD("\"mode\": \"never\"", "mode"),
        BAD("\"mode\": null", "mode"),
        BAD("\"mode\": 1", "mode"),
        BAD("\"mode\": \"ASYNC\"", "mode"),
        BAD("\"max_staleness\": -1", "max_staleness"),
        BAD("\"max_staleness\": 0.5", "max_staleness"),
        BAD("\"max_staleness\": 18446744073709551615", "max_staleness"),
        BAD("\"max_staleness\": \"2\"", "max_staleness"),
        BAD("\"stale\": \"drop\"", "stale"),
        BAD("\"stale\": null", "stale"),
        BAD("\"accumulate\": 0", "accumulate"),
        BAD("\"accumulate\": 4097", "accumulate"),
        BAD("\"accumulate\": null", "accumulate"),
        BAD("\"lease_s\": 0", "lease_s"),
        BAD("\"lease_s\": -1", "lease_s"),
        BAD("\"lease_s\": 1e9", "lease_s"),
        BAD("\"lease_s\": null", "lease_s"),
        BAD("\"mode\": \"sync\", \"workers\": 0", "workers"),
        BAD("\"mode\": \"sync\", \"workers\": 4097", "workers"),
        BAD("\"mode\": \"sync\", \"workers\": 1.5", "workers"),
        BAD("\"mode\": \"sync\", \"workers\": null", "workers"),
        BAD("\"mode\": \"sync\", \"workers\": 2, \"quorum\": 0", "quorum"),
        BAD("\"mode\": \"sync\", \"workers\": 2, \"quorum\": \"2\"", "quorum"),
        BAD("\"mode\": \"sync\", \"workers\": 2, \"timeout_s\": -0.1", "timeout_s"),
        BAD("\"mode\": \"sync\", \"workers\": 2, \"timeout_s\": 1e9", "timeout_s"),
        BAD("\"mode\": \"sync\", \"workers\": 2, \"reduction\": \"max\"", "reduction"),
        BAD("\"mode\": \"sync\", \"workers\": 2, \"vote\": 1", "vote"),
        BAD("\"mode\": \"sync\", \"workers\": 2, \"vote\": null", "vote"),
        BAD("\"mode\": \"ssp\", \"staleness\": -1", "staleness"),
        BAD("\"mode\": \"ssp\", \"staleness\": null", "staleness"),
        {"\"svrg\": true", "invalid_field", "/svrg", "null"},
        {"\"svrg\": {\"update_freq\": 0}", "invalid_field", "/svrg/update_freq", NULL},
        {"\"svrg\": {\"update_freq\": 2.5}", "invalid_field", "/svrg/update_freq", NULL},
        {"\"svrg\": {\"coefficient\": -1}", "invalid_field", "/svrg/coefficient", NULL},
        {"\"svrg\": {\"coefficient\": null}", "invalid_field", "/svrg/coefficient", NULL},
        {"\"svrg\": {\"freq\": 1}", "unknown_field", "/svrg/freq", "update_freq"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_refused(&cases[i]);
}
END_TEST

START_TEST(a_field_of_another_mode_is_refused_with_its_mode)
{
    static const struct refused cases[] = {
        FOREIGN("\"workers\": 4", "workers", "mode \"sync\"; the mode is \"async\""),
        FOREIGN("\"mode\": \"async\", \"quorum\": null", "quorum", "\"sync\""),
        FOREIGN("\"timeout_s\": null", "timeout_s", "\"sync\""),
        FOREIGN("\"reduction\": \"mean\"", "reduction", "\"sync\""),
        FOREIGN("\"vote\": true", "vote", "\"sync\""),
        FOREIGN("\"mode\": \"ssp\", \"vote\": false", "vote", "\"sync\"; the mode is \"ssp\""),
        FOREIGN("\"staleness\": 3", "staleness", "\"ssp\""),
        FOREIGN("\"mode\": \"sync\", \"workers\": 2, \"staleness\": 3", "staleness", "\"ssp\""),
        FOREIGN("\"mode\": \"sync\", \"workers\": 2, \"accumulate\": 1", "accumulate",
                "\"async\" and \"ssp\"; the mode is \"sync\""),
        FOREIGN("\"mode\": \"ssp\", \"max_staleness\": null", "max_staleness", "\"async\""),
        FOREIGN("\"mode\": \"ssp\", \"stale\": \"scale\"", "stale", "\"async\""),
        FOREIGN("\"round\": 1", "round", "max_staleness"),
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_refused(&cases[i]);
}
END_TEST

START_TEST(settings_must_go_together)
{
    static const struct refused cases[] = {
        BAD("\"mode\": \"sync\"", "workers"),
        BAD("\"mode\": \"sync\", \"quorum\": 2", "workers"),
        BAD("\"mode\": \"sync\", \"workers\": 2, \"quorum\": 3", "quorum"),
        BAD("\"mode\": \"sync\", \"workers\": 2, \"quorum\": 3, \"timeout_s\": 1", "quorum"),
        BAD("\"mode\": \"sync\", \"workers\": 4, \"quorum\": 3", "timeout_s"),
        BAD("\"mode\": \"sync\", \"workers\": 4, \"quorum\": 3, \"timeout_s\": null", "timeout_s"),
        BAD("\"mode\": \"sync\", \"workers\": 4, \"vote\": true, \"reduction\": \"sum\"",
            "reduction"),
        {"\"aggregation\": {\"mode\": \"sync\", \"workers\": 2}, \"durability\": {\"mode\": "
         "\"checkpoint\"}",
         "invalid_field", "/durability/mode", "checkpoint"},
        {"\"aggregation\": {\"accumulate\": 2}, \"durability\": {\"mode\": \"checkpoint\"}",
         "invalid_field", "/durability/mode", "checkpoint"},
        {"\"svrg\": {}, \"durability\": {\"mode\": \"checkpoint\"}", "invalid_field",
         "/durability/mode", "snapshot"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_refused(&cases[i]);
}
END_TEST

/* What is there already counts too. */
START_TEST(a_patch_must_go_with_what_is_there)
{
    static const struct {
        const char *session, *patch, *pointer;
    } cases[] = {
        {"\"aggregation\": {\"mode\": \"sync\", \"workers\": 4, \"quorum\": 3, \"timeout_s\": 1}",
         "{\"aggregation\": {\"workers\": 2}}", "/aggregation/quorum"},
        {"\"aggregation\": {\"mode\": \"sync\", \"workers\": 4, \"quorum\": 3, \"timeout_s\": 1}",
         "{\"aggregation\": {\"timeout_s\": null}}", "/aggregation/timeout_s"},
        {"\"aggregation\": {\"mode\": \"sync\", \"workers\": 4}",
         "{\"aggregation\": {\"quorum\": 1}}", "/aggregation/timeout_s"},
        {"\"aggregation\": {\"mode\": \"sync\", \"workers\": 4}",
         "{\"durability\": {\"mode\": \"checkpoint\"}}", "/durability/mode"},
        {"\"svrg\": {}", "{\"durability\": {\"mode\": \"checkpoint\"}}", "/durability/mode"},
        {"\"durability\": {\"mode\": \"checkpoint\"}",
         "{\"aggregation\": {\"mode\": \"sync\", \"workers\": 2}}", "/aggregation"},
        {"\"durability\": {\"mode\": \"checkpoint\"}", "{\"aggregation\": {\"accumulate\": 2}}",
         "/aggregation"},
        {"\"durability\": {\"mode\": \"checkpoint\"}", "{\"svrg\": {\"update_freq\": 1}}", "/svrg"},
    };
    char text[TEXT_BYTES];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(text, sizeof text, "{" MODEL ", %s}", cases[i].session);
        struct answer answer = refusal_accept("PUT", OTHER, "", text, 201);
        answer_close(&answer);
        refusal_check_json("PATCH", OTHER, cases[i].patch, 422, "invalid_field", cases[i].pointer,
                           NULL);
        answer = refusal_accept("DELETE", OTHER, "", "", 204);
        answer_close(&answer);
    }
    /* One of each is a step of its own: nothing to put together. */
    struct answer answer = refusal_accept(
        "PUT", OTHER, "",
        "{" MODEL ", \"aggregation\": {\"mode\": \"sync\", \"workers\": 1}, \"durability\": "
        "{\"mode\": \"checkpoint\"}}",
        201);
    check_shown(&answer, "round", "null");
    answer_close(&answer);
}
END_TEST

/* --- requests that wait --- */

static void check_query(const char *path, unsigned status, const char *code, const char *pointer)
{
    refusal_check(&(struct refusal){.method = "GET",
                                    .path = path,
                                    .headers = "",
                                    .status = status,
                                    .code = code,
                                    .pointer = pointer});
}

START_TEST(a_wait_says_for_what_and_how_long)
{
    static const struct {
        const char *path, *pointer;
    } cases[] = {
        {REFUSAL_WEIGHTS "?wait=1", "/wait"},
        {REFUSAL_WEIGHTS "?after=0&wait=60.5", "/wait"},
        {REFUSAL_WEIGHTS "?after=0&wait=-1", "/wait"},
        {REFUSAL_WEIGHTS "?after=0&wait=soon", "/wait"},
        {REFUSAL_WEIGHTS "?after=0&wait=", "/wait"},
        {REFUSAL_WEIGHTS "?after=-1", "/after"},
        {REFUSAL_WEIGHTS "?after=0.5", "/after"},
        {REFUSAL_WEIGHTS "?after=", "/after"},
        {REFUSAL_WEIGHTS "?after=0&step=0", "/after"},
        {REFUSAL_WEIGHTS "?after=0&lineage=0", "/lineage"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_query(cases[i].path, 422, "invalid_field", cases[i].pointer);
    check_query(REFUSAL_WEIGHTS "?after=0&after=1", 400, "invalid_request", NULL);
    check_query(REFUSAL_SESSION "/workers?wait=1", 400, "invalid_request", NULL);
}
END_TEST

START_TEST(kind_is_one_of_two)
{
    refusal_check_json("POST", REFUSAL_STEPS,
                       "{\"kind\": \"weights\", \"gradients\": " REFUSAL_TENSORS "}", 422,
                       "invalid_field", "/kind", "\"delta\"");
    refusal_check_json("POST", REFUSAL_STEPS,
                       "{\"kind\": null, \"gradients\": " REFUSAL_TENSORS "}", 422, "invalid_field",
                       "/kind", NULL);
}
END_TEST

Suite *suite_aggregation(void);
Suite *suite_aggregation(void)
{
    Suite *suite = suite_create("aggregation");
    TCase *tests = tcase_create("aggregation");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, refusal_stop);
    tcase_add_test(tests, a_session_shows_the_fields_of_its_mode_and_takes_them_again);
    tcase_add_test(tests, a_patch_changes_what_it_names_and_another_mode_begins_anew);
    tcase_add_test(tests, aggregation_has_types_and_ranges);
    tcase_add_test(tests, a_field_of_another_mode_is_refused_with_its_mode);
    tcase_add_test(tests, settings_must_go_together);
    tcase_add_test(tests, a_patch_must_go_with_what_is_there);
    tcase_add_test(tests, a_wait_says_for_what_and_how_long);
    tcase_add_test(tests, kind_is_one_of_two);
    suite_add_tcase(suite, tests);
    return suite;
}
