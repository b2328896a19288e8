/* Prints digests of large fixed runs: every rule in its forms (all of them, or RULE_FORMS_MAX) and
 * both precisions with its norms, every conversion, and blocks of every compressed form. Builds for
 * other compilers and instruction sets must print the same lines: `make check-scalar` compares
 * them. Usage: bits (no arguments). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/core/hash.h"
#include "service/core/rng.h"
#include "service/session/advance.h"
#include "tests/lib/packings.h"
#include "tests/lib/rules.h"

enum { STEPS = 3, CONVERTED = 1 << 18 };
enum { STREAM_PARAM, STREAM_GRADIENT, STREAM_PROPOSAL = STREAM_GRADIENT + STEPS, STREAMS };

/* Tensors of every kind, some longer than a block, and the numbers that fill them. */
static struct layout *layout;
static double *streams[STREAMS];

static void *take(size_t count, size_t size)
{
    void *memory = calloc(count, size);

    PRE(memory != NULL);
    return memory;
}

static void print_digest(const char *what, const char *which, struct digest digest)
{
    printf("%s %s ", what, which);
    for (size_t i = 0; i < sizeof digest.bytes; i++)
        printf("%02x", digest.bytes[i]);
    printf("\n");
}

static void add_tensor(const char *name, unsigned rank, size_t one, size_t two, size_t three)
{
    const size_t shape[] = {one, two, three};
    struct fault fault;

    PRE(layout_add(layout, name, strlen(name), rank, shape, &fault) == STATUS_OK);
}

/* Numbers of many magnitudes from the counter-based generator: no libm that could differ. */
static void make_inputs(void)
{
    struct fault fault;

    PRE((layout = layout_new()) != NULL);
    add_tensor("wide", 2, 203, 307, 0);
    add_tensor("vector", 1, 20011, 0, 0);
    add_tensor("empty", 2, 3, 0, 0);
    add_tensor("scalar", 0, 0, 0, 0);
    add_tensor("tall", 2, 601, 19, 0);
    add_tensor("cube", 3, 7, 11, 83);
    PRE(layout_seal(layout, &fault) == STATUS_OK);
    for (uint64_t stream = 0; stream < STREAMS; stream++) {
        streams[stream] = take(layout->count, sizeof(double));
        for (uint64_t i = 0; i < layout->count; i++)
            streams[stream][i] = ldexp(rng_uniform(20, 1 + stream, i) - 0.5, -(int)(i % 12));
    }
}

static void fill(void *vector, enum dtype dtype, size_t stream, double scale, size_t count)
{
    static double block[WHOLE_BLOCK];

    for (size_t start = 0, part; start < count; start += part) {
        part = count - start < WHOLE_BLOCK ? count - start : WHOLE_BLOCK;
        for (size_t i = 0; i < part; i++)
            block[i] = scale * streams[stream][start + i];
        dtype_convert(dtype, (unsigned char *)vector + start * dtype_size(dtype), DTYPE_F64, block,
                      part);
    }
}

/* Three steps with the whole pipeline at work: digests of weights and state, and the norms' bits.
 * What a rule proposes may differ between machines: fixed numbers stand for it. */
static void add_run(struct hash *hash, const struct spec *spec, enum dtype wire)
{
    static const size_t results[] = {TRIAL_PARAM,    TRIAL_AVERAGE,  TRIAL_SLOT,
                                     TRIAL_SLOT + 1, TRIAL_SLOT + 2, TRIAL_SLOT + 3};
    const struct advance_functions *functions = advances(spec->dtype);
    struct trial trial;
    struct advance *advance = &trial.advance;

    trial_open(&trial, spec, layout, 0);
    trial.proposes = false;
    advance->gradient.wire = wire;
    advance->rescale = 0.7;
    advance->clip_value = 0.3;
    if (trial.rule->bases != NULL && trial.rule->bases(spec->hyper) > 0)
        advance->base = trial.vector[TRIAL_BASE].data;
    fill(trial.vector[TRIAL_PARAM].data, spec->dtype, STREAM_PARAM, 4, layout->count);
    fill(trial.vector[TRIAL_BASE].data, spec->dtype, STREAM_PARAM, 3.9, layout->count);
    fill(trial.vector[TRIAL_PROPOSAL].data, spec->dtype, STREAM_PROPOSAL, 0.1,
         trial.plan->proposal_count);
    for (size_t step = 0; step < STEPS; step++) {
        struct measure measure = {.rescale = 0.7, .clip_value = 0.3, .norm_clipped = true};
        fill(advance->gradient.data, wire, STREAM_GRADIENT + step, 2, layout->count);
        functions->measure(&advance->gradient, &measure);
        advance->clip_scale = fmin(1, 5 / measure.clipped_norm);
        trial_step(&trial);
        const double norms[] = {measure.norm, measure.clipped_norm, advance->update_norm,
                                advance->param_norm};
        hash_add(hash, norms, sizeof norms);
    }
    for (size_t i = 0; i < sizeof results / sizeof *results; i++)
        if (trial.vector[results[i]].data != NULL)
            hash_add(hash, trial.vector[results[i]].data, trial.vector[results[i]].size);
    hash_add(hash, trial.scalar, sizeof trial.scalar);
    trial_close(&trial);
}

static void print_rule(const struct optimizer *rule)
{
    static const enum dtype wires[] = {DTYPE_F32, DTYPE_F64, DTYPE_F16, DTYPE_BF16};
    struct hash *hash = hash_new();
    struct spec spec;

    PRE(hash != NULL);
    for (size_t form = 0; form < rule_forms(rule); form++) {
        rule_spec(&spec, rule, form);
        spec.ema.on = form % 3 == 0;
        add_run(hash, &spec, wires[form % 4]);
    }
    print_digest(rule->name, dtype_name(rule->dtype), hash_end(hash));
}

/* Random bit patterns: infinities, NaNs and subnormals among them. What is a NaN may differ in its
 * payload after arithmetic, not after a conversion. */
static void print_conversion(enum dtype from, enum dtype to)
{
    size_t from_size = dtype_size(from), to_size = dtype_size(to);
    unsigned char *in = take(CONVERTED, from_size), *out = take(CONVERTED, to_size);
    char which[16];

    for (size_t i = 0; i < CONVERTED; i++) {
        uint32_t block[4];
        rng_block(21, from, i, block);
        memcpy(in + i * from_size, block, from_size);
    }
    dtype_convert(to, out, from, in, CONVERTED);
    snprintf(which, sizeof which, "%s-%s", dtype_name(from), dtype_name(to));
    print_digest("convert", which, hash_bytes(out, CONVERTED * to_size));
    free(in);
    free(out);
}

/* Blocks of every compressed form, of codes that are random bits, cut at odd places. */
static void print_form(enum gradient_form form, const char *name, enum dtype wire)
{
    struct packing packing = packing_random(layout, form, wire, 0.3, 22);
    float *narrow = take(layout->count, sizeof *narrow);
    double *wide = take(layout->count, sizeof *wide);

    for (size_t start = 0, some; start < layout->count; start += some) {
        some = 1 + start % 5003;
        some = some < layout->count - start ? some : layout->count - start;
        gradient_block_f32(&packing.gradient, start, some, narrow + start);
        gradient_block_f64(&packing.gradient, start, some, wide + start);
    }
    struct hash *hash = hash_new();
    PRE(hash != NULL);
    hash_add(hash, narrow, layout->count * sizeof *narrow);
    hash_add(hash, wide, layout->count * sizeof *wide);
    print_digest(name, dtype_name(wire), hash_end(hash));
    packing_free(&packing);
    free(narrow);
    free(wide);
}

int main(void)
{
    static const char *const forms[] = {NULL, "int8", "sign", "topk", "2bit", "rows"};
    const struct optimizer *rule;

    make_inputs();
    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; (rule = optimizer_at(k, i == 0 ? DTYPE_F32 : DTYPE_F64)) != NULL; k++)
            print_rule(rule);
    for (int from = 0; from < DTYPE_COUNT; from++)
        for (int to = 0; to < DTYPE_COUNT; to++)
            if (from != to)
                print_conversion((enum dtype)from, (enum dtype)to);
    for (int form = FORM_DENSE + 1; form < FORM_NONE; form++)
        for (int wire = 0; wire < DTYPE_COUNT; wire++)
            print_form((enum gradient_form)form, forms[form], (enum dtype)wire);
    return fflush(stdout) == 0 ? 0 : 1;
}
