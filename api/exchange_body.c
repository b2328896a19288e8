/* The body of a request: memory for it, its pieces, their coding, and what happens to one that is
 * refused. */
#include "api/exchange_stages.h"

#include <string.h>

#include "api/config.h"
#include "api/expansion.h"
#include "service/core/clock.h"
#include "service/core/contract.h"
#include "service/core/metric.h"

enum {
    /* A body of unknown length starts so large, and doubles. */
    CHUNKED_BYTES_FIRST = 64 * 1024,
    /* A coded one of known length starts at twice that, at least so large: JSON is seldom larger,
     * numbers as bytes never. */
    DECODED_BYTES_FIRST = 4 * 1024,
    /* Where decoded bytes go when the buffer is full: it must grow only if some come. */
    SPARE_BYTES = 1024,
};

/* A refused body is read and dropped, since Python's http.client and node's fetch see no answer
 * before they have sent all: so much of anybody's, and up to twice what would have been accepted
 * of who may send one at that address. */
static const uint64_t DROP_BYTES_MIN = 64u << 20;

uint64_t exchange_drop_max(const struct exchange *exchange)
{
    uint64_t twice = exchange->commons->config->body_bytes_max * 2;

    return exchange->welcome && twice > DROP_BYTES_MIN ? twice : DROP_BYTES_MIN;
}

bool exchange_charge(struct exchange *exchange, uint64_t size)
{
    struct commons *commons = exchange->commons;
    uint64_t max = commons->config->inflight_bytes_max;
    uint64_t used = atomic_load(&commons->inflight_bytes);

    /* What is refused is never counted, not even for a moment: another would be refused for it. */
    do {
        if (size > max || used > max - size)
            return false;
    } while (!atomic_compare_exchange_weak(&commons->inflight_bytes, &used, used + size));
    exchange->charged += size;
    metric_move(GAUGE_INFLIGHT_BYTES, 0, (int64_t)size);
    return true;
}

void exchange_discharge(struct exchange *exchange, uint64_t size)
{
    exchange->charged -= size;
    metric_move(GAUGE_INFLIGHT_BYTES, 0, -(int64_t)size);
    atomic_fetch_sub(&exchange->commons->inflight_bytes, size);
}

/* Gives the body's memory back. */
void exchange_release_body(struct exchange *exchange)
{
    buffer_release(exchange->request.body);
    exchange->request.body = NULL;
    exchange->body_used = 0;
    decoding_free(&exchange->decoding);
    content_check_free(&exchange->check);
    if (exchange->charged > 0)
        exchange_discharge(exchange, exchange->charged);
}

/* What a decoder keeps besides of what it has made. */
static uint64_t window_of(const struct exchange *exchange, uint64_t size)
{
    const struct coding *coding = exchange->decoding.coding;

    return coding == NULL ? 0 : size < coding->window_bytes ? size : coding->window_bytes;
}

static enum status refuse_size(const struct exchange *exchange, uint64_t size, struct fault *fault)
{
    unsigned long long max = exchange->body_max;

    if (exchange->decoding.coding == NULL)
        return fault_set(fault, STATUS_TOO_LARGE, "", "the body has %s%llu bytes; at most %llu",
                         exchange->framing.chunked ? "more than " : "",
                         exchange->framing.chunked ? max : (unsigned long long)size, max);
    if (max == exchange->commons->config->body_bytes_max)
        return fault_set(fault, STATUS_TOO_LARGE, "",
                         "the body has more than %llu bytes when it is decoded; at most that many",
                         max);
    return fault_set(fault, STATUS_TOO_LARGE, "",
                     "the body has more than %llu bytes when it is decoded, more than any sensible "
                     "one has; if it must be, send it without Content-Encoding",
                     max);
}

/* Memory for a body of `size` bytes; unless `exact`, it grows geometrically. TOO_LARGE, OVERLOADED.
 */
static enum status reserve(struct exchange *exchange, uint64_t size, bool exact,
                           struct fault *fault)
{
    struct buffer *body = exchange->request.body;
    uint64_t max = exchange->body_max;

    if (size > max)
        return refuse_size(exchange, size, fault);
    if (!exact) {
        uint64_t wanted = body != NULL ? body->size * 2 : CHUNKED_BYTES_FIRST;
        size = wanted > size ? wanted : size;
        size = size < max ? size : max;
    }
    /* While a body moves, both copies are in memory. */
    if (!exchange_charge(exchange, size + window_of(exchange, size)))
        return fault_set(fault, STATUS_OVERLOADED, "",
                         "too many bytes of request bodies are under way; try again");
    struct buffer *larger = buffer_new((size_t)size);
    if (larger == NULL)
        return fault_set(fault, STATUS_OVERLOADED, "",
                         "there is no memory for a body of %llu bytes; try again",
                         (unsigned long long)size);
    if (body != NULL) {
        memcpy(larger->data, body->data, exchange->body_used);
        exchange_discharge(exchange, body->size + window_of(exchange, body->size));
        buffer_release(body);
    }
    exchange->request.body = larger;
    return STATUS_OK;
}

enum status exchange_body_begin(struct exchange *exchange, struct fault *fault)
{
    struct request *request = &exchange->request;
    const struct framing *framing = &exchange->framing;
    const struct coding *coding;
    enum status status;

    exchange->body_max = exchange->commons->config->body_bytes_max;
    if ((status = content_check_start(&exchange->check, request, fault)) != STATUS_OK ||
        (framing->length == 0 && !framing->chunked))
        return status;
    status = coding_of(request_list(request, "Content-Encoding"), &coding, fault);
    if (status != STATUS_OK)
        request->taken = (struct header){"Accept-Encoding", coding_names()};
    else if (exchange->arena.failed) /* there may be a coding that nobody read */
        status = fault_set(fault, STATUS_OVERLOADED, "", "out of memory; try again");
    if (status != STATUS_OK)
        return status;
    if (framing->length > exchange->body_max)
        return refuse_size(exchange, framing->length, fault);
    if (coding == NULL)
        return framing->chunked ? STATUS_OK : reserve(exchange, framing->length, true, fault);
    status = expansion_max(exchange->commons->engine, request, framing->length, &exchange->body_max,
                           &exchange->earns, fault);
    return status == STATUS_OK ? decoding_start(&exchange->decoding, coding, fault) : status;
}

static enum status collect(struct exchange *exchange, struct span piece, struct fault *fault)
{
    struct buffer *body = exchange->request.body;
    enum status status;

    if (exchange->framing.chunked &&
        (body == NULL || body->size - exchange->body_used < piece.size)) {
        status = reserve(exchange, (uint64_t)exchange->body_used + piece.size, false, fault);
        if (status != STATUS_OK)
            return status;
        body = exchange->request.body;
    }
    PRE(body != NULL && body->size - exchange->body_used >= piece.size);
    memcpy(body->data + exchange->body_used, piece.data, piece.size);
    exchange->body_used += piece.size;
    return STATUS_OK;
}

/* Memory before anything is decoded: what the content says of itself, which is exactly right when
 * it is true and bounded like all when it is not, or a guess. */
static enum status reserve_first(struct exchange *exchange, struct span piece, struct fault *fault)
{
    uint64_t announced = exchange->decoding.coding->announced(piece);
    uint64_t guess = exchange->framing.length * 2;

    /* What comes in chunks may earn what it says later. */
    if (announced > 0 && (!exchange->framing.chunked || announced <= exchange->body_max))
        return reserve(exchange, announced, true, fault);
    if (exchange->framing.chunked)
        guess = CHUNKED_BYTES_FIRST;
    else if (guess < DECODED_BYTES_FIRST)
        guess = DECODED_BYTES_FIRST;
    return reserve(exchange, guess < exchange->body_max ? guess : exchange->body_max, true, fault);
}

static enum status decode(struct exchange *exchange, struct span piece, struct fault *fault)
{
    struct flow flow = {.in = piece};
    unsigned char spare[SPARE_BYTES];
    enum status status = STATUS_OK;

    /* A coding may go on for ever and make nothing: empty members of gzip, skipped frames of zstd.
     */
    if (exchange->account.received > exchange->commons->config->body_bytes_max)
        return fault_set(fault, STATUS_TOO_LARGE, "",
                         "the body has more than %llu bytes; at most that many",
                         (unsigned long long)exchange->commons->config->body_bytes_max);
    if (exchange->earns && exchange->framing.chunked)
        status =
            expansion_max(exchange->commons->engine, &exchange->request, exchange->account.received,
                          &exchange->body_max, &exchange->earns, fault);
    if (status == STATUS_OK && exchange->request.body == NULL)
        status = reserve_first(exchange, piece, fault);
    while (status == STATUS_OK && (flow.in.size > 0 || flow.room == 0)) {
        struct buffer *body = exchange->request.body;
        size_t room = body->size - exchange->body_used;
        unsigned char *begin = room > 0 ? body->data + exchange->body_used : spare;
        flow.out = begin;
        flow.room = room > 0 ? room : sizeof spare;
        status = decoding_run(&exchange->decoding, &flow, fault);
        size_t made = (size_t)(flow.out - begin);
        if (status == STATUS_OK && begin == spare && made > 0) {
            status = reserve(exchange, (uint64_t)exchange->body_used + made, false, fault);
            if (status == STATUS_OK)
                memcpy(exchange->request.body->data + exchange->body_used, spare, made);
        }
        exchange->body_used += made;
    }
    return status;
}

/* Every piece earns the body time, and a silence is never longer than a body that does not come: of
 * a length that was announced nothing is known but that memory is held for it. */
static bool await_piece(struct exchange *exchange)
{
    uint64_t until_us =
        exchange_deadline(exchange, exchange->started_us, exchange->account.received);
    uint64_t silent_us = exchange_deadline(exchange, clock_monotonic_us(), 0);

    return watch_set(&exchange->watched, WATCH_ANSWER, until_us < silent_us ? until_us : silent_us);
}

/* What is to become of a piece. */
static enum status take(struct exchange *exchange, struct span piece, struct fault *fault)
{
    enum status status = content_check_add(&exchange->check, piece, fault);

    if (status != STATUS_OK)
        return status;
    return exchange->decoding.coding != NULL ? decode(exchange, piece, fault)
                                             : collect(exchange, piece, fault);
}

bool exchange_receive(struct exchange *exchange, const void *data, size_t size)
{
    struct fault fault;

    exchange->account.received += size;
    if (exchange->stage == STAGE_BODY && take(exchange, span_of(data, size), &fault) != STATUS_OK) {
        exchange->framing.expects_continue = false; /* it was told to send: wait for the end */
        exchange_refuse(exchange, &fault, NULL, false);
    }
    PRE(exchange->stage == STAGE_BODY || exchange->stage == STAGE_DROP);
    if (exchange->stage == STAGE_DROP && exchange->account.received > exchange_drop_max(exchange))
        return false;
    return await_piece(exchange);
}

enum status exchange_body_end(struct exchange *exchange, struct fault *fault)
{
    struct buffer *body = exchange->request.body;
    enum status status = content_check_end(&exchange->check, fault);

    if (status == STATUS_OK && exchange->decoding.coding != NULL)
        status = decoding_end(&exchange->decoding, fault);
    if (body != NULL) {
        exchange_discharge(exchange, window_of(exchange, body->size));
        buffer_shrink(body, exchange->body_used);
    }
    decoding_free(&exchange->decoding);
    if (body != NULL && body->size == 0) { /* a coding of nothing: there is no body */
        buffer_release(body);
        exchange->request.body = NULL;
    }
    return status;
}
