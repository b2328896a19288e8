/* A live server that asks for tokens, and requests to it with them. */
#ifndef DESCENT_TESTS_GATE_H
#define DESCENT_TESTS_GATE_H

#include "api/router.h"
#include "api/tokens.h"
#include "tests/lib/api_client.h"
#include "tests/lib/live_server.h"

/* The layout of the sessions that gate_session makes is that of the examples in openapi.json. */
#define GATE_SESSION                                                                               \
    "{\"optimizer\": {\"name\": \"sgd\", \"lr\": 1}, \"parameters\": {\"w\": [[0, 0], [0, 0]], "   \
    "\"b\": [0, 0]}}"
#define GATE_STEP "{\"gradients\": {\"w\": [[1, 1], [1, 1]], \"b\": [1, 1]}}"

/* A token as its holder has it. */
struct pass {
    char text[TOKEN_BYTES + 1];
    char id[TOKEN_ID_BYTES + 1];
};

extern struct live_server gate_server;

/* Starts it with --auth on and the options (as for live_server_start). */
void gate_start(const char *const *options);
void gate_stop(void);

/* Adds a token with that scope, tenant, quotas and expires_us (the rest is drawn). */
struct pass gate_pass(const struct token *token);
/* One without quotas that does not expire. */
struct pass gate_member(const char *tenant, enum scope scope);
void gate_revoke(const struct pass *pass);

/* A request with a token (NULL: without). */
struct answer gate_send(const struct pass *pass, const char *method, const char *path,
                        const char *json);

/* The same, which must have this status; what it answers is forgotten. */
void gate_must(unsigned status, const struct pass *pass, const char *method, const char *path,
               const char *json);

/* A whole request to a route: the pattern with this id and the examples of its other parameters,
 * and the first JSON example of its body. `headers` as for api_send. */
struct answer gate_call(const struct route *route, const char *id, const char *headers);
struct answer gate_call_with(const struct route *route, const char *id, const struct pass *pass);

/* The header Authorization of a token. Lives until the next call. */
const char *gate_header(const struct pass *pass);

#endif
