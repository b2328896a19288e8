/* The header of a request is complete: what is refused before a byte of its body is read. */
#include "api/exchange_stages.h"

#include <endian.h>
#include <string.h>

#include "api/config.h"
#include "api/cors.h"
#include "api/router.h"
#include "service/core/clock.h"
#include "service/core/contract.h"
#include "service/core/metric.h"
#include "service/core/number.h"

/* The client's X-Request-Id if it is a sane token, else our own: never twice in a process, hardly
 * twice in the world. */
void exchange_choose_id(struct exchange *exchange)
{
    const char *given = request_header(&exchange->request, "X-Request-Id");

    if (given != NULL && strlen(given) <= REQUEST_ID_BYTES_MAX && guard_is_token(given)) {
        memcpy(exchange->id, given, strlen(given) + 1);
        return;
    }
    uint64_t number = atomic_fetch_add(&exchange->commons->id_next, 1);
    /* splitmix64 is a bijection: different numbers, different ids. */
    number = exchange->commons->id_seed + number * 0x9E3779B97F4A7C15u;
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9u;
    number = (number ^ (number >> 27)) * 0x94D049BB133111EBu;
    number = htobe64(number ^ (number >> 31));
    memcpy(exchange->id, "req_", 4);
    number_hex(exchange->id + 4, (const unsigned char *)&number, sizeof number);
    exchange->id[4 + 2 * sizeof number] = '\0';
}

/* Decides the reply before the body is there; `now`: without waiting for its end. */
void exchange_refuse(struct exchange *exchange, const struct fault *fault, const char *allow,
                     bool now)
{
    const struct framing *framing = &exchange->framing;

    exchange_release_body(exchange);
    if (fault->status == STATUS_METHOD_NOT_ALLOWED && exchange->request.method == METHOD_OPTIONS)
        exchange->reply = reply_empty(204);
    else
        exchange->reply = reply_fault(&exchange->request, fault);
    reply_header(&exchange->reply, "Allow", allow);
    if (framing->length > exchange_drop_max(exchange) ||
        (framing->expects_continue && (framing->chunked || framing->length > 0)))
        now = true;
    exchange->stage = now ? STAGE_REPLY : STAGE_DROP;
    if (!now)
        exchange_let_stop(exchange);
}

/* Finds the route and memory for the body. *allow is set for 405, *challenge for 401 and 403. */
static enum status find_route(struct exchange *exchange, const char *query, const char **allow,
                              const char **challenge, struct fault *fault)
{
    struct commons *commons = exchange->commons;
    struct request *request = &exchange->request;
    const struct framing *framing = &exchange->framing;
    struct match match;

    enum status status = router_find(request->arena, request->method, request->path, &match, fault);
    *allow = match.allow;
    if (status == STATUS_OK)
        status = guard_query(request, query, fault);
    if (status != STATUS_OK)
        return status;
    request->route = match.route;
    memcpy(request->path_parameters, match.parameters, sizeof match.parameters);
    /* A browser has no token to send unless a page of its own gives it one. */
    if (commons->access == NULL && match.route->scope != SCOPE_NONE &&
        (status = cors_admit(request, commons->loopback, fault)) != STATUS_OK)
        return status;
    if (commons->access != NULL &&
        (status = access_enter(commons->access, commons->engine, request, &exchange->pass,
                               challenge, fault)) != STATUS_OK)
        return status;
    if ((status = exchange_coding_check(exchange, fault)) != STATUS_OK)
        return status;
    if ((framing->length > 0 || framing->chunked) && !match.route->takes_body)
        return fault_set(fault, STATUS_INVALID_REQUEST, "", "%s %.200s takes no body",
                         method_name(request->method), request->path);
    exchange->welcome = true;
    return exchange_body_begin(exchange, fault);
}

static bool is_path(const struct exchange *exchange, const char *path)
{
    return strcmp(exchange->request.path, path) == 0;
}

/* What the state of the server forbids, whatever the request is. */
static enum status check_commons(const struct exchange *exchange, struct fault *fault)
{
    struct commons *commons = exchange->commons;
    bool about_life = is_path(exchange, "/livez"); /* true whatever else is */
    bool about_work = is_path(exchange, "/readyz") || is_path(exchange, "/healthz");

    if ((atomic_load(&commons->draining) && !about_life) ||
        (atomic_load(&commons->leaving) && about_work))
        return fault_set(fault, STATUS_DRAINING, "", "the server is stopping; try again soon");
    if (exchange->surplus && !about_life)
        return fault_set(fault, STATUS_OVERLOADED, "",
                         "the server has %llu connections open, which is its limit; try again, "
                         "and use one connection for several requests",
                         (unsigned long long)commons->config->connections_max);
    if (commons->engine == NULL && !about_life && !about_work)
        return fault_set(fault, STATUS_DRAINING, "", "the server is recovering; try again soon");
    return STATUS_OK;
}

bool exchange_admit(struct exchange *exchange, const struct envelope *envelope)
{
    struct request *request = &exchange->request;
    struct fault fault;
    const char *allow = NULL, *challenge = NULL;

    PRE(exchange->stage == STAGE_HEADER);
    atomic_fetch_add(&exchange->commons->running, 1);
    metric_move(GAUGE_REQUESTS_RUNNING, 0, 1);
    exchange->counted = exchange->awaited = true;
    exchange->started_us = clock_monotonic_us();
    exchange_choose_id(exchange);
    request->method = method_find(envelope->method);
    if (exchange->target == NULL) {
        fault_set(&fault, STATUS_OVERLOADED, "", "out of memory; try again");
        exchange_refuse(exchange, &fault, NULL, true);
        return true;
    }
    enum status status = guard_check(envelope, request, &exchange->framing, &fault);
    const char *query = exchange_cut_query(exchange); /* the guard looks at all of the target */
    if (status != STATUS_OK) {
        exchange_refuse(exchange, &fault, NULL, true);
        return true;
    }
    if (!watch_set(&exchange->watched, WATCH_ANSWER,
                   exchange_deadline(exchange, exchange->started_us, 0)))
        return false;
    exchange->stage = STAGE_BODY;
    if (check_commons(exchange, &fault) != STATUS_OK) {
        exchange_refuse(exchange, &fault, NULL, true);
    } else if (find_route(exchange, query, &allow, &challenge, &fault) != STATUS_OK) {
        exchange_refuse(exchange, &fault, allow, false);
        reply_header(&exchange->reply, "WWW-Authenticate", challenge);
    }
    return true;
}
