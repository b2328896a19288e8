/* Compressed gradients in safetensors: every way to get them wrong, and what is said of it. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "api/codec.h"
#include "tests/lib/tensors.h"

/* On "w[2,3] b[2]", data 0, 1, 2 ... unless given. */

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
    {"unknown codec", "w[2,3] b[2]", META("gzip") INT8_W INT8_B, STATUS_INVALID_FIELD,
     "/__metadata__/codec", "int8, sign, topk, 2bit, 1bit or rows", 14, ""},
    {"no codec at all", "w[2,3] b[2]", META("") INT8_W INT8_B, STATUS_INVALID_FIELD,
     "/__metadata__/codec", "plain", 14, ""},
    {"good int8", "w[2,3] b[2]", META("int8") INT8_W INT8_B, STATUS_OK, "", "", 14, ""},
    {"a tensor is missing", "w[2,3] b[2]", META("int8") INT8_W, STATUS_MISSING_TENSOR, "/b",
     "its values as I8 and its .scale", 10, ""},
    {"a scale is missing", "w[2,3] b[2]", META("int8") INT8_W PART("b", "I8", "[2]", "[10,12]"),
     STATUS_MISSING_TENSOR, "/b.scale", "\"b.scale\" is missing", 12, ""},
    {"one too many", "w[2,3] b[2]", META("int8") INT8_W INT8_B PART("c", "I8", "[1]", "[14,15]"),
     STATUS_UNKNOWN_TENSOR, "/c", "leave it out", 15, ""},
    {"the scale of a scale", "w[2,3] b[2]",
     META("int8") INT8_W INT8_B PART("w.scale.scale", "I8", "[1]", "[14,15]"),
     STATUS_UNKNOWN_TENSOR, "/w.scale.scale", "", 15, ""},
    {"another shape", "w[3,2] b[2]", META("int8") INT8_W INT8_B, STATUS_SHAPE_MISMATCH, "/w",
     "[2, 3]; it must be [3, 2]", 14, ""},
    {"not int8", "w[2,3] b[2]",
     META("int8") PART("w", "U8", "[2,3]", "[0,6]") PART("w.scale", "F32", "[]", "[6,10]") INT8_B,
     STATUS_INVALID_FIELD, "/w", "U8; it must be I8", 14, ""},
    {"a scale of whole numbers", "w[6]",
     META("int8") PART("w", "I8", "[6]", "[0,6]") PART("w.scale", "I32", "[]", "[6,10]"),
     STATUS_INVALID_FIELD, "/w.scale", "I32; it must be F64", 10, ""},
    {"two scales", "w[6]",
     META("int8") PART("w", "I8", "[6]", "[0,6]") PART("w.scale", "F32", "[2]", "[6,14]"),
     STATUS_SHAPE_MISMATCH, "/w.scale", "[2]; it must be [] or [1]", 14, ""},
    {"a tensor called scale", "w[6] w.scale[]",
     META("int8") PART("w", "I8", "[6]", "[0,6]") PART("w.scale", "F32", "[]", "[6,10]"),
     STATUS_INVALID_FIELD, "/w", "another codec", 10, ""},
    {"whole numbers without a codec", "w[6]", "\"__metadata__\":{}" PART("w", "I8", "[6]", "[0,6]"),
     STATUS_INVALID_FIELD, "/w", "send F64, F32, F16 or BF16", 6, ""},
    {"a strange type with one", "w[6]", META("int8") PART("w", "I16", "[6]", "[0,12]"),
     STATUS_INVALID_FIELD, "/w", "or what the codec takes", 12, ""},
    {"a codec that is no text", "w[6]",
     "\"__metadata__\":{\"codec\":8}" PART("w", "I8", "[6]", "[0,6]"), STATUS_INVALID_REQUEST, "",
     "object of strings", 6, ""},
    {"good sign", "w[3,3] b[2]",
     META("sign") PART("w.sign", "U8", "[2]", "[0,2]") PART("w.scale", "BF16", "[]", "[2,4]")
         PART("b.scale", "F16", "[1]", "[4,6]") PART("b.sign", "U8", "[1]", "[6,7]"),
     STATUS_OK, "", "", 7, ""},
    {"too few signs", "w[3,3] b[2]",
     META("sign") PART("w.sign", "U8", "[1]", "[0,1]") PART("w.scale", "F32", "[]", "[1,5]") SIGN_B,
     STATUS_SHAPE_MISMATCH, "/w.sign", "[1]; it must be [2]: 1 byte for every 8 elements", 10, ""},
    {"signs in another shape", "w[2,3] b[2]",
     META("sign") PART("w.sign", "U8", "[]", "[0,1]") PART("w.scale", "F32", "[]", "[1,5]") SIGN_B,
     STATUS_SHAPE_MISMATCH, "/w.sign", "it must be [1]", 10, ""},
    {"signs that are not bytes", "w[2,3]",
     META("sign") PART("w.sign", "I8", "[1]", "[0,1]") PART("w.scale", "F32", "[]", "[1,5]"),
     STATUS_INVALID_FIELD, "/w.sign", "I8; it must be U8", 5, ""},
    {"a plain tensor among signs", "w[2,3]",
     META("sign") PART("w.sign", "U8", "[1]", "[0,1]") PART("w.scale", "F32", "[]", "[1,5]")
         PART("w", "F32", "[2,3]", "[5,29]"),
     STATUS_UNKNOWN_TENSOR, "/w", "came otherwise", 29, ""},
    {"good topk", "w[2,3] b[2]",
     META("topk") TOPK_B PART("w.indices", "U32", "[2]", "[0,8]")
         PART("w.values", "F32", "[2]", "[8,16]"),
     STATUS_OK, "", "", 16, "\1\0\0\0\5"},
    {"an index out of range", "w[2,3] b[2]",
     META("topk") TOPK_B PART("w.indices", "I32", "[2]", "[0,8]")
         PART("w.values", "F32", "[2]", "[8,16]"),
     STATUS_INVALID_FIELD, "/w.indices/1", "it is 6; it must be at least 0 and less than 6", 16,
     "\1\0\0\0\6"},
    {"a negative index", "w[2,3] b[2]",
     META("topk") TOPK_B PART("w.indices", "I32", "[1]", "[0,4]")
         PART("w.values", "F32", "[1]", "[4,8]"),
     STATUS_INVALID_FIELD, "/w.indices/0", "it is -2;", 8, "\xFE\xFF\xFF\xFF"},
    {"a large index", "w[2,3] b[2]",
     META("topk") TOPK_B PART("w.indices", "U64", "[1]", "[0,8]")
         PART("w.values", "F16", "[1]", "[8,10]"),
     STATUS_INVALID_FIELD, "/w.indices/0", "it is 18446744073709551614;", 10,
     "\xFE\xFF\xFF\xFF\xFF\xFF\xFF\xFF"},
    {"an index twice", "w[2,3] b[2]",
     META("topk") TOPK_B PART("w.indices", "U32", "[2]", "[0,8]")
         PART("w.values", "F32", "[2]", "[8,16]"),
     STATUS_INVALID_FIELD, "/w.indices/1",
     "it is 4; they must ascend, each once, and before it stands 4", 16, "\4\0\0\0\4"},
    {"indices out of order", "w[2,3] b[2]",
     META("topk") TOPK_B PART("w.indices", "U32", "[2]", "[0,8]")
         PART("w.values", "F32", "[2]", "[8,16]"),
     STATUS_INVALID_FIELD, "/w.indices/1", "before it stands 4", 16, "\4\0\0\0\2"},
    {"indices of two dimensions", "w[2,3] b[2]",
     META("topk") TOPK_B PART("w.indices", "U32", "[1,2]", "[0,8]")
         PART("w.values", "F32", "[2]", "[8,16]"),
     STATUS_SHAPE_MISMATCH, "/w.indices", "2 dimensions", 16, ""},
    {"indices that are floats", "w[2,3] b[2]",
     META("topk") TOPK_B PART("w.indices", "F32", "[2]", "[0,8]")
         PART("w.values", "F32", "[2]", "[8,16]"),
     STATUS_INVALID_FIELD, "/w.indices", "F32; it must be I32, I64, U32 or U64", 16, ""},
    {"fewer values than indices", "w[2,3] b[2]",
     META("topk") TOPK_B PART("w.indices", "U32", "[2]", "[0,8]")
         PART("w.values", "F32", "[1]", "[8,12]"),
     STATUS_SHAPE_MISMATCH, "/w.values", "it must be [2]: a value for each index", 12,
     "\1\0\0\0\5"},
    {"good 2bit", "w[17]", META("2bit") PART("w", "U8", "[8]", "[0,8]"), STATUS_OK, "", "", 8, ""},
    {"2bit without its padding", "w[17]", META("2bit") PART("w", "U8", "[5]", "[0,5]"),
     STATUS_SHAPE_MISMATCH, "/w", "it must be [8]: 4 bytes for every 16 elements", 5, ""},
    {"a threshold of nothing", "w[17]",
     "\"__metadata__\":{\"codec\":\"2bit\",\"threshold\":\"0\"}" PART("w", "U8", "[8]", "[0,8]"),
     STATUS_INVALID_FIELD, "/__metadata__/threshold", "more than 0", 8, ""},
    {"a threshold that is no number", "w[17]",
     "\"__metadata__\":{\"codec\":\"2bit\",\"threshold\":\"0x1\"}" PART("w", "U8", "[8]", "[0,8]"),
     STATUS_INVALID_FIELD, "/__metadata__/threshold", "", 8, ""},
    {"an endless threshold", "w[17]",
     "\"__metadata__\":{\"codec\":\"2bit\",\"threshold\":\"1e999\"}" PART("w", "U8", "[8]",
                                                                          "[0,8]"),
     STATUS_INVALID_FIELD, "/__metadata__/threshold", "", 8, ""},
    {"an empty threshold", "w[17]",
     "\"__metadata__\":{\"codec\":\"2bit\",\"threshold\":\"\"}" PART("w", "U8", "[8]", "[0,8]"),
     STATUS_INVALID_FIELD, "/__metadata__/threshold", "", 8, ""},
    {"a tensor called threshold", "w[17] w.threshold[3]",
     META("2bit") PART("w", "U8", "[8]", "[0,8]") PART("w.threshold", "U8", "[4]", "[8,12]"),
     STATUS_OK, "", "", 12, ""},
    {"good 1bit", "w[33]", META("1bit") PART("w", "U8", "[8]", "[0,8]"), STATUS_OK, "", "", 8, ""},
    {"1bit of another length", "w[33]", META("1bit") PART("w", "U8", "[5]", "[0,5]"),
     STATUS_SHAPE_MISMATCH, "/w", "4 bytes for every 32 elements", 5, ""},
    {"good rows", "w[2,3] b[2]",
     META("rows") ROWS_B PART("w.rows", "U32", "[1]", "[8,12]")
         PART("w.values", "F32", "[1,3]", "[12,24]"),
     STATUS_OK, "", "", 24, "\0\0\0\0\0\0\0\0\1"},
    {"a row beyond the last", "w[2,3] b[2]",
     META("rows") ROWS_B PART("w.rows", "U32", "[1]", "[8,12]")
         PART("w.values", "F32", "[1,3]", "[12,24]"),
     STATUS_INVALID_FIELD, "/w.rows/0", "it is 2; it must be at least 0 and less than 2", 24,
     "\0\0\0\0\0\0\0\0\2"},
    {"rows of another length", "w[2,3] b[2]",
     META("rows") ROWS_B PART("w.rows", "U32", "[1]", "[8,12]")
         PART("w.values", "F32", "[1,2]", "[12,20]"),
     STATUS_SHAPE_MISMATCH, "/w.values", "it must be [1, 3]: a row for each of .rows", 20, ""},
    {"rows without values", "w[2,3] b[2]",
     META("rows") ROWS_B PART("w.rows", "U32", "[1]", "[8,12]"), STATUS_MISSING_TENSOR, "/w.values",
     "", 12, ""},
    {"rows that are floats", "w[2,3] b[2]",
     META("rows") ROWS_B PART("w.rows", "F32", "[1]", "[8,12]")
         PART("w.values", "F32", "[1,3]", "[12,24]"),
     STATUS_INVALID_FIELD, "/w.rows", "it must be I32", 24, ""},
    {"rows of a scalar", "w[]",
     META("rows") PART("w.rows", "U32", "[1]", "[0,4]") PART("w.values", "F32", "[1]", "[4,8]"),
     STATUS_MISSING_TENSOR, "/w", "or comes whole", 8, ""},
    {"whole and by rows", "w[2,3] b[2]",
     META("rows") ROWS_B PART("w.rows", "U32", "[1]", "[8,12]")
         PART("w.values", "F32", "[1,3]", "[12,24]") PART("w", "F32", "[2,3]", "[24,48]"),
     STATUS_UNKNOWN_TENSOR, "/w", "came otherwise", 48, "\0\0\0\0\0\0\0\0\1"},
    {"nothing of a tensor", "w[2,3] b[2]", META("rows") ROWS_B, STATUS_MISSING_TENSOR, "/w",
     "its .rows and its .values", 8, ""},
    {"tensors called rows and values, whole", "w[2] w.rows[1] w.values[3]",
     META("rows") PART("w", "F32", "[2]", "[0,8]") PART("w.rows", "F32", "[1]", "[8,12]")
         PART("w.values", "F32", "[3]", "[12,24]"),
     STATUS_OK, "", "", 24, ""},
    {"the values of one are another", "w[2] w.values[1]",
     META("rows") PART("w.rows", "U32", "[1]", "[0,4]") PART("w.values", "F32", "[1]", "[4,8]"),
     STATUS_INVALID_FIELD, "/w.values", "a part of two tensors", 8, ""},
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
    enum status status =
        codec_find("application/vnd.safetensors")->decode(layout, DTYPE_F32, body, &out, &fault);
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

Suite *suite_compressed_refused(void);
Suite *suite_compressed_refused(void)
{
    Suite *suite = suite_create("compressed_refused");
    TCase *all = tcase_create("compressed, refused");

    tcase_add_loop_test(all, what_is_wrong_is_told, 0, sizeof wrongs / sizeof *wrongs);
    suite_add_tcase(suite, all);
    return suite;
}
