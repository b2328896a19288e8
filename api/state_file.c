/* Writing a session's whole state. */
#include "api/state_file.h"

#include <inttypes.h>
#include <string.h>

#include "api/base64.h"
#include "api/codec/safetensors_header.h"
#include "api/json_text.h"
#include "api/session_json.h"
#include "api/state_names.h"
#include "service/core/contract.h"

enum { VALUES_PER_TENSOR = 11 }; /* of the header, as JSON_VALUES_MAX counts them */

/* --- the header --- */

static void write_base64(struct json_text *text, const char *key, struct span bytes)
{
    json_text_key(text, key);
    json_text_raw(text, span_text("\""));
    char *end = json_text_reserve(text, BASE64_SIZE(bytes.size) + 1);
    if (end == NULL)
        return;
    base64_write(bytes.data, bytes.size, end);
    end[BASE64_SIZE(bytes.size)] = '"';
    text->used += BASE64_SIZE(bytes.size) + 1;
}

static bool write_checksum(struct json_text *text, const struct image *image)
{
    char out[DIGEST_TEXT_BYTES];
    struct digest digest;

    if (!state_checksum(image->record, image->head, &digest))
        return false;
    json_text_member_string(text, "checksum", digest_text(out, &digest));
    return true;
}

/* The text of descent_state; NULL when memory is out. */
static const char *write_state(struct arena *arena, const char *session, const struct image *image,
                               const char *prefix)
{
    struct json_text text;
    char hash[DIGEST_TEXT_BYTES];

    json_text_init(&text, arena);
    json_text_open(&text, '{');
    json_text_member_u64(&text, "format", STATE_FORMAT);
    json_text_member_string(&text, "session", session);
    json_text_member_u64(&text, "step", image->moment.step);
    json_text_member_u64(&text, "lineage", image->moment.lineage);
    json_text_member_string(&text, "state_hash", digest_text(hash, &image->state_hash));
    json_text_member_string(&text, "optimizer", image->spec.rule->name);
    json_text_member_string(&text, "dtype", dtype_name(image->spec.dtype));
    json_text_member_string(&text, "prefix", prefix);
    write_base64(&text, "record", image->record);
    write_base64(&text, "head", image->head);
    if (!write_checksum(&text, image))
        return NULL;
    json_text_close(&text, '}');
    struct span json = json_text_end(&text);
    return json.data == NULL ? NULL : arena_copy(arena, json.data, json.size);
}

static void write_sizes(struct json_text *text, const char *key, const size_t *sizes, size_t count)
{
    json_text_key(text, key);
    json_text_open(text, '[');
    for (size_t i = 0; i < count; i++)
        json_text_u64(text, sizes[i]);
    json_text_close(text, ']');
}

static void write_tensor(struct json_text *text, const char *name, const struct image *image,
                         const struct image_vector *vector, size_t index, size_t *at)
{
    const struct tensor *tensor = &image->layout->tensors[index];
    size_t size = vector->extent[index] * dtype_size(vector->dtype);
    size_t place[2] = {*at, *at + size};

    json_text_key(text, name);
    json_text_open(text, '{');
    json_text_member_string(text, "dtype", dtype_safetensors_name(vector->dtype));
    write_sizes(text, "shape", vector->shaped ? tensor->shape : &vector->extent[index],
                vector->shaped ? tensor->rank : 1);
    write_sizes(text, "data_offsets", place, 2);
    json_text_close(text, '}');
    *at += size;
}

/* --- the file --- */

/* What goes out, in order: the header, then each tensor of each vector. */
struct file {
    struct image *image;
    struct span *pieces;
    size_t count, piece, used; /* of pieces; where the reader is */
    uint64_t size;
};

static ptrdiff_t read_file(void *context, uint64_t at, void *out, size_t capacity)
{
    struct file *file = context;
    size_t filled = 0;

    (void)at;
    while (filled < capacity && file->piece < file->count) {
        const struct span *piece = &file->pieces[file->piece];
        size_t size = piece->size - file->used;
        if (size > capacity - filled)
            size = capacity - filled;
        memcpy((unsigned char *)out + filled, piece->data + file->used, size);
        filled += size;
        file->used += size;
        if (file->used == piece->size) {
            file->piece++;
            file->used = 0;
        }
    }
    return (ptrdiff_t)filled;
}

static void close_file(void *context)
{
    image_free(((struct file *)context)->image);
}

static void add_piece(struct file *file, const void *data, size_t size)
{
    file->pieces[file->count++] = span_of(data, size);
    file->size += size;
}

/* The header of JSON with its length before it, so long that the data is aligned. */
static enum status add_header(struct arena *arena, struct file *file, struct span json,
                              struct fault *fault)
{
    size_t length = (json.size + 7) / 8 * 8;
    unsigned char *head = json.data == NULL ? NULL : arena_take(arena, 8 + length);

    if (head == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    if (length > SAFETENSORS_HEADER_BYTES_MAX)
        return fault_set(fault, STATUS_TOO_LARGE, "",
                         "the state's header would have %zu bytes, and no more than %d can be read "
                         "back",
                         length, SAFETENSORS_HEADER_BYTES_MAX);
    for (unsigned i = 0; i < 8; i++)
        head[i] = (unsigned char)((uint64_t)length >> (8 * i));
    memcpy(head + 8, json.data, json.size);
    memset(head + 8 + json.size, ' ', length - json.size);
    file->pieces[0] = span_of(head, 8 + length);
    file->size += 8 + length;
    return STATUS_OK;
}

static enum status make_file(struct request *request, struct file *file, struct fault *fault)
{
    struct arena *arena = request->arena;
    const struct image *image = file->image;
    size_t entries = state_entries(image), at = 0;
    char name[STATE_NAME_BYTES];
    const char *prefix = state_prefix(arena, image);
    const char *about =
        prefix == NULL ? NULL : write_state(arena, request->path_parameters[0], image, prefix);
    struct json_text text;

    file->pieces = arena_take(arena, (entries + 1) * sizeof *file->pieces);
    if (about == NULL || file->pieces == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    if (entries > JSON_VALUES_MAX / VALUES_PER_TENSOR)
        return fault_set(fault, STATUS_TOO_LARGE, "",
                         "the state has %zu tensors, and no more than %d can be read back", entries,
                         JSON_VALUES_MAX / VALUES_PER_TENSOR);
    file->count = 1;
    json_text_init(&text, arena);
    json_text_open(&text, '{');
    json_text_key(&text, "__metadata__");
    json_text_open(&text, '{');
    json_text_member_string(&text, "descent_state", about);
    json_text_close(&text, '}');
    for (size_t v = 0; v < image->vector_count; v++) {
        const struct image_vector *vector = &image->vectors[v];
        size_t element = dtype_size(vector->dtype);
        for (size_t i = 0; i < image->layout->tensor_count; i++) {
            if (vector->extent[i] == 0)
                continue;
            state_name(name, prefix, vector, &image->layout->tensors[i]);
            write_tensor(&text, name, image, vector, i, &at);
            add_piece(file, vector->data->data + vector->start[i] * element,
                      vector->extent[i] * element);
        }
    }
    json_text_close(&text, '}');
    PRE(file->count == entries + 1);
    return add_header(arena, file, json_text_end(&text), fault);
}

enum status state_reply(struct request *request, struct image *take_image, struct reply *reply,
                        struct fault *fault)
{
    struct file *file = arena_take(request->arena, sizeof *file);
    enum status status =
        file == NULL ? fault_set(fault, STATUS_INTERNAL, "", "out of memory") : STATUS_OK;

    if (status == STATUS_OK) {
        *file = (struct file){.image = take_image};
        status = make_file(request, file, fault);
    }
    if (status != STATUS_OK) {
        image_free(take_image);
        return status;
    }
    *reply = (struct reply){
        .http = 200,
        .media_type = "application/vnd.safetensors",
        .stream = {.context = file, .size = file->size, .read = read_file, .close = close_file}};
    return STATUS_OK;
}
