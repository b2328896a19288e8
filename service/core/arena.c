/* The arena: a list of malloc'ed blocks, each at least arena_block_bytes. */
#include "service/core/arena.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"

enum { ALIGNMENT = 16 };

size_t arena_block_bytes = 8192;

struct arena_block {
    struct arena_block *next;
    size_t capacity; /* bytes after this header */
};

_Static_assert(sizeof(struct arena_block) % ALIGNMENT == 0, "pieces stay aligned");

void arena_init(struct arena *arena)
{
    *arena = (struct arena){.blocks = NULL, .used = 0};
}

void arena_close(struct arena *arena)
{
    while (arena->blocks != NULL) {
        struct arena_block *next = arena->blocks->next;
        free(arena->blocks);
        arena->blocks = next;
    }
    arena->used = 0;
}

void arena_reset(struct arena *arena)
{
    struct arena_block *kept = arena->blocks;

    arena->failed = false;
    if (kept == NULL || kept->next != NULL || kept->capacity > arena_block_bytes) {
        arena_close(arena);
        return;
    }
    arena->used = 0;
}

void *arena_take(struct arena *arena, size_t size)
{
    if (size > SIZE_MAX / 2) {
        arena->failed = true;
        return NULL;
    }
    size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (arena->blocks == NULL || arena->blocks->capacity - arena->used < size) {
        size_t capacity = size > arena_block_bytes ? size : arena_block_bytes;
        struct arena_block *block = malloc(sizeof *block + capacity);
        if (block == NULL) {
            arena->failed = true;
            return NULL;
        }
        *block = (struct arena_block){.next = arena->blocks, .capacity = capacity};
        arena->blocks = block;
        arena->used = 0;
    }
    void *piece = (unsigned char *)(arena->blocks + 1) + arena->used;
    arena->used += size;
    return piece;
}

char *arena_copy(struct arena *arena, const void *data, size_t size)
{
    char *copy = arena_take(arena, size + 1);

    if (copy != NULL) {
        if (size > 0)
            memcpy(copy, data, size);
        copy[size] = '\0';
    }
    return copy;
}

char *arena_format(struct arena *arena, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    PRE(length >= 0);
    char *text = arena_take(arena, (size_t)length + 1);
    if (text != NULL) {
        va_start(arguments, format);
        vsnprintf(text, (size_t)length + 1, format, arguments);
        va_end(arguments);
    }
    return text;
}
