/* Who may do what: whether a request brings a token that its route lets in, and whether that
 * token's quotas allow one more. The tokens come from a file (tokens.h) that is looked at twice a
 * second and whenever a token is not known, so that what `descent token` does counts at once. A
 * file that cannot be used changes nothing: those who had access keep it.
 *
 * Where which quota is checked:
 *   sessions, parameters   where a session is made, under the registry's lock: exact
 *   disk_bytes             before whatever may write but DELETE: what runs already may exceed it;
 *                          PATCH, which can shorten the history, goes on up to twice as much
 *   steps_per_s            before a request that asks for scope step, repeats and refused ones
 *                          too: a token bucket that holds a second's worth and begins full
 *   inflight               from the header to the end of the answer: exact
 * Those of sessions count what the tenant has, whichever token made it; the others are of the token
 * alone. */
#ifndef DESCENT_API_ACCESS_H
#define DESCENT_API_ACCESS_H

#include <stdbool.h>

#include "api/endpoint.h"
#include "service/core/status.h"

struct access;
struct access_entry;
struct access_table;
struct config;

/* What a request holds that was let in, until access_leave. */
struct access_pass {
    struct access_table *table;       /* the request's tenant, token_id and quotas point into it */
    const struct access_entry *entry; /* in it; NULL: no token was asked for, or none is good */
    enum scope needed;
    bool counted; /* as in flight */
};

/* *out NULL: nobody is asked for a token. `address` is for people, `loopback`: only this machine
 * can reach it. INVALID_FIELD: others could do everything and nobody has said that they may; there
 * is no file for tokens, or it cannot be used. Starts a thread. */
enum status access_new(const struct config *config, const char *address, bool loopback,
                       struct access **out, struct fault *fault);
void access_free(struct access *take_access); /* no request may run; NULL is allowed */

/* Reads the file again, whether it has changed or not. False: it cannot be used, which goes to the
 * log, and the tokens stay as they were. */
bool access_reload(struct access *access);

/* Lets the request in, whose route is known, and says so in its tenant, token_id and quotas; or
 * UNAUTHORIZED, FORBIDDEN (*challenge: the value of WWW-Authenticate, in the request's arena),
 * QUOTA_EXCEEDED (extra "retry_after_s"). Call access_leave in any case. Any thread; waits for
 * nobody but while the file is read, and then only who brings an unknown token. */
enum status access_enter(struct access *access, struct engine *engine, struct request *request,
                         struct access_pass *pass, const char **challenge, struct fault *fault);
void access_leave(struct access_pass *pass);

/* Whether a request that lasts may go on: as the file is now, its token is of the same tenant, has
 * the scope that the route asks for, and has not expired. What else has changed in the file, also
 * the token's quotas, counts for requests that come. */
bool access_stands(struct access *access, const struct access_pass *pass);

#endif
