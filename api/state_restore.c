/* Restoring a session from a file of its whole state. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/base64.h"
#include "api/codec/payload.h"
#include "api/codec/safetensors_header.h"
#include "api/fields.h"
#include "api/session_json.h"
#include "api/state_file.h"
#include "api/state_names.h"

#define WHERE "/__metadata__/descent_state"

struct about {
    uint64_t format, step, lineage;
    bool has_step, has_lineage;
    const char *session, *state_hash, *optimizer, *dtype, *prefix, *checksum;
    const json_t *record, *head;
};

#define PLACE(member) .offset = offsetof(struct about, member)
static const struct field fields[] = {
    {"format", FIELD_U64, PLACE(format)},
    {"session", FIELD_TEXT, PLACE(session)},
    {"step", FIELD_U64, PLACE(step), .present = offsetof(struct about, has_step)},
    {"lineage", FIELD_U64, PLACE(lineage), .present = offsetof(struct about, has_lineage)},
    {"state_hash", FIELD_TEXT, PLACE(state_hash)},
    {"optimizer", FIELD_TEXT, PLACE(optimizer)},
    {"dtype", FIELD_TEXT, PLACE(dtype)},
    {"prefix", FIELD_TEXT, PLACE(prefix), .max = STATE_PREFIX_BYTES - 1},
    {"record", FIELD_VALUE, PLACE(record)},
    {"head", FIELD_VALUE, PLACE(head)},
    {"checksum", FIELD_TEXT, PLACE(checksum)},
    {.name = NULL},
};

static enum status out_of_memory(struct fault *fault)
{
    return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
}

/* --- what the metadata says --- */

enum status state_is_file(struct request *request, bool *out, struct fault *fault)
{
    struct safetensors_header header;
    struct span file = span_of(request->body->data, request->body->size);
    enum status status = safetensors_header_read(request->arena, file, false, &header, fault);

    *out = false;
    if (status != STATUS_OK)
        return status == STATUS_INTERNAL ? status : STATUS_OK;
    *out = json_object_get(header.metadata, "descent_state") != NULL;
    safetensors_header_close(&header);
    return STATUS_OK;
}

static enum status check_format(const struct json_document *document, struct fault *fault)
{
    const json_t *value = json_object_get(document->root, "format");
    uint64_t format;

    if (!json_is_object(document->root))
        return fault_set(fault, STATUS_INVALID_FIELD, WHERE,
                         "descent_state must be the text of a JSON object");
    if (value != NULL && json_is_number(value) &&
        json_u64(document, value, &format, NULL) == STATUS_OK && format == STATE_FORMAT)
        return STATUS_OK;
    return fault_set(fault, STATUS_INVALID_FIELD, WHERE "/format",
                     "this server reads states of format %d; export it with a server that writes "
                     "that, or restore it with one of the version that wrote it",
                     STATE_FORMAT);
}

static enum status read_bytes(struct arena *arena, const char *name, const json_t *value,
                              struct span *out, struct fault *fault)
{
    const char *text = json_string_value(value);
    size_t length = json_string_length(value), size = length / 4 * 3;
    char where[64];

    snprintf(where, sizeof where, WHERE "/%s", name);
    if (text == NULL)
        return fault_set(fault, STATUS_INVALID_FIELD, where,
                         "%s must be there, in base64: send the file as it was exported", name);
    for (size_t i = 0; i < 2 && size > 0; i++)
        size -= text[length - 1 - i] == '=';
    unsigned char *bytes = arena_take(arena, size + 1);
    if (bytes == NULL)
        return out_of_memory(fault);
    if (!base64_read(text, length, bytes, size))
        return fault_set(fault, STATUS_INVALID_FIELD, where,
                         "%s is no base64: send the file as it was exported", name);
    *out = span_of(bytes, size);
    return STATUS_OK;
}

/* A member that must be there and say this. */
static enum status check_member(const char *name, const char *told, const char *truth,
                                struct fault *fault)
{
    char where[64];

    if (told != NULL && strcmp(told, truth) == 0)
        return STATUS_OK;
    snprintf(where, sizeof where, WHERE "/%s", name);
    if (told == NULL)
        return fault_set(fault, STATUS_INVALID_FIELD, where,
                         "%s must be there: send the file as it was exported", name);
    return fault_set(fault, STATUS_INVALID_FIELD, where,
                     "%s is not that of the record and the head, which is %s: send the file as it "
                     "was exported",
                     name, truth);
}

static enum status check_sum(const char *told, struct span record, struct span head,
                             struct fault *fault)
{
    char text[DIGEST_TEXT_BYTES];
    struct digest digest;

    if (!state_checksum(record, head, &digest))
        return out_of_memory(fault);
    return check_member("checksum", told, digest_text(text, &digest), fault);
}

static const char *number(struct arena *arena, uint64_t value)
{
    return arena_format(arena, "%llu", (unsigned long long)value);
}

/* What is told in plain must be what the image has. */
static enum status check_about(struct arena *arena, const struct about *about,
                               const struct image *image, struct fault *fault)
{
    char hash[DIGEST_TEXT_BYTES];
    const char *step = about->has_step ? number(arena, about->step) : NULL;
    const char *lineage = about->has_lineage ? number(arena, about->lineage) : NULL;
    const struct {
        const char *name, *told, *truth;
    } members[] = {
        {"step", step, number(arena, image->moment.step)},
        {"lineage", lineage, number(arena, image->moment.lineage)},
        {"state_hash", about->state_hash, digest_text(hash, &image->state_hash)},
        {"optimizer", about->optimizer, image->spec.rule->name},
        {"dtype", about->dtype, dtype_name(image->spec.dtype)},
    };

    if (arena->failed)
        return out_of_memory(fault);
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        enum status status =
            check_member(members[i].name, members[i].told, members[i].truth, fault);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

/* The image that the metadata tells of, and the prefix of its names. */
static enum status read_about(struct engine *engine, struct arena *arena,
                              const struct json_document *document, struct image **out,
                              const char **prefix, struct fault *fault)
{
    struct about about = {.prefix = ""};
    struct span record, head;
    enum status status;

    if ((status = check_format(document, fault)) != STATUS_OK)
        return status;
    if ((status = fields_read(arena, document, document->root, fields, &about, fault)) !=
        STATUS_OK) {
        fault_prefix(fault, WHERE);
        return status;
    }
    if ((status = read_bytes(arena, "record", about.record, &record, fault)) != STATUS_OK ||
        (status = read_bytes(arena, "head", about.head, &head, fault)) != STATUS_OK ||
        (status = check_sum(about.checksum, record, head, fault)) != STATUS_OK)
        return status;
    if ((status = engine_image(engine, record, head, out, fault)) != STATUS_OK)
        return status;
    *prefix = about.prefix;
    return check_about(arena, &about, *out, fault);
}

/* --- the vectors --- */

/* The entries by name, and which of them were asked for. */
struct index {
    const struct safetensors_header *header;
    const struct safetensors_entry **entries;
    bool *taken;
};

static int compare_names(const void *one, const void *two)
{
    const struct safetensors_entry *const *a = one, *const *b = two;

    return strcmp((*a)->name, (*b)->name);
}

static int compare_name(const void *name, const void *entry)
{
    return strcmp(name, (*(const struct safetensors_entry *const *)entry)->name);
}

static enum status make_index(struct arena *arena, const struct safetensors_header *header,
                              struct index *out, struct fault *fault)
{
    size_t count = header->entry_count;

    out->header = header;
    out->entries = arena_take(arena, (count + 1) * sizeof *out->entries);
    out->taken = arena_take(arena, count + 1);
    if (out->entries == NULL || out->taken == NULL)
        return out_of_memory(fault);
    memset(out->taken, 0, count + 1);
    for (size_t i = 0; i < count; i++)
        out->entries[i] = &header->entries[i];
    qsort(out->entries, count, sizeof *out->entries, compare_names);
    return STATUS_OK;
}

/* The entry of that name, once; NULL: there is none, or it was taken already. */
static const struct safetensors_entry *take_entry(struct index *index, const char *name)
{
    const struct safetensors_entry **found = bsearch(
        name, index->entries, index->header->entry_count, sizeof *index->entries, compare_name);

    if (found == NULL || index->taken[found - index->entries])
        return NULL;
    index->taken[found - index->entries] = true;
    return *found;
}

static enum status check_entry(const struct image *image, const struct image_vector *vector,
                               size_t index, const char *name,
                               const struct safetensors_entry *entry, struct fault *fault)
{
    struct tensor wanted = image->layout->tensors[index];
    char where[PAYLOAD_WHERE_BYTES], label[PAYLOAD_LABEL_BYTES];

    payload_where(where, name);
    if (entry == NULL)
        return fault_set(fault, STATUS_MISSING_TENSOR, where,
                         "the tensor \"%s\" is missing; a state has every vector of its session",
                         payload_label(label, name));
    if (entry->dtype != vector->dtype)
        return fault_set(
            fault, STATUS_INVALID_FIELD, where,
            "the tensor is %s and must be %s: a state is restored to the bit or not at "
            "all",
            dtype_name(entry->dtype), dtype_name(vector->dtype));
    if (!vector->shaped) {
        wanted.rank = 1;
        wanted.shape[0] = vector->extent[index];
    }
    wanted.name = name;
    if (entry->rank == wanted.rank &&
        memcmp(entry->shape, wanted.shape, wanted.rank * sizeof *wanted.shape) == 0)
        return STATUS_OK;
    return payload_shape_fault(&wanted, entry->rank, entry->shape, fault);
}

static enum status fill(struct image *image, const char *prefix, struct index *index,
                        const unsigned char *data, struct fault *fault)
{
    char name[STATE_NAME_BYTES], where[PAYLOAD_WHERE_BYTES];

    for (size_t v = 0; v < image->vector_count; v++) {
        const struct image_vector *vector = &image->vectors[v];
        size_t element = dtype_size(vector->dtype);
        for (size_t i = 0; i < image->layout->tensor_count; i++) {
            if (vector->extent[i] == 0)
                continue;
            state_name(name, prefix, vector, &image->layout->tensors[i]);
            const struct safetensors_entry *entry = take_entry(index, name);
            enum status status = check_entry(image, vector, i, name, entry, fault);
            if (status != STATUS_OK)
                return status;
            memcpy(vector->data->data + vector->start[i] * element, data + entry->begin,
                   vector->extent[i] * element);
        }
    }
    for (size_t i = 0; i < index->header->entry_count; i++)
        if (!index->taken[i])
            return fault_set(fault, STATUS_UNKNOWN_TENSOR,
                             payload_where(where, index->entries[i]->name),
                             "the state has no vector of this name; leave it out");
    return STATUS_OK;
}

static enum status read_image(struct engine *engine, struct request *request,
                              const struct safetensors_header *header, const char *text,
                              struct image **out, struct fault *fault)
{
    struct json_document document;
    struct index index;
    struct fault inner;
    const char *prefix;
    enum status status = json_read(request->arena, span_text(text), &document, &inner);

    if (status == STATUS_INTERNAL)
        return out_of_memory(fault);
    if (status != STATUS_OK)
        return fault_set(fault, STATUS_INVALID_FIELD, WHERE, "descent_state is not JSON: %s",
                         inner.detail);
    *out = NULL;
    if ((status = read_about(engine, request->arena, &document, out, &prefix, fault)) ==
            STATUS_OK &&
        (status = make_index(request->arena, header, &index, fault)) == STATUS_OK)
        status = fill(*out, prefix, &index, request->body->data + header->data_begin, fault);
    json_close(&document);
    return status;
}

enum status state_restore(struct engine *engine, struct request *request, const char *id,
                          struct session **out, bool *created, struct fault *fault)
{
    struct safetensors_header header;
    struct image *image = NULL;
    struct span file = span_of(request->body->data, request->body->size);
    enum status status = safetensors_header_read(request->arena, file, false, &header, fault);

    if (status != STATUS_OK)
        return status;
    const char *text = json_string_value(json_object_get(header.metadata, "descent_state"));
    if (id == NULL)
        status = fault_set(fault, STATUS_INVALID_FIELD, WHERE,
                           "a state is restored under an id of your choice: PUT it to "
                           "/v1/sessions/{id}");
    else if (json_object_get(header.metadata, "descent") != NULL)
        status = fault_set(fault, STATUS_INVALID_FIELD, "/__metadata__/descent",
                           "a state has its configuration in it; leave this out");
    else
        status = read_image(engine, request, &header, text, &image, fault);
    if (status == STATUS_OK) {
        struct owner owner = request_owner(request);
        status = engine_import(engine, &owner, id, image, out, created, fault);
        image = NULL;
    }
    image_free(image);
    safetensors_header_close(&header);
    return status;
}
