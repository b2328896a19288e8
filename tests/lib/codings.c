/* The content codings by their libraries' own one-call functions. */
#include "tests/lib/codings.h"

#include <check.h>
#include <string.h>
#define ZLIB_CONST
#include <zlib.h>
#include <zstd.h>

enum { GZIP_WINDOW = 15 + 16, GZIP_LEVEL = 6, ZSTD_LEVEL = 3 };

static bool is_zstd(const char *coding)
{
    ck_assert(strcmp(coding, "zstd") == 0 || strcmp(coding, "gzip") == 0);
    return strcmp(coding, "zstd") == 0;
}

static struct buffer *room(size_t size)
{
    struct buffer *buffer = buffer_new(size);

    ck_assert_ptr_nonnull(buffer);
    return buffer;
}

static size_t zstd_encode(struct buffer *out, struct span bytes, bool open, int window_log)
{
    ZSTD_CCtx *context = ZSTD_createCCtx();
    ZSTD_inBuffer in = {bytes.data, bytes.size, 0};
    ZSTD_outBuffer place = {out->data, out->size, 0};

    ck_assert_ptr_nonnull(context);
    ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, ZSTD_LEVEL);
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
    if (open) {
        ck_assert(!ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, window_log)));
        ck_assert(!ZSTD_isError(ZSTD_compressStream2(context, &place, &in, ZSTD_e_flush)));
        ck_assert_uint_eq(ZSTD_compressStream2(context, &place, &in, ZSTD_e_end), 0);
    } else {
        place.pos = ZSTD_compress2(context, out->data, out->size, bytes.data, bytes.size);
        ck_assert(!ZSTD_isError(place.pos));
    }
    ZSTD_freeCCtx(context);
    return place.pos;
}

static size_t gzip_encode(struct buffer *out, struct span bytes)
{
    z_stream stream = {.next_in = bytes.data,
                       .avail_in = (uInt)bytes.size,
                       .next_out = out->data,
                       .avail_out = (uInt)out->size};

    ck_assert_int_eq(
        deflateInit2(&stream, GZIP_LEVEL, Z_DEFLATED, GZIP_WINDOW, 8, Z_DEFAULT_STRATEGY), Z_OK);
    ck_assert_int_eq(deflate(&stream, Z_FINISH), Z_STREAM_END);
    size_t size = stream.total_out;
    deflateEnd(&stream);
    return size;
}

struct buffer *codings_encode(const char *coding, struct span bytes)
{
    struct buffer *out = room(ZSTD_compressBound(bytes.size) + bytes.size / 512 + 64);

    buffer_shrink(out,
                  is_zstd(coding) ? zstd_encode(out, bytes, false, 0) : gzip_encode(out, bytes));
    return out;
}

struct buffer *codings_zstd_open(struct span bytes, int window_log)
{
    struct buffer *out = room(ZSTD_compressBound(bytes.size) + 64);

    buffer_shrink(out, zstd_encode(out, bytes, true, window_log));
    return out;
}

/* SIZE_MAX: they are not of this coding. */
static size_t gzip_decode(struct buffer *out, struct span bytes)
{
    z_stream stream = {.next_in = bytes.data,
                       .avail_in = (uInt)bytes.size,
                       .next_out = out->data,
                       .avail_out = (uInt)out->size};

    ck_assert_int_eq(inflateInit2(&stream, GZIP_WINDOW), Z_OK);
    int result = inflate(&stream, Z_FINISH);
    size_t size = result == Z_STREAM_END && stream.avail_in == 0 ? stream.total_out : SIZE_MAX;
    inflateEnd(&stream);
    return size;
}

struct buffer *codings_decode(const char *coding, struct span bytes, size_t size_max)
{
    struct buffer *out = room(size_max);
    size_t size = is_zstd(coding) ? ZSTD_decompress(out->data, size_max, bytes.data, bytes.size)
                                  : gzip_decode(out, bytes);

    if (size <= size_max) {
        buffer_shrink(out, size);
        return out;
    }
    buffer_release(out);
    return NULL;
}

bool codings_same(const struct buffer *buffer, struct span bytes)
{
    return buffer->size == bytes.size &&
           (bytes.size == 0 || memcmp(buffer->data, bytes.data, bytes.size) == 0);
}
