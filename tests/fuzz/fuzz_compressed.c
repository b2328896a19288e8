/* libFuzzer target: any bytes as a compressed gradient. What is taken must pass the check of
 * what is read from disk, and be readable; and any bytes as each packed form. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/codec.h"
#include "service/core/contract.h"
#include "service/kernel/unpack.h"
#include "service/tensor/packed.h"

enum { COUNT = 6 + 17 + 1 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct layout *make_layout(void)
{
    static const size_t w[] = {2, 3}, b[] = {17};
    struct layout *layout = layout_new();

    PRE(layout != NULL);
    PRE(layout_add(layout, "w", 1, 2, w, NULL) == STATUS_OK);
    PRE(layout_add(layout, "b", 1, 1, b, NULL) == STATUS_OK);
    PRE(layout_add(layout, "s", 1, 0, NULL, NULL) == STATUS_OK);
    PRE(layout_seal(layout, NULL) == STATUS_OK);
    return layout;
}

/* Every block, and every element made 0. */
static void use(const struct wire_gradient *gradient)
{
    float block[COUNT];

    for (size_t start = 0; start < COUNT; start++)
        unpack_block_f32(gradient, start, COUNT - start, block);
    unpack_block_f32(gradient, 0, COUNT, block);
    for (size_t i = 0; i < COUNT; i++)
        if (block[i] != 0)
            packed_zero(gradient, i);
}

/* At their own place, so that a byte beyond them is seen. */
static void try_packed(const struct layout *layout, enum gradient_form form, const void *data,
                       size_t size)
{
    unsigned char *bytes = malloc(size > 0 ? size : 1);
    struct wire_gradient gradient = {.data = bytes,
                                     .wire = DTYPE_F32,
                                     .count = COUNT,
                                     .form = form,
                                     .size = size,
                                     .layout = layout};
    struct fault fault;

    PRE(bytes != NULL);
    if (size > 0)
        memcpy(bytes, data, size);
    if (packed_check(layout, form, DTYPE_F32, span_of(bytes, size), &fault) == STATUS_OK)
        use(&gradient);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct layout *layout;
    struct buffer *body = buffer_new(size);
    struct tensors tensors;
    struct fault fault;

    if (layout == NULL)
        layout = make_layout();
    PRE(body != NULL);
    if (size > 0)
        memcpy(body->data, data, size);
    if (codec_find("application/vnd.safetensors")
            ->decode(layout, DTYPE_F32, body, &tensors, &fault) == STATUS_OK) {
        if (tensors.form != FORM_DENSE) {
            struct wire_gradient gradient = {.data = tensors.buffer->data,
                                             .wire = tensors.dtype,
                                             .count = COUNT,
                                             .form = tensors.form,
                                             .size = tensors.size,
                                             .layout = layout};
            struct span bytes = span_of(tensors.buffer->data, tensors.size);
            POST(packed_check(layout, tensors.form, tensors.dtype, bytes, &fault) == STATUS_OK);
            use(&gradient);
        }
        buffer_release(tensors.buffer);
    }
    for (int form = FORM_DENSE + 1; form < FORM_NONE; form++)
        try_packed(layout, (enum gradient_form)form, data, size);
    buffer_release(body);
    return 0;
}
