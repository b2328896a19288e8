/* Steps as a client sends them that has a token, compresses, and says digests. */
#include "tests/bench/wrapped.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "api/base64.h"
#include "api/crypto.h"

enum { HEADERS_BYTES = 1024, NUMBER_BYTES = 16, ZSTD_LEVEL = 1, GZIP_LEVEL = 1 };

static struct request_bytes allocate(size_t size)
{
    struct request_bytes bytes = {.data = malloc(size), .size = size};

    if (bytes.data == NULL)
        bench_fail("memory");
    return bytes;
}

static struct request_bytes write_json(const float *gradient, size_t count)
{
    struct request_bytes body = allocate(count * NUMBER_BYTES + 64);
    size_t used = (size_t)sprintf(body.data, "{\"gradients\":{\"w\":[");

    for (size_t i = 0; i < count; i++)
        used += (size_t)sprintf(body.data + used, "%s%.8g", i > 0 ? "," : "", (double)gradient[i]);
    used += (size_t)sprintf(body.data + used, "]}}");
    body.size = used;
    return body;
}

static void encode(struct request_bytes *body, const char *coding)
{
    struct request_bytes out;

    if (strcmp(coding, "zstd") == 0) {
        out = allocate(ZSTD_compressBound(body->size));
        out.size = ZSTD_compress(out.data, out.size, body->data, body->size, ZSTD_LEVEL);
        if (ZSTD_isError(out.size))
            bench_fail("zstd");
    } else {
        z_stream stream = {.next_in = (unsigned char *)body->data, .avail_in = (uInt)body->size};
        if (deflateInit2(&stream, GZIP_LEVEL, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
            bench_fail("gzip");
        out = allocate(deflateBound(&stream, body->size));
        stream.next_out = (unsigned char *)out.data;
        stream.avail_out = (uInt)out.size;
        if (deflate(&stream, Z_FINISH) != Z_STREAM_END)
            bench_fail("gzip");
        out.size -= stream.avail_out;
        deflateEnd(&stream);
    }
    free(body->data);
    *body = out;
}

struct request_bytes wrapped_step(const char *id, const float *gradient, size_t count,
                                  const struct wrapping *wrapping)
{
    char headers[HEADERS_BYTES], digest[BASE64_SIZE(SHA256_BYTES) + 1] = "";
    unsigned char hash[SHA256_BYTES];
    struct request_bytes body;
    int used = 0;

    if (wrapping->json) {
        body = write_json(gradient, count);
    } else {
        body = allocate(count * sizeof *gradient);
        memcpy(body.data, gradient, body.size);
    }
    if (wrapping->coding != NULL)
        encode(&body, wrapping->coding);
    if (wrapping->digest && !crypto_sha256(span_of(body.data, body.size), hash))
        bench_fail("SHA-256");
    base64_write(hash, sizeof hash, digest);
#define ADD(...) used += snprintf(headers + used, sizeof headers - (size_t)used, __VA_ARGS__)
    ADD("Content-Type: application/%s\r\n", wrapping->json ? "json" : "octet-stream");
    if (wrapping->answered)
        ADD("Prefer: return=representation\r\nAccept: application/octet-stream\r\n");
    if (wrapping->coding != NULL)
        ADD("Content-Encoding: %s\r\nAccept-Encoding: %s\r\n", wrapping->coding, wrapping->coding);
    if (wrapping->digest)
        ADD("Content-Digest: sha-256=:%s:\r\nWant-Content-Digest: sha-256=10\r\n", digest);
    if (wrapping->token != NULL)
        ADD("Authorization: Bearer %s\r\n", wrapping->token);
#undef ADD
    struct request_bytes request = load_request("POST", bench_text("/v1/sessions/%s/gradients", id),
                                                headers, body.data, body.size);
    free(body.data);
    return request;
}

void wrapped_session(unsigned port, const char *id, size_t count, const char *more,
                     const char *token, bool secure)
{
    const char *body = bench_text("{\"optimizer\":\"adam\",\"parameters\":{\"w\":{\"shape\":[%zu],"
                                  "\"init\":\"zeros\"}}%s}",
                                  count, more);
    const char *bearer = token == NULL ? "" : bench_text("Authorization: Bearer %s\r\n", token);
    struct request_bytes request = load_request(
        "PUT", bench_text("/v1/sessions/%s", id),
        bench_text("Content-Type: application/json\r\n%s", bearer), body, strlen(body));
    struct load *load = (secure ? load_open_secure : load_open)(port, &request, 1);

    load_run(load, 0, 1);
    load_close(load);
    free(request.data);
}

char *wrapped_token(const struct bench *bench, const char *name)
{
    struct child child;
    char line[128] = "", data[512];
    const char *arguments[] = {bench->server, "token", "create", "--data", data, NULL};

    snprintf(data, sizeof data, "%s/%s", bench->folder, name);
    if (!child_start(&child, arguments) || fgets(line, sizeof line, child.out) == NULL)
        bench_fail("no token was made");
    child_stop(&child);
    line[strcspn(line, "\n")] = '\0';
    char *token = strdup(line);
    if (token == NULL)
        bench_fail("memory");
    return token;
}
