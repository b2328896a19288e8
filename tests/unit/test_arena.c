/* Arenas: alignment, no overlap, growth, formatting. */
#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/arena.h"
#include "tests/lib/testing.h"

static struct arena arena;

static void setup(void)
{
    arena_init(&arena);
}

static void teardown(void)
{
    arena_close(&arena);
}

START_TEST(pieces_are_aligned_and_keep_what_is_written)
{
    enum { PIECES = 2000 };
    static unsigned char *piece[PIECES];
    static size_t size[PIECES];
    uint64_t state = testing_seed();

    for (int i = 0; i < PIECES; i++) {
        size[i] = (size_t)(testing_random(&state) % (i % 50 == 0 ? 40000 : 300));
        ck_assert_ptr_nonnull(piece[i] = arena_take(&arena, size[i]));
        ck_assert_uint_eq((uintptr_t)piece[i] % 16, 0);
        memset(piece[i], i & 0xFF, size[i]);
    }
    size_t wrong = 0;
    for (int i = 0; i < PIECES; i++)
        for (size_t k = 0; k < size[i]; k++)
            wrong += piece[i][k] != (i & 0xFF);
    ck_assert_uint_eq(wrong, 0);
}
END_TEST

START_TEST(sizes_around_a_block_fit)
{
    for (size_t size = 8192 - 33; size <= 8192 + 33; size++) {
        unsigned char *piece = arena_take(&arena, size);
        ck_assert_ptr_nonnull(piece);
        memset(piece, 1, size); /* a sanitizer sees a byte beyond */
    }
}
END_TEST

START_TEST(an_impossible_size_is_refused_and_the_arena_lives)
{
    char *text = arena_copy(&arena, "kept", 4);

    ck_assert_ptr_null(arena_take(&arena, SIZE_MAX));
    ck_assert_ptr_null(arena_take(&arena, SIZE_MAX - 15));
    ck_assert_ptr_nonnull(arena_take(&arena, 16));
    ck_assert_str_eq(text, "kept");
}
END_TEST

START_TEST(copies_end_with_nul)
{
    ck_assert_str_eq(arena_copy(&arena, "abcdef", 3), "abc");
    ck_assert_str_eq(arena_copy(&arena, NULL, 0), "");
    char *copy = arena_copy(&arena, "a\0b", 3);
    ck_assert_mem_eq(copy, "a\0b", 4);
}
END_TEST

START_TEST(formats_of_any_length_are_whole)
{
    ck_assert_str_eq(arena_format(&arena, "%d %s", 7, "seven"), "7 seven");
    ck_assert_str_eq(arena_format(&arena, "%s", ""), "");
    char *text = arena_format(&arena, "%0100003d", 1);
    ck_assert_uint_eq(strlen(text), 100003);
    ck_assert_str_eq(text + 100000, "001");
}
END_TEST

START_TEST(a_closed_arena_starts_again)
{
    ck_assert_ptr_nonnull(arena_take(&arena, 100003));
    arena_close(&arena);
    arena_close(&arena);
    ck_assert_str_eq(arena_copy(&arena, "again", 5), "again");
}
END_TEST

Suite *suite_arena(void);
Suite *suite_arena(void)
{
    Suite *suite = suite_create("arena");
    TCase *cases = tcase_create("arena");

    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_test(cases, pieces_are_aligned_and_keep_what_is_written);
    tcase_add_test(cases, sizes_around_a_block_fit);
    tcase_add_test(cases, an_impossible_size_is_refused_and_the_arena_lives);
    tcase_add_test(cases, copies_end_with_nul);
    tcase_add_test(cases, formats_of_any_length_are_whole);
    tcase_add_test(cases, a_closed_arena_starts_again);
    suite_add_tcase(suite, cases);
    return suite;
}
