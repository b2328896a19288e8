/* Browsers: whose pages may call the server (CORS, WHATWG Fetch 3.2), and what a page may not do
 * behind its reader's back. */
#ifndef DESCENT_API_CORS_H
#define DESCENT_API_CORS_H

#include <stdbool.h>

#include "api/endpoint.h"

/* Whether the text can be --cors-origins: empty, `*`, or origins (scheme://host[:port]) as browsers
 * write them, separated by commas. INVALID_FIELD. */
enum status cors_check_origins(const char *origins, struct fault *fault);

/* Where nobody is asked for a token, being reached is all that one needs: so a page of another
 * origin that is not on the list must not make its reader's browser send anything (CSRF), and where
 * only this machine reaches the server, neither must one that calls it by a name of its own (DNS
 * rebinding): Host must be an IP address, a name without a dot, which nobody can buy, or
 * *.localhost, or one of --hosts. FORBIDDEN. */
enum status cors_admit(const struct request *request, bool loopback, struct fault *fault);

/* Adds to a reply, whatever it says, what lets the browser give it to a page of a listed origin;
 * to a preflight, what the page may send. `Allow` is there already. */
void cors_tell(const struct request *request, struct reply *reply);

#endif
