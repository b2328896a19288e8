/* Reading the header of a safetensors file. */
#include "api/codec/safetensors_header.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/codec/payload.h"

enum { LENGTH_BYTES = 8 };

static enum status entry_fault(const char *name, const char *words, struct fault *fault)
{
    char label[PAYLOAD_LABEL_BYTES];

    return fault_set(fault, STATUS_INVALID_REQUEST, "",
                     "the safetensors header is wrong: tensor \"%s\" %s",
                     payload_label(label, name), words);
}

/* The JSON after the length, without the spaces that may fill it up; *data_begin: bytes from the
 * begin of the file. */
static enum status frame(struct span file, struct span *json, size_t *data_begin,
                         struct fault *fault)
{
    uint64_t length = 0;

    if (file.size < LENGTH_BYTES)
        return fault_set(
            fault, STATUS_INVALID_REQUEST, "",
            "a safetensors file begins with 8 bytes, the length of its header; this one "
            "has %zu bytes",
            file.size);
    for (size_t i = LENGTH_BYTES; i > 0; i--)
        length = length << 8 | file.data[i - 1];
    if (length > file.size - LENGTH_BYTES)
        return fault_set(fault, STATUS_INVALID_REQUEST, "",
                         "byte 0: the safetensors header has %llu bytes, but only %zu follow",
                         (unsigned long long)length, file.size - LENGTH_BYTES);
    if (length > SAFETENSORS_HEADER_BYTES_MAX)
        return fault_set(fault, STATUS_TOO_LARGE, "",
                         "byte 0: the safetensors header has %llu bytes; at most %d are read",
                         (unsigned long long)length, SAFETENSORS_HEADER_BYTES_MAX);
    *json = span_of(file.data + LENGTH_BYTES, (size_t)length);
    *data_begin = LENGTH_BYTES + json->size;
    if (json->size == 0 || json->data[0] != '{')
        return fault_set(fault, STATUS_INVALID_REQUEST, "",
                         "byte 8: the safetensors header must begin with {");
    while (json->size > 0 && json->data[json->size - 1] == ' ')
        json->size--;
    if (json->data[json->size - 1] != '}')
        return fault_set(fault, STATUS_INVALID_REQUEST, "",
                         "byte %zu: only spaces may follow the JSON of the safetensors header",
                         LENGTH_BYTES + json->size - 1);
    return STATUS_OK;
}

/* Up to `max` plain whole numbers from "[2, 3]": no fraction, no exponent, no sign, as the
 * reference reads them. */
static bool read_sizes(const struct json_document *document, const json_t *value, unsigned max,
                       size_t *out, unsigned *count)
{
    if (!json_is_number_array(value))
        return false;
    struct span text = json_piece(document, value);
    bool in_number = false;

    *count = 0;
    for (size_t i = 1; i + 1 < text.size; i++) {
        unsigned char c = text.data[i];
        if (c >= '0' && c <= '9') {
            if (!in_number && (*count)++ == max)
                return false;
            size_t *size = &out[*count - 1];
            *size = in_number ? *size : 0;
            if (__builtin_mul_overflow(*size, (size_t)10, size) ||
                __builtin_add_overflow(*size, (size_t)(c - '0'), size))
                return false;
            in_number = true;
        } else if (c == ',' || c == ' ' || c == '\t' || c == '\n' || c == '\r') {
            in_number = false;
        } else {
            return false;
        }
    }
    return true;
}

static const struct {
    const char *name;
    size_t size;
} kinds[] = {
    [KIND_I8] = {"I8", 1},   [KIND_U8] = {"U8", 1},   [KIND_I32] = {"I32", 4},
    [KIND_I64] = {"I64", 8}, [KIND_U32] = {"U32", 4}, [KIND_U64] = {"U64", 8},
};

enum { KIND_COUNT = sizeof kinds / sizeof *kinds };

const char *safetensors_kind_name(const struct safetensors_entry *entry)
{
    return entry->kind == KIND_FLOAT ? dtype_safetensors_name(entry->dtype)
                                     : kinds[entry->kind].name;
}

/* compressed: whole numbers may be. *size: bytes of an element. */
static enum status read_dtype(const json_t *value, bool compressed, struct safetensors_entry *entry,
                              size_t *size, struct fault *fault)
{
    const char *name = json_string_value(value);
    char where[PAYLOAD_WHERE_BYTES] = "/", label[PAYLOAD_LABEL_BYTES];

    if (name == NULL)
        return entry_fault(entry->name, "needs a dtype, such as \"F32\"", fault);
    entry->kind = KIND_FLOAT;
    if (dtype_find_safetensors(name, strlen(name), &entry->dtype)) {
        *size = dtype_size(entry->dtype);
        return STATUS_OK;
    }
    for (int kind = KIND_FLOAT + 1; kind < KIND_COUNT && compressed; kind++)
        if (strcmp(kinds[kind].name, name) == 0) {
            entry->kind = (enum safetensors_kind)kind;
            *size = kinds[kind].size;
            return STATUS_OK;
        }
    pointer_escape(where + 1, sizeof where - 1, entry->name);
    return fault_set(fault, STATUS_INVALID_FIELD, where,
                     "the dtype \"%s\" cannot be read here; send F64, F32, F16 or BF16%s",
                     payload_label(label, name), compressed ? ", or what the codec takes" : "");
}

static enum status read_entry(const struct json_document *document, const json_t *value,
                              bool compressed, struct safetensors_entry *entry, struct fault *fault)
{
    const json_t *shape = json_object_get(value, "shape");
    const json_t *offsets = json_object_get(value, "data_offsets");
    size_t offset[2], size = 0, bytes;
    unsigned offset_count = 0;

    if (!json_is_object(value) || shape == NULL || offsets == NULL || json_object_size(value) != 3)
        return entry_fault(entry->name, "must have dtype, shape and data_offsets and nothing else",
                           fault);
    enum status status =
        read_dtype(json_object_get(value, "dtype"), compressed, entry, &size, fault);
    if (status != STATUS_OK)
        return status;
    if (!read_sizes(document, shape, LAYOUT_RANK_MAX, entry->shape, &entry->rank))
        return entry_fault(entry->name, "needs a shape of at most 8 plain whole numbers", fault);
    if (!read_sizes(document, offsets, 2, offset, &offset_count) || offset_count != 2)
        return entry_fault(entry->name, "needs data_offsets of two plain whole numbers", fault);
    entry->begin = offset[0];
    entry->end = offset[1];
    if (entry->begin > entry->end)
        return entry_fault(entry->name, "has data_offsets that end before they begin", fault);
    entry->count = 1;
    for (unsigned i = 0; i < entry->rank; i++)
        if (__builtin_mul_overflow(entry->count, entry->shape[i], &entry->count))
            return entry_fault(entry->name, "has a shape whose product overflows", fault);
    if (__builtin_mul_overflow(entry->count, size, &bytes) || bytes != entry->end - entry->begin)
        return entry_fault(entry->name, "has data_offsets that do not fit its shape and dtype",
                           fault);
    return STATUS_OK;
}

static bool are_all_strings(const json_t *object)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        if (!json_is_string(value))
            return false;
    }
    return json_is_object(object);
}

static enum status read_metadata(const json_t *value, bool compressed,
                                 struct safetensors_header *header, struct fault *fault)
{
    if (value != NULL && !are_all_strings(value))
        return fault_set(fault, STATUS_INVALID_REQUEST, "",
                         "__metadata__ of a safetensors file must be an object of strings");
    header->metadata = value;
    header->codec = compressed ? json_string_value(json_object_get(value, "codec")) : NULL;
    return STATUS_OK;
}

static enum status read_entries(struct arena *arena, bool compressed,
                                struct safetensors_header *header, struct fault *fault)
{
    const json_t *root = header->document.root;
    const char *name;
    json_t *value;

    header->entries = arena_take(arena, json_object_size(root) * sizeof *header->entries);
    if (header->entries == NULL)
        return payload_out_of_memory(fault);
    /* It says what the others may be. */
    enum status status =
        read_metadata(json_object_get(root, "__metadata__"), compressed, header, fault);
    if (status != STATUS_OK)
        return status;
    json_object_foreach((json_t *)(uintptr_t)root, name, value)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        struct safetensors_entry *entry = &header->entries[header->entry_count];
        *entry = (struct safetensors_entry){.name = name, .order = header->entry_count++};
        status = read_entry(&header->document, value, header->codec != NULL, entry, fault);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

/* By place; tensors without elements stand before the one that begins where they do. */
static int compare_entries(const void *one, const void *two)
{
    const struct safetensors_entry *a = one, *b = two;

    if (a->begin != b->begin)
        return a->begin < b->begin ? -1 : 1;
    if (a->end != b->end)
        return a->end < b->end ? -1 : 1;
    return a->order < b->order ? -1 : a->order > b->order;
}

/* The data must be the tensors side by side, from its first byte to its last. */
static enum status check_places(struct safetensors_header *header, size_t data_size,
                                struct fault *fault)
{
    size_t next = 0;

    qsort(header->entries, header->entry_count, sizeof *header->entries, compare_entries);
    for (size_t i = 0; i < header->entry_count; i++) {
        const struct safetensors_entry *entry = &header->entries[i];
        if (entry->begin != next)
            return entry_fault(entry->name,
                               entry->begin < next ? "overlaps the one before it"
                                                   : "leaves a hole before its data",
                               fault);
        next = entry->end;
    }
    if (next != data_size)
        return fault_set(
            fault, STATUS_INVALID_REQUEST, "",
            "%zu bytes of data follow the safetensors header, but its tensors take %zu; "
            "the file was cut or has bytes to spare",
            data_size, next);
    return STATUS_OK;
}

enum status safetensors_header_read(struct arena *arena, struct span file, bool compressed,
                                    struct safetensors_header *out, struct fault *fault)
{
    struct span json;
    struct fault inner;

    *out = (struct safetensors_header){.entry_count = 0};
    enum status status = frame(file, &json, &out->data_begin, fault);
    if (status != STATUS_OK)
        return status;
    status = json_read(arena, json, &out->document, &inner);
    if (status != STATUS_OK)
        return fault_set(fault, status == STATUS_INVALID_JSON ? STATUS_INVALID_REQUEST : status, "",
                         "safetensors header (it starts at byte 8 of the file): %s", inner.detail);
    status = read_entries(arena, compressed, out, fault);
    if (status == STATUS_OK)
        status = check_places(out, file.size - out->data_begin, fault);
    if (status != STATUS_OK)
        safetensors_header_close(out);
    return status;
}

void safetensors_header_close(struct safetensors_header *header)
{
    json_close(&header->document);
}
