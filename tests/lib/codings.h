/* The content codings again, by their libraries' own one-call functions, which share nothing with
 * api/coding/ but the library. tests/scenario/coding.py has encoders of others. */
#ifndef DESCENT_TESTS_CODINGS_H
#define DESCENT_TESTS_CODINGS_H

#include <stdbool.h>

#include "service/core/buffer.h"
#include "service/core/span.h"

/* The bytes in the coding "gzip" or "zstd" (with a checksum and its size at the front). */
struct buffer *codings_encode(const char *coding, struct span bytes);

/* zstd as one who does not know the end writes it: without its size, with a window of 2^log. */
struct buffer *codings_zstd_open(struct span bytes, int window_log);

/* What the bytes say, `size_max` at most; NULL: they are not of this coding. */
struct buffer *codings_decode(const char *coding, struct span bytes, size_t size_max);

bool codings_same(const struct buffer *buffer, struct span bytes);

#endif
