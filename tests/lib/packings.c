/* Every number is made first, then written where the format has it. */
#include "tests/lib/packings.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "tests/lib/testing.h"

struct writer {
    const struct layout *layout;
    enum dtype wire;
    double density;
    uint64_t random;
    unsigned char *bytes;
    size_t size, room;
    struct packing *out;
};

static void *take(size_t count, size_t size)
{
    void *memory = calloc(count > 0 ? count : 1, size);

    PRE(memory != NULL);
    return memory;
}

static void put(struct writer *w, const void *data, size_t size)
{
    if (w->size + size > w->room) {
        w->room = 2 * (w->size + size);
        w->bytes = realloc(w->bytes, w->room);
        PRE(w->bytes != NULL);
    }
    memcpy(w->bytes + w->size, data, size);
    w->size += size;
}

static void put_whole(struct writer *w, uint64_t number, size_t bytes)
{
    unsigned char digits[8];

    for (size_t i = 0; i < bytes; i++)
        digits[i] = (unsigned char)(number >> 8 * i);
    put(w, digits, bytes);
}

/* A number that the wire can say. */
static double draw(struct writer *w)
{
    unsigned char bytes[8];
    double number = testing_normal(&w->random) * pow(2, -(double)(testing_random(&w->random) % 5));

    dtype_convert(w->wire, bytes, DTYPE_F64, &number, 1);
    dtype_convert(DTYPE_F64, &number, w->wire, bytes, 1);
    return number;
}

static void put_number(struct writer *w, double number)
{
    unsigned char bytes[8];

    dtype_convert(w->wire, bytes, DTYPE_F64, &number, 1);
    put(w, bytes, dtype_size(w->wire));
}

/* Scales, then a code for each element, so many to a byte. */
static void make_codes(struct writer *w, enum gradient_form form)
{
    const struct layout *layout = w->layout;
    double *scale = take(layout->tensor_count, sizeof *scale);
    size_t per = form == FORM_INT8 ? 1 : form == FORM_SIGN ? 8 : 4;
    unsigned byte = 0;

    for (size_t t = 0; t < layout->tensor_count; t++) {
        scale[t] = t % 5 == 4 ? 0 : draw(w);
        put_number(w, scale[t]);
    }
    for (size_t i = 0, t = 0; i < layout->count; i++) {
        while (i >= layout->tensors[t].offset + layout->tensors[t].count)
            t++;
        double s = scale[t], value;
        unsigned random = (unsigned)testing_random(&w->random);
        if (form == FORM_INT8) {
            int q = (int)(random % 256) - 128;
            byte = (unsigned)q & 0xFF;
            value = q * s;
        } else if (form == FORM_SIGN) {
            byte |= (random & 1) << i % 8;
            value = random & 1 ? (s == 0 ? 0 : -s) : s;
        } else {
            byte |= (random & 3) << (6 - 2 * (i % 4));
            value = (random & 3) == 3 ? s : (random & 3) == 2 ? (s == 0 ? 0 : -s) : 0;
        }
        w->out->values[i] = value;
        w->out->sent[i] = true;
        if (i % per == per - 1 || i + 1 == layout->count) {
            put_whole(w, byte, 1);
            byte = 0;
        }
    }
    free(scale);
}

static void make_topk(struct writer *w)
{
    size_t count = w->layout->count, entries = 0;

    for (size_t i = 0; i < count; i++) {
        w->out->sent[i] = testing_uniform(&w->random) < w->density;
        entries += w->out->sent[i];
    }
    put_whole(w, entries, 8);
    for (size_t i = 0; i < count; i++)
        if (w->out->sent[i])
            put_whole(w, i, 4);
    for (size_t i = 0; i < count; i++)
        if (w->out->sent[i])
            put_number(w, w->out->values[i] = draw(w));
}

static size_t length_of(const struct tensor *tensor)
{
    return tensor->rank == 0 ? 1 : tensor->count / tensor->shape[0];
}

/* Rows are drawn in runs, so that some touch each other. */
static void make_rows(struct writer *w)
{
    const struct layout *layout = w->layout;
    uint64_t rows = 0, values = 0;
    bool *sent = w->out->sent, wanted = false;

    for (size_t t = 0; t < layout->tensor_count; t++) {
        const struct tensor *tensor = &layout->tensors[t];
        put_whole(w, rows, 8);
        put_whole(w, values, 8);
        for (size_t i = 0; i < tensor->count; i += length_of(tensor)) {
            if (w->density >= 1 || w->density <= 0 || testing_random(&w->random) % 3 > 0)
                wanted = testing_uniform(&w->random) < w->density;
            for (size_t k = 0; k < length_of(tensor); k++)
                sent[tensor->offset + i + k] = wanted;
            rows += wanted;
            values += wanted ? length_of(tensor) : 0;
        }
    }
    put_whole(w, rows, 8);
    put_whole(w, values, 8);
    for (size_t t = 0; t < layout->tensor_count; t++) {
        const struct tensor *tensor = &layout->tensors[t];
        for (size_t i = 0; i < tensor->count; i += length_of(tensor))
            if (sent[tensor->offset + i])
                put_whole(w, i / length_of(tensor), 4);
    }
    for (size_t i = 0; i < layout->count; i++)
        if (sent[i])
            put_number(w, w->out->values[i] = draw(w));
}

struct packing packing_random(const struct layout *layout, enum gradient_form form, enum dtype wire,
                              double density, uint64_t seed)
{
    struct packing out = {.values = take(layout->count, sizeof(double)),
                          .sent = take(layout->count, sizeof(bool))};
    struct writer w = {layout, wire, density, testing_seed() ^ seed, NULL, 0, 0, &out};

    PRE(form != FORM_DENSE);
    if (form == FORM_TOPK)
        make_topk(&w);
    else if (form == FORM_ROWS)
        make_rows(&w);
    else
        make_codes(&w, form);
    void *exact = malloc(w.size);
    PRE(exact != NULL);
    memcpy(exact, w.bytes, w.size);
    free(w.bytes);
    out.gradient = (struct wire_gradient){.data = exact,
                                          .wire = wire,
                                          .count = layout->count,
                                          .form = form,
                                          .size = w.size,
                                          .layout = layout};
    return out;
}

void packing_free(struct packing *packing)
{
    free(packing->gradient.data);
    free(packing->values);
    free(packing->sent);
}

struct wire_gradient packing_dense(const struct packing *packing)
{
    return dense_gradient(packing->values, DTYPE_F64, packing->gradient.count);
}
