/* The ledger of steps, held against the receipts that were given and against weights and gradients
 * that this test has itself. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/live_server.h"
#include "tests/lib/remote.h"
#include "tests/lib/testing.h"

enum { TEST_TIMEOUT_S = 300, STEPS = 25, W_COUNT = 5 * 7 };

static struct live_server server;

static void start(void)
{
    live_server_start(&server, testing_folder(), NULL);
}

static void stop(void)
{
    ck_assert_int_eq(live_server_stop(&server), 0);
}

static const json_t *steps_of(const struct answer *answer)
{
    const json_t *steps = json_object_get(answer->json, "steps");

    ck_assert(json_is_array(steps));
    return steps;
}

/* A receipt has what the ledger says of its step, but that durability may have gone on. */
static void check_receipt(const json_t *line, const json_t *receipt)
{
    const char *name;
    json_t *member;

    json_object_foreach((json_t *)(uintptr_t)receipt, name, member)
    {
        if (strcmp(name, "durable_step") != 0)
            ck_assert_msg(json_equal(json_object_get(line, name), member), "%s", name);
    }
}

static double member_of(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);

    ck_assert_msg(value != NULL, "%s is missing", name);
    return json_is_null(value) ? (double)NAN : json_number_value(value);
}

static double norm(const float *values, size_t count)
{
    double sum = 0;

    for (size_t i = 0; i < count; i++)
        sum += (double)values[i] * (double)values[i];
    return sqrt(sum);
}

static void check_close(double found, double expected, const char *what)
{
    ck_assert_msg(fabs(found - expected) <= 1e-5 * fabs(expected) + 1e-7, "%s: %.9g, not %.9g",
                  what, found, expected);
}

/* What it says of tensor w (the first), from the weights before and after. */
static void check_note(const json_t *line, const struct weights *before,
                       const struct weights *after, const float *gradient)
{
    const json_t *tensors = json_object_get(line, "tensors");
    const json_t *note = json_array_get(tensors, 0);
    float old[W_COUNT], new[W_COUNT], moved[W_COUNT];
    size_t zeros = 0;

    memcpy(old, before->bytes, sizeof old);
    memcpy(new, after->bytes, sizeof new);
    for (size_t i = 0; i < W_COUNT; i++) {
        moved[i] = new[i] - old[i];
        zeros += gradient[i] == 0;
    }
    ck_assert_uint_eq(json_array_size(tensors), 4);
    ck_assert_str_eq(json_string_value(json_object_get(note, "name")), "w");
    check_close(member_of(note, "grad_norm"), norm(gradient, W_COUNT), "grad_norm");
    check_close(member_of(note, "update_norm"), norm(moved, W_COUNT), "update_norm");
    check_close(member_of(note, "weight_norm"), norm(new, W_COUNT), "weight_norm");
    check_close(member_of(note, "update_ratio"), norm(moved, W_COUNT) / norm(new, W_COUNT),
                "update_ratio");
    check_close(member_of(note, "zeros"), (double)zeros / W_COUNT, "zeros");
    ck_assert_int_eq(json_integer_value(json_object_get(note, "nonfinite")), 0);
}

START_TEST(the_ledger_says_what_the_receipts_said)
{
    json_t *receipts[STEPS + 1];
    struct weights seen[STEPS + 1];
    char query[96], *text;
    struct remote remote =
        remote_create(server.port, "ledger", "\"optimizer\": \"adam\", \"hash_every\": 2");

    seen[0] = remote_weights(&remote, "");
    for (uint64_t step = 1; step <= STEPS; step++) {
        snprintf(query, sizeof query, "?worker=w%d&seq=%d&loss=0.%d", (int)step % 2,
                 (int)(step + 1) / 2, (int)step);
        struct answer answer = remote_try(&remote, step, query, "");
        ck_assert_msg(answer.http.status == 200, "%s", answer.http.body);
        receipts[step] = json_incref(answer.json);
        seen[step] = remote_weights(&remote, "");
        answer_close(&answer);
    }
    struct answer answer = remote_send(&remote, "GET", "/steps", NULL, 200);
    ck_assert_uint_eq(json_array_size(steps_of(&answer)), STEPS);
    ck_assert(json_is_null(json_object_get(answer.json, "next_page_token")));
    for (size_t step = 1; step <= STEPS; step++) {
        const json_t *line = json_array_get(steps_of(&answer), step - 1);
        float gradient[REMOTE_COUNT];
        remote_gradient(&remote, step, gradient);
        check_receipt(line, receipts[step]);
        ck_assert_int_eq(json_object_get(line, "state_hash") != NULL, step % 2 == 0);
        snprintf(query, sizeof query, "w%d", (int)step % 2);
        ck_assert_str_eq(json_string_value(json_object_get(line, "worker")), query);
        ck_assert_int_eq(json_integer_value(json_object_get(line, "seq")), (int)(step + 1) / 2);
        ck_assert_int_ge(json_integer_value(json_object_get(line, "bytes")), REMOTE_COUNT * 4);
        ck_assert_uint_eq(strlen(json_string_value(json_object_get(line, "created_at"))), 27);
        ck_assert(member_of(json_object_get(line, "stages"), "apply_ms") >= 0);
        ck_assert(member_of(json_object_get(line, "stages"), "receive_ms") >= 0);
        check_note(line, &seen[step - 1], &seen[step], gradient);
    }
    text = json_dumps(steps_of(&answer), JSON_REAL_PRECISION(17));

    /* After a kill only the times may be unknown. */
    live_server_kill(&server);
    live_server_restart(&server);
    remote.port = server.port;
    struct answer again = remote_send(&remote, "GET", "/steps", NULL, 200);
    ck_assert_uint_eq(json_array_size(steps_of(&again)), STEPS);
    for (size_t i = 0; i < STEPS; i++) {
        json_t *line = json_array_get(steps_of(&answer), i);
        json_t *other = json_array_get(steps_of(&again), i);
        json_object_del(line, "stages");
        ck_assert_int_eq(json_object_del(other, "stages"), 0);
        ck_assert_msg(json_equal(line, other), "%s", text);
    }
    for (size_t step = 1; step <= STEPS; step++)
        json_decref(receipts[step]);
    free(text);
    answer_close(&again);
    answer_close(&answer);
    stop();
}
END_TEST

/* Pages of `size` steps, one after the other, are the whole. */
static void check_pages(const struct remote *remote, const json_t *all, int size)
{
    char under[96];
    size_t count = 0;

    snprintf(under, sizeof under, "/steps?tensors=false&page_size=%d", size);
    for (bool more = true; more;) {
        struct answer page = remote_send(remote, "GET", under, NULL, 200);
        const char *token = json_string_value(json_object_get(page.json, "next_page_token"));
        ck_assert_int_eq(answer_number(&page, "oldest_step"), 1);
        for (size_t i = 0; i < json_array_size(steps_of(&page)); i++, count++)
            ck_assert(json_equal(json_array_get(steps_of(&page), i), json_array_get(all, count)));
        more = token != NULL;
        if (more) {
            ck_assert_uint_eq(json_array_size(steps_of(&page)), (size_t)size);
            snprintf(under, sizeof under, "/steps?tensors=false&page_size=%d&page_token=%s", size,
                     token);
        }
        answer_close(&page);
    }
    ck_assert_uint_eq(count, json_array_size(all));
}

/* A value that is refused is told its limits in full. */
static void check_detail(const struct remote *remote, const char *method, const char *under,
                         const char *json, const char *detail)
{
    struct answer answer = remote_send(remote, method, under, json, 422);

    ck_assert_str_eq(answer_detail(&answer), detail);
    answer_close(&answer);
}

START_TEST(pages_and_lines_are_the_whole)
{
    struct remote remote = remote_create(server.port, "paged", "\"optimizer\": \"adam\"");
    char path[128];

    struct answer none = remote_send(&remote, "GET", "/steps", NULL, 200);
    ck_assert_uint_eq(json_array_size(steps_of(&none)), 0);
    answer_close(&none);
    remote_steps(&remote, 1, STEPS);
    struct answer all = remote_send(&remote, "GET", "/steps?tensors=false", NULL, 200);
    ck_assert_ptr_null(json_object_get(json_array_get(steps_of(&all), 0), "tensors"));
    check_pages(&remote, steps_of(&all), 1);
    check_pages(&remote, steps_of(&all), 7);
    check_pages(&remote, steps_of(&all), STEPS);
    snprintf(path, sizeof path, "%s/steps?tensors=false&from=4", remote.path);
    struct answer lines =
        api_send(server.port, "GET", path, "Accept: application/x-ndjson\r\n", NULL, 0);
    ck_assert_uint_eq(lines.http.status, 200);
    char *line = lines.http.body;
    for (size_t i = 3; i < STEPS; i++) {
        char *end = strchr(line, '\n');
        ck_assert_ptr_nonnull(end);
        json_t *value = json_loadb(line, (size_t)(end - line), JSON_REJECT_DUPLICATES, NULL);
        ck_assert(json_equal(value, json_array_get(steps_of(&all), i)));
        json_decref(value);
        line = end + 1;
    }
    ck_assert_str_eq(line, "");
    answer_close(&lines);
    answer_close(&all);
    remote_refused(&remote, "GET", "/steps?page_size=0", NULL, 422, "invalid_field");
    remote_refused(&remote, "GET", "/steps?from=0", NULL, 422, "invalid_field");
    remote_refused(&remote, "GET", "/steps?from=1&page_token=2", NULL, 422, "invalid_field");
    remote_refused(&remote, "GET", "/steps?page_token=x", NULL, 422, "invalid_field");
    remote_refused(&remote, "GET", "/steps?tensors=maybe", NULL, 422, "invalid_field");
    remote_refused(&remote, "GET", "/steps?lineage=3", NULL, 404, "not_found");
    check_detail(&remote, "GET", "/steps?from=-1", NULL,
                 "from must be a whole number from 1 to 9007199254740991");
    check_detail(&remote, "GET", "/steps?page_size=1001", NULL,
                 "page_size is 1001; it must be at least 1 and at most 1000");
    check_detail(&remote, "GET", "/hash?step=-1", NULL,
                 "step must be a whole number from 0 to 9007199254740991");
    check_detail(&remote, "POST", "/rewind", "{\"step\": -1}",
                 "step must be a whole number from 0 to 9007199254740991");
    stop();
}
END_TEST

/* More lines than one piece of the stream holds, to a client that reads on and one that goes. */
START_TEST(a_long_listing_comes_in_pieces)
{
    enum { MANY = 900 };
    struct remote remote = remote_create(server.port, "long",
                                         "\"optimizer\": \"sgd\", \"durability\": {\"mode\": "
                                         "\"interval\", \"seconds\": 1}");
    size_t count = 0;
    char path[128];

    remote_steps(&remote, 1, MANY);
    snprintf(path, sizeof path, "%s/steps", remote.path);
    struct http_client *client = http_client_open(server.port, 30);
    ck_assert(http_client_send_text(client, "GET /v1/sessions/long/steps HTTP/1.1\r\nHost: t\r\n"
                                            "Accept: application/x-ndjson\r\n\r\n"));
    http_client_close(client);
    struct answer lines =
        api_send(server.port, "GET", path, "Accept: application/x-ndjson\r\n", NULL, 0);
    ck_assert_ptr_nonnull(strstr(lines.http.head, "chunked"));
    for (const char *at = lines.http.body; *at != '\0'; at = strchr(at, '\n') + 1) {
        char wanted[64];
        snprintf(wanted, sizeof wanted, "{\"status\":\"applied\",\"step\":%zu,", ++count);
        ck_assert_msg(strncmp(at, wanted, strlen(wanted)) == 0, "line %zu: %.80s", count, at);
    }
    ck_assert_uint_eq(count, MANY);
    answer_close(&lines);

    /* HEAD has none of it, not even the mark of its end. */
    struct http_response head;
    client = http_client_open(server.port, 30);
    ck_assert(http_client_request(client, "HEAD", path, "Accept: application/x-ndjson\r\n", NULL, 0,
                                  &head));
    ck_assert_uint_eq(head.status, 200);
    ck_assert(http_client_at_end(client));
    http_response_free(&head);
    http_client_close(client);
    stop();
}
END_TEST

START_TEST(lines_of_a_line_that_was_left_behind)
{
    struct remote remote = remote_create(server.port, "left", "\"optimizer\": \"adam\"");

    remote_steps(&remote, 1, 10);
    struct answer answer = remote_send(&remote, "POST", "/rewind", "{\"step\": 4}", 200);
    answer_close(&answer);
    remote_steps(&remote, 11, 12);
    answer = remote_send(&remote, "GET", "/steps", NULL, 200);
    ck_assert_uint_eq(json_array_size(steps_of(&answer)), 6);
    for (size_t i = 0; i < 6; i++) {
        const json_t *line = json_array_get(steps_of(&answer), i);
        ck_assert_int_eq(json_integer_value(json_object_get(line, "step")), (int)i + 1);
        ck_assert_int_eq(json_integer_value(json_object_get(line, "lineage")), i >= 4);
    }
    answer_close(&answer);
    answer = remote_send(&remote, "GET", "/steps?lineage=0", NULL, 200);
    ck_assert_uint_eq(json_array_size(steps_of(&answer)), 10);
    answer_close(&answer);
    stop();
}
END_TEST

Suite *suite_steps(void);
Suite *suite_steps(void)
{
    Suite *suite = suite_create("steps");
    TCase *tests = tcase_create("steps");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, NULL);
    tcase_add_test(tests, the_ledger_says_what_the_receipts_said);
    tcase_add_test(tests, pages_and_lines_are_the_whole);
    tcase_add_test(tests, a_long_listing_comes_in_pieces);
    tcase_add_test(tests, lines_of_a_line_that_was_left_behind);
    suite_add_tcase(suite, tests);
    return suite;
}
