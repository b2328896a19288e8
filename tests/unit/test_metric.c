/* Counters, gauges, histograms: against plain sums, from one thread and many; and their text. */
#include <check.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/metrics_text.h"
#include "api/router.h"
#include "service/core/metric.h"
#include "tests/lib/testing.h"

enum { THREADS = 8, EACH = 20000, BUCKETS_MAX = 32 };

static uint64_t *reading(void)
{
    uint64_t *numbers = calloc(metric_numbers(), sizeof *numbers);

    ck_assert_ptr_nonnull(numbers);
    metric_read(numbers);
    return numbers;
}

/* Where the numbers of a histogram's cell begin. */
static size_t place(enum histogram histogram, size_t cell)
{
    const struct metric_family *family = metric_family((enum family)histogram);

    return family->start + cell * (family->bound_count + 2);
}

static uint64_t draw_value(uint64_t *state)
{
    return (uint64_t)exp(testing_uniform(state) * 17); /* 1 us to 24 s, as many in each decade */
}

/* The bucket of a value, looked for from the other end. */
static size_t bucket_of(const struct metric_family *family, uint64_t value)
{
    size_t bucket = family->bound_count;

    while (bucket > 0 && value <= family->bounds[bucket - 1])
        bucket--;
    return bucket;
}

START_TEST(a_histogram_is_its_plain_sums)
{
    uint64_t state = testing_seed() ^ 1, *before = reading();
    const struct metric_family *family = metric_family(FAMILY_STEP_STAGE);
    uint64_t counts[METRIC_STAGE_VALUES][BUCKETS_MAX] = {{0}}, sums[METRIC_STAGE_VALUES] = {0};

    ck_assert_uint_lt(family->bound_count, BUCKETS_MAX);
    for (size_t i = 0; i < EACH; i++) {
        size_t cell = testing_random(&state) % METRIC_STAGE_VALUES;
        uint64_t value = draw_value(&state);
        if (i < 3 * family->bound_count) /* the bounds and both sides of them */
            value = family->bounds[i / 3] + i % 3 - 1;
        metric_observe(HISTOGRAM_STEP_STAGE, cell, value);
        counts[cell][bucket_of(family, value)]++;
        sums[cell] += value;
    }
    uint64_t *after = reading();
    for (size_t cell = 0; cell < METRIC_STAGE_VALUES; cell++) {
        size_t at = place(HISTOGRAM_STEP_STAGE, cell);
        for (size_t i = 0; i <= family->bound_count; i++)
            ck_assert_uint_eq(after[at + i] - before[at + i], counts[cell][i]);
        at += family->bound_count + 1;
        ck_assert_uint_eq(after[at] - before[at], sums[cell]);
    }
    free(before);
    free(after);
}
END_TEST

START_TEST(zero_and_more_than_all_bounds_are_counted)
{
    uint64_t *before = reading();
    const struct metric_family *family = metric_family(FAMILY_FSYNC_TIME);
    size_t at = place(HISTOGRAM_FSYNC_TIME, 0);

    metric_observe(HISTOGRAM_FSYNC_TIME, 0, 0);
    metric_observe(HISTOGRAM_FSYNC_TIME, 0, 3600000000);
    uint64_t *after = reading();
    ck_assert_uint_eq(after[at] - before[at], 1);
    ck_assert_uint_eq(after[at + family->bound_count] - before[at + family->bound_count], 1);
    ck_assert_uint_eq(after[at + family->bound_count + 1] - before[at + family->bound_count + 1],
                      3600000000);
    free(before);
    free(after);
}
END_TEST

/* --- many threads --- */

static atomic_bool done;

static void *count_along(void *context)
{
    uint64_t state = testing_seed() ^ (uint64_t)(uintptr_t)context;

    for (size_t i = 0; i < EACH; i++) {
        metric_count(COUNTER_STEPS, METRIC_RESULT_SKIPPED, i % 3);
        metric_move(GAUGE_WAITING, METRIC_AWAITED_ROUND, 1);
        metric_observe(HISTOGRAM_COMMIT_GROUP, 0, testing_random(&state) % 5000);
        metric_move(GAUGE_WAITING, METRIC_AWAITED_ROUND, -1);
    }
    return NULL;
}

/* No number of a counter or histogram goes back. */
static void *read_along(void *context)
{
    size_t *backwards = context;
    uint64_t *last = reading();

    while (!atomic_load(&done)) {
        uint64_t *now = reading();
        for (size_t f = 0; f < FAMILY_COUNT; f++) {
            const struct metric_family *family = metric_family((enum family)f);
            size_t each = family->kind == METRIC_HISTOGRAM ? family->bound_count + 2 : 1;
            for (size_t i = 0; i < family->cells * each && family->kind != METRIC_GAUGE; i++)
                *backwards += now[family->start + i] < last[family->start + i];
        }
        free(last);
        last = now;
    }
    free(last);
    return NULL;
}

START_TEST(nothing_is_lost_between_threads)
{
    pthread_t threads[THREADS], reader;
    size_t backwards = 0;
    uint64_t *before = reading(), expected = 0, count = 0;
    const struct metric_family *steps = metric_family(FAMILY_STEPS);
    const struct metric_family *groups = metric_family(FAMILY_COMMIT_GROUP);
    size_t waiting = metric_family(FAMILY_WAITING)->start + METRIC_AWAITED_ROUND;
    size_t skipped = steps->start + METRIC_RESULT_SKIPPED;

    atomic_store(&done, false);
    ck_assert_int_eq(pthread_create(&reader, NULL, read_along, &backwards), 0);
    for (size_t i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, count_along, (void *)(uintptr_t)(i + 1)),
                         0);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&done, true);
    pthread_join(reader, NULL);
    uint64_t *after = reading();
    for (size_t i = 0; i < EACH; i++)
        expected += i % 3;
    ck_assert_uint_eq(after[skipped] - before[skipped], THREADS * expected);
    ck_assert_uint_eq(after[waiting], before[waiting]);
    for (size_t i = 0; i <= groups->bound_count; i++)
        count += after[groups->start + i] - before[groups->start + i];
    ck_assert_uint_eq(count, THREADS * EACH);
    ck_assert_uint_eq(backwards, 0);
    free(before);
    free(after);
}
END_TEST

/* --- the table --- */

static bool ends_with(const char *name, const char *end)
{
    size_t size = strlen(name), end_size = strlen(end);

    return size >= end_size && strcmp(name + size - end_size, end) == 0;
}

START_TEST(names_follow_the_conventions)
{
    size_t at = 0;

    for (size_t f = 0; f < FAMILY_COUNT; f++) {
        const struct metric_family *family = metric_family((enum family)f);
        const char *name = family->name;
        size_t each = family->kind == METRIC_HISTOGRAM ? family->bound_count + 2 : 1;
        ck_assert_msg(strncmp(name, "descent_", 8) == 0 || strncmp(name, "process_", 8) == 0, "%s",
                      name);
        ck_assert_uint_eq(strspn(name, "abcdefghijklmnopqrstuvwxyz_"), strlen(name));
        ck_assert_msg(ends_with(name, "_total") == (family->kind == METRIC_COUNTER), "%s", name);
        ck_assert_msg((strstr(name, "_seconds") != NULL) == (family->unit == METRIC_MICROSECONDS),
                      "%s", name);
        ck_assert_msg(ends_with(family->help, "."), "%s", name);
        for (size_t other = 0; other < f; other++)
            ck_assert_str_ne(metric_family((enum family)other)->name, name);
        for (size_t i = 1; i < family->bound_count; i++)
            ck_assert_uint_lt(family->bounds[i - 1], family->bounds[i]);
        ck_assert_uint_eq(family->start, at);
        at += family->cells * each;
    }
    ck_assert_uint_eq(at, metric_numbers());
}
END_TEST

START_TEST(every_route_and_every_status_has_its_place)
{
    size_t routes = 0;

    ck_assert_uint_eq(metrics_operation(NULL), 0);
    for (; router_at(routes) != NULL; routes++)
        ck_assert_uint_eq(metrics_operation(router_at(routes)), routes + 1);
    ck_assert_uint_lt(routes, METRIC_OPERATION_VALUES);
    ck_assert_uint_eq(metrics_http(299), 0);
    for (size_t status = 0; status < STATUS_COUNT; status++) {
        size_t http = metrics_http(status_http((enum status)status));
        ck_assert_msg(http > 0 && http < METRIC_HTTP_VALUES, "%zu", status);
        size_t cell = metrics_status((enum status)status);
        ck_assert_uint_le(cell, status);
        ck_assert_str_eq(status_code((enum status)cell), status_code((enum status)status));
        ck_assert_uint_eq(metrics_status((enum status)cell), cell);
    }
}
END_TEST

/* --- the text --- */

static uint64_t *number_at(uint64_t *numbers, enum family family, size_t cell)
{
    return &numbers[metric_family(family)->start + cell];
}

START_TEST(numbers_are_written_as_they_are_meant)
{
    static const char *const lines[] = {
        "\n# TYPE descent_steps_total counter\ndescent_steps_total{result=\"applied\"} 7\n",
        "\ndescent_waiting_requests{for=\"step\"} -2\n",
        "\ndescent_commit_seconds_bucket{le=\"0.00001\"} 1\n"
        "descent_commit_seconds_bucket{le=\"0.000025\"} 1\n"
        "descent_commit_seconds_bucket{le=\"0.00005\"} 3\n",
        "\ndescent_commit_seconds_bucket{le=\"10\"} 3\n"
        "descent_commit_seconds_bucket{le=\"+Inf\"} 7\n"
        "descent_commit_seconds_sum 61.5\ndescent_commit_seconds_count 7\n",
        "\ndescent_http_requests_total{operation=\"none\",code=\"404\"} 3\n",
        "\ndescent_http_requests_total{operation=\"sessions_create\",code=\"other\"} 4\n",
        "\nprocess_cpu_seconds_total 18446744073709.551615\n",
        "\nprocess_start_time_seconds 1800000000\n",
        "\ndescent_commit_group_size_bucket{le=\"4096\"} 0\n",
        "\ndescent_steps_refused_total{code=\"too_far_ahead\"} 1\n",
        "version=\"a\\\"b\\\\c\\nd\"",
    };
    uint64_t *numbers = calloc(metric_numbers(), sizeof *numbers);
    struct arena arena;

    ck_assert_ptr_nonnull(numbers);
    arena_init(&arena);
    size_t commits = metric_family(FAMILY_COMMIT_TIME)->start;
    *number_at(numbers, FAMILY_STEPS, METRIC_RESULT_APPLIED) = 7;
    *number_at(numbers, FAMILY_WAITING, METRIC_AWAITED_STEP) = (uint64_t)-2;
    numbers[commits] = 1;
    numbers[commits + 2] = 2;
    numbers[commits + metric_family(FAMILY_COMMIT_TIME)->bound_count] = 4;
    numbers[commits + metric_family(FAMILY_COMMIT_TIME)->bound_count + 1] = 61500000;
    *number_at(numbers, FAMILY_REQUESTS, metric_cell(0, METRIC_HTTP_VALUES, metrics_http(404))) = 3;
    *number_at(numbers, FAMILY_REQUESTS, metric_cell(1, METRIC_HTTP_VALUES, 0)) = 4;
    *number_at(numbers, FAMILY_PROCESS_CPU, 0) = UINT64_MAX;
    *number_at(numbers, FAMILY_PROCESS_START, 0) = 1800000000000000;
    *number_at(numbers, FAMILY_STEPS_REFUSED, STATUS_TOO_FAR_AHEAD) = 1;
    metric_build(METRIC_BUILD_VERSION, "a\"b\\c\nd");
    struct span text = metrics_text(&arena, numbers);
    ck_assert_ptr_nonnull(text.data);
    char *copy = strndup((const char *)text.data, text.size);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        ck_assert_msg(strstr(copy, lines[i]) != NULL, "%s is not in\n%s", lines[i], copy);
    /* What never happened under an open label has no line, and no family without a sample. */
    ck_assert_ptr_null(strstr(copy, "code=\"stale_gradient\""));
    ck_assert_ptr_null(strstr(copy, "descent_http_request_body_bytes_total"));
    free(copy);
    free(numbers);
    arena_close(&arena);
}
END_TEST

START_TEST(a_text_of_every_number_fits)
{
    uint64_t *numbers = calloc(metric_numbers(), sizeof *numbers);
    struct arena arena;
    size_t samples = 0, expected = 1; /* descent_build_info */

    ck_assert_ptr_nonnull(numbers);
    arena_init(&arena);
    for (size_t i = 0; i < metric_numbers(); i++)
        numbers[i] = UINT32_MAX;
    for (size_t f = 0; f < FAMILY_COUNT; f++) {
        const struct metric_family *family = metric_family((enum family)f);
        expected +=
            family->cells * (family->kind == METRIC_HISTOGRAM ? family->bound_count + 3 : 1);
    }
    struct span text = metrics_text(&arena, numbers);
    ck_assert_ptr_nonnull(text.data);
    ck_assert_uint_eq(text.data[text.size - 1], '\n');
    for (size_t i = 0; i < text.size; i++)
        samples += (i == 0 || text.data[i - 1] == '\n') && text.data[i] != '#';
    ck_assert_uint_eq(samples, expected);
    arena_close(&arena);
    free(numbers);
}
END_TEST

Suite *suite_metric(void);
Suite *suite_metric(void)
{
    Suite *suite = suite_create("metric");
    TCase *tests = tcase_create("metric");

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, a_histogram_is_its_plain_sums);
    tcase_add_test(tests, zero_and_more_than_all_bounds_are_counted);
    tcase_add_test(tests, nothing_is_lost_between_threads);
    tcase_add_test(tests, names_follow_the_conventions);
    tcase_add_test(tests, every_route_and_every_status_has_its_place);
    tcase_add_test(tests, numbers_are_written_as_they_are_meant);
    tcase_add_test(tests, a_text_of_every_number_fits);
    suite_add_tcase(suite, tests);
    return suite;
}
