/* Patterns for names, against a table, against a matcher that tries everything, and against
 * patterns that make matchers slow. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/glob.h"
#include "tests/lib/testing.h"

static const struct {
    const char *pattern, *text;
    bool matches;
} table[] = {
    {"", "", true},
    {"", "a", false},
    {"a", "", false},
    {"a", "a", true},
    {"a", "A", false},
    {"a", "ab", false},
    {"ab", "a", false},
    {"*", "", true},
    {"**", "", true},
    {"*", "layer.0/weight", true},
    {"?", "", false},
    {"?", "a", true},
    {"?", "ab", false},
    {"*?", "", false},
    {"?*", "a", true},
    {"*?*", "a", true},
    {"*??", "a", false},
    {"*.bias", "layer.0.bias", true},
    {"*.bias", ".bias", true},
    {"*.bias", "bias", false},
    {"*.bias", "layer.bias.0", false},
    {"*.bias", "a.bias.bias", true},
    {"layer.*", "layer.", true},
    {"layer.*.weight", "layer.0.1.weight", true},
    {"layer.*.weight", "layer.weight", false},
    {"layer.?.weight", "layer.10.weight", false},
    {"*a*b*c", "xxaxxbxxc", true},
    {"*a*b*c", "xxaxxcxxb", false},
    {"a*a", "a", false},
    {"a*a", "aa", true},
    {"*aab", "aaaab", true}, /* the star must give back */
    {"*abac*", "ababac", true},
    {"*ab?ab", "ababxababyab", true},
    /* Nothing else is special. */
    {"[ab]", "a", false},
    {"[ab]", "[ab]", true},
    {"\\*", "*", false},
    {"\\*", "\\*", true},
    {"{a,b}", "{a,b}", true},
    {"a.c", "abc", false},
    {"^a$", "a", false},
    {"a/*", "a/b/c", true},
    /* A star and a question mark in a name match only what stands for them. */
    {"*", "*", true},
    {"?", "*", true},
    {"a", "*", false},
    /* Characters, not bytes: 2, 3 and 4 bytes. */
    {"?", "\xc3\xa9", true},
    {"??", "\xc3\xa9", false},
    {"*??", "\xc3\xa9", false},
    {"?*?", "\xc3\xa9", false},
    {"?", "\xe2\x82\xac", true},
    {"?", "\xf0\x9f\x98\x80", true},
    {"*?", "\xf0\x9f\x98\x80", true},
    {"a?b",
     "a\xe2\x82\xac"
     "b",
     true},
    {"?\xc3\xa9", "\xc3\xa9\xc3\xa9", true},
    {"\xc3\xa9", "\xc3\xa8", false},
    {"*\xc3\xa9", "\xc3\xa8\xc3\xa9", true},
};

START_TEST(names_match_as_the_table_says)
{
    ck_assert_msg(glob_match(table[_i].pattern, table[_i].text) == table[_i].matches,
                  "\"%s\" and \"%s\"", table[_i].pattern, table[_i].text);
}
END_TEST

/* --- against a matcher on characters that tries every length for every star --- */

enum { LENGTH_MAX = 8 };

static bool try_all(const int *pattern, const int *text)
{
    if (*pattern == 0)
        return *text == 0;
    if (*pattern == '*') {
        for (;; text++) {
            if (try_all(pattern + 1, text))
                return true;
            if (*text == 0)
                return false;
        }
    }
    return *text != 0 && (*pattern == '?' || *pattern == *text) && try_all(pattern + 1, text + 1);
}

/* A few characters that are near each other in UTF-8: same lengths, same first or last bytes. */
static const char *const letters[] = {
    "a", "b", "\xc3\xa9", "\xc3\xa8", "\xc4\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};

/* Up to LENGTH_MAX of the first `kinds` letters, with ? and * in a pattern; as numbers too. */
static void draw_string(uint64_t *random, size_t kinds, bool is_pattern, int *out, char *bytes)
{
    size_t length = testing_random(random) % (LENGTH_MAX + 1);

    *bytes = '\0';
    for (size_t i = 0; i < length; i++) {
        size_t pick = testing_random(random) % (kinds + (is_pattern ? 3 : 0));
        const char *letter = pick < kinds ? letters[pick] : pick == kinds ? "?" : "*";
        strcat(bytes, letter);
        out[i] = pick < kinds ? 1000 + (int)pick : *letter;
    }
    out[length] = 0;
}

START_TEST(it_agrees_with_trying_everything)
{
    uint64_t random = testing_seed() ^ 0x910b;
    size_t matched = 0;

    for (int i = 0; i < 400000; i++) {
        int pattern[LENGTH_MAX + 1], text[LENGTH_MAX + 1];
        char pattern_bytes[4 * LENGTH_MAX + 1], text_bytes[4 * LENGTH_MAX + 1];
        size_t kinds = 1 + testing_random(&random) % (sizeof letters / sizeof *letters);
        draw_string(&random, kinds, true, pattern, pattern_bytes);
        draw_string(&random, kinds, false, text, text_bytes);
        bool expected = try_all(pattern, text);
        matched += expected;
        ck_assert_msg(glob_match(pattern_bytes, text_bytes) == expected, "\"%s\" and \"%s\"",
                      pattern_bytes, text_bytes);
    }
    /* Both answers are common, or this shows nothing. */
    ck_assert_msg(matched > 40000 && matched < 360000, "%zu matched", matched);
}
END_TEST

/* Bytes that are no UTF-8, of exactly their size on the heap: whatever the answer, nothing beyond
 * them is read (asan says). A star matches all of them, and each matches itself. */
START_TEST(bytes_that_are_no_characters_are_harmless)
{
    static const char *const broken[] = {"\xc3",      "\xa9",         "\x80\x80",     "\xff\xfe",
                                         "a\xe2\x82", "\xf0\x9f\x98", "\xc3\xc3\xa9", "\xa9?*"};
    static const char *const patterns[] = {"?", "??", "*?", "?*", "\xc3?", "*\xa9", "\xa9*?"};

    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        char *text = strdup(broken[i]);
        ck_assert_ptr_nonnull(text);
        ck_assert(glob_match("*", text) && glob_match(text, text));
        for (size_t k = 0; k < sizeof patterns / sizeof *patterns; k++) {
            char *pattern = strdup(patterns[k]);
            ck_assert_ptr_nonnull(pattern);
            (void)glob_match(pattern, text);
            free(pattern);
        }
        free(text);
    }
}
END_TEST

/* 100 stars that each could end anywhere in 60 000 bytes: trying all of it would outlast the sun;
 * length times length is 12 million steps. The runner stops it after 4 s. */
START_TEST(many_stars_are_not_slow)
{
    enum { STARS = 100, TEXT = 60000 };
    static char pattern[2 * STARS + 2], text[TEXT + 1];

    for (int i = 0; i < STARS; i++)
        memcpy(pattern + 2 * i, "*a", 3);
    memset(text, 'a', TEXT);
    ck_assert(glob_match(pattern, text));
    strcat(pattern, "b");
    ck_assert(!glob_match(pattern, text));
    text[TEXT - 1] = 'b';
    ck_assert(glob_match(pattern, text));
}
END_TEST

Suite *suite_glob(void);
Suite *suite_glob(void)
{
    Suite *suite = suite_create("glob");
    TCase *cases = tcase_create("names"), *slow = tcase_create("slow");

    tcase_add_loop_test(cases, names_match_as_the_table_says, 0, sizeof table / sizeof *table);
    tcase_set_timeout(cases, 60);
    tcase_add_test(cases, it_agrees_with_trying_everything);
    tcase_add_test(cases, bytes_that_are_no_characters_are_harmless);
    tcase_set_timeout(slow, 4);
    tcase_add_test(slow, many_stars_are_not_slow);
    suite_add_tcase(suite, cases);
    suite_add_tcase(suite, slow);
    return suite;
}
