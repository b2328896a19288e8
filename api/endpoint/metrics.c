/* GET /metrics: figures for Prometheus. No session is asked: what is counted is counted as it
 * happens, so that a scrape costs the same whatever the server holds and holds up nobody. */
#include <jansson.h>

#include "api/crypto.h"
#include "api/metrics_text.h"
#include "api/process.h"
#include "api/router.h"
#include "service/core/buffer.h"
#include "service/core/simd.h"
#include "service/core/version.h"

static void tell_build(void)
{
    metric_build(METRIC_BUILD_VERSION, DESCENT_VERSION);
    metric_build(METRIC_BUILD_SIMD, simd_path());
    metric_build(METRIC_BUILD_COMPILER, __VERSION__);
    metric_build(METRIC_BUILD_JANSSON, jansson_version_str());
    metric_build(METRIC_BUILD_GNUTLS, crypto_version());
}

static void set(uint64_t *numbers, enum family family, uint64_t value)
{
    numbers[metric_family(family)->start] = value;
}

/* What others count, as of now. */
static void collect(uint64_t *numbers)
{
    struct process process;
    size_t live, pooled;

    buffer_pool_usage(&live, &pooled);
    set(numbers, FAMILY_BUFFER_BYTES, live);
    set(numbers, FAMILY_POOL_BYTES, pooled);
    process_look(&process);
    set(numbers, FAMILY_PROCESS_CPU, process.cpu_us);
    set(numbers, FAMILY_PROCESS_START, process.started_us);
    set(numbers, FAMILY_PROCESS_RESIDENT, process.resident_bytes);
    set(numbers, FAMILY_PROCESS_VIRTUAL, process.virtual_bytes);
    set(numbers, FAMILY_PROCESS_FDS, process.descriptors);
    set(numbers, FAMILY_PROCESS_FDS_MAX, process.descriptors_max);
    set(numbers, FAMILY_PROCESS_THREADS, process.threads);
}

struct reply serve_metrics(struct engine *engine, struct request *request)
{
    uint64_t *numbers = arena_take(request->arena, metric_numbers() * sizeof *numbers);
    struct fault fault;

    (void)engine;
    if (request_query_end(request, &fault) != STATUS_OK)
        return reply_fault(request, &fault);
    if (numbers == NULL)
        return reply_json(500, span_of(NULL, 0));
    tell_build();
    metric_read(numbers);
    collect(numbers);
    struct reply reply = reply_json(200, metrics_text(request->arena, numbers));
    if (reply.http == 200) {
        reply.media_type = "text/plain; version=0.0.4; charset=utf-8";
        reply.tail = span_of(NULL, 0);
    }
    return reply;
}
