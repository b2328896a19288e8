/* What is told of a request: its figures when the answer is ready to go, so that who has heard the
 * answer finds it counted; its line in the log when the answer has gone, so that nobody waits for
 * the log. */
#include "api/exchange_stages.h"

#include <stdatomic.h>

#include "api/address.h"
#include "api/config.h"
#include "api/metrics_text.h"
#include "api/router.h"
#include "service/core/contract.h"
#include "service/core/log.h"
#include "service/core/metric.h"

enum { FIELDS_MAX = 16 };

/* --- figures --- */

static size_t class_of(const struct route *route)
{
    static const size_t classes[] = {[SCOPE_NONE] = METRIC_CLASS_NONE,
                                     [SCOPE_READ] = METRIC_CLASS_READ,
                                     [SCOPE_STEP] = METRIC_CLASS_STEP,
                                     [SCOPE_ADMIN] = METRIC_CLASS_ADMIN};

    return route == NULL ? METRIC_CLASS_NONE : classes[route->scope];
}

static void count_request(const struct exchange *exchange)
{
    const struct account *account = &exchange->account;
    const struct route *route = exchange->request.route;
    size_t operation = metrics_operation(route);
    size_t http = metrics_http(exchange->reply.http);

    metric_count(COUNTER_REQUESTS, metric_cell(operation, METRIC_HTTP_VALUES, http), 1);
    if (account->received > 0)
        metric_count(COUNTER_REQUEST_BYTES, operation, account->received);
    if (account->sent > 0)
        metric_count(COUNTER_RESPONSE_BYTES, operation, account->sent);
    metric_observe(HISTOGRAM_REQUEST_TIME, class_of(route),
                   account->answered_us - exchange->started_us);
}

/* --- the line --- */

/* Problems are told unasked, and who makes them in a loop could fill a disk: of these there is a
 * number in a second. */
static bool may_tell(uint64_t now_us, uint64_t max)
{
    static _Atomic uint64_t second, told, left_out;
    uint64_t now = now_us / 1000000, then = atomic_load(&second);

    if (then != now && atomic_compare_exchange_strong(&second, &then, now)) {
        atomic_store(&told, 0);
        uint64_t missing = atomic_exchange(&left_out, 0);
        if (missing > 0)
            log_warning("%llu refused requests were not told of in that second: see "
                        "--log-problems-max",
                        (unsigned long long)missing);
    }
    if (atomic_fetch_add(&told, 1) < max)
        return true;
    atomic_fetch_add(&left_out, 1);
    metric_count(COUNTER_LOG_SUPPRESSED, 0, 1);
    return false;
}

static enum log_level level_of(const struct exchange *exchange)
{
    unsigned http = exchange->reply.http;
    enum status problem = exchange->reply.problem;
    bool asked = exchange->commons->config->log_requests;

    if (exchange->account.answered_us > 0 && http >= 500) /* 503: it is well, but not now */
        return problem == STATUS_DRAINING || problem == STATUS_OVERLOADED ? LOG_WARNING : LOG_ERROR;
    return (exchange->account.answered_us > 0 && http >= 400) || asked ? LOG_INFO : LOG_DEBUG;
}

static void add_text(struct log_field *fields, size_t *count, const char *name, const char *text)
{
    if (text == NULL)
        return;
    PRE(*count < FIELDS_MAX);
    fields[(*count)++] = (struct log_field){.name = name, .text = text};
}

static void add_number(struct log_field *fields, size_t *count, const char *name, uint64_t number)
{
    PRE(*count < FIELDS_MAX);
    fields[(*count)++] = (struct log_field){.name = name, .number = number};
}

static void write_line(const struct exchange *exchange, enum log_level level, bool sent,
                       uint64_t now_us)
{
    const struct request *request = &exchange->request;
    const struct account *account = &exchange->account;
    enum status problem = exchange->reply.problem;
    struct log_field fields[FIELDS_MAX];
    size_t count = 0;

    add_text(fields, &count, "request_id", exchange->id);
    if (account->traced) {
        add_text(fields, &count, "trace_id", account->trace.trace_id);
        add_text(fields, &count, "parent_span_id", account->trace.span_id);
    }
    add_text(fields, &count, "method", method_name(request->method));
    add_text(fields, &count, "path", request->path);
    if (request->route != NULL)
        add_text(fields, &count, "operation", request->route->operation);
    if (account->answered_us > 0)
        add_number(fields, &count, "status", exchange->reply.http);
    if (problem != STATUS_OK)
        add_text(fields, &count, "code", status_code(problem));
    add_number(fields, &count, "bytes_in", account->received);
    add_number(fields, &count, "bytes_out", account->sent);
    add_number(fields, &count, "duration_us", now_us - exchange->started_us);
    add_text(fields, &count, "token", request->token_id);
    if (exchange->remote[0] != '\0')
        add_text(fields, &count, "remote", exchange->remote);
    log_fields(level, sent ? "request" : "request cut off", fields, count);
}

/* --- both --- */

void exchange_answered(struct exchange *exchange, uint64_t bytes, uint64_t now_us)
{
    struct account *account = &exchange->account;
    const char *trace;

    account->answered_us = now_us;
    if (exchange->request.method == METHOD_HEAD)
        bytes = 0;
    if (exchange->reply_until_us > 0)
        account->going = bytes;
    else
        account->sent = bytes;
    count_request(exchange);
    if (!log_wants(level_of(exchange)))
        return;
    /* The library's memory and the client's address may be gone later. */
    account->traced = request_header_count(&exchange->request, "traceparent", &trace) == 1 &&
                      trace_parse(trace, &account->trace);
    if (exchange->remote[0] == '\0')
        address_peer(exchange->watched.fd, exchange->remote);
}

/* The watchdog has answered in our place. */
static void tell_late(struct exchange *exchange, uint64_t bytes, uint64_t now_us)
{
    exchange_cut_query(exchange);
    if (exchange->id[0] == '\0')
        exchange_choose_id(exchange);
    if (exchange->started_us == 0)
        exchange->started_us = now_us;
    exchange->reply.http = status_http(STATUS_REQUEST_TIMEOUT);
    exchange->reply.problem = STATUS_REQUEST_TIMEOUT;
    exchange->account.past = bytes > 0;
    exchange_answered(exchange, bytes, now_us);
}

/* Of a large answer nobody knows how much of it a client has that left. */
static bool count_sent(struct exchange *exchange, bool sent)
{
    struct account *account = &exchange->account;

    /* What follows something ends when its client leaves. */
    sent |= account->past || (exchange->follows && watch_left(&exchange->watched) &&
                              atomic_load(&exchange->watched.phase) != WATCH_EXPIRED);
    if (!sent) {
        metric_count(COUNTER_REQUESTS_CUT, 0, 1);
    } else if (account->going > 0) {
        account->sent = account->going;
        metric_count(COUNTER_RESPONSE_BYTES, metrics_operation(exchange->request.route),
                     account->going);
    }
    return sent;
}

void exchange_streamed(struct exchange *exchange, uint64_t bytes)
{
    exchange->account.sent += bytes;
    metric_count(COUNTER_RESPONSE_BYTES, metrics_operation(exchange->request.route), bytes);
}

void exchange_told(struct exchange *exchange, bool sent, uint64_t now_us)
{
    size_t late_bytes;

    if (watch_late(&exchange->watched, &late_bytes) && exchange->account.answered_us == 0)
        tell_late(exchange, late_bytes, now_us);
    enum log_level level = level_of(exchange);
    sent = count_sent(exchange, sent);
    if (sent && exchange->reply.stepped)
        metric_observe(HISTOGRAM_STEP_STAGE, METRIC_STAGE_SEND,
                       now_us - exchange->account.answered_us);
    if (exchange->started_us == 0 || !log_wants(level))
        return;
    const struct config *config = exchange->commons->config;
    if (level == LOG_DEBUG || config->log_requests || may_tell(now_us, config->log_problems_max))
        write_line(exchange, level, sent, now_us);
}
