/* application/vnd.safetensors. Metadata is read into strings, tensors by name; the format is in
 * safetensors_header.h. */
#include <string.h>

#include "api/codec/compressed.h"
#include "api/codec/payload.h"
#include "api/codec/safetensors_header.h"
#include "api/json_text.h"

/* Copies and converts: entry i to its place among the elements of `to`. */
static enum status gather(const struct safetensors_header *header, const struct buffer *body,
                          const size_t *offsets, size_t count, enum dtype dtype,
                          struct tensors *out, struct fault *fault)
{
    size_t size = dtype_size(dtype);
    struct buffer *buffer = buffer_new(count * size);

    if (buffer == NULL)
        return payload_out_of_memory(fault);
    for (size_t i = 0; i < header->entry_count; i++) {
        const struct safetensors_entry *entry = &header->entries[i];
        if (entry->count > 0)
            dtype_convert(dtype, buffer->data + offsets[i] * size, entry->dtype,
                          body->data + header->data_begin + entry->begin, entry->count);
    }
    *out = (struct tensors){.buffer = buffer, .dtype = dtype};
    return STATUS_OK;
}

/* The data as it stands in the body, or gathered where order, dtype or alignment do not fit.
 * offsets[i]: the element of the vector where entry i begins. */
static enum status take_data(const struct safetensors_header *header, struct buffer *body,
                             const size_t *offsets, size_t count, enum dtype dtype,
                             struct tensors *out, struct fault *fault)
{
    size_t base = SIZE_MAX; /* where the vector begins, if it stands there */
    bool in_place = true;

    for (size_t i = 0; i < header->entry_count; i++)
        if (header->entries[i].count > 0 && header->entries[i].begin < base)
            base = header->entries[i].begin;
    base = base == SIZE_MAX ? 0 : base;
    for (size_t i = 0; i < header->entry_count && in_place; i++) {
        const struct safetensors_entry *entry = &header->entries[i];
        in_place = entry->dtype == dtype &&
                   (entry->count == 0 || entry->begin == base + offsets[i] * dtype_size(dtype));
    }
    base += header->data_begin;
    if (!in_place || base % dtype_size(dtype) != 0)
        return gather(header, body, offsets, count, dtype, out, fault);
    *out = (struct tensors){.buffer = buffer_retain(body), .offset = base, .dtype = dtype};
    return STATUS_OK;
}

static enum status unknown_fault(const char *name, struct fault *fault)
{
    char where[PAYLOAD_WHERE_BYTES];

    return fault_set(fault, STATUS_UNKNOWN_TENSOR, payload_where(where, name),
                     "the layout has no tensor of this name; leave it out");
}

/* Checks the entries against the layout: names, shapes, none missing. Names are unique on both
 * sides, so that as many known entries as tensors are all of them. */
static enum status match(struct arena *arena, const struct safetensors_header *header,
                         const struct layout *layout, size_t *offsets, enum dtype *dtype,
                         struct fault *fault)
{
    char where[PAYLOAD_WHERE_BYTES];
    bool *seen = arena_take(arena, layout->tensor_count * sizeof *seen);

    if (seen == NULL)
        return payload_out_of_memory(fault);
    memset(seen, 0, layout->tensor_count * sizeof *seen);
    for (size_t i = 0; i < header->entry_count; i++) {
        const struct safetensors_entry *entry = &header->entries[i];
        const struct tensor *tensor = layout_find(layout, entry->name, strlen(entry->name));
        if (tensor == NULL)
            return unknown_fault(entry->name, fault);
        if (entry->rank != tensor->rank ||
            memcmp(entry->shape, tensor->shape, tensor->rank * sizeof *tensor->shape) != 0)
            return payload_shape_fault(tensor, entry->rank, entry->shape, fault);
        offsets[i] = tensor->offset;
        seen[tensor - layout->tensors] = true;
        *dtype = i == 0 ? entry->dtype : payload_wider(*dtype, entry->dtype);
    }
    for (size_t i = 0; i < layout->tensor_count; i++)
        if (!seen[i])
            return fault_set(fault, STATUS_MISSING_TENSOR,
                             payload_where(where, layout->tensors[i].name),
                             "the tensor \"%.255s\" is missing; every tensor of the layout must be "
                             "sent",
                             layout->tensors[i].name);
    return STATUS_OK;
}

static enum status decode_plain(struct arena *arena, const struct safetensors_header *header,
                                const struct layout *layout, enum dtype dtype, struct buffer *body,
                                struct tensors *out, struct fault *fault)
{
    size_t *offsets = arena_take(arena, header->entry_count * sizeof *offsets);
    enum status status = offsets == NULL ? payload_out_of_memory(fault)
                                         : match(arena, header, layout, offsets, &dtype, fault);

    return status == STATUS_OK ? take_data(header, body, offsets, layout->count, dtype, out, fault)
                               : status;
}

static enum status safetensors_decode(const struct layout *layout, enum dtype dtype,
                                      struct buffer *body, struct tensors *out, struct fault *fault)
{
    struct arena arena;
    struct safetensors_header header;

    arena_init(&arena);
    enum status status =
        safetensors_header_read(&arena, span_of(body->data, body->size), true, &header, fault);
    if (status == STATUS_OK) {
        status = header.codec != NULL
                     ? compressed_decode(&arena, &header, layout, body, out, fault)
                     : decode_plain(&arena, &header, layout, dtype, body, out, fault);
        safetensors_header_close(&header);
    }
    arena_close(&arena);
    return status;
}

/* --- pairs --- */

#define PAIR_PREFIX "snapshot/"
enum { PAIR_PREFIX_BYTES = sizeof PAIR_PREFIX - 1 };

/* The entries of the gradients, and of those at the snapshot under the names that they have in the
 * layout. */
static enum status split_pair(struct arena *arena, const struct safetensors_header *header,
                              const struct layout *layout, struct safetensors_header out[2],
                              struct fault *fault)
{
    for (size_t i = 0; i < layout->tensor_count; i++)
        if (strncmp(layout->tensors[i].name, PAIR_PREFIX, PAIR_PREFIX_BYTES) == 0)
            return fault_set(fault, STATUS_INVALID_FIELD, "",
                             "this model has a tensor \"%.200s\" of its own, so names cannot tell "
                             "what is of a snapshot; send pairs as JSON or octet-stream",
                             layout->tensors[i].name);
    for (size_t half = 0; half < 2; half++) {
        out[half] = *header;
        out[half].entry_count = 0;
        out[half].entries = arena_take(arena, header->entry_count * sizeof *header->entries);
        if (out[half].entries == NULL)
            return payload_out_of_memory(fault);
    }
    for (size_t i = 0; i < header->entry_count; i++) {
        struct safetensors_entry entry = header->entries[i];
        bool of_snapshot = strncmp(entry.name, PAIR_PREFIX, PAIR_PREFIX_BYTES) == 0;
        entry.name += of_snapshot ? PAIR_PREFIX_BYTES : 0;
        out[of_snapshot].entries[out[of_snapshot].entry_count++] = entry;
    }
    return STATUS_OK;
}

static enum status decode_halves(struct arena *arena, const struct safetensors_header *header,
                                 const struct layout *layout, struct buffer *body,
                                 struct tensors out[2], struct fault *fault)
{
    static const char *const members[2] = {"/gradients", "/snapshot_gradients"};
    struct safetensors_header halves[2];
    enum dtype dtypes[2] = {DTYPE_F64, DTYPE_F64}; /* without tensors either is as good */
    size_t *offsets[2];
    enum status status = split_pair(arena, header, layout, halves, fault);

    for (size_t half = 0; half < 2 && status == STATUS_OK; half++) {
        offsets[half] = arena_take(arena, header->entry_count * sizeof **offsets);
        status = offsets[half] == NULL
                     ? payload_out_of_memory(fault)
                     : match(arena, &halves[half], layout, offsets[half], &dtypes[half], fault);
        if (status != STATUS_OK && fault->where[0] == '/')
            fault_prefix(fault, members[half]);
    }
    for (size_t half = 0; half < 2 && status == STATUS_OK; half++) {
        status = take_data(&halves[half], body, offsets[half], layout->count,
                           payload_wider(dtypes[0], dtypes[1]), &out[half], fault);
        if (status != STATUS_OK && half == 1)
            buffer_release(out[0].buffer);
    }
    return status;
}

static enum status safetensors_decode_pair(const struct layout *layout, enum dtype dtype,
                                           struct buffer *body, struct tensors out[2],
                                           struct fault *fault)
{
    struct arena arena;
    struct safetensors_header header;

    (void)dtype; /* the tensors say theirs */
    arena_init(&arena);
    enum status status =
        safetensors_header_read(&arena, span_of(body->data, body->size), true, &header, fault);
    if (status == STATUS_OK) {
        status = header.codec != NULL
                     ? fault_set(fault, STATUS_INVALID_FIELD, "/__metadata__/codec",
                                 "compressed gradients cannot be corrected by a snapshot: what "
                                 "compression leaves out is larger than what the two differ by; "
                                 "send both plain, without __metadata__.codec")
                     : decode_halves(&arena, &header, layout, body, out, fault);
        safetensors_header_close(&header);
    }
    arena_close(&arena);
    return status;
}

static void write_header(struct json_text *text, const struct encode_request *request)
{
    size_t begin = 0;

    json_text_open(text, '{');
    if (request->metadata_count > 0) {
        json_text_key(text, "__metadata__");
        json_text_open(text, '{');
        for (size_t i = 0; i < request->metadata_count; i++) {
            json_text_key(text, request->metadata[i].name);
            json_text_string(text, request->metadata[i].value);
        }
        json_text_close(text, '}');
    }
    for (size_t i = 0; i < payload_tensor_count(request); i++) {
        const struct tensor *tensor = payload_tensor(request, i);
        size_t end = begin + tensor->count * dtype_size(request->dtype);
        json_text_key(text, tensor->name);
        json_text_open(text, '{');
        json_text_key(text, "dtype");
        json_text_string(text, dtype_safetensors_name(request->dtype));
        json_text_key(text, "shape");
        json_text_open(text, '[');
        for (unsigned k = 0; k < tensor->rank; k++)
            json_text_u64(text, tensor->shape[k]);
        json_text_close(text, ']');
        json_text_key(text, "data_offsets");
        json_text_open(text, '[');
        json_text_u64(text, begin);
        json_text_u64(text, end);
        json_text_close(text, ']');
        json_text_close(text, '}');
        begin = end;
    }
    json_text_close(text, '}');
}

static enum status safetensors_encode(const struct encode_request *request, struct encoded *out,
                                      struct fault *fault)
{
    struct json_text text;
    struct span json;

    json_text_init(&text, request->arena);
    write_header(&text, request);
    json = json_text_end(&text);
    /* The data begins at a multiple of 8, so that readers may map it. */
    size_t length = (json.size + 7) / 8 * 8;
    unsigned char *head = json.data != NULL ? arena_take(request->arena, 8 + length) : NULL;
    if (head == NULL)
        return payload_out_of_memory(fault);
    for (unsigned i = 0; i < 8; i++)
        head[i] = (unsigned char)((uint64_t)length >> (8 * i));
    memcpy(head + 8, json.data, json.size);
    memset(head + 8 + json.size, ' ', length - json.size);
    out->head = span_of(head, 8 + length);
    return payload_encode(request, out, fault);
}

/* The metadata, copied: the document goes away. */
static enum status copy_metadata(struct arena *arena, const json_t *metadata,
                                 struct text_pair **pairs, size_t *count, struct fault *fault)
{
    const char *key;
    json_t *value;

    *count = 0;
    *pairs = arena_take(arena, json_object_size(metadata) * sizeof **pairs);
    if (*pairs == NULL)
        return payload_out_of_memory(fault);
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value)
    {
        struct text_pair *pair = &(*pairs)[(*count)++];
        pair->name = arena_copy(arena, key, strlen(key));
        pair->value = arena_copy(arena, json_string_value(value), json_string_length(value));
        if (pair->name == NULL || pair->value == NULL)
            return payload_out_of_memory(fault);
    }
    return STATUS_OK;
}

static enum status make_layout(const struct safetensors_header *header, struct layout **layout,
                               struct fault *fault)
{
    enum status status = STATUS_OK;

    *layout = layout_new();
    if (*layout == NULL)
        return payload_out_of_memory(fault);
    for (size_t i = 0; i < header->entry_count && status == STATUS_OK; i++) {
        const struct safetensors_entry *entry = &header->entries[i];
        status =
            layout_add(*layout, entry->name, strlen(entry->name), entry->rank, entry->shape, fault);
    }
    if (status == STATUS_OK)
        status = layout_seal(*layout, fault);
    return status;
}

enum status safetensors_open(struct arena *arena, struct buffer *body, enum dtype dtype,
                             struct layout **layout, struct tensors *tensors,
                             struct text_pair **metadata, size_t *metadata_count,
                             struct fault *fault)
{
    struct safetensors_header header;
    struct layout *made = NULL;
    size_t *offsets;
    enum status status =
        safetensors_header_read(arena, span_of(body->data, body->size), false, &header, fault);

    if (status != STATUS_OK)
        return status;
    status = copy_metadata(arena, header.metadata, metadata, metadata_count, fault);
    if (status == STATUS_OK)
        status = make_layout(&header, &made, fault);
    if (status != STATUS_OK)
        goto done;
    offsets = arena_take(arena, header.entry_count * sizeof *offsets);
    if (offsets == NULL) {
        status = payload_out_of_memory(fault);
        goto done;
    }
    for (size_t i = 0; i < header.entry_count; i++)
        offsets[i] = made->tensors[i].offset;
    status = take_data(&header, body, offsets, made->count, dtype, tensors, fault);
done:
    safetensors_header_close(&header);
    if (status == STATUS_OK)
        *layout = made;
    else
        layout_release(made);
    return status;
}

const struct codec codec_safetensors = {
    .name = "safetensors",
    .media_type = "application/vnd.safetensors",
    .alias = "application/x-safetensors",
    .meaning = "tensors by name, any of F64, F32, F16 and BF16, with __metadata__",
    .binary = true,
    .decode = safetensors_decode,
    .decode_pair = safetensors_decode_pair,
    .encode = safetensors_encode,
};
