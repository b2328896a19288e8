/* What each layer of the HTTP surface costs a step: the same build with the layer beside the build
 * without it, one client, in rounds that take turns, so that what else the machine does befalls
 * both: the best of the rounds' medians; small steps on one processor. What cannot be switched off
 * (metrics, guards) shows beside an earlier program, if one is named. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/bench.h"
#include "tests/bench/secure.h"
#include "tests/bench/wrapped.h"

enum { SMALL = 100, LARGE = 1000000, ROUNDS = 21, OPTIONS_MAX = 12, PATH_BYTES = 512 };

enum { KINDS = 4 };

static const struct kind {
    const char *name, *session;
    size_t count;
    bool json, answered; /* with the parameters */
} kinds[KINDS] = {
    {.name = "100 parameters in JSON", .session = "small", .count = SMALL, .json = true},
    {.name = "100 parameters, raw f32", .session = "small", .count = SMALL},
    {.name = "1 M parameters, raw f32", .session = "large", .count = LARGE},
    {.name = "1 M, answered with them", .session = "large", .count = LARGE, .answered = true},
};

/* What is switched on; `options` are of a server of its own, the rest is said by each request. */
struct layer {
    const char *name;
    const char *options[OPTIONS_MAX];
    bool token, secure, digest;
    const char *coding;
    double aim; /* of small steps, at most; 0: none */
};

#define TOKENS "--auth", "on"
#define LOG "--log-requests", "--log", "info", "--log-file", "LOG"
#define TLS "--tls-cert", "CERTIFICATE", "--tls-key", "KEY"

static const struct layer layers[] = {
    {.name = "tokens", .options = {TOKENS}, .token = true},
    {.name = "a line in a log for each request", .options = {LOG}},
    {.name = "Content-Digest both ways", .digest = true},
    {.name = "tokens and log", .options = {TOKENS, LOG}, .token = true, .aim = 1.1},
    {.name = "TLS", .options = {TLS}, .secure = true},
    {.name = "tokens, log, digests and TLS",
     .options = {TOKENS, LOG, TLS},
     .token = true,
     .digest = true,
     .secure = true},
    {.name = "zstd both ways", .coding = "zstd"},
    {.name = "gzip both ways", .coding = "gzip"},
};
enum { LAYERS = sizeof layers / sizeof *layers };

/* A server with one session of each size, and a connection for each kind of step. */
struct side {
    struct child server;
    struct request_bytes requests[KINDS];
    struct load *loads[KINDS];
};

static const char durability[] = ",\"durability\":{\"mode\":\"checkpoint\",\"steps\":1000}";

static struct request_bytes make_request(const struct kind *kind, const struct layer *layer,
                                         const char *token)
{
    struct wrapping wrapping = {.json = kind->json, .answered = kind->answered, .token = token};
    float *gradient = malloc(kind->count * sizeof *gradient);

    if (gradient == NULL)
        bench_fail("memory");
    bench_fill(gradient, kind->count, 1);
    if (layer != NULL) {
        wrapping.digest = layer->digest;
        wrapping.coding = layer->coding;
    }
    struct request_bytes request = wrapped_step(kind->session, gradient, kind->count, &wrapping);
    free(gradient);
    return request;
}

static void open_side(struct side *side, const struct bench *bench, const struct layer *layer,
                      const char *name)
{
    static const char *const files[] = {"LOG", "CERTIFICATE", "KEY"};
    char paths[3][PATH_BYTES];
    const char *options[OPTIONS_MAX + 1] = {NULL};
    bool secure = layer != NULL && layer->secure;
    char *token = layer != NULL && layer->token ? wrapped_token(bench, name) : NULL;

    for (size_t i = 0; i < 3; i++)
        snprintf(paths[i], PATH_BYTES, "%s/%s.%s", bench->folder, name, files[i]);
    if (secure)
        secure_certificate(paths[1], paths[2]);
    for (size_t i = 0; layer != NULL && i < OPTIONS_MAX && layer->options[i] != NULL; i++) {
        options[i] = layer->options[i];
        for (size_t k = 0; k < 3; k++)
            if (strcmp(options[i], files[k]) == 0)
                options[i] = paths[k];
    }
    child_start_server(&side->server, bench, name, options);
    wrapped_session(side->server.port, "small", SMALL, durability, token, secure);
    wrapped_session(side->server.port, "large", LARGE, durability, token, secure);
    for (size_t kind = 0; kind < KINDS; kind++) {
        side->requests[kind] = make_request(&kinds[kind], layer, token);
        side->loads[kind] =
            (secure ? load_open_secure : load_open)(side->server.port, &side->requests[kind], 1);
        load_run(side->loads[kind], 0, 1); /* who says nothing for ten seconds is cut off */
    }
    free(token);
}

static void close_side(struct side *side)
{
    for (size_t kind = 0; kind < KINDS; kind++) {
        load_close(side->loads[kind]);
        free(side->requests[kind].data);
    }
    child_stop(&side->server);
}

/* One round of one kind: the median latency, and the server's CPU time for a request. */
struct figure {
    double latency, cpu;
};

static struct figure measure(const struct side *side, size_t kind, double seconds)
{
    double before = child_cpu(&side->server);
    struct load_result result = load_run(side->loads[kind], seconds, 0);

    return (struct figure){.latency = result.median,
                           .cpu = (child_cpu(&side->server) - before) / (double)result.count};
}

/* A small step is mostly a thread waking another: all on one processor, it takes the work that both
 * sides do and nothing else. */
static void place(struct side *sides[2], enum processors processors)
{
    bench_place(getpid(), processors);
    for (size_t i = 0; i < 2; i++)
        bench_place(sides[i]->server.pid, processors);
}

static void compare(const char *what, struct side *with, struct side *without, const char *limit,
                    size_t kind, double aim, double seconds)
{
    double latency[2][ROUNDS], cpu[2][ROUNDS], best[2], least[2];
    struct side *sides[] = {with, without};

    place(sides, kinds[kind].count == SMALL ? PROCESSORS_ONE : PROCESSORS_ALL);
    for (size_t i = 0; i < 2; i++)
        measure(sides[i], kind, seconds); /* to warm up */
    for (size_t round = 0; round < ROUNDS; round++)
        for (size_t i = 0; i < 2; i++) {
            size_t side = (round + i) % 2; /* who is first gains nothing by it */
            struct figure figure = measure(sides[side], kind, seconds);
            latency[side][round] = figure.latency;
            cpu[side][round] = figure.cpu;
        }
    place(sides, PROCESSORS_ALL);
    for (size_t i = 0; i < 2; i++) {
        best[i] = bench_minimum(latency[i], ROUNDS) * 1e6;
        least[i] = bench_minimum(cpu[i], ROUNDS) * 1e6;
    }
    bench_row(bench_text("%s: %s", kinds[kind].name, what),
              bench_text("%.1f us, CPU %.1f us", best[0], least[0]),
              bench_text("%s %.1f us, CPU %.1f us", limit, best[1], least[1]), best[0] / best[1],
              aim > 0 ? AIM_AT_MOST : AIM_NONE, aim);
}

/* Beside an earlier program: what cannot be switched off, and that with what can. */
static void compare_before(const struct bench *bench, struct side *plain, double seconds)
{
    static const struct layer both = {
        .name = "tokens and log", .options = {TOKENS, LOG}, .token = true};
    struct bench earlier = *bench;
    struct side before, layered;

    earlier.server = bench->before;
    open_side(&before, &earlier, NULL, "before");
    open_side(&layered, bench, &both, "layered");
    for (size_t kind = 0; kind < KINDS; kind++) {
        double aim = kinds[kind].count == SMALL ? 1.1 : 0;
        compare("nothing switched on", plain, &before, "the earlier program", kind, aim, seconds);
        compare(both.name, &layered, &before, "the earlier program", kind, aim, seconds);
    }
    close_side(&before);
    close_side(&layered);
}

void bench_layers(const struct bench *bench)
{
    double seconds = bench->seconds / 800;
    struct side plain, other;

    open_side(&plain, bench, NULL, "plain");
    for (size_t i = 0; i < LAYERS; i++) {
        const struct layer *layer = &layers[i];
        open_side(&other, bench, layer, bench_text("layer%zu", i));
        for (size_t kind = 0; kind < KINDS; kind++)
            compare(layer->name, &other, &plain, "without", kind,
                    kinds[kind].count == SMALL ? layer->aim : 0, seconds);
        close_side(&other);
    }
    if (bench->before != NULL)
        compare_before(bench, &plain, seconds);
    close_side(&plain);
}
