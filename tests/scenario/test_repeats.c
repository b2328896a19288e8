/* Requests that come twice: whatever has changed meanwhile, a repeat gets what the first got. */
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/refusal.h"

#define KEYED "Content-Type: application/json\r\nIdempotency-Key: once\r\n"
#define GRADIENTS "{\"gradients\": " REFUSAL_TENSORS "}"

static void start(void)
{
    refusal_start(NULL);
}

static struct answer step(const char *headers, const char *body)
{
    return api_send(refusal_server.port, "POST", REFUSAL_STEPS, headers, body, strlen(body));
}

static long long member(const struct answer *answer, const char *name)
{
    return json_integer_value(json_object_get(answer->json, name));
}

static void check_header(const struct answer *answer, const char *name, const char *wanted)
{
    char value[100];

    ck_assert_ptr_nonnull(http_response_header(&answer->http, name, value, sizeof value));
    ck_assert_str_eq(value, wanted);
}

static void check_replayed(const struct answer *answer)
{
    ck_assert_uint_eq(answer->http.status, 200);
    check_header(answer, "Idempotency-Replayed", "true");
}

START_TEST(a_repeat_gets_its_receipt_although_the_policy_would_refuse_it_now)
{
    static const char raw[] = "Content-Type: application/octet-stream\r\nIdempotency-Key: once\r\n";
    unsigned char nan[32] = {0, 0, 0xC0, 0x7F};
    struct answer answer = refusal_accept("PATCH", REFUSAL_SESSION, "",
                                          "{\"gradient\": {\"nonfinite\": \"skip\"}}", 200);

    answer_close(&answer);
    answer = api_send(refusal_server.port, "POST", REFUSAL_STEPS, raw, nan, sizeof nan);
    ck_assert_uint_eq(answer.http.status, 200);
    answer_close(&answer);
    answer = refusal_accept("PATCH", REFUSAL_SESSION, "",
                            "{\"gradient\": {\"nonfinite\": \"reject\"}}", 200);
    answer_close(&answer);
    answer = api_send(refusal_server.port, "POST", REFUSAL_STEPS, raw, nan, sizeof nan);
    check_replayed(&answer);
    ck_assert_int_eq(member(&answer, "step"), 1);
    ck_assert_str_eq(json_string_value(json_object_get(answer.json, "status")), "skipped");
    answer_close(&answer);
}
END_TEST

START_TEST(a_replay_names_the_weights_it_brings)
{
    struct answer answer = step(KEYED, GRADIENTS);

    ck_assert_uint_eq(answer.http.status, 200);
    answer_close(&answer);
    answer = step("Content-Type: application/json\r\n", GRADIENTS);
    ck_assert_int_eq(member(&answer, "step"), 2);
    answer_close(&answer);
    answer = step(KEYED "Prefer: return=representation\r\n", GRADIENTS);
    check_replayed(&answer);
    ck_assert_int_eq(member(&answer, "step"), 1);
    ck_assert_int_eq(member(&answer, "parameters_step"), 2);
    check_header(&answer, "ETag", "\"0-2\"");
    answer_close(&answer);
    answer = step(KEYED, GRADIENTS);
    check_replayed(&answer);
    check_header(&answer, "ETag", "\"0-1\"");
    answer_close(&answer);
}
END_TEST

struct creators {
    atomic_uint made, found, other;
};

static void *create(void *context)
{
    static const char body[] = "{\"optimizer\": \"adam\", \"parameters\": {\"w\": {\"shape\": "
                               "[100000], \"init\": {\"normal\": {}}}}}";
    struct creators *creators = context;

    for (int round = 0; round < 8; round++) {
        char path[64];
        snprintf(path, sizeof path, "/v1/sessions/twin-%d", round);
        struct answer answer =
            api_send(refusal_server.port, "PUT", path, "Content-Type: application/json\r\n", body,
                     sizeof body - 1);
        atomic_fetch_add(answer.http.status == 201   ? &creators->made
                         : answer.http.status == 200 ? &creators->found
                                                     : &creators->other,
                         1);
        answer_close(&answer);
    }
    return NULL;
}

START_TEST(the_same_creation_from_many_clients_makes_one_session)
{
    struct creators creators = {0};
    pthread_t threads[8];

    for (size_t i = 0; i < 8; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, create, &creators), 0);
    for (size_t i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(atomic_load(&creators.made), 8);
    ck_assert_uint_eq(atomic_load(&creators.found), 56);
    ck_assert_uint_eq(atomic_load(&creators.other), 0);
}
END_TEST

START_TEST(what_was_fetched_can_be_put_back)
{
    struct answer answer = api_send(refusal_server.port, "GET", REFUSAL_WEIGHTS, "", NULL, 0);

    ck_assert_uint_eq(answer.http.status, 200);
    char *text = json_dumps(answer.json, JSON_COMPACT);
    answer_close(&answer);
    answer = refusal_accept("PUT", REFUSAL_WEIGHTS, "", text, 200);
    free(text);
    answer_close(&answer);
}
END_TEST

Suite *suite_repeats(void);

Suite *suite_repeats(void)
{
    Suite *suite = suite_create("repeats");
    TCase *tests = tcase_create("repeats");

    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, start, refusal_stop);
    tcase_add_test(tests, a_repeat_gets_its_receipt_although_the_policy_would_refuse_it_now);
    tcase_add_test(tests, a_replay_names_the_weights_it_brings);
    tcase_add_test(tests, the_same_creation_from_many_clients_makes_one_session);
    tcase_add_test(tests, what_was_fetched_can_be_put_back);
    suite_add_tcase(suite, tests);
    return suite;
}
