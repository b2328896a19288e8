/* Whole states from one server to another, held against the session they were taken from. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/base64.h"
#include "service/core/hash.h"
#include "tests/lib/live_server.h"
#include "tests/lib/remote.h"
#include "tests/lib/state_document.h"
#include "tests/lib/testing.h"

enum { TEST_TIMEOUT_S = 300, MEMBER_BYTES = 1 << 16 };

static struct live_server here, there;

static void start(void)
{
    live_server_start(&here, testing_folder(), NULL);
    live_server_start(&there, testing_folder(), NULL);
}

static void stop(void)
{
    ck_assert_int_eq(live_server_stop(&here), 0);
    ck_assert_int_eq(live_server_stop(&there), 0);
}

/* --- there --- */

static void check_equal(const struct remote *one, const struct remote *other, const char *what)
{
    char mine[REMOTE_HASH_BYTES], theirs[REMOTE_HASH_BYTES];
    struct weights left = remote_weights(one, ""), right = remote_weights(other, "");

    remote_check_same(&left, &right, what);
    remote_hash(one, "", mine);
    remote_hash(other, "", theirs);
    ck_assert_msg(strcmp(mine, theirs) == 0, "%s: %s and %s", what, mine, theirs);
}

static const char *const sessions[] = {
    "\"optimizer\": \"adam\"",
    "\"optimizer\": {\"name\": \"adam\", \"amsgrad\": true}, \"dtype\": \"f64\"",
    "\"optimizer\": \"dcasgd\"",
    "\"optimizer\": \"adafactor\"",
    "\"optimizer\": \"nadam\"",
    ("\"optimizer\": {\"name\": \"momentum\", \"momentum\": 0.9}, \"ema\": {\"decay\": 0.9, "
     "\"debias\": true}, \"groups\": [{\"tensors\": [\"b\", \"s\"], \"lr_mult\": 0.5}, "
     "{\"tensors\": \"w\", \"weight_decay_mult\": 0}]"),
    ("\"optimizer\": {\"name\": \"sgd\", \"lr\": 0.1}, \"schedule\": {\"name\": \"cosine\", "
     "\"max_steps\": 60, \"warmup_steps\": 5}, \"gradient\": {\"clip_norm\": 2}"),
    "\"optimizer\": \"sgld\", \"seed\": 5",
    "\"optimizer\": \"muon\"",
};

START_TEST(a_restored_session_goes_on_to_the_same_bits)
{
    struct remote source = remote_create(here.port, "source", sessions[_i]);
    struct remote target = remote_other(&source, there.port, "target");
    struct remote past = remote_other(&source, there.port, "past");

    remote_steps(&source, 1, 20);
    struct answer file = remote_export(&source, "");
    struct answer early = remote_export(&source, "?step=7");
    struct answer answer = remote_import(&target, file.http.body, file.http.body_size);
    ck_assert_msg(answer.http.status == 201, "%s: %s", sessions[_i], answer.http.body);
    ck_assert_int_eq(answer_number(&answer, "step"), 20);
    answer_close(&answer);
    check_equal(&source, &target, sessions[_i]);

    /* Again is the same; another state is another session. */
    answer = remote_import(&target, file.http.body, file.http.body_size);
    ck_assert_msg(answer.http.status == 200, "%s", answer.http.body);
    answer_close(&answer);
    answer = remote_import(&target, early.http.body, early.http.body_size);
    answer_check_problem(&answer, 409, "session_exists", "another state");
    answer_close(&answer);

    remote_steps(&source, 21, 45);
    remote_steps(&target, 21, 45);
    live_server_kill(&there);
    live_server_restart(&there);
    target.port = past.port = there.port;
    remote_steps(&source, 46, 70);
    remote_steps(&target, 46, 70);
    check_equal(&source, &target, sessions[_i]);

    answer = remote_import(&past, early.http.body, early.http.body_size);
    ck_assert_msg(answer.http.status == 201, "%s", answer.http.body);
    answer_close(&answer);
    remote_steps(&past, 8, 70);
    check_equal(&source, &past, "from the past");
    answer_close(&file);
    answer_close(&early);
    stop();
}
END_TEST

static size_t read_member(const json_t *about, const char *name, unsigned char *out)
{
    const json_t *member = json_object_get(about, name);
    const char *text = json_string_value(member);
    size_t length = json_string_length(member), size = length / 4 * 3;

    ck_assert_uint_gt(length, 4);
    size -= (size_t)(text[length - 1] == '=') + (text[length - 2] == '=');
    ck_assert_uint_le(size, MEMBER_BYTES);
    ck_assert(base64_read(text, length, out, size));
    return size;
}

static void check_checksum(const json_t *about)
{
    static unsigned char joined[2 * MEMBER_BYTES];
    char text[REMOTE_HASH_BYTES];
    size_t size = read_member(about, "record", joined);

    size += read_member(about, "head", joined + size);
    struct digest digest = hash_bytes(joined, size);
    for (size_t i = 0; i < sizeof digest.bytes; i++)
        snprintf(text + 2 * i, 3, "%02x", digest.bytes[i]);
    ck_assert_str_eq(json_string_value(json_object_get(about, "checksum")), text);
}

START_TEST(a_file_says_what_it_is)
{
    char hash[REMOTE_HASH_BYTES];
    struct remote source = remote_create(here.port, "source", "\"optimizer\": \"adam\"");

    remote_steps(&source, 1, 3);
    struct answer answer = remote_export(&source, "");
    struct state_document file = state_document_open(&answer);
    struct weights weights = remote_weights(&source, "");
    static const char *const names[] = {"w", "b", "s", "slot/m/w", "slot/v/s"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        ck_assert_msg(json_object_get(file.header, names[i]) != NULL, "%s", names[i]);
    ck_assert_ptr_null(json_object_get(file.header, "none")); /* empty */
    const json_t *place = json_object_get(json_object_get(file.header, "w"), "data_offsets");
    json_int_t begin = json_integer_value(json_array_get(place, 0));
    ck_assert_mem_eq(file.data + begin, weights.bytes, 5 * 7 * 4);
    remote_hash(&source, "", hash);
    ck_assert_str_eq(json_string_value(json_object_get(file.about, "state_hash")), hash);
    ck_assert_str_eq(json_string_value(json_object_get(file.about, "session")), "source");
    ck_assert_str_eq(json_string_value(json_object_get(file.about, "optimizer")), "adam");
    ck_assert_str_eq(json_string_value(json_object_get(file.about, "prefix")), "");
    ck_assert_str_eq(json_string_value(json_object_get(file.about, "dtype")), "f32");
    ck_assert_int_eq(json_integer_value(json_object_get(file.about, "step")), 3);
    check_checksum(file.about);
    state_document_close(&file);
    answer_close(&answer);
    answer = api_send(here.port, "GET", "/v1/sessions/source/state", "Accept: application/json\r\n",
                      NULL, 0);
    answer_check_problem(&answer, 406, "not_acceptable", "json");
    answer_close(&answer);
    stop();
}
END_TEST

/* A weight may have the name that a slot's tensor would have. */
START_TEST(names_that_meet_are_kept_apart)
{
    static const char request[] =
        "{\"optimizer\": \"adam\", \"parameters\": {\"w\": [1, 2], \"slot/m/w\": [3, 4], "
        "\"state/slot/m/w\": [5], \"average/w\": [6]}}";
    static const char gradients[] =
        "{\"gradients\": {\"w\": [0.5, -1], \"slot/m/w\": [1, 0.25], \"state/slot/m/w\": [2], "
        "\"average/w\": [-3]}}";
    struct remote source = {.port = here.port, .path = "/v1/sessions/source", .element = 4};
    struct remote target = {.port = there.port, .path = "/v1/sessions/target", .element = 4};
    char mine[REMOTE_HASH_BYTES], theirs[REMOTE_HASH_BYTES];
    struct answer answer = remote_send(&source, "PUT", "", request, 201);

    answer_close(&answer);
    answer = remote_send(&source, "POST", "/gradients", gradients, 200);
    answer_close(&answer);
    struct answer exported = remote_export(&source, "");
    struct state_document file = state_document_open(&exported);
    ck_assert_str_eq(json_string_value(json_object_get(file.about, "prefix")), "state/state/");
    ck_assert_ptr_nonnull(json_object_get(file.header, "state/state/slot/m/w"));
    ck_assert_ptr_nonnull(json_object_get(file.header, "state/state/slot/m/slot/m/w"));
    state_document_close(&file);
    answer = remote_import(&target, exported.http.body, exported.http.body_size);
    ck_assert_msg(answer.http.status == 201, "%s", answer.http.body);
    answer_close(&answer);
    for (int i = 0; i < 5; i++) {
        answer = remote_send(&source, "POST", "/gradients", gradients, 200);
        answer_close(&answer);
        answer = remote_send(&target, "POST", "/gradients", gradients, 200);
        answer_close(&answer);
    }
    remote_hash(&source, "", mine);
    remote_hash(&target, "", theirs);
    ck_assert_str_eq(mine, theirs);
    answer_close(&exported);
    stop();
}
END_TEST

Suite *suite_state_transfer(void);
Suite *suite_state_transfer(void)
{
    Suite *suite = suite_create("state_transfer");
    TCase *tests = tcase_create("state_transfer");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, NULL);
    tcase_add_loop_test(tests, a_restored_session_goes_on_to_the_same_bits, 0,
                        (int)(sizeof sessions / sizeof *sessions));
    tcase_add_test(tests, a_file_says_what_it_is);
    tcase_add_test(tests, names_that_meet_are_kept_apart);
    suite_add_tcase(suite, tests);
    return suite;
}
