/* The safetensors codec: every rule of the reference reader has a case. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/codec.h"
#include "tests/lib/tensors.h"

static struct arena arena;
static struct fault fault;
static struct layout *layout;
static const struct codec *safetensors;

static void setup(void)
{
    arena_init(&arena);
    memset(&fault, 0, sizeof fault);
    layout = tensors_layout("w[2,2] b[2]");
    safetensors = codec_find("application/vnd.safetensors");
    ck_assert_ptr_nonnull(safetensors);
}

static void teardown(void)
{
    layout_release(layout);
    arena_close(&arena);
}

#define W(dtype, shape, offsets)                                                                   \
    "\"w\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define B(dtype, shape, offsets)                                                                   \
    "\"b\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define GOOD_B B("F32", "[2]", "[16,24]")

static const struct rule {
    const char *name, *header;
    size_t data_size;
    enum status status;
    const char *words; /* in the detail */
} rules[] = {
    {"good", "{" W("F32", "[2,2]", "[0,16]") "," GOOD_B "}", 24, STATUS_OK, ""},
    {"order of the header does not matter", "{" GOOD_B "," W("F32", "[2,2]", "[0,16]") "}", 24,
     STATUS_OK, ""},
    {"order of the data does not matter",
     "{" W("F32", "[2,2]", "[8,24]") "," B("F32", "[2]", "[0,8]") "}", 24, STATUS_OK, ""},
    {"white space inside", "{ " W("F32", "[ 2 ,\n2 ]", "[ 0, 16 ]") " ,\t" GOOD_B " }", 24,
     STATUS_OK, ""},
    {"spaces after", "{" W("F32", "[2,2]", "[0,16]") "," GOOD_B "}     ", 24, STATUS_OK, ""},
    {"metadata of strings",
     "{\"__metadata__\":{\"a\":\"b\"}," W("F32", "[2,2]", "[0,16]") "," GOOD_B "}", 24, STATUS_OK,
     ""},
    {"four dtypes together", "{" W("BF16", "[2,2]", "[0,8]") "," B("F64", "[2]", "[8,24]") "}", 24,
     STATUS_OK, ""},
    {"empty header", "", 0, STATUS_INVALID_REQUEST, "begin with {"},
    {"header begins with a space", " {}", 0, STATUS_INVALID_REQUEST, "begin with {"},
    {"header is an array", "[]", 0, STATUS_INVALID_REQUEST, "begin with {"},
    {"newline after", "{}\n", 0, STATUS_INVALID_REQUEST, "only spaces"},
    {"broken JSON", "{" W("F32", "[2,2]", "[0,16]") ",}", 24, STATUS_INVALID_REQUEST, "byte 57"},
    {"bad UTF-8", "{\"\xff\":1}", 0, STATUS_INVALID_REQUEST, "UTF-8"},
    {"two values", "{}{}", 0, STATUS_INVALID_REQUEST, "one value only"},
    {"the same tensor twice",
     "{" W("F32", "[2,2]", "[0,16]") "," W("F32", "[2,2]", "[0,16]") "," GOOD_B "}", 24,
     STATUS_INVALID_REQUEST, "twice"},
    {"the same member twice",
     "{\"w\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4,
     STATUS_INVALID_REQUEST, "twice"},
    {"metadata that is no object", "{\"__metadata__\":\"x\"}", 0, STATUS_INVALID_REQUEST,
     "object of strings"},
    {"metadata with a number", "{\"__metadata__\":{\"a\":1}}", 0, STATUS_INVALID_REQUEST,
     "object of strings"},
    {"metadata with null", "{\"__metadata__\":{\"a\":null}}", 0, STATUS_INVALID_REQUEST,
     "object of strings"},
    {"tensor that is no object", "{\"w\":[1]}", 0, STATUS_INVALID_REQUEST, "\"w\""},
    {"dtype missing", "{\"w\":{\"shape\":[],\"data_offsets\":[0,4],\"x\":1}}", 4,
     STATUS_INVALID_REQUEST, "dtype"},
    {"shape missing", "{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4,
     STATUS_INVALID_REQUEST, "shape"},
    {"data_offsets missing", "{\"w\":{\"dtype\":\"F32\",\"shape\":[]}}", 4, STATUS_INVALID_REQUEST,
     "data_offsets"},
    {"unknown member",
     "{\"w\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4],\"strides\":[1]}}", 4,
     STATUS_INVALID_REQUEST, "nothing else"},
    {"integer dtype", "{" W("I32", "[2,2]", "[0,16]") "," GOOD_B "}", 24, STATUS_INVALID_FIELD,
     "I32"},
    {"small letters", "{" W("f32", "[2,2]", "[0,16]") "," GOOD_B "}", 24, STATUS_INVALID_FIELD,
     "f32"},
    {"dtype that does not exist", "{" W("F31", "[2,2]", "[0,16]") "," GOOD_B "}", 24,
     STATUS_INVALID_FIELD, "F64, F32, F16 or BF16"},
    {"dtype that is a number", "{\"w\":{\"dtype\":1,\"shape\":[],\"data_offsets\":[0,4]}}", 4,
     STATUS_INVALID_REQUEST, "dtype"},
    {"fraction in shape", "{" W("F32", "[2.0,2]", "[0,16]") "," GOOD_B "}", 24,
     STATUS_INVALID_REQUEST, "plain whole numbers"},
    {"exponent in shape", "{" W("F32", "[2,2e0]", "[0,16]") "," GOOD_B "}", 24,
     STATUS_INVALID_REQUEST, "plain whole numbers"},
    {"negative shape", "{" W("F32", "[-2,-2]", "[0,16]") "," GOOD_B "}", 24, STATUS_INVALID_REQUEST,
     "plain whole numbers"},
    {"nested shape", "{" W("F32", "[[2,2]]", "[0,16]") "," GOOD_B "}", 24, STATUS_INVALID_REQUEST,
     "plain whole numbers"},
    {"shape that is a number", "{" W("F32", "4", "[0,16]") "," GOOD_B "}", 24,
     STATUS_INVALID_REQUEST, "plain whole numbers"},
    {"shape of strings", "{" W("F32", "[\"2\"]", "[0,16]") "," GOOD_B "}", 24,
     STATUS_INVALID_REQUEST, "plain whole numbers"},
    {"nine dimensions", "{" W("F32", "[1,1,1,1,1,1,1,2,2]", "[0,16]") "," GOOD_B "}", 24,
     STATUS_INVALID_REQUEST, "at most 8"},
    {"size beyond 64 bits", "{" W("F32", "[18446744073709551616]", "[0,16]") "," GOOD_B "}", 24,
     STATUS_INVALID_REQUEST, "plain whole numbers"},
    {"product beyond 64 bits",
     "{" W("F32", "[4294967296,4294967296]", "[0,0]") "," B("F32", "[2]", "[0,8]") "}", 8,
     STATUS_INVALID_REQUEST, "overflows"},
    {"bytes beyond 64 bits", "{" W("F32", "[4611686018427387904]", "[0,0]") "}", 0,
     STATUS_INVALID_REQUEST, "do not fit"},
    {"one offset", "{" W("F32", "[2,2]", "[0]") "," GOOD_B "}", 24, STATUS_INVALID_REQUEST,
     "two plain"},
    {"three offsets", "{" W("F32", "[2,2]", "[0,16,24]") "," GOOD_B "}", 24, STATUS_INVALID_REQUEST,
     "two plain"},
    {"offsets backwards", "{" W("F32", "[2,2]", "[16,0]") "," GOOD_B "}", 24,
     STATUS_INVALID_REQUEST, "before they begin"},
    {"too few bytes", "{" W("F32", "[2,2]", "[0,12]") "," B("F32", "[2]", "[12,20]") "}", 20,
     STATUS_INVALID_REQUEST, "do not fit"},
    {"too many bytes", "{" W("F16", "[2,2]", "[0,16]") "," GOOD_B "}", 24, STATUS_INVALID_REQUEST,
     "do not fit"},
    {"hole at the begin", "{" W("F32", "[2,2]", "[4,20]") "," B("F32", "[2]", "[20,28]") "}", 28,
     STATUS_INVALID_REQUEST, "hole"},
    {"hole between", "{" W("F32", "[2,2]", "[0,16]") "," B("F32", "[2]", "[20,28]") "}", 28,
     STATUS_INVALID_REQUEST, "hole"},
    {"overlap", "{" W("F32", "[2,2]", "[0,16]") "," B("F32", "[2]", "[12,20]") "}", 20,
     STATUS_INVALID_REQUEST, "overlaps"},
    {"the same place twice", "{" W("F32", "[2,2]", "[0,16]") "," B("F32", "[4]", "[0,16]") "}", 16,
     STATUS_INVALID_REQUEST, "overlaps"},
    {"bytes to spare", "{" W("F32", "[2,2]", "[0,16]") "," GOOD_B "}", 25, STATUS_INVALID_REQUEST,
     "25 bytes"},
    {"bytes cut off", "{" W("F32", "[2,2]", "[0,16]") "," GOOD_B "}", 23, STATUS_INVALID_REQUEST,
     "23 bytes"},
    {"no tensors but data", "{}", 4, STATUS_INVALID_REQUEST, "4 bytes"},
    {"missing tensor", "{" W("F32", "[2,2]", "[0,16]") "}", 16, STATUS_MISSING_TENSOR, "\"b\""},
    {"unknown tensor",
     "{" W("F32", "[2,2]",
           "[0,16]") "," GOOD_B ",\"c\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[24,28]}}",
     28, STATUS_UNKNOWN_TENSOR, "leave it out"},
    {"another shape", "{" W("F32", "[4]", "[0,16]") "," GOOD_B "}", 24, STATUS_SHAPE_MISMATCH,
     "the shape is [4]; it must be [2, 2]"},
};

START_TEST(every_rule_of_the_format_holds)
{
    const struct rule *rule = &rules[_i];
    struct buffer *file = tensors_safetensors(rule->header, rule->data_size);
    struct tensors tensors;
    enum status status = safetensors->decode(layout, DTYPE_F32, file, &tensors, &fault);

    ck_assert_msg(status == rule->status, "%s: %s %s", rule->name, status_code(status),
                  fault.detail);
    ck_assert_msg(strstr(fault.detail, rule->words) != NULL, "%s: %s", rule->name, fault.detail);
    if (status == STATUS_OK)
        buffer_release(tensors.buffer);
    buffer_release(file);
}
END_TEST

START_TEST(faults_of_tensors_say_where)
{
    static const struct {
        const char *header, *where;
        size_t data_size;
    } cases[] = {
        {"{" W("I32", "[2,2]", "[0,16]") "," GOOD_B "}", "/w", 24},
        {"{" W("F32", "[2,2]", "[0,16]") "}", "/b", 16},
        {"{" W("F32", "[4]", "[0,16]") "," GOOD_B "}", "/w", 24},
        {"{\"a/b~\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", "/a~1b~0", 4},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buffer *file = tensors_safetensors(cases[i].header, cases[i].data_size);
        struct tensors tensors;
        ck_assert_int_ne(safetensors->decode(layout, DTYPE_F32, file, &tensors, &fault), STATUS_OK);
        ck_assert_str_eq(fault.where, cases[i].where);
        buffer_release(file);
    }
}
END_TEST

START_TEST(header_lengths_are_bounded)
{
    struct tensors tensors;
    static const uint64_t lengths[] = {3,          1000,           1u << 24,         100000000,
                                       UINT64_MAX, UINT64_MAX - 7, (uint64_t)1 << 63};

    for (size_t size = 0; size < 8; size++) {
        struct buffer *file = tensors_buffer("\x02\0\0\0\0\0\0\0", size);
        ck_assert_int_eq(safetensors->decode(layout, DTYPE_F32, file, &tensors, &fault),
                         STATUS_INVALID_REQUEST);
        buffer_release(file);
    }
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct buffer *file = tensors_safetensors("{}", 0);
        for (unsigned k = 0; k < 8; k++)
            file->data[k] = (unsigned char)(lengths[i] >> (8 * k));
        ck_assert_int_eq(safetensors->decode(layout, DTYPE_F32, file, &tensors, &fault),
                         STATUS_INVALID_REQUEST);
        buffer_release(file);
    }
}
END_TEST

START_TEST(a_header_over_16_mib_is_too_large)
{
    size_t size = ((size_t)16 << 20) + 1;
    struct buffer *file = buffer_new(8 + size);
    struct tensors tensors;

    ck_assert_ptr_nonnull(file);
    memset(file->data, ' ', 8 + size);
    memcpy(file->data, "\x01\0\0\x01\0\0\0\0{}", 10);
    ck_assert_int_eq(safetensors->decode(layout, DTYPE_F32, file, &tensors, &fault),
                     STATUS_TOO_LARGE);
    buffer_release(file);
}
END_TEST

/* A header of `size` bytes, filled up with spaces: data begins at 8 + size. */
static struct buffer *padded_file(const char *header, size_t size, size_t data_size)
{
    char text[256];

    ck_assert_uint_lt(size, sizeof text);
    snprintf(text, sizeof text, "%-*s", (int)size, header);
    return tensors_safetensors(text, data_size);
}

START_TEST(data_in_layout_order_is_not_copied)
{
    static const char header[] = "{" GOOD_B "," W("F32", "[2,2]", "[0,16]") "}";

    for (size_t size = sizeof header; size < sizeof header + 8; size++) {
        struct buffer *file = padded_file(header, size, 24);
        struct tensors tensors;
        ck_assert_int_eq(safetensors->decode(layout, DTYPE_F64, file, &tensors, &fault), STATUS_OK);
        ck_assert_int_eq(tensors.dtype, DTYPE_F32);
        ck_assert((tensors.buffer == file) == (size % 4 == 0)); /* aligned or copied */
        for (unsigned char i = 0; i < 24; i++)
            ck_assert_uint_eq(tensors.buffer->data[tensors.offset + i], i);
        buffer_release(tensors.buffer);
        buffer_release(file);
    }
}
END_TEST

START_TEST(data_in_another_order_is_gathered)
{
    struct buffer *file =
        tensors_safetensors("{" W("F32", "[2,2]", "[8,24]") "," B("F32", "[2]", "[0,8]") "}", 24);
    struct tensors tensors;

    ck_assert_int_eq(safetensors->decode(layout, DTYPE_F32, file, &tensors, &fault), STATUS_OK);
    ck_assert_ptr_ne(tensors.buffer, file);
    for (unsigned char i = 0; i < 24; i++)
        ck_assert_uint_eq(tensors.buffer->data[tensors.offset + i], (i + 8u) % 24);
    buffer_release(tensors.buffer);
    buffer_release(file);
}
END_TEST

START_TEST(mixed_dtypes_become_the_narrowest_that_holds_all)
{
    static const struct {
        const char *w, *b;
        enum dtype dtype;
    } cases[] = {
        {"F16", "F16", DTYPE_F16}, {"BF16", "BF16", DTYPE_BF16}, {"F16", "BF16", DTYPE_F32},
        {"F16", "F32", DTYPE_F32}, {"BF16", "F32", DTYPE_F32},   {"F16", "F64", DTYPE_F64},
        {"F32", "F64", DTYPE_F64}, {"F64", "BF16", DTYPE_F64},   {"F64", "F64", DTYPE_F64},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        enum dtype w, b;
        char header[256];
        ck_assert(dtype_find_safetensors(cases[i].w, strlen(cases[i].w), &w));
        ck_assert(dtype_find_safetensors(cases[i].b, strlen(cases[i].b), &b));
        size_t middle = 4 * dtype_size(w), end = middle + 2 * dtype_size(b);
        snprintf(header, sizeof header,
                 "{\"w\":{\"dtype\":\"%s\",\"shape\":[2,2],\"data_offsets\":[0,%zu]},"
                 "\"b\":{\"dtype\":\"%s\",\"shape\":[2],\"data_offsets\":[%zu,%zu]}}",
                 cases[i].w, middle, cases[i].b, middle, end);
        struct buffer *file = tensors_safetensors(header, end);
        struct tensors tensors;
        ck_assert_int_eq(safetensors->decode(layout, DTYPE_F32, file, &tensors, &fault), STATUS_OK);
        ck_assert_int_eq(tensors.dtype, cases[i].dtype);
        double expected[6], got[6];
        dtype_convert(DTYPE_F64, expected, w, file->data + 8 + strlen(header), 4);
        dtype_convert(DTYPE_F64, expected + 4, b, file->data + 8 + strlen(header) + middle, 2);
        dtype_convert(DTYPE_F64, got, tensors.dtype, tensors.buffer->data + tensors.offset, 6);
        ck_assert_mem_eq(got, expected, sizeof got);
        buffer_release(tensors.buffer);
        buffer_release(file);
    }
}
END_TEST

START_TEST(a_file_brings_its_own_layout_and_metadata)
{
    struct buffer *file = tensors_safetensors(
        "{" GOOD_B
        ",\"__metadata__\":{\"k\":\"v\",\"descent\":\"{}\"}," W("F32", "[2,2]", "[0,16]") "}",
        24);
    struct layout *own;
    struct tensors tensors;
    struct text_pair *metadata;
    size_t count;

    for (int wide = 0; wide <= 1; wide++) {
        enum dtype dtype = wide ? DTYPE_F64 : DTYPE_F32;
        ck_assert_int_eq(
            safetensors_open(&arena, file, dtype, &own, &tensors, &metadata, &count, &fault),
            STATUS_OK);
        ck_assert_uint_eq(own->tensor_count, 2);
        ck_assert_str_eq(own->tensors[0].name, "w"); /* the order of the data */
        ck_assert_uint_eq(own->tensors[0].rank, 2);
        ck_assert_str_eq(own->tensors[1].name, "b");
        ck_assert_uint_eq(own->count, 6);
        ck_assert_int_eq(tensors.dtype, dtype);
        ck_assert_uint_eq(count, 2);
        ck_assert_str_eq(metadata[0].name, "k");
        ck_assert_str_eq(metadata[0].value, "v");
        ck_assert_str_eq(metadata[1].name, "descent");
        float narrow[6];
        dtype_convert(DTYPE_F32, narrow, dtype, tensors.buffer->data + tensors.offset, 6);
        ck_assert_mem_eq(narrow, file->data + file->size - 24, 24);
        buffer_release(tensors.buffer);
        layout_release(own);
    }
    buffer_release(file);
}
END_TEST

START_TEST(a_file_without_elements_brings_no_layout)
{
    static const struct {
        const char *header;
        enum status status;
    } cases[] = {
        {"{}", STATUS_INVALID_FIELD},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}", STATUS_INVALID_FIELD},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0]}}", STATUS_INVALID_REQUEST},
        {"{\"\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", STATUS_INVALID_REQUEST},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buffer *file = tensors_safetensors(cases[i].header, 0);
        struct layout *own = NULL;
        struct tensors tensors;
        struct text_pair *metadata;
        size_t count;
        ck_assert_int_eq(
            safetensors_open(&arena, file, DTYPE_F32, &own, &tensors, &metadata, &count, &fault),
            cases[i].status);
        ck_assert_ptr_null(own);
        buffer_release(file);
    }
}
END_TEST

Suite *suite_safetensors(void);
Suite *suite_safetensors(void)
{
    Suite *suite = suite_create("safetensors");
    TCase *tests = tcase_create("safetensors");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, every_rule_of_the_format_holds, 0, sizeof rules / sizeof *rules);
    tcase_add_test(tests, faults_of_tensors_say_where);
    tcase_add_test(tests, header_lengths_are_bounded);
    tcase_add_test(tests, a_header_over_16_mib_is_too_large);
    tcase_add_test(tests, data_in_layout_order_is_not_copied);
    tcase_add_test(tests, data_in_another_order_is_gathered);
    tcase_add_test(tests, mixed_dtypes_become_the_narrowest_that_holds_all);
    tcase_add_test(tests, a_file_brings_its_own_layout_and_metadata);
    tcase_add_test(tests, a_file_without_elements_brings_no_layout);
    suite_add_tcase(suite, tests);
    return suite;
}
