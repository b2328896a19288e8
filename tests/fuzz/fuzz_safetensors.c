/* libFuzzer target: any bytes as a safetensors file, against a layout and with its own. */
#include <stdint.h>
#include <string.h>

#include "api/codec.h"
#include "service/core/contract.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct layout *make_layout(void)
{
    static const size_t shape[] = {2, 2};
    struct layout *layout = layout_new();

    PRE(layout != NULL);
    PRE(layout_add(layout, "w", 1, 2, shape, NULL) == STATUS_OK);
    PRE(layout_add(layout, "b", 1, 1, shape, NULL) == STATUS_OK);
    PRE(layout_seal(layout, NULL) == STATUS_OK);
    return layout;
}

/* Touches every byte that the result claims to have. */
static unsigned sum(const struct tensors *tensors, size_t count)
{
    unsigned total = 0;

    size_t size = tensors->form == FORM_DENSE ? count * dtype_size(tensors->dtype) : tensors->size;

    POST(tensors->offset % dtype_size(tensors->dtype) == 0);
    for (size_t i = 0; i < size; i++)
        total += tensors->buffer->data[tensors->offset + i];
    return total;
}

/* What was opened must be written and opened again to the same bits. (With a codec it would be read
 * as a compressed gradient.) */
static void check_round_trip(struct arena *arena, const struct layout *layout,
                             const struct tensors *tensors, const struct text_pair *metadata,
                             size_t metadata_count)
{
    const struct codec *codec = codec_find("application/vnd.safetensors");
    struct encode_request request = {.arena = arena,
                                     .layout = layout,
                                     .tensors = tensors,
                                     .dtype = tensors->dtype,
                                     .metadata = metadata,
                                     .metadata_count = metadata_count};
    struct encoded encoded;
    struct tensors back;
    struct fault fault;

    for (size_t i = 0; i < metadata_count; i++)
        if (strcmp(metadata[i].name, "codec") == 0)
            return;
    POST(codec->encode(&request, &encoded, &fault) == STATUS_OK);
    struct buffer *body = buffer_new(encoded.head.size + encoded.size);
    PRE(body != NULL);
    memcpy(body->data, encoded.head.data, encoded.head.size);
    memcpy(body->data + encoded.head.size, encoded.buffer->data + encoded.offset, encoded.size);
    POST(codec->decode(layout, DTYPE_F32, body, &back, &fault) == STATUS_OK);
    POST(back.buffer == body && back.dtype == tensors->dtype);
    POST(memcmp(back.buffer->data + back.offset, tensors->buffer->data + tensors->offset,
                encoded.size) == 0);
    buffer_release(back.buffer);
    buffer_release(encoded.buffer);
    buffer_release(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct layout *layout;
    static volatile unsigned sink;
    struct arena arena;
    struct fault fault;
    struct tensors tensors;
    struct buffer *body = buffer_new(size);
    struct layout *own = NULL;
    struct text_pair *metadata;
    size_t metadata_count;

    if (layout == NULL)
        layout = make_layout();
    PRE(body != NULL);
    if (size > 0)
        memcpy(body->data, data, size);
    arena_init(&arena);
    if (codec_find("application/vnd.safetensors")
            ->decode(layout, DTYPE_F32, body, &tensors, &fault) == STATUS_OK) {
        sink = sum(&tensors, layout->count);
        buffer_release(tensors.buffer);
    }
    for (int wide = 0; wide <= 1; wide++)
        if (safetensors_open(&arena, body, wide ? DTYPE_F64 : DTYPE_F32, &own, &tensors, &metadata,
                             &metadata_count, &fault) == STATUS_OK) {
            sink = sum(&tensors, own->count);
            check_round_trip(&arena, own, &tensors, metadata, metadata_count);
            buffer_release(tensors.buffer);
            layout_release(own);
        }
    (void)sink;
    buffer_release(body);
    arena_close(&arena);
    return 0;
}
