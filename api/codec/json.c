/* application/json: {"w": [[0.1, 0.2]], "b": [0]} on the way out; the way in is json_document.h,
 * because there the tensors are a member of a document. */
#include <math.h>
#include <string.h>

#include "api/codec/payload.h"
#include "api/json_numbers.h"
#include "api/json_text.h"

enum {
    CHUNK = 64, /* numbers between two looks at the room left */
    EMPTY_ROWS_MAX =
        65536, /* of a tensor without elements, such as [1000000000, 0]: brackets only */
};

struct writer {
    struct json_text *text;
    const struct tensor *tensor;
    const unsigned char *data; /* of the next element */
    enum dtype dtype;
};

/* NaN and infinity, which JSON does not have, are null. */
static char *write_null(char *out)
{
    memcpy(out, "null", 4);
    return out + 4;
}

static char *write_number(char *out, enum dtype dtype, const void *element)
{
    float single;
    double real;

    if (dtype == DTYPE_F64) {
        memcpy(&real, element, sizeof real);
        return isfinite(real) ? number_write_f64(out, real) : write_null(out);
    }
    if (dtype == DTYPE_F32)
        memcpy(&single, element, sizeof single);
    else
        dtype_convert(DTYPE_F32, &single, dtype, element, 1);
    return isfinite(single) ? number_write_f32(out, single) : write_null(out);
}

/* `count` numbers with commas between them. */
static void write_numbers(struct writer *writer, size_t count)
{
    size_t size = dtype_size(writer->dtype);

    for (size_t i = 0; i < count;) {
        size_t stop = count - i > CHUNK ? i + CHUNK : count;
        char *begin = json_text_reserve(writer->text, CHUNK * (NUMBER_TEXT_BYTES + 1));
        char *end = begin;
        if (begin == NULL)
            return;
        for (; i < stop; i++, writer->data += size) {
            if (i > 0)
                *end++ = ',';
            end = write_number(end, writer->dtype, writer->data);
        }
        writer->text->used += (size_t)(end - begin);
    }
}

static void write_level(struct writer *writer, unsigned depth)
{
    const struct tensor *tensor = writer->tensor;

    json_text_open(writer->text, '[');
    if (depth + 1 == tensor->rank)
        write_numbers(writer, tensor->shape[depth]);
    else
        for (size_t i = 0; i < tensor->shape[depth]; i++)
            write_level(writer, depth + 1);
    json_text_close(writer->text, ']');
}

static void write_tensor(struct writer *writer)
{
    if (writer->tensor->rank > 0) {
        write_level(writer, 0);
        return;
    }
    write_numbers(writer, 1);
    writer->text->comma = true;
}

/* A tensor without elements may still have any number of rows. */
static bool has_too_many_rows(const struct tensor *tensor)
{
    size_t rows = 1;

    if (tensor->count > 0)
        return false;
    for (unsigned i = 0; i < tensor->rank && tensor->shape[i] > 0; i++)
        if (__builtin_mul_overflow(rows, tensor->shape[i], &rows) || rows > EMPTY_ROWS_MAX)
            return true;
    return false;
}

static enum status json_encode(const struct encode_request *request, struct encoded *out,
                               struct fault *fault)
{
    const struct tensors *source = request->tensors;
    struct json_text text;

    *out = (struct encoded){.buffer = NULL};
    json_text_init(&text, request->arena);
    /* About what it will be, so that the text is seldom moved; memory that is not touched costs
     * nothing. */
    json_text_reserve(&text, payload_count(request) * (source->dtype == DTYPE_F64 ? 20 : 12));
    char *room = json_text_reserve(&text, request->opening.size);
    if (room != NULL && request->opening.size > 0) {
        memcpy(room, request->opening.data, request->opening.size);
        text.used += request->opening.size;
    }
    json_text_open(&text, '{');
    for (size_t i = 0; i < payload_tensor_count(request); i++) {
        struct writer writer = {
            .text = &text, .tensor = payload_tensor(request, i), .dtype = source->dtype};
        if (has_too_many_rows(writer.tensor))
            return fault_set(
                fault, STATUS_NOT_ACCEPTABLE, "",
                "the tensor \"%.255s\" has no elements but too many rows for JSON; ask for "
                "a binary media type",
                writer.tensor->name);
        writer.data = source->buffer->data + source->offset +
                      writer.tensor->offset * dtype_size(source->dtype);
        json_text_key(&text, writer.tensor->name);
        write_tensor(&writer);
    }
    json_text_close(&text, '}');
    out->head = json_text_end(&text);
    return out->head.data == NULL ? payload_out_of_memory(fault) : STATUS_OK;
}

const struct codec codec_json = {
    .name = "json",
    .media_type = "application/json",
    .meaning = "an object of nested arrays by tensor name; numbers are exact both ways",
    .binary = false,
    .decode = NULL,
    .encode = json_encode,
};
