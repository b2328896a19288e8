/* Buffers: reuse, zeroing, references, accounts, threads. Check runs each test in a process of its
 * own, so each starts with an empty pool. */
#include <check.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include "service/core/buffer.h"
#include "tests/lib/testing.h"

enum { KIB = 1024, MIB = 1024 * 1024 };

/* Sizes around what decides: malloc or mapping, small or huge pages. */
static const size_t sizes[] = {
    0,           1,       63,          64,     1031, 128 * KIB - 1, 128 * KIB, 128 * KIB + 1,
    2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 5 * MIB};
enum { SIZES = sizeof sizes / sizeof *sizes };

static size_t live(void)
{
    size_t bytes;

    buffer_pool_usage(&bytes, NULL);
    return bytes;
}

static size_t pooled(void)
{
    size_t bytes;

    buffer_pool_usage(NULL, &bytes);
    return bytes;
}

START_TEST(every_size_is_aligned_and_writable_to_the_end)
{
    size_t size = sizes[_i];
    struct buffer *buffer = buffer_new(size);

    ck_assert_ptr_nonnull(buffer);
    ck_assert_uint_eq(buffer->size, size);
    ck_assert_uint_eq((uintptr_t)buffer->data % (size >= 2 * MIB ? 2 * MIB : 64), 0);
    memset(buffer->data, 0xA5, size);
    ck_assert_uint_eq(live(), size);
    buffer_release(buffer);
    ck_assert_uint_eq(live(), 0);
}
END_TEST

START_TEST(zeroed_means_zeroed_even_when_reused)
{
    size_t size = sizes[_i];

    for (int round = 0; round < 3; round++) {
        struct buffer *buffer = buffer_new_zeroed(size);
        ck_assert_ptr_nonnull(buffer);
        size_t dirty = 0;
        for (size_t i = 0; i < size; i++)
            dirty += buffer->data[i] != 0;
        ck_assert_uint_eq(dirty, 0);
        memset(buffer->data, 0xFF, size);
        buffer_release(buffer);
    }
}
END_TEST

START_TEST(a_released_mapping_is_used_again)
{
    struct buffer *buffer = buffer_new(3 * MIB);

    ck_assert_ptr_nonnull(buffer);
    unsigned char *data = buffer->data;
    buffer_release(buffer);
    ck_assert_uint_ge(pooled(), 3 * MIB);
    buffer = buffer_new(3 * MIB - 5);
    ck_assert_ptr_eq(buffer->data, data);
    ck_assert_uint_eq(pooled(), 0);
    buffer_release(buffer);
}
END_TEST

START_TEST(a_much_smaller_need_does_not_take_a_large_mapping)
{
    struct buffer *large = buffer_new(16 * MIB), *small;

    ck_assert_ptr_nonnull(large);
    buffer_release(large);
    size_t before = pooled();
    ck_assert_ptr_nonnull(small = buffer_new(4 * MIB));
    ck_assert_uint_eq(pooled(), before);
    buffer_release(small);
}
END_TEST

START_TEST(the_last_release_frees)
{
    struct buffer *buffer = buffer_new(MIB);

    ck_assert_ptr_nonnull(buffer);
    ck_assert_ptr_eq(buffer_retain(buffer), buffer);
    buffer_release(buffer);
    ck_assert_uint_eq(live(), MIB);
    ck_assert_uint_eq(pooled(), 0);
    buffer_release(buffer);
    ck_assert_uint_eq(live(), 0);
    ck_assert_uint_ge(pooled(), MIB);
    buffer_release(NULL);
}
END_TEST

START_TEST(shrinking_changes_the_size_and_not_the_bytes)
{
    struct buffer *buffer = buffer_new(MIB);

    ck_assert_ptr_nonnull(buffer);
    memset(buffer->data, 7, MIB);
    buffer_shrink(buffer, 1031);
    ck_assert_uint_eq(buffer->size, 1031);
    ck_assert_uint_eq(live(), 1031);
    ck_assert_uint_eq(buffer->data[1030], 7);
    buffer_release(buffer);
    ck_assert_uint_eq(live(), 0);
    ck_assert_uint_eq(pooled(), MIB); /* the whole mapping */
    ck_assert_ptr_nonnull(buffer = buffer_new(MIB));
    ck_assert_uint_eq(pooled(), 0);
    buffer_release(buffer);
}
END_TEST

START_TEST(trimming_gives_idle_memory_back)
{
    struct buffer *one = buffer_new(MIB), *other = buffer_new(5 * MIB);

    ck_assert(one != NULL && other != NULL);
    buffer_release(one);
    buffer_release(other);
    size_t all = pooled();
    ck_assert_uint_ge(all, 6 * MIB);
    ck_assert_uint_eq(buffer_pool_trim(3600), 0);
    ck_assert_uint_eq(pooled(), all);
    ck_assert_uint_eq(buffer_pool_trim(0), all);
    ck_assert_uint_eq(pooled(), 0);
}
END_TEST

START_TEST(the_pool_holds_a_bounded_number)
{
    enum { MANY = 100 };
    struct buffer *buffers[MANY];

    for (int i = 0; i < MANY; i++)
        ck_assert_ptr_nonnull(buffers[i] = buffer_new(128 * KIB));
    for (int i = 0; i < MANY; i++)
        buffer_release(buffers[i]);
    ck_assert_uint_eq(pooled(), 64 * 128 * KIB);
    ck_assert_uint_eq(live(), 0);
}
END_TEST

START_TEST(an_impossible_size_is_refused)
{
    ck_assert_ptr_null(buffer_new(SIZE_MAX));
    ck_assert_ptr_null(buffer_new(SIZE_MAX / 8));
    ck_assert_ptr_null(buffer_new_zeroed((size_t)1 << 60));
    ck_assert_uint_eq(live(), 0);
}
END_TEST

/* Each thread signs what it holds and finds its own signature before it lets go; one buffer is held
 * by all. */
static struct buffer *common;

static void *use_buffers(void *argument)
{
    unsigned char sign = (unsigned char)(uintptr_t)argument;
    uint64_t state = testing_seed() + sign;
    struct buffer *held[4] = {NULL};
    uintptr_t wrong = 0;

    for (int round = 0; round < 400; round++) {
        struct buffer **slot = &held[round % 4];
        if (*slot != NULL) {
            wrong += (*slot)->data[0] != sign || (*slot)->data[(*slot)->size - 1] != sign;
            buffer_release(*slot);
        }
        size_t size = 1 + (size_t)(testing_random(&state) % (512 * KIB));
        if ((*slot = buffer_new(size)) == NULL)
            return (void *)(uintptr_t)1;
        (*slot)->data[0] = (*slot)->data[size - 1] = sign;
        struct buffer *shared = buffer_retain(common);
        wrong += shared->data[5] != 0x5A;
        buffer_release(shared);
        if (round % 100 == 0)
            buffer_pool_trim(0);
    }
    for (int i = 0; i < 4; i++)
        buffer_release(held[i]);
    return (void *)wrong;
}

START_TEST(threads_never_share_what_they_own)
{
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    void *wrong;

    ck_assert_ptr_nonnull(common = buffer_new(256 * KIB));
    common->data[5] = 0x5A;
    for (uintptr_t i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, use_buffers, (void *)(i + 1)), 0);
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_join(threads[i], &wrong), 0);
        ck_assert_ptr_null(wrong);
    }
    ck_assert_uint_eq(live(), 256 * KIB);
    buffer_release(common);
    ck_assert_uint_eq(live(), 0);
}
END_TEST

Suite *suite_buffer(void);
Suite *suite_buffer(void)
{
    Suite *suite = suite_create("buffer");
    TCase *cases = tcase_create("pool");

    tcase_set_timeout(cases, 60);
    tcase_add_loop_test(cases, every_size_is_aligned_and_writable_to_the_end, 0, SIZES);
    tcase_add_loop_test(cases, zeroed_means_zeroed_even_when_reused, 0, SIZES);
    tcase_add_test(cases, a_released_mapping_is_used_again);
    tcase_add_test(cases, a_much_smaller_need_does_not_take_a_large_mapping);
    tcase_add_test(cases, the_last_release_frees);
    tcase_add_test(cases, shrinking_changes_the_size_and_not_the_bytes);
    tcase_add_test(cases, trimming_gives_idle_memory_back);
    tcase_add_test(cases, the_pool_holds_a_bounded_number);
    tcase_add_test(cases, an_impossible_size_is_refused);
    tcase_add_test(cases, threads_never_share_what_they_own);
    suite_add_tcase(suite, cases);
    return suite;
}
