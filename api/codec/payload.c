/* What the binary codecs share. */
#include "api/codec/payload.h"

#include <stdio.h>
#include <string.h>

const struct tensor *payload_tensor(const struct encode_request *request, size_t index)
{
    return request->chosen != NULL ? request->chosen[index] : &request->layout->tensors[index];
}

size_t payload_tensor_count(const struct encode_request *request)
{
    return request->chosen != NULL ? request->chosen_count : request->layout->tensor_count;
}

size_t payload_count(const struct encode_request *request)
{
    size_t count = 0;

    for (size_t i = 0; i < payload_tensor_count(request); i++)
        count += payload_tensor(request, i)->count;
    return count;
}

/* Whether the tensors stand one after another in the source; *first: element where they begin. */
static bool is_one_run(const struct encode_request *request, size_t *first)
{
    size_t next = 0;
    bool begun = false;

    *first = 0;
    for (size_t i = 0; i < payload_tensor_count(request); i++) {
        const struct tensor *tensor = payload_tensor(request, i);
        if (tensor->count == 0)
            continue;
        if (!begun)
            *first = tensor->offset;
        else if (tensor->offset != next)
            return false;
        begun = true;
        next = tensor->offset + tensor->count;
    }
    return true;
}

enum status payload_encode(const struct encode_request *request, struct encoded *out,
                           struct fault *fault)
{
    const struct tensors *source = request->tensors;
    const unsigned char *data = source->buffer->data + source->offset;
    size_t from = dtype_size(source->dtype), to = dtype_size(request->dtype);
    size_t size = payload_count(request) * to;
    size_t first, used = 0;

    out->buffer = NULL;
    out->offset = 0;
    out->size = size;
    if (size == 0)
        return STATUS_OK;
    if (request->dtype == source->dtype && is_one_run(request, &first)) {
        out->buffer = buffer_retain(source->buffer);
        out->offset = source->offset + first * from;
        return STATUS_OK;
    }
    out->buffer = buffer_new(size);
    if (out->buffer == NULL)
        return payload_out_of_memory(fault);
    for (size_t i = 0; i < payload_tensor_count(request); i++) {
        const struct tensor *tensor = payload_tensor(request, i);
        dtype_convert(request->dtype, out->buffer->data + used, source->dtype,
                      data + tensor->offset * from, tensor->count);
        used += tensor->count * to;
    }
    return STATUS_OK;
}

/* f16 and bf16 need f32: neither holds the other. */
enum dtype payload_wider(enum dtype a, enum dtype b)
{
    if (a == b)
        return a;
    return a == DTYPE_F64 || b == DTYPE_F64 ? DTYPE_F64 : DTYPE_F32;
}

char *payload_where(char out[PAYLOAD_WHERE_BYTES], const char *tensor_name)
{
    out[0] = '/';
    pointer_escape(out + 1, PAYLOAD_WHERE_BYTES - 1, tensor_name);
    return out;
}

char *payload_label(char out[PAYLOAD_LABEL_BYTES], const char *name)
{
    size_t size = strlen(name);

    if (size >= PAYLOAD_LABEL_BYTES) {
        size = PAYLOAD_LABEL_BYTES - 1;
        while (size > 0 && ((unsigned char)name[size] & 0xC0) == 0x80)
            size--;
    }
    memcpy(out, name, size);
    out[size] = '\0';
    return out;
}

enum status payload_out_of_memory(struct fault *fault)
{
    return fault_set(fault, STATUS_INTERNAL, "", "no memory left for the tensors");
}

enum status payload_shape_fault(const struct tensor *tensor, unsigned rank, const size_t *shape,
                                struct fault *fault)
{
    char where[PAYLOAD_WHERE_BYTES], given[128], wanted[128];

    return fault_set(fault, STATUS_SHAPE_MISMATCH, payload_where(where, tensor->name),
                     "the shape is %s; it must be %s",
                     shape_format(given, sizeof given, rank, shape),
                     shape_format(wanted, sizeof wanted, tensor->rank, tensor->shape));
}
