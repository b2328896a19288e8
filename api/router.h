/* The route table and its search: 404 against 405 before a byte of the body is read. */
#ifndef DESCENT_API_ROUTER_H
#define DESCENT_API_ROUTER_H

#include "api/endpoint.h"
#include "service/core/arena.h"
#include "service/core/status.h"

/* What the endpoints export, from the table. */
#define ROUTE(method, pattern, operation, takes_body, scope)                                       \
    struct reply serve_##operation(struct engine *engine, struct request *request);
#include "api/routes.def"
#undef ROUTE

/* What the search found. `parameters` are percent-decoded segments in the arena, in order of the
 * pattern. */
struct match {
    const struct route *route;
    const char *parameters[PATH_PARAMETERS_MAX];
    const char *allow; /* the methods of this address, for 405 and OPTIONS; "GET, HEAD, OPTIONS" */
};

/* Finds the route of a raw path (no query). HEAD goes where GET goes. NOT_FOUND: no pattern has
 * this path; METHOD_NOT_ALLOWED: another method has (match->allow is set); INVALID_REQUEST: a
 * broken percent escape, an escaped NUL or bytes that are not UTF-8; INTERNAL: memory. OPTIONS
 * finds no route: METHOD_NOT_ALLOWED with the list. */
enum status router_find(struct arena *arena, enum method method, const char *path,
                        struct match *match, struct fault *fault);

/* Every route in table order; NULL past the end. */
const struct route *router_at(size_t index);

/* "GET" for METHOD_GET ...; METHOD_OTHER is "?". And back: METHOD_OTHER for what we do not know. */
const char *method_name(enum method method);
enum method method_find(const char *name);

#endif
