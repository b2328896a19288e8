/* The reply of an exchange in the coding that its request asks for.
 *
 * The coded form is made whole before it is sent: so it has a length and a digest, and where it
 * saves nothing, or memory is short, the plain form goes out as if nothing had been asked. It is
 * made from the pieces of the reply as they are, a revision's weights among them, and counts among
 * inflight_bytes. */
#include "api/exchange_stages.h"

#include <string.h>

#include "service/core/contract.h"

enum {
    CODED_BYTES_MIN = 1024,        /* a smaller reply fits one packet either way */
    GAIN_BYTES_MIN = 64,           /* what the header fields of a coded reply take */
    SAMPLED_BYTES_MIN = 256 << 10, /* from here on a part of it is tried first */
    SAMPLE_BYTES = 64 << 10,
};

static const char *accepted(const struct exchange *exchange)
{
    return request_list(&exchange->request, "Accept-Encoding");
}

static enum status refuse(struct fault *fault)
{
    return fault_set(fault, STATUS_NOT_ACCEPTABLE, "",
                     "Accept-Encoding rules out every coding there is here, %s, and none at all; "
                     "accept one of them, or identity",
                     coding_names());
}

enum status exchange_coding_check(const struct exchange *exchange, struct fault *fault)
{
    const char *list = accepted(exchange);

    if (list == NULL || coding_negotiate(list) != NULL || coding_quality(list, NULL) > 0)
        return STATUS_OK;
    return refuse(fault);
}

/* --- the coded form --- */

/* Moves what is in `buffer`, `used` bytes of it, which the caller has charged, to a larger one; at
 * most `max` bytes. NULL: it does not fit, or memory is out; `buffer` is the caller's still. */
static struct buffer *grow(struct exchange *exchange, struct buffer *buffer, size_t used,
                           size_t size, size_t max)
{
    size = size < max ? size : max;
    if (size <= used || !exchange_charge(exchange, size))
        return NULL;
    struct buffer *larger = buffer_new(size);
    if (larger == NULL) {
        exchange_discharge(exchange, size);
        return NULL;
    }
    if (buffer != NULL) {
        memcpy(larger->data, buffer->data, used);
        exchange_discharge(exchange, buffer->size);
        buffer_release(buffer);
    }
    return larger;
}

/* The parts, coded, in at most `max` bytes; it starts with room for `first`. NULL: they do not fit,
 * or memory is out. What comes is charged. */
static struct buffer *encode(struct exchange *exchange, const struct coding *coding,
                             const struct span *parts, size_t count, size_t first, size_t max)
{
    enum flow_state state = FLOW_ON;
    struct buffer *out, *larger;
    size_t total = 0;

    for (size_t i = 0; i < count; i++)
        total += parts[i].size;
    struct encoder *encoder = coding->encoder_new(total);
    if (encoder == NULL)
        return NULL;
    if ((out = grow(exchange, NULL, 0, first, max)) == NULL)
        goto done;
    struct flow flow = {.out = out->data, .room = out->size};
    for (size_t i = 0; i < count && state == FLOW_ON; i++) {
        bool last = i + 1 == count;
        flow.in = parts[i];
        while (state == FLOW_ON && (flow.in.size > 0 || last)) {
            state = coding->encode(encoder, &flow, last);
            if (state != FLOW_ON || flow.room > 0)
                continue;
            size_t used = out->size; /* all of it; `grow` gives it back */
            if ((larger = grow(exchange, out, used, used / 2 * 3 + 64, max)) == NULL) {
                state = FLOW_MEMORY;
                continue;
            }
            out = larger;
            flow.out = out->data + used;
            flow.room = out->size - used;
        }
    }
    if (state != FLOW_DONE) {
        exchange_discharge(exchange, out->size);
        buffer_release(out);
        out = NULL;
        goto done;
    }
    exchange_discharge(exchange, flow.room);
    buffer_shrink(out, out->size - flow.room);
done:
    coding->encoder_free(encoder);
    return out;
}

/* How many bytes the middle of the largest part becomes; 0: too many for it to be worth while. */
static size_t try_sample(struct exchange *exchange, const struct coding *coding,
                         const struct span *parts, size_t count)
{
    struct span sample = parts[0];

    for (size_t i = 1; i < count; i++)
        if (parts[i].size > sample.size)
            sample = parts[i];
    if (sample.size > SAMPLE_BYTES)
        sample = span_of(sample.data + (sample.size - SAMPLE_BYTES) / 2, SAMPLE_BYTES);
    size_t most = sample.size - sample.size / coding->worth;
    struct buffer *coded = encode(exchange, coding, &sample, 1, most, most);
    if (coded == NULL)
        return 0;
    size_t size = coded->size;
    exchange_discharge(exchange, size);
    buffer_release(coded);
    return size;
}

/* `must`: whatever it saves. */
static struct buffer *code(struct exchange *exchange, const struct coding *coding,
                           const struct span *parts, size_t count, size_t total, bool must)
{
    size_t max = must ? total + total / 8 + CODED_BYTES_MIN : total - GAIN_BYTES_MIN;
    size_t first = max;

    if (!must && total >= SAMPLED_BYTES_MIN) {
        size_t sampled = try_sample(exchange, coding, parts, count);
        if (sampled == 0)
            return NULL;
        /* What the sample foretells, and a bit. */
        first = (size_t)((double)total / SAMPLE_BYTES * (double)sampled * 1.1) + SAMPLE_BYTES / 16;
    }
    return encode(exchange, coding, parts, count, first, max);
}

/* --- the reply --- */

/* "0-13" becomes "0-13-zstd": a strong tag names bytes. */
static bool tag(struct exchange *exchange, const struct coding *coding)
{
    const char **etag = reply_find(&exchange->reply, "ETag");

    if (etag == NULL)
        return true;
    const char *coded = arena_format(exchange->request.arena, "%.*s-%s\"", (int)strlen(*etag) - 1,
                                     *etag, coding->name);
    if (coded == NULL)
        return false;
    *etag = coded;
    return true;
}

static void replace(struct exchange *exchange, const struct coding *coding, bool must)
{
    struct reply *reply = &exchange->reply;
    struct range whole = {.size = (uint64_t)reply->head.size + reply->size + reply->tail.size};
    struct span parts[RANGE_PARTS];
    size_t count = range_cut(reply, &whole, parts);

    if (count == 0)
        return;
    struct buffer *coded = code(exchange, coding, parts, count, (size_t)whole.size, must);
    if (coded == NULL)
        return;
    if (!tag(exchange, coding)) {
        exchange_discharge(exchange, coded->size);
        buffer_release(coded);
        return;
    }
    buffer_release(reply->buffer);
    reply->buffer = coded;
    reply->offset = 0;
    reply->size = coded->size;
    reply->head = reply->tail = span_of(NULL, 0);
    reply->ranges = false; /* what has been stored of it could not be told from another's */
    reply_header(reply, "Content-Encoding", coding->name);
}

/* Whether the answer might be another for another Accept-Encoding. */
static bool depends(const struct exchange *exchange, bool asked)
{
    const struct reply *reply = &exchange->reply;
    enum method method = exchange->request.method;

    if (reply->http >= 400 || reply->stream.close != NULL)
        return false;
    return asked || method == METHOD_GET || method == METHOD_HEAD;
}

void exchange_code(struct exchange *exchange)
{
    struct request *request = &exchange->request;
    struct reply *reply = &exchange->reply;
    const char *list = accepted(exchange);
    struct fault fault;

    if (depends(exchange, list != NULL))
        reply_vary(reply, request->arena, "Accept-Encoding");
    if (list == NULL)
        return;
    const struct coding *coding = coding_negotiate(list);
    bool must = coding_quality(list, NULL) == 0;
    if (coding == NULL || reply->http == 206 || reply->http == 304)
        return;
    if (reply->stream.close != NULL) {
        if (!must)
            return;
        reply->stream.close(reply->stream.context);
        fault_set(&fault, STATUS_NOT_ACCEPTABLE, "",
                  "lines are sent as they are read, in no coding; accept identity");
        *reply = reply_fault(request, &fault);
    }
    bool part =
        reply->ranges && request->method == METHOD_GET && request_header(request, "Range") != NULL;
    if (!must && (part || reply->head.size + reply->size + reply->tail.size < CODED_BYTES_MIN))
        return;
    replace(exchange, coding, must);
}
