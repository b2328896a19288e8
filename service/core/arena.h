/* An arena: memory that is taken piece by piece and released once. One per request. Not thread
 * safe. */
#ifndef DESCENT_CORE_ARENA_H
#define DESCENT_CORE_ARENA_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

struct arena_block;

struct arena {
    struct arena_block *blocks; /* newest first */
    size_t used;                /* bytes used of the newest */
    bool failed;                /* memory was out since arena_init or arena_reset */
};

/* What a block holds at least. Tests make it small before any thread starts, so that every piece is
 * an allocation that can fail. */
extern size_t arena_block_bytes;

void arena_init(struct arena *arena);
void arena_close(struct arena *arena);

/* Releases everything but keeps one ordinary block for what comes next. */
void arena_reset(struct arena *arena);

/* `size` bytes aligned to 16, not cleared; NULL when memory is out. Lives until arena_close. */
void *arena_take(struct arena *arena, size_t size);

/* A copy with a NUL after it; NULL when memory is out. */
char *arena_copy(struct arena *arena, const void *data, size_t size);

/* printf into the arena; NULL when memory is out. */
char *arena_format(struct arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
