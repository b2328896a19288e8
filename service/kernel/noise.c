/* Philox 4x32-10 (service/core/rng.h) and Box & Muller over arrays. */
#include "service/kernel/noise.h"

#include <string.h>

#include "service/core/simd.h"
#include "service/kernel/elementary.h"

enum { BLOCKS = 256, ROUNDS = 10 }; /* of a batch: 12 KiB with its numbers, in first-level cache */

/* 32-bit words in the low halves. What is in the high halves never reaches a product: one word a
 * 64-bit lane, because the product of two needs the lane anyway. */
struct counter {
    uint64_t word[4];
};

struct key {
    uint32_t even, odd;
};

static inline struct counter turn(struct counter c, struct key key)
{
    uint64_t p0 = (uint64_t)(uint32_t)c.word[0] * 0xD2511F53u;
    uint64_t p1 = (uint64_t)(uint32_t)c.word[2] * 0xCD9E8D57u;

    return (struct counter){
        {(p1 >> 32) ^ c.word[1] ^ key.even, p1, (p0 >> 32) ^ c.word[3] ^ key.odd, p0}};
}

/* words[k * BLOCKS + i] = word k of block first + i. The rounds stand one by one, as gcc does not
 * vectorise a loop around a loop. */
KERNEL static void draw(uint64_t *restrict words, const struct key *restrict keys, uint64_t stream,
                        uint64_t first, size_t blocks)
{
    for (size_t i = 0; i < blocks; i++) {
        uint64_t index = first + i;
        struct counter c = {{index, index >> 32, stream, stream >> 32}};
        c = turn(c, keys[0]);
        c = turn(c, keys[1]);
        c = turn(c, keys[2]);
        c = turn(c, keys[3]);
        c = turn(c, keys[4]);
        c = turn(c, keys[5]);
        c = turn(c, keys[6]);
        c = turn(c, keys[7]);
        c = turn(c, keys[8]);
        c = turn(c, keys[9]);
        words[i] = c.word[0];
        words[BLOCKS + i] = c.word[1];
        words[2 * BLOCKS + i] = c.word[2];
        words[3 * BLOCKS + i] = c.word[3];
    }
}

/* The first 53 bits of two words as a fraction in [0, 1). */
static inline double unit(uint64_t high, uint64_t low)
{
    return elementary_of_whole(high & 0xffffffff) * 0x1p-32 +
           elementary_of_whole((low & 0xffffffff) >> 11) * 0x1p-53;
}

KERNEL static void shape(real *restrict out, const uint64_t *restrict words, size_t blocks)
{
    for (size_t i = 0; i < blocks; i++) {
        double cosine, sine;
        double radius = sqrt(-2 * elementary_log_normal(1 - unit(words[i], words[BLOCKS + i]), 0));
        elementary_turn(2 * unit(words[2 * BLOCKS + i], words[3 * BLOCKS + i]), &cosine, &sine);
        out[2 * i] = (real)(radius * cosine);
        out[2 * i + 1] = (real)(radius * sine);
    }
}

void REAL(noise_normal)(real *out, uint64_t seed, uint64_t step, uint64_t start, size_t count)
{
    struct key keys[ROUNDS];
    uint64_t words[4 * BLOCKS];
    real numbers[2 * BLOCKS];

    for (uint32_t k = 0; k < ROUNDS; k++)
        keys[k] = (struct key){(uint32_t)seed + k * 0x9E3779B9u,
                               (uint32_t)(seed >> 32) + k * 0xBB67AE85u};
    for (size_t done = 0, some; done < count; done += some) {
        size_t skip = (start + done) % 2, blocks = (skip + (count - done) + 1) / 2;
        blocks = blocks < BLOCKS ? blocks : BLOCKS;
        some = 2 * blocks - skip < count - done ? 2 * blocks - skip : count - done;
        draw(words, keys, NOISE_STREAM + step, (start + done) / 2, blocks);
        shape(numbers, words, blocks);
        memcpy(out + done, numbers + skip, some * sizeof *out);
    }
}
