/* Bodies of gradients as clients send them, of one tensor "w". */
#ifndef DESCENT_TESTS_BENCH_CODINGS_H
#define DESCENT_TESTS_BENCH_CODINGS_H

#include "tests/bench/bench.h"

struct gradient_form {
    const char *name;
    const char *media;
    const char *query; /* "" or what follows a '?' or '&' */
};

/* Every coding there is; NULL past the end. rows sends one row in ten, topk one element in 100. */
const struct gradient_form *gradient_form_at(size_t index);

/* The body for `count` elements (rows of 100), malloc'ed. */
struct request_bytes gradient_form_body(const struct gradient_form *coding, size_t count);

#endif
