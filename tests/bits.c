/* Prints digests of large fixed runs: every rule in every form and both precisions with its norms,
 * and every conversion. Builds for other compilers and instruction sets must print the same lines:
 * `make check-scalar` compares them. Usage: bits (no arguments). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/core/hash.h"
#include "service/core/rng.h"
#include "service/session/advance.h"
#include "tests/lib/rules.h"

enum { COUNT = 100003, STEPS = 3, CONVERTED = 1 << 18 };

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

/* Numbers of many magnitudes from the counter-based generator: no libm that could differ. */
static void fill(void *vector, enum dtype dtype, uint64_t stream, double scale)
{
    double *values = take(COUNT, sizeof *values);

    for (uint64_t i = 0; i < COUNT; i++) {
        double uniform = rng_uniform(20, stream, i) - 0.5;
        values[i] = scale * ldexp(uniform, -(int)(i % 12));
    }
    dtype_convert(dtype, vector, DTYPE_F64, values, COUNT);
    free(values);
}

/* Three steps with the whole pipeline at work: digests of weights and slots, and the norms' bits.
 */
static void add_run(struct hash *hash, const struct optimizer *rule, const double *hyper,
                    enum dtype wire)
{
    size_t element = dtype_size(rule->dtype);
    void *gradient = take(COUNT, dtype_size(wire)), *param = take(COUNT, element);
    struct advance advance = {.rule = rule,
                              .hyper = hyper,
                              .gradient = {gradient, wire, COUNT},
                              .rescale = 0.7,
                              .clip_value = 0.3,
                              .next_param = take(COUNT, element)};

    for (size_t k = 0; k < rule->slot_count; k++)
        if (slot_needed(&rule->slots[k], hyper))
            advance.slot[k] = take(COUNT, element);
    fill(param, rule->dtype, 1, 4);
    for (uint64_t step = 1; step <= STEPS; step++) {
        struct measure measure = {.rescale = 0.7, .clip_value = 0.3, .norm_clipped = true};
        fill(gradient, wire, 1 + step, 2);
        advances(rule->dtype)->measure(&advance.gradient, &measure);
        advance.clip_scale = fmin(1, 5 / measure.clipped_norm);
        advance.update = step;
        advance.param = param;
        advances(rule->dtype)->run(&advance);
        memcpy(param, advance.next_param, COUNT * element);
        const double norms[] = {measure.norm, measure.clipped_norm, advance.update_norm,
                                advance.param_norm};
        hash_add(hash, norms, sizeof norms);
    }
    hash_add(hash, param, COUNT * element);
    for (size_t k = 0; k < rule->slot_count; k++) {
        if (advance.slot[k] != NULL)
            hash_add(hash, advance.slot[k], COUNT * element);
        free(advance.slot[k]);
    }
    free(gradient);
    free(param);
    free(advance.next_param);
}

static void print_rule(const struct optimizer *rule)
{
    static const enum dtype wires[] = {DTYPE_F32, DTYPE_F64, DTYPE_F16, DTYPE_BF16};
    struct hash *hash = hash_new();
    double hyper[HYPERS_MAX];

    PRE(hash != NULL);
    for (size_t form = 0; form < rule_forms(rule); form++) {
        rule_form(rule, form, hyper);
        add_run(hash, rule, hyper, wires[form % 4]);
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

int main(void)
{
    const struct optimizer *rule;

    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; (rule = optimizer_at(k, i == 0 ? DTYPE_F32 : DTYPE_F64)) != NULL; k++)
            print_rule(rule);
    for (int from = 0; from < DTYPE_COUNT; from++)
        for (int to = 0; to < DTYPE_COUNT; to++)
            if (from != to)
                print_conversion((enum dtype)from, (enum dtype)to);
    return fflush(stdout) == 0 ? 0 : 1;
}
