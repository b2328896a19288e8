/* Steps as a client sends them that has a token, compresses, and says digests. */
#ifndef DESCENT_TESTS_BENCH_WRAPPED_H
#define DESCENT_TESTS_BENCH_WRAPPED_H

#include "tests/bench/bench.h"

struct wrapping {
    bool json;          /* else raw f32 */
    bool answered;      /* with the parameters, raw; else with a receipt */
    bool digest;        /* SHA-256 of the body is said, of the answer wanted */
    const char *coding; /* of the body, and accepted of the answer: "zstd", "gzip"; NULL: none */
    const char *token;  /* NULL: none */
};

/* The request of a step of session `id`. */
struct request_bytes wrapped_step(const char *id, const float *gradient, size_t count,
                                  const struct wrapping *wrapping);

/* load_create_session with a token (NULL: none), over TLS or not. */
void wrapped_session(unsigned port, const char *id, size_t count, const char *more,
                     const char *token, bool secure);

/* A new token for the server that keeps its data under `name` of the folder, malloc'ed. */
char *wrapped_token(const struct bench *bench, const char *name);

#endif
