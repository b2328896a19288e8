/* Bodies of gradients as clients send them, of one tensor "w". */
#ifndef DESCENT_TESTS_BENCH_CODINGS_H
#define DESCENT_TESTS_BENCH_CODINGS_H

#include "tests/bench/bench.h"

struct coding {
    const char *name;
    const char *media;
    const char *query; /* "" or what follows a '?' or '&' */
};

/* Every coding there is; NULL past the end. rows sends one row in ten, topk one element in 100. */
const struct coding *coding_at(size_t index);

/* The body for `count` elements (rows of 100), malloc'ed. */
struct request_bytes coding_body(const struct coding *coding, size_t count);

#endif
