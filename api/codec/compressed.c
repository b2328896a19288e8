/* Compressed gradients. The parts of every tensor are found and checked first, then written. */
#include "api/codec/compressed.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/codec/compressed_parts.h"
#include "api/codec/payload.h"

enum { NAME_BYTES = LAYOUT_NAME_BYTES_MAX + 16 };

struct scheme;

/* An entry of the file, and whose part it is. */
struct slip {
    const struct safetensors_entry *entry;
    const struct tensor *owner; /* NULL: nobody's yet */
};

/* A file under way. */
struct reading {
    const struct scheme *scheme;
    struct compressed compressed;
    struct slip *slips; /* by name */
    size_t slip_count;
};

struct scheme {
    const char *name;
    enum gradient_form form;
    enum status (*take)(struct reading *reading, const struct tensor *tensor,
                        struct compressed_parts *parts, struct fault *fault);
};

/* --- entries --- */

static int compare_slips(const void *one, const void *two)
{
    return strcmp(((const struct slip *)one)->entry->name, ((const struct slip *)two)->entry->name);
}

/* The slip of "<tensor><suffix>", or NULL. */
static struct slip *find_part(const struct reading *reading, const struct tensor *tensor,
                              const char *suffix)
{
    struct safetensors_entry entry;
    struct slip key = {.entry = &entry};
    char name[NAME_BYTES];

    snprintf(name, sizeof name, "%s%s", tensor->name, suffix);
    entry.name = name;
    return bsearch(&key, reading->slips, reading->slip_count, sizeof key, compare_slips);
}

static bool is_tensor(const struct reading *reading, const struct tensor *tensor,
                      const char *suffix)
{
    char name[NAME_BYTES];
    int size = snprintf(name, sizeof name, "%s%s", tensor->name, suffix);

    return layout_find(reading->compressed.layout, name, (size_t)size) != NULL;
}

/* Takes the part for the tensor. wanted: what it is, in words. */
static enum status claim(const struct reading *reading, const struct tensor *tensor,
                         const char *suffix, const char *wanted,
                         const struct safetensors_entry **out, struct fault *fault)
{
    struct slip *slip = find_part(reading, tensor, suffix);
    char name[NAME_BYTES], where[PAYLOAD_WHERE_BYTES], label[PAYLOAD_LABEL_BYTES];

    snprintf(name, sizeof name, "%s%s", tensor->name, suffix);
    if (slip == NULL)
        return fault_set(fault, STATUS_MISSING_TENSOR, payload_where(where, name),
                         "\"%s\" is missing: with codec %s every tensor of the layout has %s",
                         payload_label(label, name), reading->scheme->name, wanted);
    if (slip->owner != NULL)
        return fault_set(fault, STATUS_INVALID_FIELD, payload_where(where, name),
                         "\"%s\" would be a part of two tensors; send one of them by its rows and "
                         "values",
                         payload_label(label, name));
    slip->owner = tensor;
    *out = slip->entry;
    return STATUS_OK;
}

static enum status kind_fault(const struct safetensors_entry *entry, const char *wanted,
                              struct fault *fault)
{
    char where[PAYLOAD_WHERE_BYTES];

    return fault_set(fault, STATUS_INVALID_FIELD, payload_where(where, entry->name),
                     "the dtype is %s; it must be %s", safetensors_kind_name(entry), wanted);
}

static enum status check_shape(const struct safetensors_entry *entry, unsigned rank,
                               const size_t *shape, const char *why, struct fault *fault)
{
    char where[PAYLOAD_WHERE_BYTES], given[128], wanted[128];

    if (entry->rank == rank &&
        (rank == 0 || memcmp(entry->shape, shape, rank * sizeof *shape) == 0))
        return STATUS_OK;
    return fault_set(fault, STATUS_SHAPE_MISMATCH, payload_where(where, entry->name),
                     "the shape is %s; it must be %s%s",
                     shape_format(given, sizeof given, entry->rank, entry->shape),
                     shape_format(wanted, sizeof wanted, rank, shape), why);
}

/* The floats of a tensor, which decide the dtype of all. */
static enum status take_floats(struct reading *reading, const struct safetensors_entry *entry,
                               struct fault *fault)
{
    if (entry->kind != KIND_FLOAT)
        return kind_fault(entry, "F64, F32, F16 or BF16", fault);
    reading->compressed.wire = reading->compressed.wire == DTYPE_COUNT
                                   ? entry->dtype
                                   : payload_wider(reading->compressed.wire, entry->dtype);
    return STATUS_OK;
}

/* One float for the whole tensor. */
static enum status take_single(struct reading *reading, const struct safetensors_entry *entry,
                               struct fault *fault)
{
    enum status status = STATUS_OK;

    if (entry->rank != 1 || entry->shape[0] != 1)
        status = check_shape(entry, 0, NULL, " or [1]: one number for the tensor", fault);
    return status == STATUS_OK ? take_floats(reading, entry, fault) : status;
}

/* --- whole numbers --- */

static bool is_index(const struct safetensors_entry *entry)
{
    return entry->kind == KIND_I32 || entry->kind == KIND_I64 || entry->kind == KIND_U32 ||
           entry->kind == KIND_U64;
}

static enum status index_fault(const struct safetensors_entry *entry, size_t k, uint64_t index,
                               const char *words, uint64_t than, struct fault *fault)
{
    char where[PAYLOAD_WHERE_BYTES], number[32];
    bool negative = entry->kind != KIND_U64 && index >> 63 != 0;

    payload_where(where, entry->name);
    snprintf(number, sizeof number, "/%zu", k);
    if (strlen(where) + strlen(number) < sizeof where)
        strcat(where, number);
    snprintf(number, sizeof number, negative ? "%lld" : "%llu", (unsigned long long)index);
    return fault_set(fault, STATUS_INVALID_FIELD, where, "it is %s; %s %llu", number, words,
                     (unsigned long long)than);
}

/* One dimension of ascending numbers less than `limit`. */
static enum status check_indices(const struct reading *reading,
                                 const struct safetensors_entry *entry, size_t limit,
                                 struct fault *fault)
{
    char where[PAYLOAD_WHERE_BYTES];

    if (!is_index(entry))
        return kind_fault(entry, "I32, I64, U32 or U64", fault);
    if (entry->rank != 1)
        return fault_set(fault, STATUS_SHAPE_MISMATCH, payload_where(where, entry->name),
                         "it has %u dimensions; it must have one", entry->rank);
    for (size_t k = 0; k < entry->count; k++) {
        uint64_t index = compressed_index(entry, reading->compressed.data, k);
        if (index >= limit)
            return index_fault(entry, k, index, "it must be at least 0 and less than", limit,
                               fault);
        uint64_t last = k == 0 ? 0 : compressed_index(entry, reading->compressed.data, k - 1);
        if (k > 0 && index <= last)
            return index_fault(entry, k, index, "they must ascend, each once, and before it stands",
                               last, fault);
    }
    return STATUS_OK;
}

/* --- schemes: the parts of a tensor --- */

static enum status take_int8(struct reading *reading, const struct tensor *tensor,
                             struct compressed_parts *parts, struct fault *fault)
{
    static const char wanted[] = "its values as I8 and its .scale";
    char where[PAYLOAD_WHERE_BYTES];
    enum status status;

    if (is_tensor(reading, tensor, ".scale"))
        return fault_set(fault, STATUS_INVALID_FIELD, payload_where(where, tensor->name),
                         "the model also has a tensor of this name with .scale after it, which "
                         "int8 needs for the scale; take another codec");
    if ((status = claim(reading, tensor, "", wanted, &parts->codes, fault)) != STATUS_OK ||
        (status = claim(reading, tensor, ".scale", wanted, &parts->floats, fault)) != STATUS_OK)
        return status;
    if (parts->codes->kind != KIND_I8)
        return kind_fault(parts->codes, "I8", fault);
    status = check_shape(parts->codes, tensor->rank, tensor->shape, "", fault);
    return status == STATUS_OK ? take_single(reading, parts->floats, fault) : status;
}

/* Bytes of codes, so many of which are in a group of `group` bytes. */
static enum status check_codes(const struct safetensors_entry *entry, const struct tensor *tensor,
                               size_t codes, size_t group, struct fault *fault)
{
    size_t bytes = (tensor->count + codes - 1) / codes * group;
    char why[96];

    if (entry->kind != KIND_U8)
        return kind_fault(entry, "U8", fault);
    snprintf(why, sizeof why, ": %zu byte%s for every %zu elements", group, group > 1 ? "s" : "",
             codes);
    return check_shape(entry, 1, &bytes, why, fault);
}

static enum status take_sign(struct reading *reading, const struct tensor *tensor,
                             struct compressed_parts *parts, struct fault *fault)
{
    static const char wanted[] = "its .sign as U8 and its .scale";
    enum status status = claim(reading, tensor, ".sign", wanted, &parts->codes, fault);

    if (status == STATUS_OK)
        status = claim(reading, tensor, ".scale", wanted, &parts->floats, fault);
    if (status == STATUS_OK)
        status = check_codes(parts->codes, tensor, 8, 1, fault);
    return status == STATUS_OK ? take_single(reading, parts->floats, fault) : status;
}

static enum status take_one_bit(struct reading *reading, const struct tensor *tensor,
                                struct compressed_parts *parts, struct fault *fault)
{
    enum status status = claim(reading, tensor, "", "its codes as U8", &parts->codes, fault);

    return status == STATUS_OK ? check_codes(parts->codes, tensor, 32, 4, fault) : status;
}

static enum status take_two_bit(struct reading *reading, const struct tensor *tensor,
                                struct compressed_parts *parts, struct fault *fault)
{
    enum status status = claim(reading, tensor, "", "its codes as U8", &parts->codes, fault);

    if (status == STATUS_OK)
        status = check_codes(parts->codes, tensor, 16, 4, fault);
    /* A tensor may be called so: then it is not a threshold. */
    if (status != STATUS_OK || is_tensor(reading, tensor, ".threshold") ||
        find_part(reading, tensor, ".threshold") == NULL) {
        reading->compressed.wire = DTYPE_F64; /* that of __metadata__.threshold */
        return status;
    }
    status = claim(reading, tensor, ".threshold", "", &parts->floats, fault);
    return status == STATUS_OK ? take_single(reading, parts->floats, fault) : status;
}

static enum status take_topk(struct reading *reading, const struct tensor *tensor,
                             struct compressed_parts *parts, struct fault *fault)
{
    static const char wanted[] = "its .indices and its .values";
    enum status status = claim(reading, tensor, ".indices", wanted, &parts->codes, fault);

    if (status == STATUS_OK)
        status = claim(reading, tensor, ".values", wanted, &parts->floats, fault);
    if (status == STATUS_OK)
        status = check_indices(reading, parts->codes, tensor->count, fault);
    if (status == STATUS_OK)
        status =
            check_shape(parts->floats, 1, &parts->codes->count, ": a value for each index", fault);
    return status == STATUS_OK ? take_floats(reading, parts->floats, fault) : status;
}

static enum status take_rows(struct reading *reading, const struct tensor *tensor,
                             struct compressed_parts *parts, struct fault *fault)
{
    static const char wanted[] = "its .rows and its .values, or comes whole";
    const struct slip *rows = find_part(reading, tensor, ".rows");
    size_t shape[LAYOUT_RANK_MAX];
    enum status status;

    /* A tensor may be called so: then it is rows only if it can be nothing else. */
    if (tensor->rank == 0 || rows == NULL ||
        (is_tensor(reading, tensor, ".rows") && !is_index(rows->entry))) {
        status = claim(reading, tensor, "", wanted, &parts->floats, fault);
        if (status == STATUS_OK)
            status = check_shape(parts->floats, tensor->rank, tensor->shape, "", fault);
        return status == STATUS_OK ? take_floats(reading, parts->floats, fault) : status;
    }
    if ((status = claim(reading, tensor, ".rows", wanted, &parts->codes, fault)) != STATUS_OK ||
        (status = claim(reading, tensor, ".values", wanted, &parts->floats, fault)) != STATUS_OK ||
        (status = check_indices(reading, parts->codes, tensor->shape[0], fault)) != STATUS_OK)
        return status;
    memcpy(shape, tensor->shape, sizeof shape);
    shape[0] = parts->codes->count;
    status = check_shape(parts->floats, tensor->rank, shape, ": a row for each of .rows", fault);
    return status == STATUS_OK ? take_floats(reading, parts->floats, fault) : status;
}

static const struct scheme schemes[] = {
    {"int8", FORM_INT8, take_int8},    {"sign", FORM_SIGN, take_sign},
    {"topk", FORM_TOPK, take_topk},    {"2bit", FORM_TWO_BIT, take_two_bit},
    {"1bit", FORM_SIGN, take_one_bit}, {"rows", FORM_ROWS, take_rows},
};

/* --- the file --- */

static enum status find_scheme(const char *name, const struct scheme **out, struct fault *fault)
{
    char label[PAYLOAD_LABEL_BYTES];

    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
        if (strcmp(schemes[i].name, name) == 0) {
            *out = &schemes[i];
            return STATUS_OK;
        }
    return fault_set(fault, STATUS_INVALID_FIELD, "/__metadata__/codec",
                     "codec is \"%s\"; it must be int8, sign, topk, 2bit, 1bit or rows; without it "
                     "tensors are plain",
                     payload_label(label, name));
}

/* A plain decimal number. */
static enum status read_threshold(const json_t *metadata, double *out, struct fault *fault)
{
    const char *text = json_string_value(json_object_get(metadata, "threshold"));
    char *end;

    *out = 0.5;
    if (text == NULL)
        return STATUS_OK;
    *out = strtod(text, &end);
    if (text[0] != '\0' && strspn(text, "0123456789+-.eE") == strlen(text) && *end == '\0' &&
        isfinite(*out) && *out > 0)
        return STATUS_OK;
    return fault_set(fault, STATUS_INVALID_FIELD, "/__metadata__/threshold",
                     "threshold must be the text of a number more than 0, such as \"0.5\"");
}

static enum status check_unclaimed(const struct reading *reading, struct fault *fault)
{
    char where[PAYLOAD_WHERE_BYTES];

    for (size_t i = 0; i < reading->slip_count; i++)
        if (reading->slips[i].owner == NULL)
            return fault_set(fault, STATUS_UNKNOWN_TENSOR,
                             payload_where(where, reading->slips[i].entry->name),
                             "with codec %s this is no part of a tensor of the layout, or of one "
                             "that came otherwise already; leave it out",
                             reading->scheme->name);
    return STATUS_OK;
}

enum status compressed_decode(struct arena *arena, const struct safetensors_header *header,
                              const struct layout *layout, struct buffer *body, struct tensors *out,
                              struct fault *fault)
{
    struct reading reading = {.slip_count = header->entry_count};
    struct compressed *compressed = &reading.compressed;
    enum status status = find_scheme(header->codec, &reading.scheme, fault);

    *compressed = (struct compressed){
        .layout = layout, .data = body->data + header->data_begin, .wire = DTYPE_COUNT};
    if (status != STATUS_OK ||
        (status = read_threshold(header->metadata, &compressed->threshold, fault)) != STATUS_OK)
        return status;
    compressed->form = reading.scheme->form;
    compressed->parts = arena_take(arena, layout->tensor_count * sizeof *compressed->parts);
    reading.slips = arena_take(arena, (reading.slip_count + 1) * sizeof *reading.slips);
    if (reading.slips == NULL || compressed->parts == NULL)
        return payload_out_of_memory(fault);
    for (size_t i = 0; i < reading.slip_count; i++)
        reading.slips[i] = (struct slip){.entry = &header->entries[i]};
    qsort(reading.slips, reading.slip_count, sizeof *reading.slips, compare_slips);
    for (size_t t = 0; t < layout->tensor_count && status == STATUS_OK; t++) {
        compressed->parts[t] = (struct compressed_parts){.codes = NULL};
        status = reading.scheme->take(&reading, &layout->tensors[t], &compressed->parts[t], fault);
    }
    if (status == STATUS_OK)
        status = check_unclaimed(&reading, fault);
    if (compressed->wire == DTYPE_COUNT) /* 1bit has no floats */
        compressed->wire = DTYPE_F32;
    return status == STATUS_OK ? compressed_pack(compressed, out, fault) : status;
}
