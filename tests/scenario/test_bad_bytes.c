/* Bodies that are junk, too deep, too large or lie about themselves: each is refused soon, and the
 * session stays as it was. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/refusal.h"
#include "tests/lib/tensors.h"
#include "tests/lib/testing.h"

enum { TEST_TIMEOUT_S = 300, JUNK_BYTES = 64 << 20, DEEP = 100000 };

#define JSON "Content-Type: application/json\r\n"
#define RAW "Content-Type: application/octet-stream\r\n"
#define NPY "Content-Type: application/x-npy\r\n"
#define SAFETENSORS "Content-Type: application/vnd.safetensors\r\n"

static void start(void)
{
    refusal_start(NULL);
}

static void check(const char *headers, const void *body, size_t size, unsigned status,
                  const char *code, const char *words)
{
    refusal_check(&(struct refusal){.method = "POST",
                                    .path = REFUSAL_STEPS,
                                    .headers = headers,
                                    .body = body,
                                    .size = size,
                                    .status = status,
                                    .code = code,
                                    .words = words});
}

/* --- 64 MiB --- */

static char *junk(void (*fill)(char *bytes, size_t size))
{
    char *bytes = malloc(JUNK_BYTES);

    ck_assert_ptr_nonnull(bytes);
    fill(bytes, JUNK_BYTES);
    return bytes;
}

static void fill_random(char *bytes, size_t size)
{
    uint64_t state = testing_seed() ^ 0x6A756E6B;

    for (size_t i = 0; i < size; i += 8) {
        uint64_t number = testing_random(&state);
        memcpy(bytes + i, &number, 8);
    }
    bytes[0] = '\1'; /* begins no JSON */
    bytes[7] = '\1'; /* the length of a safetensors header: far beyond the file */
}

static void fill_brackets(char *bytes, size_t size)
{
    memset(bytes, '[', size);
}

static void fill_digits(char *bytes, size_t size)
{
    memset(bytes, '9', size);
}

static void fill_spaces(char *bytes, size_t size)
{
    memset(bytes, ' ', size);
}

static void fill_rows(char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i += 4)
        memcpy(bytes + i, "[0],", 4);
    memcpy(bytes, "{\"a\": [ ", 8);
}

static void fill_objects(char *bytes, size_t size)
{
    for (size_t i = 0; i + 5 <= size; i += 5)
        memcpy(bytes + i, "{\"a\":", 5);
}

START_TEST(random_bytes_are_refused_in_every_type)
{
    char *bytes = junk(fill_random);

    check(JSON, bytes, JUNK_BYTES, 400, "invalid_json", NULL);
    check(SAFETENSORS, bytes, JUNK_BYTES, 400, "invalid_request", "header");
    check(NPY, bytes, JUNK_BYTES, 400, "invalid_request", "NUMPY");
    check(RAW, bytes, JUNK_BYTES, 422, "length_mismatch", "67108864 bytes; 32 are needed");
    free(bytes);
}
END_TEST

START_TEST(brackets_without_end_are_refused)
{
    char *bytes = junk(fill_brackets);

    check(JSON, bytes, JUNK_BYTES, 400, "invalid_json", NULL);
    free(bytes);
}
END_TEST

START_TEST(objects_without_end_are_refused)
{
    char *bytes = junk(fill_objects);

    check(JSON, bytes, JUNK_BYTES, 400, "invalid_json", NULL);
    free(bytes);
}
END_TEST

START_TEST(a_number_of_64_mib_is_refused)
{
    char *bytes = junk(fill_digits);

    check(JSON, bytes, JUNK_BYTES, 400, "invalid_request", "object");
    free(bytes);
}
END_TEST

START_TEST(spaces_without_end_are_refused)
{
    char *bytes = junk(fill_spaces);

    check(JSON, bytes, JUNK_BYTES, 400, "invalid_json", NULL);
    free(bytes);
}
END_TEST

START_TEST(rows_without_end_are_refused)
{
    char *bytes = junk(fill_rows);

    check(JSON, bytes, JUNK_BYTES, 400, "invalid_json", NULL);
    free(bytes);
}
END_TEST

/* --- depth --- */

/* prefix, `open` DEEP times, middle, `close` DEEP times, suffix */
static char *deep(const char *prefix, const char *open, const char *middle, const char *close,
                  const char *suffix)
{
    char *text = malloc(strlen(prefix) + strlen(middle) + strlen(suffix) + 1 +
                        DEEP * (strlen(open) + strlen(close)));
    char *at = text;

    ck_assert_ptr_nonnull(text);
    at = stpcpy(at, prefix);
    for (size_t i = 0; i < DEEP; i++)
        at = stpcpy(at, open);
    at = stpcpy(at, middle);
    for (size_t i = 0; i < DEEP; i++)
        at = stpcpy(at, close);
    stpcpy(at, suffix);
    return text;
}

START_TEST(deep_nesting_is_refused)
{
    static const struct {
        const char *prefix, *open, *middle, *close, *suffix;
    } cases[] = {
        {"{\"gradients\": {\"w\": ", "[", "1", "]", "}}"},
        {"{\"gradients\": {\"w\": ", "[", "", "]", "}}"},
        {"{\"gradients\": {\"w\": ", "[", "null", "]", "}}"},
        {"{\"gradients\": ", "{\"w\": ", "1", "}", "}"},
        {"{\"loss\": ", "[", "\"\"", "]", "}"},
        {"", "{\"a\": ", "1", "}", ""},
        {"", "[", "\"\"", "]", ""},
        {"", "[{\"a\": ", "1", "}]", ""},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text =
            deep(cases[i].prefix, cases[i].open, cases[i].middle, cases[i].close, cases[i].suffix);
        refusal_check_json("POST", REFUSAL_STEPS, text, 400, "invalid_json", NULL, "nest less");
        free(text);
    }
}
END_TEST

START_TEST(a_new_tensor_has_a_limited_rank)
{
    refusal_check_json("POST", "/v1/sessions",
                       "{\"optimizer\": \"sgd\", \"parameters\": {\"w\": [[[[[[[[[1]]]]]]]]]}}",
                       413, "too_large", "/parameters/w", "8 dimensions");
    struct answer answer =
        refusal_accept("POST", "/v1/sessions", "",
                       "{\"optimizer\": \"sgd\", \"parameters\": {\"w\": [[[[[[[[1]]]]]]]]}}", 201);
    answer_close(&answer);
}
END_TEST

START_TEST(a_deep_safetensors_header_is_refused)
{
    char *text = deep("{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,16],\"shape\":", "[\"\",", "1",
                      "]", "}}");
    struct buffer *file = tensors_safetensors(text, 16);

    check(SAFETENSORS, file->data, file->size, 400, "invalid_request", "safetensors header");
    buffer_release(file);
    free(text);
}
END_TEST

/* --- files that lie --- */

#define W(shape, offsets)                                                                          \
    "\"w\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

START_TEST(a_safetensors_header_that_lies_is_refused)
{
    static const struct {
        const char *header;
        size_t size;
    } cases[] = {
        {"", 0},
        {"x", 0},
        {"[]", 0},
        {"{", 0},
        {"{}", 4},
        {"{" W("[2,2]", "[0,16]") "}", 15},
        {"{" W("[2,2]", "[0,16]") "}", 17},
        {"{" W("[2,2]", "[4,20]") "}", 20},
        {"{" W("[2,2]", "[16,0]") "}", 16},
        {"{" W("[2,2]", "[0,12]") "}", 12},
        {"{" W("[2,2]", "[0]") "}", 16},
        {"{" W("[2,2]", "[0,16,32]") "}", 16},
        {"{" W("[2,2]", "[0,1.6e1]") "}", 16},
        {"{" W("[-2,-2]", "[0,16]") "}", 16},
        {"{" W("[4294967296,4294967296]", "[0,16]") "}", 16},
        {"{" W("[4611686018427387905]", "[0,4]") "}", 4},
        {"{" W("[18446744073709551616]", "[0,0]") "}", 0},
        {"{" W("[2,2]", "[0,18446744073709551616]") "}", 16},
        {"{" W("[2,2]", "[18446744073709551600,0]") "}", 16},
        {"{" W("[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4},
        {"{" W("\"2\"", "[0,16]") "}", 16},
        {"{" W("[2,2]", "[0,16]") "," W("[2,2]", "[0,16]") "}", 16},
        {"{" W("[2,2]",
               "[0,16]") ",\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[12,16]}}",
         16},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2,2]}}", 16},
        {"{\"w\":{\"shape\":[2,2],\"data_offsets\":[0,16]}}", 16},
        {"{\"w\":7}", 16},
        {"{\"__metadata__\":{\"a\":1}}", 0},
        {"{\"__metadata__\":[]}", 0},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buffer *file = tensors_safetensors(cases[i].header, cases[i].size);
        check(SAFETENSORS, file->data, file->size, 400, "invalid_request", NULL);
        buffer_release(file);
    }
}
END_TEST

START_TEST(a_safetensors_header_of_another_length_is_refused)
{
    static const unsigned char lengths[][8] = {
        {3, 0, 0, 0, 0, 0, 0, 0},                 /* one byte more than there is */
        {0, 0, 0, 0, 0, 0, 0, 0},                 /* none */
        {255, 255, 255, 255, 255, 255, 255, 255}, /* 8 + it is 7 */
        {248, 255, 255, 255, 255, 255, 255, 255}, /* 8 + it is 0 */
        {0, 0, 0, 0, 0, 0, 0, 128},
    };
    char file[10];

    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        memcpy(file, lengths[i], 8);
        memcpy(file + 8, "{}", 2);
        check(SAFETENSORS, file, sizeof file, 400, "invalid_request", NULL);
    }
    for (size_t size = 1; size < 8; size++)
        check(SAFETENSORS, file, size, 400, "invalid_request", "8 bytes");
}
END_TEST

static void check_npy(const char *header, size_t data_size, unsigned status, const char *code,
                      const char *words)
{
    char file[512] = "\x93NUMPY\1";
    size_t length = strlen(header);

    memcpy(file + 10, header, length);
    file[8] = (char)length;
    memset(file + 10 + length, 0, data_size);
    check(NPY, file, 10 + length + data_size, status, code, words);
}

#define DICT(descr, order, shape)                                                                  \
    "{'descr': '" descr "', 'fortran_order': " order ", 'shape': " shape "}\n"

START_TEST(an_npy_file_that_lies_is_refused)
{
    check_npy(DICT("<f4", "False", "(8,)"), 31, 422, "length_mismatch", "31 bytes");
    check_npy(DICT("<f4", "False", "(8,)"), 33, 422, "length_mismatch", "32 are needed");
    check_npy(DICT("<f4", "False", "(7,)"), 28, 422, "shape_mismatch", "[8]");
    check_npy(DICT("<f4", "False", "(2, 2)"), 16, 422, "shape_mismatch", "[8]");
    check_npy(DICT("<f4", "True", "(2, 4)"), 32, 422, "invalid_field", "Fortran");
    check_npy(DICT("<i4", "False", "(8,)"), 32, 422, "invalid_field", NULL);
    check_npy(DICT(">f4", "False", "(8,)"), 32, 422, "invalid_field", NULL);
    check_npy(DICT("<f4", "False", "(4294967296, 4294967296)"), 32, 422, "shape_mismatch", NULL);
    check_npy(DICT("<f4", "False", "(18446744073709551616,)"), 32, 400, "invalid_request", NULL);
    check_npy(DICT("<f4", "False", "(-8,)"), 32, 400, "invalid_request", NULL);
    check_npy("{'descr': '<f4'}\n", 32, 400, "invalid_request", "lacks");
    check_npy("__import__('os')\n", 32, 400, "invalid_request", NULL);
    for (size_t size = 1; size < 12; size++)
        check(NPY, "\x93NUMPY\1\0\20\0{}", size, 400, "invalid_request", NULL);
}
END_TEST

Suite *suite_bad_bytes(void);
Suite *suite_bad_bytes(void)
{
    Suite *suite = suite_create("bad_bytes");
    TCase *tests = tcase_create("bad_bytes");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, refusal_stop);
    tcase_add_test(tests, random_bytes_are_refused_in_every_type);
    tcase_add_test(tests, brackets_without_end_are_refused);
    tcase_add_test(tests, objects_without_end_are_refused);
    tcase_add_test(tests, a_number_of_64_mib_is_refused);
    tcase_add_test(tests, spaces_without_end_are_refused);
    tcase_add_test(tests, rows_without_end_are_refused);
    tcase_add_test(tests, deep_nesting_is_refused);
    tcase_add_test(tests, a_new_tensor_has_a_limited_rank);
    tcase_add_test(tests, a_deep_safetensors_header_is_refused);
    tcase_add_test(tests, a_safetensors_header_that_lies_is_refused);
    tcase_add_test(tests, a_safetensors_header_of_another_length_is_refused);
    tcase_add_test(tests, an_npy_file_that_lies_is_refused);
    suite_add_tcase(suite, tests);
    return suite;
}
