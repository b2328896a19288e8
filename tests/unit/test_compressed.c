/* Compressed gradients in safetensors: what they decode to against plain loops over the file's
 * parts, and every way to get it wrong. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/codec.h"
#include "service/tensor/packed.h"
#include "tests/lib/packings.h"
#include "tests/lib/tensors.h"
#include "tests/lib/testing.h"

/* --- files --- */

struct file {
    char header[16384];
    size_t header_size;
    unsigned char data[65536];
    size_t size;
};

static void file_open(struct file *file, const char *metadata)
{
    file->size = 0;
    file->header_size =
        (size_t)snprintf(file->header, sizeof file->header, "{\"__metadata__\":{%s}", metadata);
}

static void file_add(struct file *file, const char *name, const char *suffix, const char *dtype,
                     const char *shape, const void *data, size_t size)
{
    file->header_size +=
        (size_t)snprintf(file->header + file->header_size, sizeof file->header - file->header_size,
                         ",\"%s%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                         name, suffix, dtype, shape, file->size, file->size + size);
    ck_assert(file->header_size < sizeof file->header && file->size + size <= sizeof file->data);
    memcpy(file->data + file->size, data, size);
    file->size += size;
}

static struct buffer *file_end(struct file *file)
{
    file->header_size += (size_t)snprintf(file->header + file->header_size,
                                          sizeof file->header - file->header_size, "}");
    struct buffer *buffer = buffer_new(8 + file->header_size + file->size);
    uint64_t length = file->header_size;

    ck_assert_ptr_nonnull(buffer);
    memcpy(buffer->data, &length, 8);
    memcpy(buffer->data + 8, file->header, file->header_size);
    memcpy(buffer->data + 8 + file->header_size, file->data, file->size);
    return buffer;
}

static enum status decode(const struct layout *layout, struct buffer *body, struct tensors *out,
                          struct fault *fault)
{
    return codec_find("application/vnd.safetensors")->decode(layout, DTYPE_F32, body, out, fault);
}

/* --- good ones --- */

static const char tensors[] =
    "s[] a[17] a.scale.x[3] e[0] m[9,5] z[3,0] a.rows[2] n[0,4] t[] c[4,3,2]";
static const enum dtype wires[] = {DTYPE_F64, DTYPE_F32, DTYPE_F16, DTYPE_BF16};

struct maker {
    const struct layout *layout;
    struct file file;
    double *values; /* [count]: what the gradient is */
    uint64_t random;
    enum dtype wire; /* of this tensor */
    bool mixed;      /* each tensor has another */
};

/* A number that the wire can say, and its bytes. */
static double draw(struct maker *m, unsigned char bytes[8])
{
    double number = testing_normal(&m->random);

    dtype_convert(m->wire, bytes, DTYPE_F64, &number, 1);
    dtype_convert(DTYPE_F64, &number, m->wire, bytes, 1);
    return number;
}

static void add_values(struct maker *m, const struct tensor *tensor, const char *suffix,
                       const char *shape, const double *values, size_t count)
{
    unsigned char bytes[4096];
    size_t size = dtype_size(m->wire);

    ck_assert_uint_le(count * size, sizeof bytes);
    dtype_convert(m->wire, bytes, DTYPE_F64, values, count);
    file_add(&m->file, tensor->name, suffix, dtype_safetensors_name(m->wire), shape, bytes,
             count * size);
}

static double add_scale(struct maker *m, const struct tensor *tensor, const char *suffix)
{
    unsigned char bytes[8];
    double scale = draw(m, bytes);

    file_add(&m->file, tensor->name, suffix, dtype_safetensors_name(m->wire),
             testing_random(&m->random) % 2 ? "[]" : "[1]", bytes, dtype_size(m->wire));
    return scale;
}

static char *shape_of(char out[128], unsigned rank, const size_t *shape)
{
    return shape_format(out, 128, rank, shape);
}

static void make_int8(struct maker *m, const struct tensor *tensor, double *values)
{
    double scale = add_scale(m, tensor, ".scale");
    signed char q[64];
    char shape[128];

    for (size_t i = 0; i < tensor->count; i++) {
        q[i] = (signed char)(testing_random(&m->random) % 256 - 128);
        values[i] = q[i] * scale;
    }
    file_add(&m->file, tensor->name, "", "I8", shape_of(shape, tensor->rank, tensor->shape), q,
             tensor->count);
}

/* Codes at their places; what is after the last is noise. */
static void add_codes(struct maker *m, const struct tensor *tensor, const char *suffix,
                      const unsigned *codes, unsigned bits, bool low_first, size_t multiple)
{
    unsigned char bytes[64];
    size_t per = 8 / bits,
           size = (tensor->count + per * multiple - 1) / (per * multiple) * multiple;
    char shape[128];

    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)testing_random(&m->random);
    for (size_t i = 0; i < tensor->count; i++) {
        unsigned place = (unsigned)(i % per) * bits, shift = low_first ? place : 8 - bits - place;
        unsigned mask = (1U << bits) - 1;
        bytes[i / per] = (unsigned char)((bytes[i / per] & ~(mask << shift)) | codes[i] << shift);
    }
    file_add(&m->file, tensor->name, suffix, "U8", shape_of(shape, 1, &size), bytes, size);
}

static void make_sign(struct maker *m, const struct tensor *tensor, double *values)
{
    double scale = add_scale(m, tensor, ".scale");
    unsigned codes[64];

    for (size_t i = 0; i < tensor->count; i++) {
        codes[i] = testing_random(&m->random) % 2;
        values[i] = codes[i] ? -scale : scale;
    }
    add_codes(m, tensor, ".sign", codes, 1, true, 1);
}

static void make_one_bit(struct maker *m, const struct tensor *tensor, double *values)
{
    unsigned codes[64];

    for (size_t i = 0; i < tensor->count; i++) {
        codes[i] = testing_random(&m->random) % 2;
        values[i] = codes[i] ? 1 : -1;
    }
    add_codes(m, tensor, "", codes, 1, false, 4);
}

/* Every other tensor has a threshold of its own, the others that of the metadata. */
static void make_two_bit(struct maker *m, const struct tensor *tensor, double *values)
{
    double threshold = 0.3;
    unsigned codes[64];

    if (testing_random(&m->random) % 2) {
        unsigned char bytes[8];
        threshold = fabs(draw(m, bytes));
        add_values(m, tensor, ".threshold", "[]", &threshold, 1);
    }
    for (size_t i = 0; i < tensor->count; i++) {
        codes[i] = testing_random(&m->random) % 4;
        values[i] = codes[i] == 3 ? threshold : codes[i] == 2 ? -threshold : 0;
    }
    add_codes(m, tensor, "", codes, 2, false, 4);
}

/* Numbers in one of the four types. */
static void add_indices(struct maker *m, const struct tensor *tensor, const char *suffix,
                        const size_t *numbers, size_t count)
{
    static const struct {
        const char *name;
        size_t size;
    } kinds[] = {{"I32", 4}, {"U32", 4}, {"I64", 8}, {"U64", 8}};
    size_t kind = testing_random(&m->random) % 4;
    unsigned char bytes[512] = {0};
    char shape[128];

    for (size_t i = 0; i < count; i++)
        bytes[i * kinds[kind].size] = (unsigned char)numbers[i];
    file_add(&m->file, tensor->name, suffix, kinds[kind].name, shape_of(shape, 1, &count), bytes,
             count * kinds[kind].size);
}

static void make_topk(struct maker *m, const struct tensor *tensor, double *values)
{
    size_t numbers[64], count = 0, dice = 1 + testing_random(&m->random) % 4;
    double own[64];
    unsigned char bytes[8];
    char shape[128];

    for (size_t i = 0; i < tensor->count; i++)
        if (testing_random(&m->random) % dice == 0) {
            numbers[count] = i;
            own[count++] = values[i] = draw(m, bytes);
        }
    add_indices(m, tensor, ".indices", numbers, count);
    add_values(m, tensor, ".values", shape_of(shape, 1, &count), own, count);
}

static void make_rows(struct maker *m, const struct tensor *tensor, double *values)
{
    size_t numbers[64], count = 0, used = 0, shape[LAYOUT_RANK_MAX];
    double own[64];
    unsigned char bytes[8];
    char text[128];

    memcpy(shape, tensor->shape, sizeof shape);
    bool apart = strcmp(tensor->name, "a.rows") == 0; /* whole it would be called as rows of a */
    if (tensor->rank == 0 || (!apart && testing_random(&m->random) % 4 == 0)) { /* whole */
        for (size_t i = 0; i < tensor->count; i++)
            values[i] = draw(m, bytes);
        add_values(m, tensor, "", shape_of(text, tensor->rank, shape), values, tensor->count);
        return;
    }
    size_t length = shape[0] == 0 ? 0 : tensor->count / shape[0];
    for (size_t r = 0; r < shape[0]; r++)
        if (testing_random(&m->random) % 2) {
            numbers[count++] = r;
            for (size_t k = 0; k < length; k++)
                own[used++] = values[r * length + k] = draw(m, bytes);
        }
    shape[0] = count;
    add_indices(m, tensor, ".rows", numbers, count);
    add_values(m, tensor, ".values", shape_of(text, tensor->rank, shape), own, used);
}

static const struct codec_case {
    const char *metadata;
    enum gradient_form form;
    void (*make)(struct maker *m, const struct tensor *tensor, double *values);
} cases[] = {
    {"\"codec\":\"int8\"", FORM_INT8, make_int8},
    {"\"format\":\"pt\",\"codec\":\"sign\"", FORM_SIGN, make_sign},
    {"\"codec\":\"topk\"", FORM_TOPK, make_topk},
    {"\"codec\":\"2bit\",\"threshold\":\"3e-1\"", FORM_TWO_BIT, make_two_bit},
    {"\"codec\":\"1bit\"", FORM_SIGN, make_one_bit},
    {"\"codec\":\"rows\"", FORM_ROWS, make_rows},
};

static void check_decoded(const struct maker *m, enum gradient_form form, struct buffer *body)
{
    struct tensors out;
    struct fault fault;
    double *got = calloc(m->layout->count, sizeof *got);

    ck_assert_ptr_nonnull(got);
    if (decode(m->layout, body, &out, &fault) != STATUS_OK)
        ck_abort_msg("%s: %s", fault.where, fault.detail);
    ck_assert(out.form == form && out.offset == 0 && out.size == out.buffer->size);
    if (form != FORM_TWO_BIT && m->file.header[0] != '\0' && !m->mixed &&
        strstr(m->file.header, "1bit") == NULL)
        ck_assert_int_eq(out.dtype, m->wire);
    struct span bytes = span_of(out.buffer->data, out.size);
    if (packed_check(m->layout, form, out.dtype, bytes, &fault) != STATUS_OK)
        ck_abort_msg("%s: %s", fault.where, fault.detail);
    struct wire_gradient gradient = {.data = out.buffer->data,
                                     .wire = out.dtype,
                                     .count = m->layout->count,
                                     .form = form,
                                     .size = out.size,
                                     .layout = m->layout};
    gradient_block_f64(&gradient, 0, m->layout->count, got);
    for (size_t i = 0; i < m->layout->count; i++)
        if (got[i] != m->values[i])
            ck_abort_msg("element %zu is %.17g, not %.17g", i, got[i], m->values[i]);
    free(got);
    buffer_release(out.buffer);
}

START_TEST(files_decode_to_what_they_say)
{
    struct layout *layout = tensors_layout(tensors);
    struct maker *m = calloc(1, sizeof *m);

    ck_assert_ptr_nonnull(m);
    m->layout = layout;
    m->random = testing_seed() ^ 41;
    for (int round = 0; round < 200; round++) {
        m->values = calloc(layout->count, sizeof *m->values);
        ck_assert_ptr_nonnull(m->values);
        m->mixed = round % 2 == 0;
        m->wire = wires[round / 2 % 4];
        file_open(&m->file, cases[_i].metadata);
        size_t first = testing_random(&m->random) % layout->tensor_count;
        for (size_t k = 0; k < layout->tensor_count; k++) {
            size_t t = (first + k) % layout->tensor_count; /* the file's order is its own */
            const struct tensor *tensor = &layout->tensors[t];
            if (m->mixed)
                m->wire = wires[testing_random(&m->random) % 4];
            cases[_i].make(m, tensor, m->values + tensor->offset);
        }
        struct buffer *body = file_end(&m->file);
        check_decoded(m, cases[_i].form, body);
        buffer_release(body);
        free(m->values);
    }
    free(m);
    layout_release(layout);
}
END_TEST

/* Every file cut at every byte is refused, and none reads beyond what there is. */
START_TEST(files_that_are_cut_are_refused)
{
    struct layout *layout = tensors_layout("w[5,2] b[3]");
    struct maker *m = calloc(1, sizeof *m);
    double values[13];

    ck_assert_ptr_nonnull(m);
    *m = (struct maker){.layout = layout, .values = values, .wire = DTYPE_F32, .random = 5};
    file_open(&m->file, cases[_i].metadata);
    for (size_t t = 0; t < layout->tensor_count; t++)
        cases[_i].make(m, &layout->tensors[t], values + layout->tensors[t].offset);
    struct buffer *body = file_end(&m->file);
    for (size_t size = 0; size < body->size; size++) {
        struct buffer *cut = tensors_buffer(body->data, size);
        struct tensors out;
        struct fault fault;
        ck_assert_int_ne(decode(layout, cut, &out, &fault), STATUS_OK);
        ck_assert_uint_gt(strlen(fault.detail), 20);
        buffer_release(cut);
    }
    buffer_release(body);
    free(m);
    layout_release(layout);
}
END_TEST

/* --- bad ones: on "w[2,3] b[2]", data 0, 1, 2 ... unless given --- */

#define META(codec) "\"__metadata__\":{\"codec\":\"" codec "\"}"
#define PART(name, dtype, shape, offsets)                                                          \
    ",\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define INT8_B PART("b", "I8", "[2]", "[10,12]") PART("b.scale", "F16", "[]", "[12,14]")
#define INT8_W PART("w", "I8", "[2,3]", "[0,6]") PART("w.scale", "F32", "[]", "[6,10]")
#define SIGN_B PART("b.sign", "U8", "[1]", "[5,6]") PART("b.scale", "F32", "[1]", "[6,10]")
#define TOPK_B PART("b.indices", "I64", "[0]", "[0,0]") PART("b.values", "F32", "[0]", "[0,0]")
#define ROWS_B PART("b", "F32", "[2]", "[0,8]")

static const struct wrong {
    const char *name, *layout, *header;
    enum status status;
    const char *where, *words;
    size_t size; /* of the data */
    unsigned char data[32];
} wrongs[] = {
    {"unknown codec",
     "w[2,3] b[2]",
     META("gzip") INT8_W INT8_B,
     STATUS_INVALID_FIELD,
     "/__metadata__/codec",
     "int8, sign, topk, 2bit, 1bit or rows",
     14,
     {0}},
    {"no codec at all",
     "w[2,3] b[2]",
     META("") INT8_W INT8_B,
     STATUS_INVALID_FIELD,
     "/__metadata__/codec",
     "plain",
     14,
     {0}},
    {"good int8", "w[2,3] b[2]", META("int8") INT8_W INT8_B, STATUS_OK, "", "", 14, {0}},
    {"a tensor is missing",
     "w[2,3] b[2]",
     META("int8") INT8_W,
     STATUS_MISSING_TENSOR,
     "/b",
     "its values as I8 and its .scale",
     10,
     {0}},
    {"a scale is missing",
     "w[2,3] b[2]",
     META("int8") INT8_W PART("b", "I8", "[2]", "[10,12]"),
     STATUS_MISSING_TENSOR,
     "/b.scale",
     "\"b.scale\" is missing",
     12,
     {0}},
    {"one too many",
     "w[2,3] b[2]",
     META("int8") INT8_W INT8_B PART("c", "I8", "[1]", "[14,15]"),
     STATUS_UNKNOWN_TENSOR,
     "/c",
     "leave it out",
     15,
     {0}},
    {"the scale of a scale",
     "w[2,3] b[2]",
     META("int8") INT8_W INT8_B PART("w.scale.scale", "I8", "[1]", "[14,15]"),
     STATUS_UNKNOWN_TENSOR,
     "/w.scale.scale",
     "",
     15,
     {0}},
    {"another shape",
     "w[3,2] b[2]",
     META("int8") INT8_W INT8_B,
     STATUS_SHAPE_MISMATCH,
     "/w",
     "[2, 3]; it must be [3, 2]",
     14,
     {0}},
    {"not int8",
     "w[2,3] b[2]",
     META("int8") PART("w", "U8", "[2,3]", "[0,6]") PART("w.scale", "F32", "[]", "[6,10]") INT8_B,
     STATUS_INVALID_FIELD,
     "/w",
     "U8; it must be I8",
     14,
     {0}},
    {"a scale of whole numbers",
     "w[6]",
     META("int8") PART("w", "I8", "[6]", "[0,6]") PART("w.scale", "I32", "[]", "[6,10]"),
     STATUS_INVALID_FIELD,
     "/w.scale",
     "I32; it must be F64",
     10,
     {0}},
    {"two scales",
     "w[6]",
     META("int8") PART("w", "I8", "[6]", "[0,6]") PART("w.scale", "F32", "[2]", "[6,14]"),
     STATUS_SHAPE_MISMATCH,
     "/w.scale",
     "[2]; it must be [] or [1]",
     14,
     {0}},
    {"a tensor called scale",
     "w[6] w.scale[]",
     META("int8") PART("w", "I8", "[6]", "[0,6]") PART("w.scale", "F32", "[]", "[6,10]"),
     STATUS_INVALID_FIELD,
     "/w",
     "another codec",
     10,
     {0}},
    {"whole numbers without a codec",
     "w[6]",
     "\"__metadata__\":{}" PART("w", "I8", "[6]", "[0,6]"),
     STATUS_INVALID_FIELD,
     "/w",
     "send F64, F32, F16 or BF16",
     6,
     {0}},
    {"a strange type with one",
     "w[6]",
     META("int8") PART("w", "I16", "[6]", "[0,12]"),
     STATUS_INVALID_FIELD,
     "/w",
     "or what the codec takes",
     12,
     {0}},
    {"a codec that is no text",
     "w[6]",
     "\"__metadata__\":{\"codec\":8}" PART("w", "I8", "[6]", "[0,6]"),
     STATUS_INVALID_REQUEST,
     "",
     "object of strings",
     6,
     {0}},
    {"good sign",
     "w[3,3] b[2]",
     META("sign") PART("w.sign", "U8", "[2]", "[0,2]") PART("w.scale", "BF16", "[]", "[2,4]")
         PART("b.scale", "F16", "[1]", "[4,6]") PART("b.sign", "U8", "[1]", "[6,7]"),
     STATUS_OK,
     "",
     "",
     7,
     {0}},
    {"too few signs",
     "w[3,3] b[2]",
     META("sign") PART("w.sign", "U8", "[1]", "[0,1]") PART("w.scale", "F32", "[]", "[1,5]") SIGN_B,
     STATUS_SHAPE_MISMATCH,
     "/w.sign",
     "[1]; it must be [2]: 1 byte for every 8 elements",
     10,
     {0}},
    {"signs in another shape",
     "w[2,3] b[2]",
     META("sign") PART("w.sign", "U8", "[]", "[0,1]") PART("w.scale", "F32", "[]", "[1,5]") SIGN_B,
     STATUS_SHAPE_MISMATCH,
     "/w.sign",
     "it must be [1]",
     10,
     {0}},
    {"signs that are not bytes",
     "w[2,3]",
     META("sign") PART("w.sign", "I8", "[1]", "[0,1]") PART("w.scale", "F32", "[]", "[1,5]"),
     STATUS_INVALID_FIELD,
     "/w.sign",
     "I8; it must be U8",
     5,
     {0}},
    {"a plain tensor among signs",
     "w[2,3]",
     META("sign") PART("w.sign", "U8", "[1]", "[0,1]") PART("w.scale", "F32", "[]", "[1,5]")
         PART("w", "F32", "[2,3]", "[5,29]"),
     STATUS_UNKNOWN_TENSOR,
     "/w",
     "came otherwise",
     29,
     {0}},
    {"good topk",
     "w[2,3] b[2]",
     META("topk") TOPK_B PART("w.indices", "U32", "[2]", "[0,8]")
         PART("w.values", "F32", "[2]", "[8,16]"),
     STATUS_OK,
     "",
     "",
     16,
     {1, 0, 0, 0, 5}},
    {"an index out of range",
     "w[2,3] b[2]",
     META("topk") TOPK_B PART("w.indices", "I32", "[2]", "[0,8]")
         PART("w.values", "F32", "[2]", "[8,16]"),
     STATUS_INVALID_FIELD,
     "/w.indices/1",
     "it is 6; it must be at least 0 and less than 6",
     16,
     {1, 0, 0, 0, 6}},
    {"a negative index",
     "w[2,3] b[2]",
     META("topk") TOPK_B PART("w.indices", "I32", "[1]", "[0,4]")
         PART("w.values", "F32", "[1]", "[4,8]"),
     STATUS_INVALID_FIELD,
     "/w.indices/0",
     "it is -2;",
     8,
     {0xFE, 0xFF, 0xFF, 0xFF}},
    {"a large index",
     "w[2,3] b[2]",
     META("topk") TOPK_B PART("w.indices", "U64", "[1]", "[0,8]")
         PART("w.values", "F16", "[1]", "[8,10]"),
     STATUS_INVALID_FIELD,
     "/w.indices/0",
     "it is 18446744073709551614;",
     10,
     {0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}},
    {"an index twice",
     "w[2,3] b[2]",
     META("topk") TOPK_B PART("w.indices", "U32", "[2]", "[0,8]")
         PART("w.values", "F32", "[2]", "[8,16]"),
     STATUS_INVALID_FIELD,
     "/w.indices/1",
     "it is 4; they must ascend, each once, and before it "
     "stands 4",
     16,
     {4, 0, 0, 0, 4}},
    {"indices out of order",
     "w[2,3] b[2]",
     META("topk") TOPK_B PART("w.indices", "U32", "[2]", "[0,8]")
         PART("w.values", "F32", "[2]", "[8,16]"),
     STATUS_INVALID_FIELD,
     "/w.indices/1",
     "before it stands 4",
     16,
     {4, 0, 0, 0, 2}},
    {"indices of two dimensions",
     "w[2,3] b[2]",
     META("topk") TOPK_B PART("w.indices", "U32", "[1,2]", "[0,8]")
         PART("w.values", "F32", "[2]", "[8,16]"),
     STATUS_SHAPE_MISMATCH,
     "/w.indices",
     "2 dimensions",
     16,
     {0}},
    {"indices that are floats",
     "w[2,3] b[2]",
     META("topk") TOPK_B PART("w.indices", "F32", "[2]", "[0,8]")
         PART("w.values", "F32", "[2]", "[8,16]"),
     STATUS_INVALID_FIELD,
     "/w.indices",
     "F32; it must be I32, I64, U32 or U64",
     16,
     {0}},
    {"fewer values than indices",
     "w[2,3] b[2]",
     META("topk") TOPK_B PART("w.indices", "U32", "[2]", "[0,8]")
         PART("w.values", "F32", "[1]", "[8,12]"),
     STATUS_SHAPE_MISMATCH,
     "/w.values",
     "it must be [2]: a value for each index",
     12,
     {1, 0, 0, 0, 5}},
    {"good 2bit", "w[17]", META("2bit") PART("w", "U8", "[8]", "[0,8]"), STATUS_OK, "", "", 8, {0}},
    {"2bit without its padding",
     "w[17]",
     META("2bit") PART("w", "U8", "[5]", "[0,5]"),
     STATUS_SHAPE_MISMATCH,
     "/w",
     "it must be [8]: 4 bytes for every 16 elements",
     5,
     {0}},
    {"a threshold of nothing",
     "w[17]",
     "\"__metadata__\":{\"codec\":\"2bit\",\"threshold\":\"0\"}" PART("w", "U8", "[8]", "[0,8]"),
     STATUS_INVALID_FIELD,
     "/__metadata__/threshold",
     "more than 0",
     8,
     {0}},
    {"a threshold that is no number",
     "w[17]",
     "\"__metadata__\":{\"codec\":\"2bit\",\"threshold\":\"0x1\"}" PART("w", "U8", "[8]", "[0,8]"),
     STATUS_INVALID_FIELD,
     "/__metadata__/threshold",
     "",
     8,
     {0}},
    {"an endless threshold",
     "w[17]",
     "\"__metadata__\":{\"codec\":\"2bit\",\"threshold\":\"1e999\"}" PART("w", "U8", "[8]",
                                                                          "[0,8]"),
     STATUS_INVALID_FIELD,
     "/__metadata__/threshold",
     "",
     8,
     {0}},
    {"an empty threshold",
     "w[17]",
     "\"__metadata__\":{\"codec\":\"2bit\",\"threshold\":\"\"}" PART("w", "U8", "[8]", "[0,8]"),
     STATUS_INVALID_FIELD,
     "/__metadata__/threshold",
     "",
     8,
     {0}},
    {"a tensor called threshold",
     "w[17] w.threshold[3]",
     META("2bit") PART("w", "U8", "[8]", "[0,8]") PART("w.threshold", "U8", "[4]", "[8,12]"),
     STATUS_OK,
     "",
     "",
     12,
     {0}},
    {"good 1bit", "w[33]", META("1bit") PART("w", "U8", "[8]", "[0,8]"), STATUS_OK, "", "", 8, {0}},
    {"1bit of another length",
     "w[33]",
     META("1bit") PART("w", "U8", "[5]", "[0,5]"),
     STATUS_SHAPE_MISMATCH,
     "/w",
     "4 bytes for every 32 elements",
     5,
     {0}},
    {"good rows",
     "w[2,3] b[2]",
     META("rows") ROWS_B PART("w.rows", "U32", "[1]", "[8,12]")
         PART("w.values", "F32", "[1,3]", "[12,24]"),
     STATUS_OK,
     "",
     "",
     24,
     {[8] = 1}},
    {"a row beyond the last",
     "w[2,3] b[2]",
     META("rows") ROWS_B PART("w.rows", "U32", "[1]", "[8,12]")
         PART("w.values", "F32", "[1,3]", "[12,24]"),
     STATUS_INVALID_FIELD,
     "/w.rows/0",
     "it is 2; it must be at least 0 and less than 2",
     24,
     {[8] = 2}},
    {"rows of another length",
     "w[2,3] b[2]",
     META("rows") ROWS_B PART("w.rows", "U32", "[1]", "[8,12]")
         PART("w.values", "F32", "[1,2]", "[12,20]"),
     STATUS_SHAPE_MISMATCH,
     "/w.values",
     "it must be [1, 3]: a row for each of .rows",
     20,
     {0}},
    {"rows without values",
     "w[2,3] b[2]",
     META("rows") ROWS_B PART("w.rows", "U32", "[1]", "[8,12]"),
     STATUS_MISSING_TENSOR,
     "/w.values",
     "",
     12,
     {0}},
    {"rows that are floats",
     "w[2,3] b[2]",
     META("rows") ROWS_B PART("w.rows", "F32", "[1]", "[8,12]")
         PART("w.values", "F32", "[1,3]", "[12,24]"),
     STATUS_INVALID_FIELD,
     "/w.rows",
     "it must be I32",
     24,
     {0}},
    {"rows of a scalar",
     "w[]",
     META("rows") PART("w.rows", "U32", "[1]", "[0,4]") PART("w.values", "F32", "[1]", "[4,8]"),
     STATUS_MISSING_TENSOR,
     "/w",
     "or comes whole",
     8,
     {0}},
    {"whole and by rows",
     "w[2,3] b[2]",
     META("rows") ROWS_B PART("w.rows", "U32", "[1]", "[8,12]")
         PART("w.values", "F32", "[1,3]", "[12,24]") PART("w", "F32", "[2,3]", "[24,48]"),
     STATUS_UNKNOWN_TENSOR,
     "/w",
     "came otherwise",
     48,
     {[8] = 1}},
    {"nothing of a tensor",
     "w[2,3] b[2]",
     META("rows") ROWS_B,
     STATUS_MISSING_TENSOR,
     "/w",
     "its .rows and its .values",
     8,
     {0}},
    {"tensors called rows and values, whole",
     "w[2] w.rows[1] w.values[3]",
     META("rows") PART("w", "F32", "[2]", "[0,8]") PART("w.rows", "F32", "[1]", "[8,12]")
         PART("w.values", "F32", "[3]", "[12,24]"),
     STATUS_OK,
     "",
     "",
     24,
     {0}},
    {"the values of one are another",
     "w[2] w.values[1]",
     META("rows") PART("w.rows", "U32", "[1]", "[0,4]") PART("w.values", "F32", "[1]", "[4,8]"),
     STATUS_INVALID_FIELD,
     "/w.values",
     "a part of two tensors",
     8,
     {0}},
};

START_TEST(what_is_wrong_is_told)
{
    const struct wrong *wrong = &wrongs[_i];
    struct layout *layout = tensors_layout(wrong->layout);
    char header[1024];
    unsigned char bytes[2048] = {0};
    struct fault fault = {.where = ""};
    struct tensors out;
    size_t size = (size_t)snprintf(header, sizeof header, "{%s}", wrong->header);

    ck_assert_uint_lt(size, sizeof header);
    bytes[0] = (unsigned char)size;
    bytes[1] = (unsigned char)(size >> 8);
    memcpy(bytes + 8, header, size);
    memcpy(bytes + 8 + size, wrong->data, sizeof wrong->data);
    struct buffer *body = tensors_buffer(bytes, 8 + size + wrong->size);
    enum status status = decode(layout, body, &out, &fault);
    if (status != wrong->status ||
        (status != STATUS_OK &&
         (strcmp(fault.where, wrong->where) != 0 || strstr(fault.detail, wrong->words) == NULL)))
        ck_abort_msg("%s: %s at \"%s\": %s", wrong->name, status_code(status), fault.where,
                     fault.detail);
    if (status == STATUS_OK)
        buffer_release(out.buffer);
    buffer_release(body);
    layout_release(layout);
}
END_TEST

Suite *suite_compressed(void);
Suite *suite_compressed(void)
{
    Suite *suite = suite_create("compressed");
    TCase *all = tcase_create("compressed");
    int codecs = sizeof cases / sizeof *cases;

    tcase_add_loop_test(all, files_decode_to_what_they_say, 0, codecs);
    tcase_add_loop_test(all, files_that_are_cut_are_refused, 0, codecs);
    tcase_add_loop_test(all, what_is_wrong_is_told, 0, sizeof wrongs / sizeof *wrongs);
    suite_add_tcase(suite, all);
    return suite;
}
