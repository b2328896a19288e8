/* Layouts and buffers for tests. */
#include "tests/lib/tensors.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct layout *tensors_layout(const char *spec)
{
    struct layout *layout = layout_new();
    struct fault fault;

    ck_assert_ptr_nonnull(layout);
    while (*spec != '\0') {
        size_t name_size = strcspn(spec, "["), shape[LAYOUT_RANK_MAX];
        unsigned rank = 0;
        char *at = (char *)(uintptr_t)spec + name_size + 1;
        while (*at != ']') {
            ck_assert_uint_lt(rank, LAYOUT_RANK_MAX);
            shape[rank++] = strtoull(at, &at, 10);
            at += *at == ',';
        }
        ck_assert_int_eq(layout_add(layout, spec, name_size, rank, shape, &fault), STATUS_OK);
        spec = at + 1;
        spec += *spec == ' ';
    }
    ck_assert_int_eq(layout_seal(layout, &fault), STATUS_OK);
    return layout;
}

struct buffer *tensors_buffer(const void *bytes, size_t size)
{
    struct buffer *buffer = buffer_new(size);

    ck_assert_ptr_nonnull(buffer);
    if (size > 0)
        memcpy(buffer->data, bytes, size);
    return buffer;
}

struct buffer *tensors_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    unsigned char bytes[65536];

    ck_assert_msg(file != NULL, "%s cannot be opened", path);
    size_t size = fread(bytes, 1, sizeof bytes, file);
    ck_assert_uint_lt(size, sizeof bytes);
    fclose(file);
    return tensors_buffer(bytes, size);
}

struct buffer *tensors_safetensors(const char *header, size_t data_size)
{
    size_t length = strlen(header);
    struct buffer *buffer = buffer_new(8 + length + data_size);

    ck_assert_ptr_nonnull(buffer);
    for (unsigned i = 0; i < 8; i++)
        buffer->data[i] = (unsigned char)((uint64_t)length >> (8 * i));
    memcpy(buffer->data + 8, header, length);
    for (size_t i = 0; i < data_size; i++)
        buffer->data[8 + length + i] = (unsigned char)i;
    return buffer;
}
