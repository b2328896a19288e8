/* A session of a live server that is fed numbered gradients, and whose weights are compared bit for
 * bit. What should work and does not fails the test. */
#ifndef DESCENT_TESTS_REMOTE_H
#define DESCENT_TESTS_REMOTE_H

#include <stdint.h>

#include "tests/lib/api_client.h"

/* Its layout: w [5, 7], none [0, 3], b [7], s []. */
#define REMOTE_PARAMETERS                                                                          \
    "\"parameters\": {\"w\": {\"shape\": [5, 7], \"init\": {\"normal\": {\"mean\": 0, \"std\": "   \
    "1}}}, "                                                                                       \
    "\"none\": {\"shape\": [0, 3], \"init\": \"zeros\"}, \"b\": {\"shape\": [7], \"init\": "       \
    "\"ones\"}, "                                                                                  \
    "\"s\": 0.5}"
enum { REMOTE_COUNT = 5 * 7 + 7 + 1, REMOTE_TEXT_BYTES = 4096, REMOTE_HASH_BYTES = 33 };

struct remote {
    unsigned port;
    char path[96];  /* "/v1/sessions/<id>" */
    uint64_t seed;  /* of its gradients */
    size_t element; /* bytes of a number: 4 or 8 */
};

struct weights {
    unsigned char bytes[8 * REMOTE_COUNT];
    size_t size;
};

/* Creates it with these members besides the parameters ("\"optimizer\": \"adam\""). */
struct remote remote_create(unsigned port, const char *id, const char *members);

/* Session "one" of one weight, 0, under plain sgd with lr 1: it moves by minus the gradient. It is
 * fed by hand. */
struct remote remote_one_weight(unsigned port, const char *aggregation);

/* Another handle: the same gradients for another session, on any server. */
struct remote remote_other(const struct remote *remote, unsigned port, const char *id);

/* Gradient number `number`, f32, normally distributed. */
void remote_gradient(const struct remote *remote, uint64_t number, float out[REMOTE_COUNT]);

/* Sends it, with more header lines and query ("" or "?..."). Close the answer. */
struct answer remote_try(const struct remote *remote, uint64_t number, const char *query,
                         const char *headers);

/* Takes the steps with gradients first .. last. */
void remote_steps(const struct remote *remote, uint64_t first, uint64_t last);

/* The weights, under a query ("" or "?step=3"). */
struct weights remote_weights(const struct remote *remote, const char *query);
void remote_check_same(const struct weights *one, const struct weights *other, const char *what);

/* The state's hash, under a query. */
void remote_hash(const struct remote *remote, const char *query, char out[REMOTE_HASH_BYTES]);

/* Sends JSON (NULL: no body) to a path under the session's and wants this status. Close it. */
struct answer remote_send(const struct remote *remote, const char *method, const char *under,
                          const char *json, unsigned status);

/* The same for a problem of this code. */
void remote_refused(const struct remote *remote, const char *method, const char *under,
                    const char *json, unsigned status, const char *code);

/* A number among the answer's members. */
json_int_t answer_number(const struct answer *answer, const char *name);

/* GET of a whole state, which must be served. Close it. */
struct answer remote_export(const struct remote *remote, const char *query);
/* PUT of one. Close the answer. */
struct answer remote_import(const struct remote *remote, const void *file, size_t size);

#endif
