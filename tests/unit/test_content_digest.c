/* Digests of contents: what requests claim, and what replies are asked for. The digests are those
 * of RFC 9530's examples. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "api/content_digest.h"

#define HELLO_256 "X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE="
#define HELLO_512                                                                                  \
    "WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew=="
#define EMPTY_256 "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="

static const char hello[] = "{\"hello\": \"world\"}";
static struct arena arena;
static struct request request;

static void setup(void)
{
    arena_init(&arena);
    request = (struct request){.arena = &arena};
}

static void teardown(void)
{
    arena_close(&arena);
}

static void header(const char *name, const char *value)
{
    request.headers[request.header_count++] = (struct header){name, value};
}

enum verdict { PASSES, DIFFERS, MALFORMED };

static const struct {
    const char *name, *value;
    enum verdict verdict;
} claims[] = {
    {"Content-Digest", "sha-256=:" HELLO_256 ":", PASSES},
    {"Content-Digest", "sha-512=:" HELLO_512 ":", PASSES},
    {"content-digest", "sha-256=:" HELLO_256 ":, sha-512=:" HELLO_512 ":", PASSES},
    {"Content-Digest", "sha-256=:" HELLO_256 ":,sha-512=:" HELLO_512 ":", PASSES},
    {"Content-Digest", " sha-256=:" HELLO_256 ":;a=1;b=\"x,y\" ,\tmd5=:AAAA:", PASSES},
    {"Content-Digest", "SHA-256=:" HELLO_256 ":", PASSES},
    {"Content-Digest", "unknown, other=(1 2, 3), text=\"a, sha-256=:b:\", b=?1", PASSES},
    {"Content-Digest", "", PASSES},
    {"Content-Digest", "md5=:AAAA:", PASSES},
    {"Content-Digest", "sha-256=:AAAA:, sha-256=:" HELLO_256 ":", MALFORMED},
    {"Content-Digest", "sha-256=:" EMPTY_256 ":, sha-256=:" HELLO_256 ":", PASSES}, /* the last */
    {"Repr-Digest", "sha-256=:" HELLO_256 ":", PASSES},
    {"Content-Digest", "sha-256=:" EMPTY_256 ":", DIFFERS},
    {"Repr-Digest", "sha-256=:" EMPTY_256 ":", DIFFERS},
    {"Content-Digest", "sha-256=:" HELLO_256 ":, sha-256=:" EMPTY_256 ":", DIFFERS},
    {"Content-Digest", "sha-512=:" HELLO_512 ":, sha-256=:" EMPTY_256 ":", DIFFERS},
    {"Content-Digest", "sha-256=" HELLO_256, MALFORMED},
    {"Content-Digest", "sha-256=\"" HELLO_256 "\"", MALFORMED},
    {"Content-Digest", "sha-256", MALFORMED},
    {"Content-Digest", "sha-256=", MALFORMED},
    {"Content-Digest", "sha-256=::", MALFORMED},
    {"Content-Digest", "sha-256=:", MALFORMED},
    {"Content-Digest", "sha-256=:" HELLO_512 ":", MALFORMED},
    {"Content-Digest", "sha-512=:" HELLO_256 ":", MALFORMED},
    {"Content-Digest", "sha-256=:Y48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPF=:", MALFORMED},
};

START_TEST(claims_are_held_against_the_body)
{
    struct content_check check = {.size = 0};
    struct fault fault = {.detail = ""};

    header(claims[_i].name, claims[_i].value);
    enum status status = content_check_start(&check, &request, &fault);
    ck_assert_int_eq(status, claims[_i].verdict == MALFORMED ? STATUS_INVALID_REQUEST : STATUS_OK);
    if (status == STATUS_OK) {
        for (size_t i = 0; i < strlen(hello); i++)
            ck_assert_int_eq(content_check_add(&check, span_of(&hello[i], 1), &fault), STATUS_OK);
        status = content_check_end(&check, &fault);
        ck_assert_int_eq(status, claims[_i].verdict == PASSES ? STATUS_OK : STATUS_INVALID_REQUEST);
    }
    if (claims[_i].verdict == DIFFERS)
        ck_assert_ptr_nonnull(strstr(fault.detail, ":" HELLO_256 ":")); /* that of what came */
    if (status != STATUS_OK)
        ck_assert_ptr_nonnull(strstr(fault.detail, claims[_i].name));
    content_check_free(&check);
}
END_TEST

START_TEST(two_fields_and_two_lines_are_all_held)
{
    struct content_check check = {.size = 0};
    struct fault fault;

    header("Content-Digest", "md5=:AAAA:");
    header("Content-Digest", "sha-256=:" HELLO_256 ":");
    header("Repr-Digest", "sha-256=:" EMPTY_256 ":");
    ck_assert_int_eq(content_check_start(&check, &request, &fault), STATUS_OK);
    ck_assert_int_eq(content_check_add(&check, span_text(hello), &fault), STATUS_OK);
    ck_assert_int_eq(content_check_end(&check, &fault), STATUS_INVALID_REQUEST);
    ck_assert_ptr_nonnull(strstr(fault.detail, "Repr-Digest"));
}
END_TEST

static const struct {
    const char *wanted, *told; /* NULL: nothing */
} wishes[] = {
    {"sha-256=10", "sha-256=:" HELLO_256 ":"},
    {"sha-512=1", "sha-512=:" HELLO_512 ":"},
    {"sha-256=3, sha-512=5", "sha-512=:" HELLO_512 ":"},
    {"sha-256=5, sha-512=3", "sha-256=:" HELLO_256 ":"},
    {"sha-512=5, sha-256=5", "sha-256=:" HELLO_256 ":"},
    {"md5=10, sha-256=1", "sha-256=:" HELLO_256 ":"},
    {"sha-256=0", NULL},
    {"sha-256=0, sha-512=1", "sha-512=:" HELLO_512 ":"},
    {"sha-256=11", NULL},
    {"sha-256=-1", NULL},
    {"sha-256=1.5", NULL},
    {"sha-256", NULL},
    {"md5=10", NULL},
    {"", NULL},
};

START_TEST(what_is_wanted_most_is_told)
{
    const struct span parts[] = {span_of(hello, 3), span_of(&hello[3], strlen(hello) - 3)};
    struct reply reply = {.http = 200};

    header("Want-Content-Digest", wishes[_i].wanted);
    content_digest_tell(&request, &reply, parts, 2);
    const char **told = reply_find(&reply, "Content-Digest");
    if (wishes[_i].told == NULL)
        ck_assert_ptr_null(told);
    else
        ck_assert_str_eq(*told, wishes[_i].told);
}
END_TEST

START_TEST(nothing_is_told_unasked_and_nothing_has_a_digest_too)
{
    struct reply reply = {.http = 200};

    content_digest_tell(&request, &reply, NULL, 0);
    ck_assert_uint_eq(reply.header_count, 0);
    header("Want-Content-Digest", "sha-256=1");
    content_digest_tell(&request, &reply, NULL, 0);
    ck_assert_str_eq(*reply_find(&reply, "Content-Digest"), "sha-256=:" EMPTY_256 ":");
}
END_TEST

Suite *suite_content_digest(void);
Suite *suite_content_digest(void)
{
    Suite *suite = suite_create("content_digest");
    TCase *tests = tcase_create("content_digest");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, claims_are_held_against_the_body, 0, sizeof claims / sizeof *claims);
    tcase_add_test(tests, two_fields_and_two_lines_are_all_held);
    tcase_add_loop_test(tests, what_is_wanted_most_is_told, 0, sizeof wishes / sizeof *wishes);
    tcase_add_test(tests, nothing_is_told_unasked_and_nothing_has_a_digest_too);
    suite_add_tcase(suite, tests);
    return suite;
}
