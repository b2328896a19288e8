/* An input cut into pieces. Every piece is a copy of just its size, so that a sanitizer sees a byte
 * read beyond it. */
#ifndef DESCENT_TESTS_FUZZ_INPUT_H
#define DESCENT_TESTS_FUZZ_INPUT_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/core/span.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *data;
    size_t size, used;
};

/* 0 at the end. */
static inline unsigned input_byte(struct input *input)
{
    return input->used < input->size ? input->data[input->used++] : 0;
}

/* At most `size` bytes, less at the end. Free it. */
static inline unsigned char *input_copy(struct input *input, size_t size, size_t *got)
{
    size_t left = input->size - input->used;

    *got = size < left ? size : left;
    unsigned char *copy = malloc(*got > 0 ? *got : 1);
    PRE(copy != NULL);
    if (*got > 0)
        memcpy(copy, input->data + input->used, *got);
    input->used += *got;
    return copy;
}

/* What is before the next `end`, or the rest, NUL after it; `end` is passed. Free it. */
static inline char *input_text(struct input *input, char end)
{
    const uint8_t *from = input->data + input->used;
    size_t left = input->size - input->used, size = 0;

    while (size < left && from[size] != (uint8_t)end)
        size++;
    char *text = malloc(size + 1);
    PRE(text != NULL);
    if (size > 0)
        memcpy(text, from, size);
    text[size] = '\0';
    input->used += size < left ? size + 1 : size;
    return text;
}

#endif
