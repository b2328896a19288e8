/* A round of many workers over HTTP: who comes first makes no difference to a bit of the result,
 * which is the mean weighted by examples. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/lib/live_server.h"
#include "tests/lib/remote.h"
#include "tests/lib/testing.h"

enum { TEST_TIMEOUT_S = 120, WORKERS = 4, ORDERS = 24 };

static struct live_server server;

static void start(void)
{
    live_server_start(&server, testing_folder(), NULL);
}

static void stop(void)
{
    ck_assert_int_eq(live_server_stop(&server), 0);
}

/* The order of that index among all, and whether it has one. */
static void order_of(int index, int out[WORKERS])
{
    int left[WORKERS];

    for (int i = 0; i < WORKERS; i++)
        left[i] = i;
    for (int i = 0, ways = ORDERS; i < WORKERS; i++) {
        ways /= WORKERS - i;
        int pick = index / ways;
        index %= ways;
        out[i] = left[pick];
        memmove(left + pick, left + pick + 1, (size_t)(WORKERS - i - 1 - pick) * sizeof *left);
    }
}

START_TEST(the_bits_do_not_depend_on_who_comes_first)
{
    static const double examples[WORKERS] = {0.1, 3, 17, 0.7};
    char first[REMOTE_HASH_BYTES], hash[REMOTE_HASH_BYTES], id[32], query[96];

    for (int index = 0; index < ORDERS; index++) {
        int order[WORKERS];
        order_of(index, order);
        snprintf(id, sizeof id, "order-%d", index);
        struct remote remote = remote_create(
            server.port, id,
            "\"optimizer\": {\"name\": \"adam\", \"lr\": 0.1}, \"durability\": {\"mode\": "
            "\"interval\"}, \"aggregation\": {\"mode\": \"sync\", \"workers\": 4}");
        for (int round = 0; round < 2; round++) {
            for (int i = 0; i < WORKERS; i++) {
                int worker = order[round == 0 ? i : WORKERS - 1 - i];
                snprintf(query, sizeof query, "?worker=w%d&examples=%g", worker, examples[worker]);
                struct answer answer =
                    remote_try(&remote, (uint64_t)(round * WORKERS + worker), query, "");
                ck_assert_msg(answer.http.status == (i < WORKERS - 1 ? 202u : 200u), "%s",
                              answer.http.body);
                answer_close(&answer);
            }
        }
        remote_hash(&remote, "", index == 0 ? first : hash);
        ck_assert_msg(index == 0 || strcmp(first, hash) == 0, "order %d has other bits", index);
    }
}
END_TEST

/* Plain sgd, so that the mean can be seen; held against one that is computed here in double. */
START_TEST(the_mean_is_weighted_by_examples)
{
    static const double examples[WORKERS] = {0.1, 3, 17, 0.7};
    struct remote remote = remote_create(
        server.port, "mean",
        "\"optimizer\": {\"name\": \"sgd\", \"lr\": 1}, \"dtype\": \"f64\", \"aggregation\": "
        "{\"mode\": \"sync\", \"workers\": 4}");
    struct weights before = remote_weights(&remote, "");
    double sum[REMOTE_COUNT] = {0}, total = 0, was, is;
    float gradient[REMOTE_COUNT];
    char query[96];

    for (int i = 0; i < WORKERS; i++) {
        snprintf(query, sizeof query, "?worker=w%d&examples=%g", i, examples[i]);
        struct answer answer = remote_try(&remote, (uint64_t)i, query, "");
        answer_close(&answer);
        remote_gradient(&remote, (uint64_t)i, gradient);
        for (size_t k = 0; k < REMOTE_COUNT; k++)
            sum[k] += examples[i] * (double)gradient[k];
        total += examples[i];
    }
    struct weights after = remote_weights(&remote, "");
    for (size_t k = 0; k < REMOTE_COUNT; k++) {
        memcpy(&was, before.bytes + 8 * k, 8);
        memcpy(&is, after.bytes + 8 * k, 8);
        ck_assert_msg(fabs(was - sum[k] / total - is) < 1e-14, "number %zu: %.17g", k, is);
    }
}
END_TEST

Suite *suite_arrival_order(void);
Suite *suite_arrival_order(void)
{
    Suite *suite = suite_create("arrival_order");
    TCase *tests = tcase_create("arrival order");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, stop);
    tcase_add_test(tests, the_bits_do_not_depend_on_who_comes_first);
    tcase_add_test(tests, the_mean_is_weighted_by_examples);
    suite_add_tcase(suite, tests);
    return suite;
}
