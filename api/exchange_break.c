/* An answer that goes past the library: to a request that cannot be read to its end. */
#include "api/exchange_stages.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "service/core/clock.h"
#include "service/core/log.h"

enum { HEAD_BYTES = 512, DATE_BYTES = 64 };

void exchange_break(struct exchange *exchange, const struct fault *fault)
{
    char date[DATE_BYTES];
    time_t now = (time_t)(clock_unix_us() / 1000000);
    struct tm parts;
    struct fault told = *fault;

    if (exchange->stage == STAGE_REPLY)
        return;
    exchange_cut_query(exchange);
    if (exchange->id[0] == '\0')
        exchange_choose_id(exchange);
    gmtime_r(&now, &parts);
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    struct reply reply = reply_fault(&exchange->request, &told);
    char *answer = arena_take(&exchange->arena, HEAD_BYTES + reply.head.size);
    if (answer == NULL || exchange->arena.failed)
        return;
    int used = snprintf(answer, HEAD_BYTES,
                        "HTTP/1.1 %u %s\r\n"
                        "Date: %s\r\n"
                        "Content-Type: %s\r\n"
                        "Content-Length: %zu\r\n"
                        "Cache-Control: no-store\r\n"
                        "Request-Id: %s\r\n"
                        "Connection: close\r\n\r\n",
                        reply.http, status_title(fault->status), date, reply.media_type,
                        reply.head.size, exchange->id);
    memcpy(answer + used, reply.head.data, reply.head.size);
    if (!watch_answer(&exchange->watched, answer, (size_t)used + reply.head.size))
        return;
    uint64_t now_us = clock_monotonic_us();
    if (exchange->started_us == 0)
        exchange->started_us = now_us;
    exchange->reply.http = reply.http;
    exchange->reply.problem = reply.problem;
    exchange->account.past = true;
    exchange_answered(exchange, reply.head.size, now_us);
    log_debug("%s was unreadable: %s", exchange->id, fault->detail);
}
