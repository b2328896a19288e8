/* Records at rest. */
#include "service/core/pack.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_ABSENT UINT32_MAX /* the length of a text that is NULL */

void packer_close(struct packer *packer)
{
    free(packer->data);
    *packer = (struct packer){0};
}

struct span packer_span(const struct packer *packer)
{
    return span_of(packer->data, packer->used);
}

bool packer_reserve(struct packer *packer, size_t size)
{
    if (packer->capacity - packer->used >= size)
        return true;
    size_t capacity = (packer->used + size) * 2 + 64;
    unsigned char *grown = realloc(packer->data, capacity);
    if (grown == NULL)
        return false;
    packer->data = grown;
    packer->capacity = capacity;
    return true;
}

/* Inline: where the size is known, as that of a number is, the copy is one store. */
static inline void put(struct packer *packer, const void *data, size_t size)
{
    if (packer->failed || size == 0)
        return;
    if (!packer_reserve(packer, size)) {
        packer->failed = true;
        return;
    }
    memcpy(packer->data + packer->used, data, size);
    packer->used += size;
}

void pack_fixed(struct packer *packer, const void *data, size_t size)
{
    put(packer, data, size);
}

void pack_u32(struct packer *packer, uint32_t value)
{
    uint32_t little = htole32(value);

    put(packer, &little, sizeof little);
}

void pack_u64(struct packer *packer, uint64_t value)
{
    uint64_t little = htole64(value);

    put(packer, &little, sizeof little);
}

void pack_f64(struct packer *packer, double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof bits);
    pack_u64(packer, bits);
}

void pack_bytes(struct packer *packer, const void *data, size_t size)
{
    if (size >= TEXT_ABSENT) {
        packer->failed = true;
        return;
    }
    pack_u32(packer, (uint32_t)size);
    pack_fixed(packer, data, size);
}

void pack_text(struct packer *packer, const char *text)
{
    if (text == NULL)
        pack_u32(packer, TEXT_ABSENT);
    else
        pack_bytes(packer, text, strlen(text));
}

static const unsigned char *take(struct unpacker *unpacker, size_t size)
{
    if (unpacker->failed || unpacker->size - unpacker->used < size) {
        unpacker->failed = true;
        return NULL;
    }
    unpacker->used += size;
    return unpacker->data + (unpacker->used - size);
}

void unpack_fixed(struct unpacker *unpacker, void *out, size_t size)
{
    const unsigned char *from = take(unpacker, size);

    if (from == NULL)
        memset(out, 0, size);
    else
        memcpy(out, from, size);
}

uint32_t unpack_u32(struct unpacker *unpacker)
{
    uint32_t little;

    unpack_fixed(unpacker, &little, sizeof little);
    return le32toh(little);
}

uint64_t unpack_u64(struct unpacker *unpacker)
{
    uint64_t little;

    unpack_fixed(unpacker, &little, sizeof little);
    return le64toh(little);
}

double unpack_f64(struct unpacker *unpacker)
{
    uint64_t bits = unpack_u64(unpacker);
    double value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

struct span unpack_bytes(struct unpacker *unpacker)
{
    uint32_t size = unpack_u32(unpacker);
    const unsigned char *data = take(unpacker, size);

    return data == NULL ? span_of(NULL, 0) : span_of(data, size);
}

bool unpack_text(struct unpacker *unpacker, char *out, size_t size)
{
    uint32_t length = unpack_u32(unpacker);

    out[0] = '\0';
    if (length == TEXT_ABSENT || unpacker->failed)
        return false;
    if (length >= size) {
        unpacker->failed = true;
        return false;
    }
    unpack_fixed(unpacker, out, length);
    out[length] = '\0';
    return !unpacker->failed;
}
