/* The requests that are swept. */
#include "tests/lib/oom_requests.h"

#include <string.h>

#include "tests/lib/codings.h"
#include "tests/lib/tensors.h"

#define S OOM_SESSION
#define TENSORS OOM_TENSORS
#define ABNORMAL OOM_ABNORMAL
#define TYPE(type) "Content-Type: " type "\r\n"
#define JSON TYPE("application/json")
#define SAFETENSORS TYPE("application/vnd.safetensors")
#define RAW TYPE("application/octet-stream")
#define NPY TYPE("application/x-npy")
#define ACCEPT(type) "Accept: " type "\r\n"
#define CODED(coding) "Content-Encoding: " coding "\r\n"
#define KEY "Idempotency-Key: \"once\"\r\n"
#define WEIGHTS_TOO "Prefer: return=representation\r\n"

#define GRADIENTS OOM_MORE
#define SESSION OOM_NEW
#define INTERVAL SESSION(", \"durability\": {\"mode\": \"interval\", \"seconds\": 0.001}")
#define CHECKPOINT SESSION(", \"durability\": {\"mode\": \"checkpoint\", \"steps\": 2}")
#define STEP OOM_STEP
#define HASHED SESSION(", \"hash_every\": 1")
#define WARY SESSION(", \"gradient\": {\"max_norm_ratio\": 2}")
/* Of which the first gradient is a part. */
#define ROUND(workers) SESSION(", \"aggregation\": {\"mode\": \"sync\", \"workers\": " workers "}")
#define AHEAD SESSION(", \"aggregation\": {\"mode\": \"ssp\", \"accumulate\": 2}")
#define OF(worker) "{\"worker\": \"" worker "\", \"gradients\": " TENSORS "}"
enum {
    COUNT = 8,     /* numbers in the tensors */
    WARY_AFTER = 9 /* steps after the first: then there is an average of norms */
};

#define SVRG OOM_SVRG
#define ONE_WORKER "{\"workers\": 1}" /* ready */
#define TWO_WORKERS "{\"workers\": 2}"
#define PAIR "{\"snapshot\": 1, \"snapshot_gradients\": " TENSORS ", \"gradients\": " TENSORS "}"

#define NDJSON ACCEPT("application/x-ndjson")

/* Forks: of now, of a past step, with the parent's gradients under another rule. */
#define OTHER "\"id\": \"other\""
#define LION ", \"optimizer\": {\"name\": \"lion\", \"lr\": 0.01}"
#define MUON ", \"optimizer\": {\"name\": \"muon\", \"lr\": 0.01}"
#define REPLAY ", \"step\": 1, \"replay\": true"

#define HEADER(more)                                                                               \
    "{" more "\"w\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"                  \
    "\"a/b\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[16,28]},"                          \
    "\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[28,32]}}"

/* --- bodies --- */

static struct buffer *with_numbers(struct buffer *body)
{
    for (size_t i = 0; i < COUNT; i++) {
        float number = 0.25F * (float)(i + 1);
        memcpy(body->data + body->size - (COUNT - i) * sizeof number, &number, sizeof number);
    }
    return body;
}

static struct buffer *raw(void)
{
    return with_numbers(buffer_new_zeroed(COUNT * sizeof(float)));
}

static struct buffer *coded(const char *coding)
{
    struct buffer *plain = raw();
    struct buffer *body = codings_encode(coding, span_of(plain->data, plain->size));

    buffer_release(plain);
    return body;
}

static struct buffer *raw_zstd(void)
{
    return coded("zstd");
}

static struct buffer *raw_gzip(void)
{
    return coded("gzip");
}

/* A pair. */
static struct buffer *raw_twice(void)
{
    return with_numbers(buffer_new_zeroed(2 * COUNT * sizeof(float)));
}

static struct buffer *safetensors_twice(void)
{
    static const char header[] =
        "{\"w\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
        "\"a/b\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[16,28]},"
        "\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[28,32]},"
        "\"snapshot/w\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[32,48]},"
        "\"snapshot/s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[48,52]},"
        "\"snapshot/a/b\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[52,64]}}";

    return with_numbers(tensors_safetensors(header, 2 * COUNT * sizeof(float)));
}

static struct buffer *npy(void)
{
    static const char head[] = "\x93NUMPY\1\0\x76\0{'descr': '<f4', 'fortran_order': False, "
                               "'shape': (8,), }";
    enum { HEAD_BYTES = 128 };
    struct buffer *body = buffer_new_zeroed(HEAD_BYTES + COUNT * sizeof(float));

    memset(body->data, ' ', HEAD_BYTES - 1);
    body->data[HEAD_BYTES - 1] = '\n';
    memcpy(body->data, head, sizeof head - 1);
    return with_numbers(body);
}

static struct buffer *safetensors(void)
{
    return with_numbers(tensors_safetensors(HEADER(""), COUNT * sizeof(float)));
}

static struct buffer *safetensors_session(void)
{
    static const char header[] =
        HEADER("\"__metadata__\":{\"descent\":\"{\\\"optimizer\\\":\\\"adam\\\"}\"},");

    return with_numbers(tensors_safetensors(header, COUNT * sizeof(float)));
}

/* --- the requests --- */

const struct oom_request oom_requests[] = {
    {"sessions_create", "/v1/sessions", JSON, .text = STEP, .disk = true},
    {"sessions_create", "/v1/sessions", SAFETENSORS, .build = safetensors_session},
    {"sessions_put", "/v1/sessions/other", JSON, .text = INTERVAL},
    {"sessions_list", "/v1/sessions?page_size=1", .headers = ""},
    {"sessions_get", S, .headers = ""},
    {"sessions_get", S, .headers = "", .idle = true, .disk = true},
    {"sessions_patch", S, JSON,
     .text = "{\"optimizer\": {\"lr\": 0.5}, \"labels\": {\"a\": \"b\"}}", .disk = true},
    {"sessions_patch", S, JSON, .text = "{\"labels\": {\"a\": \"b\"}}", .session = CHECKPOINT},
    {"sessions_patch", S, JSON, .text = "{\"gradient\": {\"clip_norm\": 1}}", .session = INTERVAL},
    {"sessions_delete", S, .headers = ""},
    {"sessions_delete", S, .headers = "", .idle = true, .disk = true},
    {"gradients_submit", S "/gradients", JSON KEY, .text = GRADIENTS, .disk = true},
    {"gradients_submit", S "/gradients", JSON KEY WEIGHTS_TOO, .text = GRADIENTS},
    {"gradients_submit", S "/gradients", JSON, .text = GRADIENTS},
    {"gradients_submit", S "/gradients", JSON,
     .text = "{\"worker\": \"w\", \"seq\": 1, \"cursor\": \"c\", \"gradients\": " TENSORS "}"},
    {"gradients_submit", S "/gradients", SAFETENSORS KEY WEIGHTS_TOO, .build = safetensors},
    {"gradients_submit", S "/gradients", RAW KEY WEIGHTS_TOO ACCEPT("application/octet-stream"),
     .build = raw},
    {"gradients_submit", S "/gradients", RAW KEY CODED("zstd"), .build = raw_zstd},
    {"gradients_submit", S "/gradients", RAW KEY CODED("gzip"), .build = raw_gzip},
    {"gradients_submit", S "/gradients?loss=0.5", NPY KEY, .build = npy},
    {"gradients_submit", S "/gradients", RAW KEY, .build = raw, .idle = true, .disk = true},
    {"gradients_submit", S "/gradients", RAW KEY, .build = raw, .session = INTERVAL, .disk = true},
    {"gradients_submit", S "/gradients", RAW KEY, .build = raw, .session = CHECKPOINT,
     .disk = true},
    {"gradients_submit", S "/gradients?dry_run=true", JSON KEY WEIGHTS_TOO, .text = GRADIENTS},
    {"gradients_submit", S "/gradients?dry_run=true", RAW, .build = raw, .session = CHECKPOINT,
     .idle = true},
    {"gradients_submit", S "/gradients", JSON, .text = ABNORMAL, .session = WARY,
     .steps = WARY_AFTER, .refused = 422},
    {"gradients_submit", S "/gradients", JSON KEY, .text = OF("a"), .session = ROUND("3"),
     .disk = true},
    {"gradients_submit", S "/gradients", JSON "Prefer: wait=30\r\n", .text = OF("a"),
     .session = ROUND("2"), .idle = true},
    {"gradients_submit", S "/gradients?worker=a&kind=delta", RAW KEY WEIGHTS_TOO, .build = raw,
     .session = ROUND("2"), .disk = true},
    {"gradients_submit", S "/gradients?dry_run=true", JSON, .text = OF("a"), .session = ROUND("3")},
    {"gradients_submit", S "/gradients?dry_run=true", JSON WEIGHTS_TOO, .text = OF("a"),
     .session = ROUND("2")},
    {"gradients_submit", S "/gradients?worker=a", RAW KEY, .build = raw, .session = AHEAD},
    {"workers_list", S "/workers", .headers = "", .session = ROUND("2")},
    {"workers_list", S "/workers", .headers = "", .idle = true},
    {"workers_dismiss", S "/workers/first", .headers = "", .disk = true},
    {"workers_dismiss", S "/workers/first", .headers = "", .session = ROUND("2"), .idle = true},
    {"workers_dismiss", S "/workers/first", .headers = "", .session = CHECKPOINT},
    {"parameters_fetch", S "/parameters?after=0&wait=0.001", .headers = ""},
    {"parameters_fetch", S "/parameters", .headers = ""},
    {"parameters_fetch", S "/parameters", .headers = ACCEPT("application/vnd.safetensors")},
    {"parameters_fetch", S "/parameters?tensors=w,s&dtype=bf16", ACCEPT("application/octet-stream"),
     .idle = true},
    {"parameters_fetch", S "/parameters?average=ema", ACCEPT("application/x-npy"),
     .session = SESSION(", \"ema\": {\"decay\": 0.5}")},
    {"parameters_fetch", S "/parameters",
     .headers = "If-None-Match: \"0-9\"\r\nRange: bytes=0-3\r\n"},
    {"parameters_fetch", S "/parameters?step=1", .headers = "", .steps = 2},
    {"parameters_fetch", S "/parameters?step=1&lineage=0", ACCEPT("application/octet-stream"),
     .session = INTERVAL, .steps = 1, .idle = true},
    {"parameters_replace", S "/parameters", JSON, .text = "{\"parameters\": " TENSORS "}",
     .disk = true},
    {"parameters_replace", S "/parameters", RAW, .build = raw, .session = INTERVAL},
    {"parameters_replace", S "/parameters", SAFETENSORS, .build = safetensors,
     .session = CHECKPOINT},
    {"hash_get", S "/hash", .headers = ""},
    {"hash_get", S "/hash?step=1", .headers = "", .session = HASHED, .steps = 2, .idle = true,
     .disk = true},
    {"steps_list", S "/steps?page_size=1", .headers = "", .steps = 1},
    {"steps_list", S "/steps", NDJSON, .steps = 1, .idle = true, .disk = true},
    {"state_export", S "/state", .headers = ACCEPT("application/vnd.safetensors")},
    {"state_export", S "/state?step=1", .headers = "", .steps = 1, .idle = true, .disk = true},
    {"sessions_put", "/v1/sessions/other", SAFETENSORS, .exported = true},
    {"sessions_rewind", S "/rewind", JSON, .text = "{\"step\": 1}", .steps = 1},
    {"sessions_rewind", S "/rewind", JSON, .text = "{\"step\": 0}", .session = HASHED, .idle = true,
     .disk = true},
    {"sessions_rewind", S "/rewind", JSON, .text = "{\"step\": 1}", .session = CHECKPOINT},
    {"sessions_rewind", S "/rewind", JSON, .text = "{\"step\": 0}", .session = INTERVAL},
    {"sessions_fork", S "/forks", JSON, .text = "{}"},
    {"sessions_fork", S "/forks", JSON, .steps = 1,
     .text = "{" OTHER ", \"step\": 1, \"labels\": {\"a\": \"b\"}}"},
    {"sessions_fork", S "/forks", JSON, .text = "{" OTHER REPLAY LION "}", .steps = 2, .idle = true,
     .disk = true},
    {"sessions_fork", S "/forks", JSON, .text = "{" OTHER REPLAY MUON ", \"state\": \"reset\"}",
     .steps = 1},
    {"sessions_fork", S "/forks", JSON, .text = "{" OTHER "}", .session = CHECKPOINT},
    {"checkpoints_create", S "/checkpoints", .headers = "", .disk = true},
    {"checkpoints_create", S "/checkpoints", .headers = "", .session = CHECKPOINT, .steps = 2},
    {"checkpoints_list", S "/checkpoints", .headers = ""},
    {"gradients_submit", S "/gradients", JSON KEY, .text = PAIR, .session = SVRG,
     .snapshot = ONE_WORKER, .disk = true},
    {"gradients_submit", S "/gradients?snapshot=1", RAW KEY, .build = raw_twice, .session = SVRG,
     .snapshot = ONE_WORKER, .idle = true},
    {"gradients_submit", S "/gradients?snapshot=1", SAFETENSORS KEY WEIGHTS_TOO,
     .build = safetensors_twice, .session = SVRG, .snapshot = ONE_WORKER},
    {"gradients_submit", S "/gradients", JSON, .text = PAIR, .session = SVRG,
     .snapshot = TWO_WORKERS, .refused = 409},
    {"snapshots_create", S "/snapshots", JSON, .text = TWO_WORKERS, .session = SVRG, .disk = true},
    {"snapshots_create", S "/snapshots", JSON, .text = "{\"examples\": 7}", .session = SVRG,
     .snapshot = ONE_WORKER, .idle = true},
    {"snapshots_list", S "/snapshots", .headers = "", .session = SVRG, .snapshot = TWO_WORKERS,
     .idle = true},
    {"snapshots_get", S "/snapshots/1", .headers = "", .session = SVRG, .snapshot = ONE_WORKER},
    {"snapshots_parameters", S "/snapshots/1/parameters", .headers = "", .session = SVRG,
     .snapshot = ONE_WORKER, .steps = 1},
    {"snapshots_parameters", S "/snapshots/1/parameters?tensors=s",
     ACCEPT("application/vnd.safetensors"), .session = SVRG, .snapshot = TWO_WORKERS},
    {"snapshots_gradients", S "/snapshots/1/gradients", JSON,
     .text = "{\"examples\": 2, \"worker\": \"second\", \"gradients\": " TENSORS "}",
     .session = SVRG, .snapshot = TWO_WORKERS, .disk = true},
    {"snapshots_gradients", S "/snapshots/1/gradients?examples=3&part=b", RAW, .build = raw,
     .session = SVRG, .snapshot = TWO_WORKERS, .idle = true},
    {"snapshots_close", S "/snapshots/1/close", .headers = "", .session = SVRG,
     .snapshot = TWO_WORKERS, .disk = true},
    {"snapshots_gradient", S "/snapshots/1/gradient", .headers = "", .session = SVRG,
     .snapshot = ONE_WORKER},
    {"snapshots_gradient", S "/snapshots/1/gradient", ACCEPT("application/octet-stream"),
     .session = SVRG, .snapshot = ONE_WORKER, .idle = true},
    {"sessions_fork", S "/forks", JSON, .text = "{" OTHER "}", .session = SVRG,
     .snapshot = TWO_WORKERS},
    {"sessions_patch", S, JSON, .text = "{\"svrg\": null}", .session = SVRG,
     .snapshot = TWO_WORKERS},
    {"quarantine_list", S "/quarantine", .headers = "", .session = WARY, .steps = WARY_AFTER,
     .abnormal = true},
    {"quarantine_fetch", S "/quarantine/", .headers = "", .session = WARY, .steps = WARY_AFTER,
     .abnormal = true, .idle = true},
    {"quarantine_fetch", S "/quarantine/", ACCEPT("application/octet-stream"), .session = WARY,
     .steps = WARY_AFTER, .abnormal = true},
    {"optimizers_list", "/v1/optimizers", .headers = ""},
    {"optimizers_get", "/v1/optimizers/adam", .headers = ""},
    {"presets_list", "/v1/presets", .headers = ""},
    {"schedules_list", "/v1/schedules", .headers = ""},
    {"livez", "/livez", .headers = ""},
    {"metrics", "/metrics", .headers = ""},
    {"readyz", "/readyz", .headers = ""},
    {"healthz", "/healthz", .headers = ""},
    {"openapi", "/openapi.json", .headers = ""},
};
const size_t oom_request_count = sizeof oom_requests / sizeof *oom_requests;
