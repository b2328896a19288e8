/* Buffers: small ones from malloc, large ones mapped and pooled. */
#include "service/core/buffer.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "service/core/clock.h"
#include "service/core/contract.h"

enum {
    MAPPED_FROM = 128 * 1024, /* below it malloc reuses memory well enough by itself */
    ALIGNMENT = 64,
    PAGE = 4096,
    HUGE_PAGE = 2 * 1024 * 1024,
    POOL_SLOTS = 64,
};
#define POOL_BYTES_MAX ((size_t)1 << 30)

struct owned {
    struct buffer buffer; /* first: the public part */
    size_t capacity;      /* bytes mapped; 0: from malloc */
    atomic_uint references;
};

static struct {
    pthread_mutex_t mutex;
    struct {
        void *data;
        size_t capacity;
        uint64_t since_us;
    } slots[POOL_SLOTS];
    size_t count;
    size_t bytes;
    atomic_size_t live;
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* Maps `capacity` bytes; from 2 MiB on aligned to it, and huge where the system can: fewer faults,
 * fewer TLB misses. */
static void *map(size_t capacity)
{
    size_t slack = capacity >= HUGE_PAGE ? HUGE_PAGE : 0;
    unsigned char *data =
        mmap(NULL, capacity + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (data == MAP_FAILED)
        return NULL;
    if (slack > 0) {
        size_t before = (HUGE_PAGE - (uintptr_t)data % HUGE_PAGE) % HUGE_PAGE;
        if (before > 0)
            munmap(data, before);
        if (slack - before > 0)
            munmap(data + before + capacity, slack - before);
        data += before;
        madvise(data, capacity, MADV_HUGEPAGE); /* advice: a refusal costs speed only */
    }
    return data;
}

/* The pooled mapping that fits best, at most a quarter too large; NULL when there is none. */
static void *pool_take(size_t need, size_t *capacity)
{
    void *data = NULL;
    size_t best = POOL_SLOTS;

    pthread_mutex_lock(&pool.mutex);
    for (size_t i = 0; i < pool.count; i++) {
        size_t has = pool.slots[i].capacity;
        if (has >= need && has - need <= need / 4 + PAGE &&
            (best == POOL_SLOTS || has < pool.slots[best].capacity))
            best = i;
    }
    if (best < POOL_SLOTS) {
        data = pool.slots[best].data;
        *capacity = pool.slots[best].capacity;
        pool.bytes -= *capacity;
        pool.slots[best] = pool.slots[--pool.count];
    }
    pthread_mutex_unlock(&pool.mutex);
    return data;
}

static void pool_give(void *data, size_t capacity)
{
    pthread_mutex_lock(&pool.mutex);
    bool kept = pool.count < POOL_SLOTS && pool.bytes + capacity <= POOL_BYTES_MAX;
    if (kept) {
        pool.slots[pool.count].data = data;
        pool.slots[pool.count].capacity = capacity;
        pool.slots[pool.count++].since_us = clock_monotonic_us();
        pool.bytes += capacity;
    }
    pthread_mutex_unlock(&pool.mutex);
    if (!kept)
        munmap(data, capacity);
}

static struct buffer *buffer_make(size_t size, bool zeroed)
{
    size_t unit = size >= HUGE_PAGE ? HUGE_PAGE : PAGE;
    struct owned *owned;

    if (size > SIZE_MAX / 4)
        return NULL;
    /* A small one lies in one piece of memory with its head. */
    if ((owned = malloc(sizeof *owned + (size < MAPPED_FROM ? size + ALIGNMENT : 0))) == NULL)
        return NULL;
    *owned = (struct owned){.buffer = {.size = size}};
    atomic_init(&owned->references, 1);
    if (size < MAPPED_FROM) {
        unsigned char *data = (unsigned char *)(owned + 1);
        owned->buffer.data = data + (ALIGNMENT - (uintptr_t)data % ALIGNMENT) % ALIGNMENT;
        if (zeroed)
            memset(owned->buffer.data, 0, size);
    } else {
        owned->capacity = (size + unit - 1) / unit * unit;
        owned->buffer.data = pool_take(owned->capacity, &owned->capacity);
        if (owned->buffer.data == NULL)
            owned->buffer.data = map(owned->capacity); /* comes zeroed */
        else if (zeroed)
            memset(owned->buffer.data, 0, size);
    }
    if (owned->buffer.data == NULL) {
        free(owned);
        return NULL;
    }
    atomic_fetch_add(&pool.live, size);
    return &owned->buffer;
}

struct buffer *buffer_new(size_t size)
{
    return buffer_make(size, false);
}

struct buffer *buffer_new_zeroed(size_t size)
{
    return buffer_make(size, true);
}

struct buffer *buffer_retain(struct buffer *buffer)
{
    atomic_fetch_add(&((struct owned *)(void *)buffer)->references, 1);
    return buffer;
}

bool buffer_shared(const struct buffer *buffer)
{
    return atomic_load(&((const struct owned *)(const void *)buffer)->references) > 1;
}

void buffer_release(struct buffer *buffer)
{
    struct owned *owned = (struct owned *)(void *)buffer;

    if (buffer == NULL || atomic_fetch_sub(&owned->references, 1) != 1)
        return;
    atomic_fetch_sub(&pool.live, buffer->size);
    if (owned->capacity > 0)
        pool_give(buffer->data, owned->capacity);
    free(owned);
}

void buffer_shrink(struct buffer *buffer, size_t size)
{
    PRE(size <= buffer->size);
    atomic_fetch_sub(&pool.live, buffer->size - size);
    buffer->size = size;
}

size_t buffer_pool_trim(unsigned idle_seconds)
{
    uint64_t now = clock_monotonic_us();
    size_t given = 0;

    pthread_mutex_lock(&pool.mutex);
    for (size_t i = pool.count; i-- > 0;) {
        if (now - pool.slots[i].since_us < (uint64_t)idle_seconds * 1000000)
            continue;
        munmap(pool.slots[i].data, pool.slots[i].capacity);
        given += pool.slots[i].capacity;
        pool.slots[i] = pool.slots[--pool.count];
    }
    pool.bytes -= given;
    pthread_mutex_unlock(&pool.mutex);
    return given;
}

void buffer_pool_usage(size_t *live_bytes, size_t *pooled_bytes)
{
    if (live_bytes != NULL)
        *live_bytes = atomic_load(&pool.live);
    if (pooled_bytes != NULL) {
        pthread_mutex_lock(&pool.mutex);
        *pooled_bytes = pool.bytes;
        pthread_mutex_unlock(&pool.mutex);
    }
}
