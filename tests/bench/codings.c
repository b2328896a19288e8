/* Gradients in every coding. */
#include "tests/bench/codings.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const struct gradient_form codings[] = {
    {"f32", "application/octet-stream", "dtype=f32"},
    {"bf16", "application/octet-stream", "dtype=bf16"},
    {"int8", "application/vnd.safetensors", ""},
    {"sign", "application/vnd.safetensors", ""},
    {"topk", "application/vnd.safetensors", ""},
    {"2bit", "application/vnd.safetensors", ""},
    {"rows", "application/vnd.safetensors", ""},
};

enum { COLUMNS = 100, HEAD_BYTES = 1024 };

const struct gradient_form *gradient_form_at(size_t index)
{
    return index < sizeof codings / sizeof *codings ? &codings[index] : NULL;
}

/* A tensor of a safetensors file. */
struct part {
    const char *name, *dtype, *shape;
    const void *data;
    size_t size;
};

/* The parts in this order, which is that of their names. */
static struct request_bytes safetensors(const char *codec, const struct part *parts, size_t count)
{
    struct request_bytes out = {.data = malloc(HEAD_BYTES)};
    char *head;
    size_t at = 0, used;

    if (out.data == NULL)
        bench_fail("memory");
    head = out.data + 8;
    used = (size_t)snprintf(head, HEAD_BYTES - 8, "{\"__metadata__\":{\"codec\":\"%s\"}", codec);
    for (size_t i = 0; i < count; i++) {
        used +=
            (size_t)snprintf(head + used, HEAD_BYTES - 8 - used,
                             ",\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                             parts[i].name, parts[i].dtype, parts[i].shape, at, at + parts[i].size);
        at += parts[i].size;
    }
    head[used++] = '}';
    while (used % 8 != 0)
        head[used++] = ' ';
    memcpy(out.data, &(uint64_t){used}, 8);
    out.size = 8 + used + at;
    out.data = realloc(out.data, out.size);
    if (out.data == NULL)
        bench_fail("memory");
    at = 8 + used;
    for (size_t i = 0; i < count; i++) {
        memcpy(out.data + at, parts[i].data, parts[i].size);
        at += parts[i].size;
    }
    return out;
}

static struct request_bytes dense(const float *numbers, size_t count, bool brain)
{
    struct request_bytes out = {.size = count * (brain ? 2 : sizeof *numbers)};

    if ((out.data = malloc(out.size)) == NULL)
        bench_fail("memory");
    if (!brain)
        memcpy(out.data, numbers, out.size);
    for (size_t i = 0; brain && i < count; i++) /* the upper half */
        memcpy(out.data + 2 * i, (const char *)&numbers[i] + 2, 2);
    return out;
}

/* Random bytes are good codes of every kind; they are followed by a scale. */
static struct request_bytes codes(const char *codec, const char *name, const char *dtype,
                                  const float *numbers, size_t size, size_t last_bits,
                                  const char *scale_name)
{
    static const float scale = 0.001F;
    unsigned char *bytes = malloc(size);

    if (bytes == NULL)
        bench_fail("memory");
    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)(numbers[i % 1000] * 1e6F);
    if (last_bits > 0)
        bytes[size - 1] &= (unsigned char)((1u << last_bits) - 1);
    struct part parts[] = {
        {name, dtype, bench_text("[%zu]", size), bytes, size},
        {scale_name, "F32", "[]", &scale, sizeof scale},
    };
    struct request_bytes out = safetensors(codec, parts, 2);
    free(bytes);
    return out;
}

/* Every `stride`-th of `count` places, and values of `width` each. */
static struct request_bytes sparse(const char *codec, const float *numbers, size_t count,
                                   size_t stride, size_t width)
{
    size_t places = count / stride;
    int64_t *index = malloc(places * sizeof *index);
    bool rows = width > 1;

    if (index == NULL)
        bench_fail("memory");
    for (size_t i = 0; i < places; i++)
        index[i] = (int64_t)(i * stride);
    struct part parts[] = {
        {rows ? "w.rows" : "w.indices", "I64", bench_text("[%zu]", places), index,
         places * sizeof *index},
        {"w.values", "F32",
         rows ? bench_text("[%zu,%zu]", places, width) : bench_text("[%zu]", places), numbers,
         places * width * sizeof *numbers},
    };
    struct request_bytes out = safetensors(codec, parts, 2);
    free(index);
    return out;
}

struct request_bytes gradient_form_body(const struct gradient_form *coding, size_t count)
{
    float *numbers = malloc(count * sizeof *numbers);
    struct request_bytes out = {0};
    const char *name = coding->name;

    if (numbers == NULL)
        bench_fail("memory");
    bench_fill(numbers, count, 1);
    if (strcmp(name, "f32") == 0 || strcmp(name, "bf16") == 0)
        out = dense(numbers, count, name[0] == 'b');
    else if (strcmp(name, "int8") == 0)
        out = codes(name, "w", "I8", numbers, count, 0, "w.scale");
    else if (strcmp(name, "sign") == 0)
        out = codes(name, "w.sign", "U8", numbers, (count + 7) / 8, count % 8, "w.scale");
    else if (strcmp(name, "2bit") == 0)
        out = codes(name, "w", "U8", numbers, (count + 15) / 16 * 4, 0, "w.threshold");
    else if (strcmp(name, "topk") == 0)
        out = sparse(name, numbers, count, 100, 1);
    else
        out = sparse(name, numbers, count / COLUMNS, 10, COLUMNS);
    free(numbers);
    return out;
}
