/* Large reference-counted buffers: request bodies, gradients, weights, slots. Freed ones are kept
 * for reuse, because a fresh mapping costs a page fault for every 4 KiB (a 64 MB body: more time
 * than the copy). Thread safe. */
#ifndef DESCENT_CORE_BUFFER_H
#define DESCENT_CORE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

struct buffer {
    unsigned char *data; /* aligned to 64; to 2 MiB from 2 MiB on */
    size_t size;         /* bytes asked for */
};

/* A buffer of `size` bytes with one reference, contents undefined; NULL when memory is out. size
 * may be 0. */
struct buffer *buffer_new(size_t size);

/* The same, filled with zeros. */
struct buffer *buffer_new_zeroed(size_t size);

struct buffer *buffer_retain(struct buffer *buffer);

/* Whether there are other references, at this moment. */
bool buffer_shared(const struct buffer *buffer);

/* Drops a reference; the last one gives the memory to the pool. NULL is allowed. */
void buffer_release(struct buffer *buffer);

/* Shortens what `size` says; the memory stays. Owner only. */
void buffer_shrink(struct buffer *buffer, size_t size);

/* Gives pooled memory back to the system that has not been used for `idle_seconds`. Returns bytes
 * given back. */
size_t buffer_pool_trim(unsigned idle_seconds);

/* Bytes in live buffers and bytes waiting in the pool. Either may be NULL. */
void buffer_pool_usage(size_t *live_bytes, size_t *pooled_bytes);

#endif
