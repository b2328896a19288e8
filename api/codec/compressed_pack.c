/* Compressed gradients that were found to be in order, as their packed form. */
#include <string.h>

#include "api/codec/compressed_parts.h"
#include "api/codec/payload.h"
#include "service/tensor/packed.h"

uint64_t compressed_index(const struct safetensors_entry *entry, const unsigned char *data,
                          size_t k)
{
    uint64_t wide;
    uint32_t narrow;
    int32_t negative;

    if (entry->kind == KIND_I64 || entry->kind == KIND_U64) {
        memcpy(&wide, data + entry->begin + k * sizeof wide, sizeof wide);
        return wide;
    }
    memcpy(&narrow, data + entry->begin + k * sizeof narrow, sizeof narrow);
    memcpy(&negative, &narrow, sizeof negative);
    return entry->kind == KIND_I32 ? (uint64_t)negative : narrow;
}

/* Adds the first `count` codes of so many bits at code number `at` of zeros. */
static void add_codes(unsigned char *to, size_t at, const unsigned char *from, size_t count,
                      unsigned bits, bool low_first)
{
    size_t bytes = (count * bits + 7) / 8;
    unsigned shift = (unsigned)(at * bits % 8), rest = (unsigned)(count * bits % 8);

    to += at * bits / 8;
    for (size_t i = 0; i < bytes; i++) {
        unsigned byte = from[i];
        if (i + 1 == bytes && rest > 0) /* what is after the last is not looked at */
            byte &= low_first ? 0xFFU >> (8 - rest) : 0xFF00U >> rest;
        unsigned moved = low_first ? byte << shift : byte << 8 >> shift;
        to[i] |= (unsigned char)(low_first ? moved : moved >> 8);
        if ((low_first ? moved >> 8 : moved & 0xFF) != 0)
            to[i + 1] |= (unsigned char)(low_first ? moved >> 8 : moved);
    }
}

/* Ones of 1bit are positive and stand at the highest bit: bytes of the sign form. */
static void add_one_bits(unsigned char *to, size_t at, const unsigned char *from, size_t count)
{
    for (size_t i = 0; i < count; i += 8) {
        unsigned turned = 0;
        for (unsigned k = 0; k < 8; k++)
            turned |= ((unsigned)from[i / 8] >> (7 - k) & 1U) == 0 ? 1U << k : 0;
        unsigned char byte = (unsigned char)turned;
        add_codes(to, at + i, &byte, count - i < 8 ? count - i : 8, 1, true);
    }
}

static void write_scale(const struct compressed *compressed, const struct packed *packed, size_t t)
{
    const struct safetensors_entry *floats = compressed->parts[t].floats;
    double number = compressed->form == FORM_SIGN ? 1 : compressed->threshold;
    unsigned char *to = packed->scale + t * dtype_size(compressed->wire);

    if (floats != NULL)
        dtype_convert(compressed->wire, to, floats->dtype, compressed->data + floats->begin, 1);
    else
        dtype_convert(compressed->wire, to, DTYPE_F64, &number, 1);
}

static void write_codes(const struct compressed *compressed, const struct packed *packed, size_t t)
{
    const struct tensor *tensor = &compressed->layout->tensors[t];
    const struct compressed_parts *parts = &compressed->parts[t];
    const unsigned char *codes = compressed->data + parts->codes->begin;

    write_scale(compressed, packed, t);
    if (tensor->count == 0)
        return;
    if (compressed->form == FORM_INT8)
        memcpy(packed->code + tensor->offset, codes, tensor->count);
    else if (compressed->form == FORM_TWO_BIT)
        add_codes(packed->code, tensor->offset, codes, tensor->count, 2, false);
    else if (parts->floats != NULL)
        add_codes(packed->code, tensor->offset, codes, tensor->count, 1, true);
    else
        add_one_bits(packed->code, tensor->offset, codes, tensor->count);
}

/* Where the next entries and values go. */
struct place {
    size_t entry, value;
};

static void write_values(const struct compressed *compressed, const struct packed *packed, size_t t,
                         struct place *place)
{
    const struct safetensors_entry *floats = compressed->parts[t].floats;

    if (floats->count > 0)
        dtype_convert(compressed->wire, packed->value + place->value * dtype_size(compressed->wire),
                      floats->dtype, compressed->data + floats->begin, floats->count);
    place->value += floats->count;
}

static void write_topk(const struct compressed *compressed, const struct packed *packed, size_t t,
                       struct place *place)
{
    const struct safetensors_entry *indices = compressed->parts[t].codes;

    for (size_t k = 0; k < indices->count; k++)
        packed_set_index(packed, place->entry++,
                         compressed->layout->tensors[t].offset +
                             compressed_index(indices, compressed->data, k));
    write_values(compressed, packed, t, place);
}

/* Rows that a tensor came with: none where it has no elements, all where it came whole. */
static size_t rows_of(const struct compressed *compressed, size_t t)
{
    const struct tensor *tensor = &compressed->layout->tensors[t];
    const struct compressed_parts *parts = &compressed->parts[t];

    return tensor->count == 0     ? 0
           : parts->codes != NULL ? parts->codes->count
           : tensor->rank == 0    ? 1
                                  : tensor->shape[0];
}

static void write_rows(const struct compressed *compressed, const struct packed *packed, size_t t,
                       struct place *place)
{
    const struct safetensors_entry *rows = compressed->parts[t].codes;
    size_t count = rows_of(compressed, t);

    for (size_t k = 0; k < count; k++)
        packed_set_index(packed, place->entry++,
                         rows == NULL ? k : compressed_index(rows, compressed->data, k));
    write_values(compressed, packed, t, place);
    packed_set_first(packed, t + 1, (struct packed_first){place->entry, place->value});
}

static void write_all(const struct compressed *compressed, const struct wire_gradient *gradient,
                      const struct place *total)
{
    size_t tensors = compressed->layout->tensor_count;
    struct packed packed;
    struct place place = {0, 0};
    uint64_t entries = total->entry;

    if (gradient->form == FORM_TOPK) {
        memcpy(gradient->data, &entries, sizeof entries);
    } else if (gradient->form == FORM_ROWS) {
        packed = (struct packed){.first = gradient->data};
        packed_set_first(&packed, 0, (struct packed_first){0, 0});
        packed_set_first(&packed, tensors, (struct packed_first){total->entry, total->value});
    } else {
        memset(gradient->data, 0, gradient->size);
    }
    packed = packed_open(gradient);
    for (size_t t = 0; t < tensors; t++)
        if (gradient->form == FORM_TOPK)
            write_topk(compressed, &packed, t, &place);
        else if (gradient->form == FORM_ROWS)
            write_rows(compressed, &packed, t, &place);
        else
            write_codes(compressed, &packed, t);
}

enum status compressed_pack(const struct compressed *compressed, struct tensors *out,
                            struct fault *fault)
{
    enum gradient_form form = compressed->form;
    enum dtype wire = compressed->wire;
    struct place total = {0, 0};

    for (size_t t = 0; t < compressed->layout->tensor_count; t++) {
        const struct compressed_parts *parts = &compressed->parts[t];
        total.entry += form == FORM_ROWS ? rows_of(compressed, t) : parts->codes->count;
        total.value += form == FORM_ROWS ? parts->floats->count : 0;
    }
    size_t size = packed_size(compressed->layout, form, wire, total.entry, total.value);
    struct buffer *buffer = buffer_new(size);
    if (buffer == NULL)
        return payload_out_of_memory(fault);
    struct wire_gradient gradient = {.data = buffer->data,
                                     .wire = wire,
                                     .count = compressed->layout->count,
                                     .form = form,
                                     .size = size,
                                     .layout = compressed->layout};
    write_all(compressed, &gradient, &total);
    *out = (struct tensors){.buffer = buffer, .dtype = wire, .form = form, .size = size};
    return STATUS_OK;
}
