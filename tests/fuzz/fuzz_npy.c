/* libFuzzer target: any bytes as an npy file, for a model of one tensor and for one of two. */
#include <stdint.h>
#include <string.h>

#include "api/codec.h"
#include "service/core/contract.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct layout *make_layout(bool two)
{
    static const size_t shape[] = {2, 2};
    struct layout *layout = layout_new();

    PRE(layout != NULL);
    PRE(layout_add(layout, "w", 1, 2, shape, NULL) == STATUS_OK);
    if (two)
        PRE(layout_add(layout, "b", 1, 1, shape, NULL) == STATUS_OK);
    PRE(layout_seal(layout, NULL) == STATUS_OK);
    return layout;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct layout *layouts[2];
    static volatile unsigned sink;
    struct fault fault;
    struct tensors tensors;
    struct buffer *body = buffer_new(size);

    PRE(body != NULL);
    if (size > 0)
        memcpy(body->data, data, size);
    for (int two = 0; two <= 1; two++) {
        if (layouts[two] == NULL)
            layouts[two] = make_layout(two);
        if (codec_find("application/x-npy")
                ->decode(layouts[two], DTYPE_F32, body, &tensors, &fault) != STATUS_OK)
            continue;
        POST(tensors.offset % dtype_size(tensors.dtype) == 0);
        for (size_t i = 0; i < layouts[two]->count * dtype_size(tensors.dtype); i++)
            sink = tensors.buffer->data[tensors.offset + i];
        buffer_release(tensors.buffer);
    }
    (void)sink;
    buffer_release(body);
    return 0;
}
