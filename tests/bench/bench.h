/* What the benchmarks share: rows of the table, statistics, processes, load. Programs that print
 * figures, each beside its limit measured in the same run, in turns with it; never tests. */
#ifndef DESCENT_TESTS_BENCH_H
#define DESCENT_TESTS_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>

struct bench {
    const char *server; /* the binary */
    const char *before; /* the binary of an earlier commit, or NULL */
    const char *python; /* with torch, or not */
    const char *folder; /* exists, empty, on the file system to be measured */
    double seconds;     /* of the figure with fsync; the others scale with it */
};

/* Each prints its rows. */
void bench_kernel(const struct bench *bench);
void bench_rules(const struct bench *bench);
void bench_muon(const struct bench *bench);
void bench_json(const struct bench *bench);
void bench_step(const struct bench *bench);
void bench_durable(const struct bench *bench);
void bench_many(const struct bench *bench);
void bench_memory(const struct bench *bench);
void bench_history(const struct bench *bench); /* bench_past is a part of it */
void bench_past(const struct bench *bench);
void bench_workers(const struct bench *bench); /* bench_mean and bench_pairs are parts of it */
void bench_mean(const struct bench *bench);
void bench_pairs(const struct bench *bench);
void bench_surface(const struct bench *bench); /* bench_layers, _crowd, _tails are parts of it */
void bench_layers(const struct bench *bench);
void bench_crowd(const struct bench *bench);
void bench_tails(const struct bench *bench);

/* --- rows --- */

enum aim_kind { AIM_NONE, AIM_AT_LEAST, AIM_AT_MOST };

/* One line of the table: our figure, the limit's, what one is of the other, what it should be. */
void bench_row(const char *what, const char *ours, const char *limit, double ratio,
               enum aim_kind kind, double aim);

/* snprintf into one of a few static buffers that are used in turn. */
const char *bench_text(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Says why and ends the program. */
_Noreturn void bench_fail(const char *what);

/* --- statistics --- */

double bench_now(void);                            /* seconds, monotonic */
double bench_median(double *values, size_t count); /* sorts them */
double bench_minimum(const double *values, size_t count);
double bench_maximum(const double *values, size_t count);

/* Numbers like those of a gradient: about normal, sd 0.01, the same in every run. */
void bench_fill(float *out, size_t count, unsigned seed);

/* --- processes: they die with this one --- */

struct child {
    pid_t pid;
    FILE *in, *out; /* its stdin and stdout */
    unsigned port;  /* of a server */
};

/* Starts a program; false when it is not there. */
bool child_start(struct child *child, const char *const *arguments);

/* Starts `build/descent serve` on a free port, keeping its data under `name` of the folder. */
void child_start_server(struct child *child, const struct bench *bench, const char *name,
                        const char *const *options);

void child_stop(struct child *child);        /* SIGTERM, and waits */
double child_cpu(const struct child *child); /* seconds that its threads have computed */

/* Puts every thread of a process on the first processor of this machine, or on all again. What
 * wakes what, and on which processor, is then the same in every round. */
enum processors { PROCESSORS_ONE, PROCESSORS_ALL };
void bench_place(pid_t pid, enum processors processors);

/* PyTorch, if the Python has it; version is empty when not. */
struct torch {
    struct child child;
    char version[64];
};
void torch_start(struct torch *torch, const struct bench *bench);
void torch_stop(struct torch *torch);
/* Nanoseconds a parameter of its rule on one thread; 0: it has none, or is not there. */
double torch_time(struct torch *torch, const char *rule, size_t count, size_t repeats);

/* A bare libmicrohttpd server with the flags of api/server.c, as a child: it reads a body into a
 * buffer that it keeps per connection, and answers with a few words or with that body. */
enum bare_answer { BARE_SHORT, BARE_ECHO };
void bare_start(struct child *child, enum bare_answer answer, size_t body_bytes);

/* --- load --- */

struct request_bytes {
    char *data;
    size_t size;
};

/* A request with this body, copied. headers: lines, each with its end. */
struct request_bytes load_request(const char *method, const char *path, const char *headers,
                                  const void *body, size_t body_size);

/* Sends JSON and waits for the answer, which must be 2xx. */
void load_once(unsigned port, const char *method, const char *path, const char *body);

struct load;

struct load_result {
    size_t count; /* answers */
    double rate;  /* answers per second */
    double mean;  /* seconds from the first byte sent to the last received */
    double median, p99, p999;
};

/* Opens a keep-alive connection for each of the requests, which it will send again and again. The
 * requests are borrowed. */
struct load *load_open(unsigned port, const struct request_bytes *requests, size_t connections);

/* The same over TLS, whoever the server is. */
struct load *load_open_secure(unsigned port, const struct request_bytes *requests,
                              size_t connections);

/* Keeps every connection busy with one request at a time for so long, or until `count_max` (0: no
 * such limit) have been answered. An answer other than 2xx ends the program with its text. */
struct load_result load_run(struct load *load, double seconds, size_t count_max);

void load_close(struct load *load);

/* Creates a session of one tensor of `count` parameters with Adam. `more` is further JSON members,
 * each after a comma. */
void load_create_session(unsigned port, const char *id, size_t count, const char *more);

/* The request of a raw f32 step of `count` parameters. */
struct request_bytes load_step_request(const char *id, size_t count, const char *headers);

#endif
