/* The hash of a state. */
#include "service/session/state_hash.h"

#include <string.h>

#include "service/core/crew.h"
#include "service/session/session.h"

enum { BLOCK_BYTES = 256 * 1024, BLOCKS = 64 };

struct hashing {
    const unsigned char *data;
    size_t size;
    struct digest digests[1 + BLOCKS]; /* the one so far, then those of the blocks */
};

static void hash_block(void *context, size_t index)
{
    struct hashing *work = context;
    size_t start = index * BLOCK_BYTES, rest = work->size - start;

    work->digests[1 + index] =
        hash_bytes(work->data + start, rest < BLOCK_BYTES ? rest : BLOCK_BYTES);
}

static void add_vector(struct hashing *work, const unsigned char *data, size_t size)
{
    while (size > 0) {
        size_t piece = size < (size_t)BLOCKS * BLOCK_BYTES ? size : (size_t)BLOCKS * BLOCK_BYTES;
        size_t blocks = (piece + BLOCK_BYTES - 1) / BLOCK_BYTES;
        work->data = data;
        work->size = piece;
        crew_run(blocks, hash_block, work);
        work->digests[0] = hash_bytes(work->digests, (1 + blocks) * sizeof *work->digests);
        data += piece;
        size -= piece;
    }
}

/* How many bases there are once `next` is current. */
static size_t base_count(const struct state *state, const struct revision *next)
{
    if (next == state->current)
        return state->base_count;
    return state->base_count < state->bases_max ? state->base_count + 1 : state->bases_max;
}

static void start(struct hashing *work, const struct state *state, const struct revision *next,
                  const struct plan *plan)
{
    unsigned char head[sizeof(struct digest) + (3 + SCALARS_MAX) * 8];
    uint64_t parts = (next->average != NULL) | (uint64_t)base_count(state, next) << 8;
    struct packer packer = {.data = head, .capacity = sizeof head};

    for (size_t k = 0; k < SLOTS_MAX; k++)
        if (state->slot[k] != NULL)
            parts |= (uint64_t)1 << (32 + k);
    pack_fixed(&packer, plan->layout->digest.bytes, sizeof plan->layout->digest.bytes);
    pack_u64(&packer, next->step);
    pack_u64(&packer, state->updates);
    pack_u64(&packer, parts);
    for (size_t k = 0; k < SCALARS_MAX; k++)
        pack_f64(&packer, state->scalar[k]);
    work->digests[0] = hash_bytes(head, packer.used);
}

struct digest state_hash(const struct state *state, const struct revision *next,
                         const struct plan *plan)
{
    size_t element = dtype_size(plan->rule->dtype), vector = plan->layout->count * element;
    size_t bases = base_count(state, next), shift = next == state->current ? 0 : 1;
    struct hashing work;

    start(&work, state, next, plan);
    add_vector(&work, next->weights->data, vector);
    if (next->average != NULL)
        add_vector(&work, next->average->data, vector);
    for (size_t i = 0; i < bases; i++)
        add_vector(&work,
                   i < shift ? state->current->weights->data
                             : state->base[i - shift]->weights->data,
                   vector);
    for (size_t k = 0; k < SLOTS_MAX; k++)
        if (state->slot[k] != NULL)
            add_vector(&work, state->slot[k]->data, plan->slot_count[k] * element);
    return work.digests[0];
}
