/* Gradients that are only tried, held against the steps that they become. */
#include <check.h>
#include <string.h>

#include "tests/lib/live_server.h"
#include "tests/lib/remote.h"
#include "tests/lib/testing.h"

enum { TEST_TIMEOUT_S = 300 };

static struct live_server server;

static void start(void)
{
    live_server_start(&server, testing_folder(), NULL);
}

static void stop(void)
{
    ck_assert_int_eq(live_server_stop(&server), 0);
}

START_TEST(a_dry_run_tells_and_changes_nothing)
{
    char before[REMOTE_HASH_BYTES], after[REMOTE_HASH_BYTES], value[64];
    static const char representation[] =
        "Prefer: return=representation\r\nAccept: application/octet-stream\r\n";
    struct remote remote = remote_create(server.port, "dry", "\"optimizer\": \"adam\"");

    remote_steps(&remote, 1, 5);
    remote_hash(&remote, "", before);
    struct answer session = remote_send(&remote, "GET", "", NULL, 200);
    struct answer dry = remote_try(&remote, 6, "?dry_run=true", "");
    ck_assert_msg(dry.http.status == 200, "%s", dry.http.body);
    ck_assert(json_is_true(json_object_get(dry.json, "dry_run")));
    ck_assert_ptr_null(http_response_header(&dry.http, "ETag", value, sizeof value));
    struct answer weights = remote_try(&remote, 6, "?dry_run=true", representation);
    ck_assert_uint_eq(weights.http.body_size, REMOTE_COUNT * 4);
    ck_assert_str_eq(http_response_header(&weights.http, "Descent-Dry-Run", value, sizeof value),
                     "true");
    remote_hash(&remote, "", after);
    ck_assert_str_eq(before, after);
    struct answer same = remote_send(&remote, "GET", "", NULL, 200);
    ck_assert(json_equal(session.json, same.json));

    /* The step does what was told. */
    struct answer step = remote_try(&remote, 6, "?dry_run=false", representation);
    ck_assert_uint_eq(step.http.body_size, weights.http.body_size);
    ck_assert_mem_eq(step.http.body, weights.http.body, step.http.body_size);
    struct answer told = remote_send(&remote, "GET", "", NULL, 200);
    json_object_del(dry.json, "dry_run");
    json_object_del(dry.json, "durable_step");
    const char *name;
    json_t *member;
    json_object_foreach(dry.json, name, member) ck_assert_msg(
        json_equal(json_object_get(json_object_get(told.json, "last"), name), member), "%s", name);
    answer_close(&step);
    answer_close(&told);
    answer_close(&same);
    answer_close(&weights);
    answer_close(&dry);
    answer_close(&session);
    remote_refused(&remote, "POST", "/gradients?dry_run=yes", "{\"gradients\": {}}", 422,
                   "invalid_field");
    remote_refused(&remote, "POST", "/gradients?dry_run=true", "{\"gradients\": {}}", 422,
                   "missing_tensor");
    stop();
}
END_TEST

Suite *suite_dry_run(void);
Suite *suite_dry_run(void)
{
    Suite *suite = suite_create("dry_run");
    TCase *tests = tcase_create("dry_run");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, NULL);
    tcase_add_test(tests, a_dry_run_tells_and_changes_nothing);
    suite_add_tcase(suite, tests);
    return suite;
}
