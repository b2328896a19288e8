/* A connection and the one request that is under way on it: its life. */
#include "api/exchange.h"

#include <stdlib.h>
#include <string.h>

#include "api/config.h"
#include "api/exchange_stages.h"
#include "service/core/clock.h"
#include "service/core/contract.h"
#include "service/core/metric.h"

/* The monotonic time in so many seconds, microseconds. */
static uint64_t in_seconds(uint64_t seconds)
{
    return clock_monotonic_us() + seconds * 1000000;
}

/* No overflow: the bytes are, or were, in memory, and come at least a thousand in a second. */
uint64_t exchange_deadline(const struct exchange *exchange, uint64_t start_us, uint64_t size)
{
    uint64_t seconds = size / exchange->commons->config->transfer_bytes_per_s;

    if (seconds < exchange->commons->config->body_timeout_s)
        seconds = exchange->commons->config->body_timeout_s;
    return start_us + seconds * 1000000;
}

static void release_reply(struct exchange *exchange)
{
    const struct stream *stream = &exchange->reply.stream;

    buffer_release(exchange->reply.buffer);
    if (stream->close != NULL)
        stream->close(stream->context);
    exchange_let_go(exchange);
}

void exchange_replace(struct exchange *exchange, const struct fault *fault)
{
    release_reply(exchange);
    exchange->reply = reply_fault(&exchange->request, fault);
}

bool exchange_distrust(struct exchange *exchange)
{
    struct fault fault;

    if (!exchange->arena.failed || exchange->reply.http >= 500)
        return false;
    fault_set(&fault, STATUS_INTERNAL, "",
              "the server ran out of memory while it answered; look whether it was done");
    exchange_replace(exchange, &fault);
    return true;
}

bool exchange_serve(struct exchange *exchange)
{
    struct request *request = &exchange->request;
    struct fault fault;

    if (exchange->stage == STAGE_BODY) {
        if (!watch_set(&exchange->watched, WATCH_NONE, 0))
            return false;
        if (exchange_body_end(exchange, &fault) == STATUS_OK) {
            request->receive_ms = (double)(clock_monotonic_us() - exchange->started_us) / 1e3;
            exchange->reply = request->route->serve(exchange->commons->engine, request);
        } else {
            exchange->reply = reply_fault(request, &fault);
        }
        exchange_distrust(exchange);
        /* Now, not when the reply has gone: who hears it may send the next body at once. */
        exchange_release_body(exchange);
    }
    exchange->stage = STAGE_REPLY;
    return true;
}

void exchange_begin(struct exchange *exchange, const char *target)
{
    exchange->target = arena_copy(&exchange->arena, target, strlen(target));
    exchange->request.path = exchange->target != NULL ? exchange->target : "";
    exchange->stage = STAGE_HEADER;
    watch_set(&exchange->watched, WATCH_ANSWER,
              in_seconds(exchange->commons->config->header_timeout_s));
}

const char *exchange_cut_query(struct exchange *exchange)
{
    if (exchange->target == NULL)
        return "";
    char *query = exchange->target + strcspn(exchange->target, "?");
    if (*query == '?')
        *query++ = '\0';
    return query;
}

void exchange_let_stop(struct exchange *exchange)
{
    if (exchange->awaited)
        atomic_fetch_sub(&exchange->commons->running, 1);
    exchange->awaited = false;
}

/* As a connection has it between two requests. */
static void clear(struct exchange *exchange)
{
    exchange->stage = STAGE_IDLE;
    exchange->counted = false;
    exchange->awaited = false;
    exchange->follows = false;
    exchange->welcome = false;
    exchange->target = NULL;
    exchange->reply_until_us = 0;
    exchange->started_us = 0;
    exchange->account = (struct account){.received = 0};
    exchange->framing = (struct framing){.chunked = false};
    exchange->reply = reply_empty(500);
    exchange->id[0] = '\0';
    exchange->request.path = "";
    exchange->request.method = METHOD_OTHER;
    exchange->request.route = NULL;
    exchange->request.tenant = "";
    exchange->request.taken = (struct header){.name = NULL};
    exchange->request.token_id = NULL;
    exchange->request.quotas = NULL;
    exchange->request.query_count = 0;
    exchange->request.header_count = 0;
}

void exchange_reset(struct exchange *exchange, bool sent)
{
    uint64_t now_us = clock_monotonic_us();

    exchange_told(exchange, sent, now_us);
    release_reply(exchange);
    exchange_release_body(exchange);
    access_leave(&exchange->pass);
    arena_reset(&exchange->arena);
    metric_move(GAUGE_REQUESTS_RUNNING, 0, exchange->counted ? -1 : 0);
    exchange_let_stop(exchange);
    if (exchange->follows) {
        metric_move(GAUGE_WAITING, METRIC_AWAITED_EVENTS, -1);
        atomic_fetch_sub(&exchange->commons->followers, 1);
    }
    uint64_t idle_us = now_us + exchange->commons->config->keepalive_timeout_s * 1000000;
    uint64_t until_us = exchange->reply_until_us > 0 ? exchange->reply_until_us : idle_us;
    if (exchange->surplus) /* it is about to close, and was none of those that may be open */
        watch_set(&exchange->watched, WATCH_SILENT, until_us);
    else
        watch_idle(&exchange->watched, until_us, idle_us);
    clear(exchange);
}

struct exchange *exchange_new(struct commons *commons, int fd, void *tls)
{
    struct exchange *exchange = calloc(1, sizeof *exchange);

    if (exchange == NULL)
        return NULL;
    exchange->commons = commons;
    arena_init(&exchange->arena);
    exchange->request.arena = &exchange->arena;
    exchange->request.config = commons->config;
    exchange->request.id = exchange->id;
    atomic_fetch_add(&commons->accepted, 1);
    /* Who says no more must not keep others out: a token was not asked of him, either. */
    exchange->surplus =
        atomic_fetch_add(&commons->connections, 1) >= commons->config->connections_max &&
        !watch_make_room(commons->watch);
    metric_move(GAUGE_CONNECTIONS, 0, 1);
    metric_count(COUNTER_CONNECTIONS_REFUSED, 0, exchange->surplus);
    clear(exchange);
    watch_add(commons->watch, &exchange->watched, fd, tls, WATCH_ANSWER,
              in_seconds(commons->config->header_timeout_s));
    return exchange;
}

void exchange_free(struct exchange *take_exchange)
{
    watch_remove(take_exchange->commons->watch, &take_exchange->watched);
    atomic_fetch_sub(&take_exchange->commons->connections, 1);
    metric_move(GAUGE_CONNECTIONS, 0, -1);
    arena_close(&take_exchange->arena);
    free(take_exchange);
}
