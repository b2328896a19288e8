/* The body of a request: memory for it, its pieces, and what happens to one that is refused. */
#include "api/exchange_stages.h"

#include <string.h>

#include "api/config.h"
#include "service/core/clock.h"
#include "service/core/contract.h"
#include "service/core/metric.h"

/* A body of unknown length starts so large, and doubles. */
enum { CHUNKED_BYTES_FIRST = 64 * 1024 };

/* A refused body is read and dropped up to twice what would have been accepted, since Python's
 * http.client and node's fetch see no answer before they have sent all. At least so much: */
static const uint64_t DROP_BYTES_MIN = 64u << 20;

uint64_t exchange_drop_max(const struct exchange *exchange)
{
    uint64_t twice = exchange->commons->config->body_bytes_max * 2;

    return twice > DROP_BYTES_MIN ? twice : DROP_BYTES_MIN;
}

/* So many bytes of memory more, or less; returns how many all bodies have. */
static uint64_t charge(struct exchange *exchange, int64_t bytes)
{
    exchange->charged += (uint64_t)bytes;
    metric_move(GAUGE_INFLIGHT_BYTES, 0, bytes);
    return atomic_fetch_add(&exchange->commons->inflight_bytes, (uint64_t)bytes) + (uint64_t)bytes;
}

/* Gives the body's memory back. */
void exchange_release_body(struct exchange *exchange)
{
    buffer_release(exchange->request.body);
    exchange->request.body = NULL;
    exchange->body_used = 0;
    if (exchange->charged > 0)
        charge(exchange, -(int64_t)exchange->charged);
}

/* Memory for a body of `size` bytes: exactly that when its length is known, else it grows
 * geometrically. */
enum status exchange_reserve(struct exchange *exchange, uint64_t size, struct fault *fault)
{
    struct commons *commons = exchange->commons;
    struct buffer *body = exchange->request.body;
    uint64_t max = commons->config->body_bytes_max;

    if (size > max)
        return fault_set(fault, STATUS_TOO_LARGE, "", "the body has %s%llu bytes; at most %llu",
                         exchange->framing.chunked ? "more than " : "",
                         (unsigned long long)(exchange->framing.chunked ? max : size),
                         (unsigned long long)max);
    if (exchange->framing.chunked) {
        uint64_t wanted = body != NULL ? body->size * 2 : CHUNKED_BYTES_FIRST;
        size = wanted > size ? wanted : size;
        size = size < max ? size : max;
    }
    /* While a body moves, both copies are in memory. */
    if (charge(exchange, (int64_t)size) > commons->config->inflight_bytes_max)
        return fault_set(fault, STATUS_OVERLOADED, "",
                         "too many bytes of request bodies are under way; try again");
    struct buffer *larger = buffer_new((size_t)size);
    if (larger == NULL)
        return fault_set(fault, STATUS_OVERLOADED, "",
                         "there is no memory for a body of %llu bytes; try again",
                         (unsigned long long)size);
    if (body != NULL) {
        memcpy(larger->data, body->data, exchange->body_used);
        charge(exchange, -(int64_t)body->size);
        buffer_release(body);
    }
    exchange->request.body = larger;
    return STATUS_OK;
}

static bool drop(struct exchange *exchange, size_t size)
{
    exchange->dropped += size;
    return exchange->dropped <= exchange_drop_max(exchange);
}

bool exchange_receive(struct exchange *exchange, const void *data, size_t size)
{
    struct buffer *body = exchange->request.body;
    struct fault fault;

    exchange->account.received += size;
    if (exchange->stage == STAGE_DROP)
        return drop(exchange, size);
    PRE(exchange->stage == STAGE_BODY);
    if (exchange->framing.chunked && (body == NULL || body->size - exchange->body_used < size)) {
        if (exchange_reserve(exchange, (uint64_t)exchange->body_used + size, &fault) != STATUS_OK) {
            exchange->dropped = exchange->body_used;
            exchange->framing.expects_continue = false; /* it was told to send: wait for the end */
            exchange_refuse(exchange, &fault, NULL, false);
            return drop(exchange, size);
        }
        body = exchange->request.body;
    }
    PRE(body != NULL && body->size - exchange->body_used >= size);
    memcpy(body->data + exchange->body_used, data, size);
    exchange->body_used += size;
    /* The length of a chunked body is not known before its end: every piece earns it time. */
    return !exchange->framing.chunked ||
           watch_set(&exchange->watched, WATCH_ANSWER,
                     exchange_deadline(exchange, exchange->started_us, exchange->body_used));
}
