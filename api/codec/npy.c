/* application/x-npy: one array in NumPy's format (numpy.lib.format, versions 1.0, 2.0, 3.0).
 *
 *   \x93NUMPY | major | minor | header length (u16 or, from 2.0 on, u32, little-endian) | header |
 * data
 *
 * The header is a Python dict literal with exactly descr, fortran_order and shape, spaces and a
 * newline. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "api/codec/payload.h"

enum {
    MAGIC_BYTES = 6,
    ALIGNMENT = 64,          /* of the data, as numpy writes it */
    GROWTH_DIGITS = 21,      /* numpy leaves room for the first dimension to grow */
    HEADER_TEXT_BYTES = 512, /* the longest header that we write: 8 dimensions of 20 digits */
};
static const char magic[MAGIC_BYTES + 1] = "\x93NUMPY";

struct header {
    enum dtype dtype;
    bool fortran;
    unsigned rank;
    size_t shape[LAYOUT_RANK_MAX];
    size_t data_begin; /* bytes */
};

struct cursor {
    const unsigned char *begin, *at, *end; /* begin: of the file */
};

static enum status malformed(const struct cursor *cursor, const char *words, struct fault *fault)
{
    return fault_set(fault, STATUS_INVALID_REQUEST, "", "byte %zu of the npy file: %s",
                     (size_t)(cursor->at - cursor->begin), words);
}

static void skip_spaces(struct cursor *cursor)
{
    while (cursor->at < cursor->end && *cursor->at == ' ')
        cursor->at++;
}

static bool take(struct cursor *cursor, const char *text)
{
    size_t size = strlen(text);

    skip_spaces(cursor);
    if ((size_t)(cursor->end - cursor->at) < size || memcmp(cursor->at, text, size) != 0)
        return false;
    cursor->at += size;
    return true;
}

/* A string literal without escapes, in either quotes. */
static bool take_string(struct cursor *cursor, struct span *out)
{
    skip_spaces(cursor);
    if (cursor->at == cursor->end || (*cursor->at != '\'' && *cursor->at != '"'))
        return false;
    const unsigned char *begin = cursor->at + 1;
    const unsigned char *end = memchr(begin, *cursor->at, (size_t)(cursor->end - begin));
    if (end == NULL || memchr(begin, '\\', (size_t)(end - begin)) != NULL)
        return false;
    *out = span_of(begin, (size_t)(end - begin));
    cursor->at = end + 1;
    return true;
}

static bool take_size(struct cursor *cursor, size_t *out)
{
    const unsigned char *begin;

    skip_spaces(cursor);
    *out = 0;
    for (begin = cursor->at; cursor->at < cursor->end && *cursor->at >= '0' && *cursor->at <= '9';
         cursor->at++)
        if (__builtin_mul_overflow(*out, (size_t)10, out) ||
            __builtin_add_overflow(*out, (size_t)(*cursor->at - '0'), out))
            return false;
    return cursor->at > begin && (*begin != '0' || cursor->at == begin + 1);
}

/* (), (3,) or (3, 4), a last comma allowed. */
static enum status take_shape(struct cursor *cursor, struct header *header, struct fault *fault)
{
    bool comma = false;

    if (!take(cursor, "("))
        return malformed(cursor, "a tuple was expected for shape, such as (3, 4)", fault);
    while (!take(cursor, ")")) {
        if (header->rank > 0 && !comma)
            return malformed(cursor, "a comma or ) was expected in shape", fault);
        if (header->rank == LAYOUT_RANK_MAX)
            return malformed(cursor, "an array has at most 8 dimensions here", fault);
        if (!take_size(cursor, &header->shape[header->rank]))
            return malformed(cursor, "a whole number was expected in shape", fault);
        header->rank++;
        comma = take(cursor, ",");
    }
    if (header->rank == 1 && !comma)
        return malformed(cursor, "a tuple of one number needs a comma: (3,)", fault);
    return STATUS_OK;
}

static enum status take_descr(struct cursor *cursor, struct header *header, struct fault *fault)
{
    struct span descr;

    if (!take_string(cursor, &descr))
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "the npy file has structured elements; send '<f8', '<f4' or '<f2'");
    for (int i = 0; i < DTYPE_COUNT; i++) {
        const char *name = dtype_npy_descr((enum dtype)i);
        if (name != NULL && strlen(name) == descr.size &&
            memcmp(name, descr.data, descr.size) == 0) {
            header->dtype = (enum dtype)i;
            return STATUS_OK;
        }
    }
    return fault_set(
        fault, STATUS_INVALID_FIELD, "",
        "the elements of this npy file cannot be read; send '<f8', '<f4' or '<f2', for "
        "instance array.astype('<f4')");
}

static enum status take_member(struct cursor *cursor, struct header *header, unsigned *seen,
                               struct fault *fault)
{
    static const char *const names[] = {"descr", "fortran_order", "shape"};
    struct span key;
    unsigned which = 0;

    if (!take_string(cursor, &key))
        return malformed(cursor, "a key in quotes was expected", fault);
    while (which < 3 &&
           (strlen(names[which]) != key.size || memcmp(names[which], key.data, key.size) != 0))
        which++;
    if (which == 3 || (*seen & 1u << which) != 0)
        return malformed(cursor,
                         "the header must have descr, fortran_order and shape, once each, and "
                         "nothing else",
                         fault);
    *seen |= 1u << which;
    if (!take(cursor, ":"))
        return malformed(cursor, "a colon was expected after the key", fault);
    if (which == 0)
        return take_descr(cursor, header, fault);
    if (which == 2)
        return take_shape(cursor, header, fault);
    header->fortran = take(cursor, "True");
    if (!header->fortran && !take(cursor, "False"))
        return malformed(cursor, "True or False was expected", fault);
    return STATUS_OK;
}

static enum status take_dict(struct cursor *cursor, struct header *header, struct fault *fault)
{
    unsigned seen = 0;
    bool comma = true;

    if (!take(cursor, "{"))
        return malformed(cursor, "the header must begin with {", fault);
    while (!take(cursor, "}")) {
        if (!comma)
            return malformed(cursor, "a comma or } was expected", fault);
        enum status status = take_member(cursor, header, &seen, fault);
        if (status != STATUS_OK)
            return status;
        comma = take(cursor, ",");
    }
    if (seen != 7)
        return malformed(cursor, "the header lacks descr, fortran_order or shape", fault);
    if (!take(cursor, "\n") || cursor->at != cursor->end)
        return malformed(cursor, "after } only spaces and one newline may follow", fault);
    if (header->fortran && header->rank > 1)
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "the array is in Fortran order; send numpy.ascontiguousarray(array)");
    return STATUS_OK;
}

static enum status read_header(struct span file, struct header *header, struct fault *fault)
{
    struct cursor cursor = {.begin = file.data, .at = file.data, .end = file.data + file.size};

    *header = (struct header){.rank = 0};
    if (file.size < MAGIC_BYTES || memcmp(file.data, magic, MAGIC_BYTES) != 0)
        return malformed(&cursor, "an npy file begins with \\x93NUMPY", fault);
    cursor.at += MAGIC_BYTES;
    if (file.size < MAGIC_BYTES + 2 || file.data[6] < 1 || file.data[6] > 3 || file.data[7] != 0)
        return malformed(&cursor, "the version must be 1.0, 2.0 or 3.0", fault);
    cursor.at += 2;
    size_t prefix = file.data[6] == 1 ? 10 : 12;
    if (file.size < prefix)
        return malformed(&cursor, "the file ends in the length of its header", fault);
    size_t length = 0;
    for (size_t i = prefix; i > 8; i--)
        length = length << 8 | file.data[i - 1];
    if (length > file.size - prefix)
        return malformed(&cursor, "the header is longer than the file", fault);
    cursor.at = file.data + prefix;
    cursor.end = cursor.at + length;
    header->data_begin = prefix + length;
    return take_dict(&cursor, header, fault);
}

/* The array must be the only tensor with its shape, or all parameters in one dimension. */
static enum status check_shape(const struct layout *layout, const struct header *header,
                               struct fault *fault)
{
    const struct tensor *only = &layout->tensors[0];
    char given[128];

    if (header->rank == 1 && header->shape[0] == layout->count)
        return STATUS_OK;
    if (layout->tensor_count == 1) {
        if (header->rank == only->rank &&
            memcmp(header->shape, only->shape, only->rank * sizeof *only->shape) == 0)
            return STATUS_OK;
        return payload_shape_fault(only, header->rank, header->shape, fault);
    }
    return fault_set(fault, STATUS_SHAPE_MISMATCH, "",
                     "the array has the shape %s; a session of %zu tensors takes npy only as one "
                     "dimension of all its parameters, [%zu]",
                     shape_format(given, sizeof given, header->rank, header->shape),
                     layout->tensor_count, layout->count);
}

static enum status npy_decode(const struct layout *layout, enum dtype dtype, struct buffer *body,
                              struct tensors *out, struct fault *fault)
{
    struct header header;
    enum status status = read_header(span_of(body->data, body->size), &header, fault);

    (void)dtype; /* the file says it */
    if (status == STATUS_OK)
        status = check_shape(layout, &header, fault);
    if (status != STATUS_OK)
        return status;
    size_t size = layout->count * dtype_size(header.dtype), given = body->size - header.data_begin;
    if (given != size)
        return fault_set(
            fault, STATUS_LENGTH_MISMATCH, "",
            "%zu bytes follow the header of the npy file; %zu are needed, %zu elements "
            "of %s",
            given, size, layout->count, dtype_name(header.dtype));
    *out = (struct tensors){.dtype = header.dtype};
    if (header.data_begin % dtype_size(header.dtype) == 0) {
        out->buffer = buffer_retain(body);
        out->offset = header.data_begin;
        return STATUS_OK;
    }
    out->buffer = buffer_new(size);
    if (out->buffer == NULL)
        return payload_out_of_memory(fault);
    memcpy(out->buffer->data, body->data + header.data_begin, size);
    return STATUS_OK;
}

/* "(3, 4)" as Python writes tuples; returns the number of characters. */
static size_t write_shape(char *out, size_t size, unsigned rank, const size_t *shape)
{
    size_t used = (size_t)snprintf(out, size, "(");

    for (unsigned i = 0; i < rank; i++)
        used += (size_t)snprintf(out + used, size - used, i == 0 ? "%zu" : ", %zu", shape[i]);
    return used + (size_t)snprintf(out + used, size - used, rank == 1 ? ",)" : ")");
}

static enum status npy_encode(const struct encode_request *request, struct encoded *out,
                              struct fault *fault)
{
    const char *descr = dtype_npy_descr(request->dtype);
    size_t tensors = payload_tensor_count(request), all = payload_count(request);
    const struct tensor *only = tensors == 1 ? payload_tensor(request, 0) : NULL;
    unsigned rank = only != NULL ? only->rank : 1;
    const size_t *shape = only != NULL ? only->shape : &all;
    char shape_text[HEADER_TEXT_BYTES / 2], text[HEADER_TEXT_BYTES];

    if (descr == NULL)
        return fault_set(fault, STATUS_NOT_ACCEPTABLE, "",
                         "npy has no %s; ask for another ?dtype= or media type",
                         dtype_name(request->dtype));
    if (request->chosen != NULL && tensors != 1)
        return fault_set(fault, STATUS_NOT_ACCEPTABLE, "",
                         "an npy file holds one array; ask for one tensor, for all of them, or for "
                         "safetensors");
    write_shape(shape_text, sizeof shape_text, rank, shape);
    size_t used = (size_t)snprintf(text, sizeof text,
                                   "{'descr': '%s', 'fortran_order': False, 'shape': %s, }", descr,
                                   shape_text);
    if (rank > 0)
        used += GROWTH_DIGITS - (size_t)snprintf(NULL, 0, "%zu", shape[0]);
    size_t padded = (10 + used + 1) / ALIGNMENT * ALIGNMENT + ALIGNMENT; /* always some, as numpy */
    unsigned char *head = arena_take(request->arena, padded);
    if (head == NULL)
        return payload_out_of_memory(fault);
    memset(head, ' ', padded);
    memcpy(head, magic, MAGIC_BYTES);
    head[6] = 1;
    head[7] = 0;
    head[8] = (unsigned char)((padded - 10) & 0xFF);
    head[9] = (unsigned char)((padded - 10) >> 8);
    memcpy(head + 10, text, strlen(text));
    head[padded - 1] = '\n';
    out->head = span_of(head, padded);
    return payload_encode(request, out, fault);
}

const struct codec codec_npy = {
    .name = "npy",
    .media_type = "application/x-npy",
    .meaning = "one NumPy array: the only tensor, or all parameters in one dimension; '<f8', '<f4' "
               "or '<f2'",
    .binary = true,
    .decode = npy_decode,
    .encode = npy_encode,
};
