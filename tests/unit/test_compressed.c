/* Compressed gradients in safetensors: what they decode to against plain loops over the file's
 * parts. */
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

Suite *suite_compressed(void);
Suite *suite_compressed(void)
{
    Suite *suite = suite_create("compressed");
    TCase *all = tcase_create("compressed");
    int codecs = sizeof cases / sizeof *cases;

    tcase_add_loop_test(all, files_decode_to_what_they_say, 0, codecs);
    tcase_add_loop_test(all, files_that_are_cut_are_refused, 0, codecs);
    suite_add_tcase(suite, all);
    return suite;
}
