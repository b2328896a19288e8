/* application/octet-stream: the elements and nothing else. */
#include <stdio.h>

#include "api/codec/payload.h"

/* A hint where the length fits another dtype than the one that was asked for. */
static const char *other_dtype(size_t count, size_t size, char *out, size_t out_size)
{
    out[0] = '\0';
    for (int i = 0; i < DTYPE_COUNT; i++)
        if (size == count * dtype_size((enum dtype)i)) {
            snprintf(out, out_size, " (it would fit ?dtype=%s)", dtype_name((enum dtype)i));
            break;
        }
    return out;
}

static enum status raw_decode(const struct layout *layout, enum dtype dtype, struct buffer *body,
                              struct tensors *out, struct fault *fault)
{
    size_t needed = layout->count * dtype_size(dtype);
    char hint[48];

    if (body->size != needed)
        return fault_set(fault, STATUS_LENGTH_MISMATCH, "",
                         "the body has %zu bytes; %zu are needed, %zu elements of %s%s", body->size,
                         needed, layout->count, dtype_name(dtype),
                         other_dtype(layout->count, body->size, hint, sizeof hint));
    *out = (struct tensors){.buffer = buffer_retain(body), .dtype = dtype};
    return STATUS_OK;
}

static enum status raw_decode_pair(const struct layout *layout, enum dtype dtype,
                                   struct buffer *body, struct tensors out[2], struct fault *fault)
{
    size_t needed = layout->count * dtype_size(dtype);
    char hint[48];

    if (body->size != 2 * needed)
        return fault_set(fault, STATUS_LENGTH_MISMATCH, "",
                         "the body has %zu bytes; with ?snapshot= %zu are needed, twice %zu "
                         "elements of %s: the gradients, then those at the snapshot's weights%s",
                         body->size, 2 * needed, layout->count, dtype_name(dtype),
                         other_dtype(2 * layout->count, body->size, hint, sizeof hint));
    out[0] = (struct tensors){.buffer = buffer_retain(body), .dtype = dtype};
    out[1] = (struct tensors){.buffer = buffer_retain(body), .offset = needed, .dtype = dtype};
    return STATUS_OK;
}

static enum status raw_encode(const struct encode_request *request, struct encoded *out,
                              struct fault *fault)
{
    out->head = span_of(NULL, 0);
    return payload_encode(request, out, fault);
}

const struct codec codec_raw = {
    .name = "raw",
    .media_type = "application/octet-stream",
    .meaning = "all tensors in layout order, little-endian, C order, no header; ?dtype= names the "
               "element type",
    .binary = true,
    .decode = raw_decode,
    .decode_pair = raw_decode_pair,
    .encode = raw_encode,
};
