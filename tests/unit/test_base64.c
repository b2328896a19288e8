/* Base64 both ways: the vectors of RFC 4648, section 10, and what was written, read again. */
#include <check.h>
#include <string.h>

#include "api/base64.h"
#include "tests/lib/testing.h"

enum { BYTES_MAX = 97 };

START_TEST(the_vectors_of_the_rfc)
{
    static const struct {
        const char *bytes, *text;
    } cases[] = {{"", ""},
                 {"f", "Zg=="},
                 {"fo", "Zm8="},
                 {"foo", "Zm9v"},
                 {"foob", "Zm9vYg=="},
                 {"fooba", "Zm9vYmE="},
                 {"foobar", "Zm9vYmFy"},
                 {"\xfb\xff\xbf", "+/+/"}};

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t size = strlen(cases[i].bytes), length = strlen(cases[i].text);
        unsigned char bytes[16];
        char text[16] = "";
        ck_assert_uint_eq(BASE64_SIZE(size), length);
        base64_write((const unsigned char *)cases[i].bytes, size, text);
        ck_assert_str_eq(text, cases[i].text);
        ck_assert(base64_read(text, length, bytes, size));
        ck_assert(memcmp(bytes, cases[i].bytes, size) == 0);
    }
}
END_TEST

START_TEST(what_is_written_is_read)
{
    uint64_t random = testing_seed();
    unsigned char bytes[BYTES_MAX], again[BYTES_MAX];
    char text[BASE64_SIZE(BYTES_MAX) + 1];

    for (size_t size = 0; size <= BYTES_MAX; size++) {
        for (size_t i = 0; i < size; i++)
            bytes[i] = (unsigned char)testing_random(&random);
        memset(text, '!', sizeof text);
        base64_write(bytes, size, text);
        ck_assert_int_eq(text[BASE64_SIZE(size)], '!');
        ck_assert(base64_read(text, BASE64_SIZE(size), again, size));
        ck_assert(memcmp(bytes, again, size) == 0);
    }
}
END_TEST

Suite *suite_base64(void);
Suite *suite_base64(void)
{
    Suite *suite = suite_create("base64");
    TCase *tests = tcase_create("base64");

    tcase_add_test(tests, the_vectors_of_the_rfc);
    tcase_add_test(tests, what_is_written_is_read);
    suite_add_tcase(suite, tests);
    return suite;
}
