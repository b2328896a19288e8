/* Requests that must be refused and must change nothing: a live server with one session, which is
 * compared before and after each. */
#ifndef DESCENT_TESTS_REFUSAL_H
#define DESCENT_TESTS_REFUSAL_H

#include <stddef.h>

#include "tests/lib/api_client.h"
#include "tests/lib/live_server.h"

/* The session: plain sgd with lr 1 in f32, layout w [2, 2], a/b [3], s [] (8 numbers), all 0. */
#define REFUSAL_SESSION "/v1/sessions/victim"
#define REFUSAL_STEPS REFUSAL_SESSION "/gradients"
#define REFUSAL_WEIGHTS REFUSAL_SESSION "/parameters"
#define REFUSAL_TENSORS "{\"w\": [[1, 2], [3, 4]], \"a/b\": [5, 6, 7], \"s\": 8}"
enum { REFUSAL_COUNT = 8 };

struct refusal {
    const char *method, *path;
    const char *headers; /* lines; "" for none */
    const void *body;    /* NULL: none */
    size_t size;
    unsigned status;
    const char *code;
    const char *pointer; /* NULL: no errors are listed */
    const char *words;   /* must occur in `detail`; NULL: any */
};

extern struct live_server refusal_server;

/* Starts the server (options as for live_server_start) and makes the session. */
void refusal_start(const char *const *options);
void refusal_stop(void);

/* Sends it: the problem must be as described, and the list of sessions, the session and its weights
 * the same as before. */
void refusal_check(const struct refusal *refusal);

/* The same for a body of JSON text. */
void refusal_check_json(const char *method, const char *path, const char *json, unsigned status,
                        const char *code, const char *pointer, const char *words);

/* Sends JSON that must be taken with this status. Close the answer. */
struct answer refusal_accept(const char *method, const char *path, const char *headers,
                             const char *json, unsigned status);

#endif
