/* Every line of codecs.def: what it writes it reads back to the same bits; what is cut is refused;
 * what is damaged is never trusted beyond its end; and the bytes are those of tests/golden/wire,
 * written by others. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/codec.h"
#include "api/json_document.h"
#include "tests/lib/tensors.h"
#include "tests/lib/testing.h"

static struct arena arena;
static struct fault fault;

static void setup(void)
{
    arena_init(&arena);
}

static void teardown(void)
{
    arena_close(&arena);
}

static const char *const specs[] = {
    "w[1]",
    "s[]",
    "w[7]",
    "w[2,3] b[3] s[]",
    "w[31,33] b[8]",                      /* 1031 */
    "z[0] w[3,1,2] y[2,0,3] b[1] x[0,5]", /* without elements: first, between, last */
    "a\"b\\c/~\xc3\xa9[2] \x24[1]",
};
enum { SPEC_COUNT = sizeof specs / sizeof *specs };

/* Random bits, so that every exponent is met; for JSON only finite ones. */
static struct tensors random_tensors(const struct layout *layout, enum dtype dtype, bool finite)
{
    uint64_t random = testing_seed() ^ layout->count;
    size_t size = dtype_size(dtype);
    struct tensors tensors = {.buffer = buffer_new(layout->count * size), .dtype = dtype};

    ck_assert_ptr_nonnull(tensors.buffer);
    for (size_t i = 0; i < layout->count; i++) {
        uint64_t bits;
        double value;
        do {
            bits = testing_random(&random);
            dtype_convert(DTYPE_F64, &value, dtype, &bits, 1);
        } while (finite && !isfinite(value));
        memcpy(tensors.buffer->data + i * size, &bits, size);
    }
    return tensors;
}

/* The whole answer as a body. */
static struct buffer *join(struct encoded *encoded)
{
    struct buffer *body = buffer_new(encoded->head.size + encoded->size);

    ck_assert_ptr_nonnull(body);
    if (encoded->head.size > 0)
        memcpy(body->data, encoded->head.data, encoded->head.size);
    if (encoded->size > 0)
        memcpy(body->data + encoded->head.size, encoded->buffer->data + encoded->offset,
               encoded->size);
    buffer_release(encoded->buffer);
    return body;
}

static enum status encode(const struct codec *codec, const struct layout *layout,
                          const struct tensors *tensors, enum dtype dtype, struct buffer **body)
{
    struct encoded encoded;
    struct encode_request request = {
        .arena = &arena, .layout = layout, .tensors = tensors, .dtype = dtype};
    enum status status = codec->encode(&request, &encoded, &fault);

    if (status == STATUS_OK)
        *body = join(&encoded);
    return status;
}

/* JSON has no decode: its tensors are read from a document. */
static enum status decode(const struct codec *codec, const struct layout *layout, enum dtype dtype,
                          struct buffer *body, struct tensors *out)
{
    struct json_document document;

    if (codec->decode != NULL)
        return codec->decode(layout, dtype, body, out, &fault);
    enum status status = json_read(&arena, span_of(body->data, body->size), &document, &fault);
    if (status != STATUS_OK)
        return status;
    *out =
        (struct tensors){.buffer = buffer_new(layout->count * dtype_size(dtype)), .dtype = dtype};
    ck_assert_ptr_nonnull(out->buffer);
    status = json_tensors(&document, document.root, layout, dtype, out->buffer->data, &fault);
    if (status != STATUS_OK)
        buffer_release(out->buffer);
    json_close(&document);
    return status;
}

static bool can_write(const struct codec *codec, enum dtype dtype)
{
    if (!codec->binary)
        return dtype == DTYPE_F32 || dtype == DTYPE_F64;
    return strcmp(codec->name, "npy") != 0 || dtype_npy_descr(dtype) != NULL;
}

START_TEST(what_is_written_is_read_back_to_the_same_bits)
{
    const struct codec *codec;

    for (size_t i = 0; (codec = codec_at(i)) != NULL; i++)
        for (int s = 0; s < SPEC_COUNT; s++)
            for (int d = 0; d < DTYPE_COUNT; d++) {
                enum dtype dtype = (enum dtype)d;
                struct layout *layout = tensors_layout(specs[s]);
                struct tensors source = random_tensors(layout, dtype, !codec->binary), back;
                struct buffer *body = NULL;
                if (can_write(codec, dtype)) {
                    ck_assert_int_eq(encode(codec, layout, &source, dtype, &body), STATUS_OK);
                    ck_assert_msg(decode(codec, layout, dtype, body, &back) == STATUS_OK,
                                  "%s %s %s: %s", codec->name, specs[s], dtype_name(dtype),
                                  fault.detail);
                    ck_assert_int_eq(back.dtype, dtype);
                    ck_assert_mem_eq(back.buffer->data + back.offset, source.buffer->data,
                                     layout->count * dtype_size(dtype));
                    ck_assert_uint_eq(
                        ((uintptr_t)back.buffer->data + back.offset) % dtype_size(dtype), 0);
                    buffer_release(back.buffer);
                    buffer_release(body);
                } else if (codec->binary) {
                    ck_assert_int_eq(encode(codec, layout, &source, dtype, &body),
                                     STATUS_NOT_ACCEPTABLE);
                }
                buffer_release(source.buffer);
                layout_release(layout);
            }
}
END_TEST

START_TEST(the_same_dtype_in_layout_order_is_not_copied)
{
    struct layout *layout = tensors_layout("a[2] b[3] c[0] d[5]");
    const struct tensor *all = layout->tensors;
    const struct tensor *run[] = {&all[1], &all[2], &all[3]}, *gap[] = {&all[0], &all[3]};
    struct tensors source = random_tensors(layout, DTYPE_F32, false);
    const struct codec *codec;

    for (size_t i = 0; (codec = codec_at(i)) != NULL; i++) {
        struct encode_request request = {
            .arena = &arena, .layout = layout, .tensors = &source, .dtype = DTYPE_F32};
        struct encoded encoded;
        if (!codec->binary)
            continue;
        ck_assert_int_eq(codec->encode(&request, &encoded, &fault), STATUS_OK);
        ck_assert_ptr_eq(encoded.buffer, source.buffer);
        ck_assert_uint_eq(encoded.offset, 0);
        ck_assert_uint_eq(encoded.size, 40);
        buffer_release(encoded.buffer);
        if (strcmp(codec->name, "npy") == 0)
            continue;
        request.chosen = run;
        request.chosen_count = 3;
        ck_assert_int_eq(codec->encode(&request, &encoded, &fault), STATUS_OK);
        ck_assert_ptr_eq(encoded.buffer, source.buffer);
        ck_assert_uint_eq(encoded.offset, 8);
        ck_assert_uint_eq(encoded.size, 32);
        buffer_release(encoded.buffer);
        request.chosen = gap;
        request.chosen_count = 2;
        ck_assert_int_eq(codec->encode(&request, &encoded, &fault), STATUS_OK);
        ck_assert_ptr_ne(encoded.buffer, source.buffer);
        ck_assert_uint_eq(encoded.size, 28);
        ck_assert_mem_eq(encoded.buffer->data + encoded.offset, source.buffer->data, 8);
        ck_assert_mem_eq(encoded.buffer->data + encoded.offset + 8, source.buffer->data + 20, 20);
        buffer_release(encoded.buffer);
    }
    buffer_release(source.buffer);
    layout_release(layout);
}
END_TEST

START_TEST(another_dtype_is_converted)
{
    struct layout *layout = tensors_layout("w[7]");
    struct tensors source = random_tensors(layout, DTYPE_F32, true);
    const struct codec *codec;

    for (size_t i = 0; (codec = codec_at(i)) != NULL; i++)
        for (int d = 0; d < DTYPE_COUNT; d++) {
            enum dtype dtype = (enum dtype)d;
            struct buffer *body;
            struct tensors back;
            double expected[7];
            if (!codec->binary || !can_write(codec, dtype))
                continue;
            ck_assert_int_eq(encode(codec, layout, &source, dtype, &body), STATUS_OK);
            ck_assert_int_eq(decode(codec, layout, dtype, body, &back), STATUS_OK);
            ck_assert_int_eq(back.dtype, dtype);
            dtype_convert(dtype, expected, DTYPE_F32, source.buffer->data, 7);
            ck_assert_mem_eq(back.buffer->data + back.offset, expected, 7 * dtype_size(dtype));
            buffer_release(back.buffer);
            buffer_release(body);
        }
    buffer_release(source.buffer);
    layout_release(layout);
}
END_TEST

/* Exact copies on the heap: a sanitizer sees who reads past the end. */
static struct buffer *cut(const struct buffer *body, size_t size)
{
    return tensors_buffer(body->data, size);
}

START_TEST(a_body_cut_anywhere_is_refused)
{
    struct layout *layout = tensors_layout("w[2,3] b[3] s[]");
    const struct codec *codec;

    for (size_t i = 0; (codec = codec_at(i)) != NULL; i++) {
        struct tensors source = random_tensors(layout, DTYPE_F32, true), back;
        struct buffer *body;
        ck_assert_int_eq(encode(codec, layout, &source, DTYPE_F32, &body), STATUS_OK);
        for (size_t size = 0; size < body->size; size++) {
            struct buffer *part = cut(body, size);
            enum status status = decode(codec, layout, DTYPE_F32, part, &back);
            ck_assert_msg(status_http(status) / 100 == 4, "%s cut to %zu of %zu bytes", codec->name,
                          size, body->size);
            buffer_release(part);
        }
        buffer_release(body);
        buffer_release(source.buffer);
    }
    layout_release(layout);
}
END_TEST

START_TEST(a_body_with_bytes_to_spare_is_refused)
{
    struct layout *layout = tensors_layout("w[2,3] b[3] s[]");
    const struct codec *codec;

    for (size_t i = 0; (codec = codec_at(i)) != NULL; i++) {
        struct tensors source = random_tensors(layout, DTYPE_F32, true), back;
        struct buffer *body;
        ck_assert_int_eq(encode(codec, layout, &source, DTYPE_F32, &body), STATUS_OK);
        struct buffer *longer = buffer_new_zeroed(body->size + 1);
        ck_assert_ptr_nonnull(longer);
        memcpy(longer->data, body->data, body->size);
        ck_assert_int_eq(status_http(decode(codec, layout, DTYPE_F32, longer, &back)) / 100, 4);
        buffer_release(longer);
        buffer_release(body);
        buffer_release(source.buffer);
    }
    layout_release(layout);
}
END_TEST

START_TEST(one_flipped_bit_is_refused_or_read_as_a_whole)
{
    struct layout *layout = tensors_layout("w[2,3] b[3] s[]");
    const struct codec *codec;

    for (size_t i = 0; (codec = codec_at(i)) != NULL; i++) {
        struct tensors source = random_tensors(layout, DTYPE_F32, true), back;
        struct buffer *body;
        ck_assert_int_eq(encode(codec, layout, &source, DTYPE_F32, &body), STATUS_OK);
        for (size_t bit = 0; bit < body->size * 8; bit++) {
            struct buffer *copy = cut(body, body->size);
            copy->data[bit / 8] ^= (unsigned char)(1u << bit % 8);
            enum status status = decode(codec, layout, DTYPE_F32, copy, &back);
            if (status == STATUS_OK) {
                size_t size = layout->count * dtype_size(back.dtype);
                ck_assert_uint_le(back.offset + size, back.buffer->size);
                buffer_release(back.buffer);
            } else {
                ck_assert_int_eq(status_http(status) / 100, 4);
            }
            buffer_release(copy);
        }
        buffer_release(body);
        buffer_release(source.buffer);
    }
    layout_release(layout);
}
END_TEST

/* --- bytes of others --- */

static const double golden_values[] = {-1, -0.5, 0, 0.5, 1, 1.5, 2, -2.5, 1024, -0.0};
static const struct text_pair golden_metadata[] = {{"step", "3"}, {"quote", "a\"b"}};

static void check_golden(const char *codec_name, const char *what, enum dtype dtype,
                         const struct tensor *const *chosen, size_t chosen_count,
                         const struct layout *layout)
{
    char path[96];
    const struct codec *codec = codec_find(codec_name);
    struct tensors source = {.buffer = tensors_buffer(golden_values, sizeof golden_values),
                             .dtype = DTYPE_F64};
    struct encode_request request = {.arena = &arena,
                                     .layout = layout,
                                     .chosen = chosen,
                                     .chosen_count = chosen_count,
                                     .tensors = &source,
                                     .dtype = dtype,
                                     .metadata = golden_metadata,
                                     .metadata_count = 2};
    struct encoded encoded;

    snprintf(path, sizeof path, "tests/golden/wire/%s.%s.%s", what, dtype_name(dtype), codec->name);
    struct buffer *file = tensors_file(path);
    ck_assert_int_eq(codec->encode(&request, &encoded, &fault), STATUS_OK);
    struct buffer *body = join(&encoded);
    ck_assert_msg(body->size == file->size && memcmp(body->data, file->data, file->size) == 0,
                  "%s: %.*s", path, (int)body->size, (const char *)body->data);
    if (chosen == NULL) {
        struct tensors back;
        unsigned char expected[sizeof golden_values];
        ck_assert_int_eq(codec->decode(layout, DTYPE_F64, file, &back, &fault), STATUS_OK);
        dtype_convert(dtype, expected, DTYPE_F64, golden_values, layout->count);
        ck_assert_mem_eq(back.buffer->data + back.offset, expected,
                         layout->count * dtype_size(dtype));
        buffer_release(back.buffer);
    }
    buffer_release(body);
    buffer_release(file);
    buffer_release(source.buffer);
}

START_TEST(the_bytes_are_those_of_numpy_and_of_the_safetensors_description)
{
    struct layout *layout = tensors_layout("w[2,3] b[3] e[0,2] s[]");
    const struct tensor *all = layout->tensors, *some[] = {&all[3], &all[0]};

    for (int d = 0; d < DTYPE_COUNT; d++) {
        enum dtype dtype = (enum dtype)d;
        check_golden("application/vnd.safetensors", "all", dtype, NULL, 0, layout);
        check_golden("application/vnd.safetensors", "some", dtype, some, 2, layout);
        if (dtype_npy_descr(dtype) == NULL)
            continue;
        check_golden("application/x-npy", "all", dtype, NULL, 0, layout);
        for (size_t i = 0; i < 4; i++) {
            const struct tensor *one = &all[i];
            check_golden("application/x-npy", one->name, dtype, &one, 1, layout);
        }
    }
    layout_release(layout);
}
END_TEST

/* --- JSON and raw: what no other codec has --- */

static void check_json(const char *spec, const void *data, size_t size, enum dtype dtype,
                       const char *expected)
{
    struct layout *layout = tensors_layout(spec);
    struct tensors source = {.buffer = tensors_buffer(data, size), .dtype = dtype};
    struct buffer *body;

    ck_assert_int_eq(encode(codec_at(0), layout, &source, dtype, &body), STATUS_OK);
    ck_assert_msg(body->size == strlen(expected) && memcmp(body->data, expected, body->size) == 0,
                  "%.*s, not %s", (int)body->size, (const char *)body->data, expected);
    buffer_release(body);
    buffer_release(source.buffer);
    layout_release(layout);
}

START_TEST(json_is_nested_arrays_in_the_precision_of_the_source)
{
    const float single[] = {0.1f, -2, 3, 1e-7f, 5, -0.0f};
    const double real[] = {(double)0.1f, 0.1};
    const float odd[] = {NAN, INFINITY, -INFINITY};
    const uint16_t half[] = {0x3C00, 0x2E66};

    check_json("w[2,2] b[1] s[]", single, sizeof single, DTYPE_F32,
               "{\"w\":[[0.1,-2],[3,1e-7]],\"b\":[5],\"s\":-0.0}");
    check_json("w[2]", real, sizeof real, DTYPE_F64, "{\"w\":[0.10000000149011612,0.1]}");
    check_json("w[3]", odd, sizeof odd, DTYPE_F32, "{\"w\":[null,null,null]}");
    check_json("w[2]", half, sizeof half, DTYPE_F16, "{\"w\":[1,0.099975586]}");
    check_json("w[1,1,2] z[2,0] y[0,2]", single, 8, DTYPE_F32,
               "{\"w\":[[[0.1,-2]]],\"z\":[[],[]],\"y\":[]}");
}
END_TEST

START_TEST(json_does_not_write_a_billion_empty_rows)
{
    struct layout *layout = tensors_layout("w[1] z[65537,0]"),
                  *fine = tensors_layout("w[1] z[65536,0]");
    struct tensors source = {.buffer = buffer_new_zeroed(4), .dtype = DTYPE_F32};
    struct buffer *body;

    ck_assert_int_eq(encode(codec_at(0), layout, &source, DTYPE_F32, &body), STATUS_NOT_ACCEPTABLE);
    ck_assert_int_eq(encode(codec_at(0), fine, &source, DTYPE_F32, &body), STATUS_OK);
    buffer_release(body);
    buffer_release(source.buffer);
    layout_release(layout);
    layout_release(fine);
}
END_TEST

START_TEST(raw_names_both_lengths_and_the_dtype)
{
    struct layout *layout = tensors_layout("w[7]");
    struct buffer *body = buffer_new_zeroed(56);
    const struct codec *raw = codec_find("application/octet-stream");
    struct tensors tensors;

    ck_assert_int_eq(raw->decode(layout, DTYPE_F32, body, &tensors, &fault),
                     STATUS_LENGTH_MISMATCH);
    ck_assert_str_eq(fault.detail,
                     "the body has 56 bytes; 28 are needed, 7 elements of f32 (it would "
                     "fit ?dtype=f64)");
    ck_assert_int_eq(raw->decode(layout, DTYPE_F64, body, &tensors, &fault), STATUS_OK);
    ck_assert_ptr_eq(tensors.buffer, body);
    buffer_release(tensors.buffer);
    buffer_release(body);
    layout_release(layout);
}
END_TEST

Suite *suite_codecs(void);
Suite *suite_codecs(void)
{
    Suite *suite = suite_create("codecs");
    TCase *tests = tcase_create("codecs");

    tcase_set_timeout(tests, 30);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, what_is_written_is_read_back_to_the_same_bits);
    tcase_add_test(tests, the_same_dtype_in_layout_order_is_not_copied);
    tcase_add_test(tests, another_dtype_is_converted);
    tcase_add_test(tests, a_body_cut_anywhere_is_refused);
    tcase_add_test(tests, a_body_with_bytes_to_spare_is_refused);
    tcase_add_test(tests, one_flipped_bit_is_refused_or_read_as_a_whole);
    tcase_add_test(tests, the_bytes_are_those_of_numpy_and_of_the_safetensors_description);
    tcase_add_test(tests, json_is_nested_arrays_in_the_precision_of_the_source);
    tcase_add_test(tests, json_does_not_write_a_billion_empty_rows);
    tcase_add_test(tests, raw_names_both_lengths_and_the_dtype);
    suite_add_tcase(suite, tests);
    return suite;
}
