/* gzip (RFC 1952) as a content coding. */
#include <stdlib.h>
#define ZLIB_CONST
#include <zlib.h>

#include "api/coding.h"

enum {
    WINDOW_BITS = 15, /* all that the format has: 32 KiB */
    GZIP = 16,        /* zlib's way to ask for its header and trailer, and no other */
    MAGIC_FIRST = 0x1F,
    MEMORY = 8,           /* zlib's default: 256 KiB */
    LEVEL = 1,            /* 6 takes six times as long on JSON and saves a tenth more */
    STEP_BYTES = 1 << 30, /* zlib counts in 32 bits */
};

struct decoder {
    z_stream stream;
    bool inside; /* of a member */
};

static void decoder_free(struct decoder *take_decoder)
{
    inflateEnd(&take_decoder->stream);
    free(take_decoder);
}

static struct decoder *decoder_new(void)
{
    struct decoder *decoder = calloc(1, sizeof *decoder);

    if (decoder != NULL && inflateInit2(&decoder->stream, WINDOW_BITS + GZIP) != Z_OK) {
        free(decoder);
        decoder = NULL;
    }
    return decoder;
}

static uInt step(size_t size)
{
    return size < STEP_BYTES ? (uInt)size : STEP_BYTES;
}

static void open_step(z_stream *stream, const struct flow *flow)
{
    stream->next_in = flow->in.data;
    stream->avail_in = step(flow->in.size);
    stream->next_out = flow->out;
    stream->avail_out = step(flow->room);
}

static void close_step(const z_stream *stream, struct flow *flow)
{
    size_t taken = (size_t)(stream->next_in - flow->in.data);

    flow->in = span_of(stream->next_in, flow->in.size - taken);
    flow->room -= (size_t)(stream->next_out - flow->out);
    flow->out = stream->next_out;
}

static enum flow_state decode(struct decoder *decoder, struct flow *flow, const char **why)
{
    z_stream *stream = &decoder->stream;

    while (flow->in.size > 0 || decoder->inside) {
        size_t before = flow->in.size + flow->room;
        if (!decoder->inside && flow->in.data[0] != MAGIC_FIRST) {
            *why = "no gzip member begins here";
            return FLOW_BROKEN;
        }
        open_step(stream, flow);
        int result = inflate(stream, Z_NO_FLUSH);
        close_step(stream, flow);
        if (result == Z_MEM_ERROR)
            return FLOW_MEMORY;
        if (result != Z_OK && result != Z_BUF_ERROR && result != Z_STREAM_END) {
            *why = stream->msg != NULL ? stream->msg : "this cannot be";
            return FLOW_BROKEN;
        }
        decoder->inside = result != Z_STREAM_END;
        if (result == Z_STREAM_END)
            inflateReset(stream); /* another member may follow */
        if (flow->room == 0 || flow->in.size + flow->room == before)
            break;
    }
    return FLOW_ON;
}

static bool decoder_whole(const struct decoder *decoder)
{
    return !decoder->inside;
}

/* The size stands at the end, and modulo 2^32. */
static uint64_t announced(struct span beginning)
{
    (void)beginning;
    return 0;
}

struct encoder {
    z_stream stream;
};

static void encoder_free(struct encoder *take_encoder)
{
    deflateEnd(&take_encoder->stream);
    free(take_encoder);
}

static struct encoder *encoder_new(size_t size)
{
    struct encoder *encoder = calloc(1, sizeof *encoder);

    (void)size;
    if (encoder != NULL && deflateInit2(&encoder->stream, LEVEL, Z_DEFLATED, WINDOW_BITS + GZIP,
                                        MEMORY, Z_DEFAULT_STRATEGY) != Z_OK) {
        free(encoder);
        encoder = NULL;
    }
    return encoder;
}

static enum flow_state encode(struct encoder *encoder, struct flow *flow, bool last)
{
    bool all = flow->in.size <= STEP_BYTES;

    open_step(&encoder->stream, flow);
    int result = deflate(&encoder->stream, last && all ? Z_FINISH : Z_NO_FLUSH);
    close_step(&encoder->stream, flow);
    if (result == Z_STREAM_END)
        return FLOW_DONE;
    return result == Z_OK || result == Z_BUF_ERROR ? FLOW_ON : FLOW_MEMORY;
}

const struct coding coding_gzip = {
    .name = "gzip",
    .alias = "x-gzip",
    .meaning = "RFC 1952; slower than zstd both ways",
    .window_bytes = (size_t)1 << WINDOW_BITS,
    .worth = 8,
    .decoder_new = decoder_new,
    .decode = decode,
    .decoder_whole = decoder_whole,
    .decoder_free = decoder_free,
    .announced = announced,
    .encoder_new = encoder_new,
    .encode = encode,
    .encoder_free = encoder_free,
};
