/* zstd (RFC 8878) as a content coding: no dictionaries, windows of at most 8 MiB. */
#include <stdlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "api/coding.h"

/* RFC 9659, 3: what every receiver of this content coding takes and no sender exceeds: 8 MiB. The
 * command line's levels up to 19 stay below it; --ultra and --long do not. */
enum { WINDOW_LOG = 23 };

/* Of level 1 and its neighbours on normally distributed f32: 1 and above find the 8 % that are in
 * them at 0.9 GB/s; the negative levels find nothing. In JSON level 1 finds most of all at 0.3. */
enum { LEVEL = 1 };

enum { MAGIC_BYTES = 4 };

struct decoder {
    ZSTD_DCtx *context;
    size_t head;   /* bytes of a frame's magic number that were seen */
    bool skips;    /* they are a skippable frame's */
    bool inside;   /* of a frame */
    size_t wanted; /* what the frame's next block takes, of which none ends inside a piece */
};

static void decoder_free(struct decoder *take_decoder)
{
    ZSTD_freeDCtx(take_decoder->context);
    free(take_decoder);
}

static struct decoder *decoder_new(void)
{
    struct decoder *decoder = calloc(1, sizeof *decoder);

    if (decoder == NULL)
        return NULL;
    decoder->context = ZSTD_createDCtx();
    if (decoder->context == NULL ||
        ZSTD_isError(ZSTD_DCtx_setParameter(decoder->context, ZSTD_d_windowLogMax, WINDOW_LOG))) {
        decoder_free(decoder);
        return NULL;
    }
    decoder->wanted = MAGIC_BYTES;
    return decoder;
}

/* The library may also read what came before the standard, with checks that are as old. */
static bool check_magic(struct decoder *decoder, struct span in)
{
    static const unsigned char frame[MAGIC_BYTES] = {0x28, 0xB5, 0x2F, 0xFD};
    static const unsigned char skippable[MAGIC_BYTES] = {0x50, 0x2A, 0x4D, 0x18};

    for (size_t i = 0; i < in.size && decoder->head < MAGIC_BYTES; i++, decoder->head++) {
        if (decoder->head == 0)
            decoder->skips = (in.data[i] & 0xF0) == skippable[0];
        unsigned char byte = decoder->head == 0 && decoder->skips ? skippable[0] : in.data[i];
        if (byte != (decoder->skips ? skippable : frame)[decoder->head])
            return false;
    }
    return true;
}

static enum flow_state fail(size_t code, const char **why)
{
    switch (ZSTD_getErrorCode(code)) {
    case ZSTD_error_memory_allocation:
        return FLOW_MEMORY;
    case ZSTD_error_frameParameter_windowTooLarge:
        *why = "its window is larger than 8 MiB (RFC 9659); compress at a level up to 19 and "
               "without --long";
        break;
    default:
        *why = ZSTD_getErrorName(code);
    }
    return FLOW_BROKEN;
}

static enum flow_state decode(struct decoder *decoder, struct flow *flow, const char **why)
{
    ZSTD_outBuffer out = {.dst = flow->out, .size = flow->room};
    size_t used = 0;

    if (flow->in.size == 0 && !decoder->inside)
        return FLOW_ON;
    do {
        /* A block at a time, so that the place of an error is known that well. */
        size_t size =
            flow->in.size - used < decoder->wanted ? flow->in.size - used : decoder->wanted;
        ZSTD_inBuffer in = {.src = flow->in.data + used, .size = size};
        size_t before = out.pos;
        if (!check_magic(decoder, span_of(in.src, size))) {
            flow->in = span_of(flow->in.data + used, flow->in.size - used);
            *why = "no zstd frame begins here";
            return FLOW_BROKEN;
        }
        size_t left = ZSTD_decompressStream(decoder->context, &out, &in);
        if (ZSTD_isError(left)) {
            flow->in = span_of(flow->in.data + used, flow->in.size - used);
            return fail(left, why);
        }
        used += in.pos;
        if (in.pos > 0)
            decoder->inside = true;
        decoder->wanted = left;
        if (left == 0) {
            decoder->inside = false;
            decoder->head = 0;
            decoder->wanted = MAGIC_BYTES;
        }
        if (in.pos == 0 && out.pos == before)
            break;
    } while (used < flow->in.size && out.pos < out.size);
    flow->in = span_of(flow->in.data + used, flow->in.size - used);
    flow->out += out.pos;
    flow->room -= out.pos;
    return FLOW_ON;
}

static bool decoder_whole(const struct decoder *decoder)
{
    return !decoder->inside;
}

static uint64_t announced(struct span beginning)
{
    unsigned long long size = ZSTD_getFrameContentSize(beginning.data, beginning.size);

    return size == ZSTD_CONTENTSIZE_UNKNOWN || size == ZSTD_CONTENTSIZE_ERROR ? 0 : size;
}

struct encoder {
    ZSTD_CCtx *context;
};

static void encoder_free(struct encoder *take_encoder)
{
    ZSTD_freeCCtx(take_encoder->context);
    free(take_encoder);
}

static struct encoder *encoder_new(size_t size)
{
    struct encoder *encoder = calloc(1, sizeof *encoder);

    if (encoder == NULL)
        return NULL;
    encoder->context = ZSTD_createCCtx();
    if (encoder->context == NULL ||
        ZSTD_isError(ZSTD_CCtx_setParameter(encoder->context, ZSTD_c_compressionLevel, LEVEL)) ||
        ZSTD_isError(ZSTD_CCtx_setParameter(encoder->context, ZSTD_c_checksumFlag, 1)) ||
        ZSTD_isError(ZSTD_CCtx_setPledgedSrcSize(encoder->context, size))) {
        encoder_free(encoder);
        return NULL;
    }
    return encoder;
}

static enum flow_state encode(struct encoder *encoder, struct flow *flow, bool last)
{
    ZSTD_inBuffer in = {.src = flow->in.data, .size = flow->in.size};
    ZSTD_outBuffer out = {.dst = flow->out, .size = flow->room};
    size_t left =
        ZSTD_compressStream2(encoder->context, &out, &in, last ? ZSTD_e_end : ZSTD_e_continue);

    if (ZSTD_isError(left))
        return FLOW_MEMORY; /* nothing else can be wrong with what is to be coded */
    flow->in = span_of(flow->in.data + in.pos, flow->in.size - in.pos);
    flow->out += out.pos;
    flow->room -= out.pos;
    return last && left == 0 ? FLOW_DONE : FLOW_ON;
}

const struct coding coding_zstd = {
    .name = "zstd",
    .meaning = "RFC 8878, windows of at most 8 MiB, no dictionary",
    .window_bytes = (size_t)1 << WINDOW_LOG,
    .worth = 16,
    .decoder_new = decoder_new,
    .decode = decode,
    .decoder_whole = decoder_whole,
    .decoder_free = decoder_free,
    .announced = announced,
    .encoder_new = encoder_new,
    .encode = encode,
    .encoder_free = encoder_free,
};
