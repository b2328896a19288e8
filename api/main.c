/* The composition root: config -> store -> engine -> server, and the orderly stop. */
#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "api/commands.h"
#include "api/config.h"
#include "api/server.h"
#include "service/core/log.h"
#include "service/core/point.h"
#include "service/core/simd.h"
#include "service/core/version.h"
#include "service/session/engine.h"
#include "storage/store.h"

enum { DESCRIPTORS_SPARE = 256 };

static const struct {
    const char *name, *arguments, *meaning;
    int (*run)(char *const *options);
} commands[] = {
#define COMMAND(file, name, arguments, meaning) {#name, arguments, meaning, command_##name},
#include "api/commands.def"
#undef COMMAND
};

enum { COMMAND_COUNT = sizeof commands / sizeof *commands };

static void print_help(FILE *out)
{
    fprintf(out,
            "descent %s: an optimizer service over HTTP\n"
            "\n"
            "  descent serve [OPTIONS]\n      serve until SIGTERM\n",
            DESCENT_VERSION);
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        fprintf(out, "  descent %s %s\n      %s\n", commands[i].name, commands[i].arguments,
                commands[i].meaning);
    fprintf(out, "  descent --version\n"
                 "  descent --help\n"
                 "\n"
                 "Options, as `--name value` or `--name=value`. Flags win over the environment, "
                 "that over the\n"
                 "file of --config, that over the default.\n");
    config_help(out);
}

static int fail(const struct fault *fault)
{
    fprintf(stderr, "descent: %s\n", fault->detail);
    return EXIT_FAILURE;
}

/* Every connection is a descriptor; the usual soft limit of 1024 would end us before
 * --connections-max does. */
static void raise_descriptors(uint64_t connections_max)
{
    rlim_t wanted = (rlim_t)(connections_max + connections_max / 8 + DESCRIPTORS_SPARE);
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted)
        return;
    limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < wanted)
        log_warning(
            "only %llu files can be open at once, --connections-max is %llu: raise ulimit -n",
            (unsigned long long)limit.rlim_cur, (unsigned long long)connections_max);
}

static enum status open_engine(const struct config *config, struct engine **out,
                               struct fault *fault)
{
    struct store *store = NULL;
    char *url = config_store_url(config);

    if (url == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    enum status status = store_open(url, true, &store, fault);
    free(url);
    if (status != STATUS_OK)
        return status;
    struct engine_options options = {
        .take_store = store,
        .sessions_max = config->sessions_max,
        .parameters_max = config->parameters_max,
        .memory_bytes_max = config->memory_bytes_max,
        .idle_s = config->idle_s,
        .history_bytes_max = config->history_bytes_max,
    };
    return engine_open(&options, out, fault);
}

static sem_t stop_asked;
static atomic_int stop_signal; /* two threads may be in the handler */

static void ask_stop(int signal)
{
    int kept = errno;

    stop_signal = signal;
    sem_post(&stop_asked);
    errno = kept;
}

/* SIGTERM and SIGINT ask for a stop, whichever thread they find. There may be threads that do not
 * block them: a library (OpenBLAS) starts its own before main. */
static void catch_signals(sigset_t *signals)
{
    struct sigaction action = {.sa_handler = ask_stop, .sa_flags = SA_RESTART};

    signal(SIGPIPE, SIG_IGN);
    sem_init(&stop_asked, 0, 0);
    sigemptyset(signals);
    sigaddset(signals, SIGTERM);
    sigaddset(signals, SIGINT);
    action.sa_mask = *signals;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    /* Before any thread of ours starts: all inherit it, so that their system calls are not cut. */
    pthread_sigmask(SIG_BLOCK, signals, NULL);
}

static void await_stop(const sigset_t *signals)
{
    pthread_sigmask(SIG_UNBLOCK, signals, NULL);
    while (sem_wait(&stop_asked) != 0)
        ;
    pthread_sigmask(SIG_BLOCK, signals, NULL); /* a second one does not break the drain */
}

static void tell_start(const struct config *config, const struct server *server)
{
    const struct log_field fields[] = {{.name = "version", .text = DESCENT_VERSION},
                                       {.name = "address", .text = server_address(server)},
                                       {.name = "data", .text = config->data},
                                       {.name = "simd", .text = simd_path()},
                                       {.name = "pid", .number = (uint64_t)getpid()}};

    log_fields(LOG_INFO, "serving", fields, sizeof fields / sizeof *fields);
}

/* Serves until one of `signals` comes. */
static int run(const struct config *config, const sigset_t *signals)
{
    struct engine *engine = NULL;
    struct server *server = NULL;
    struct fault fault;

    if (open_engine(config, &engine, &fault) != STATUS_OK)
        return fail(&fault);
    if (server_start(config, engine, &server, &fault) != STATUS_OK) {
        engine_close(engine);
        return fail(&fault);
    }
    POINT(before_greeting);
    printf("descent listening on http://%s\n", server_address(server));
    fflush(stdout);
    tell_start(config, server);

    await_stop(signals);
    log_info("%s: finishing what runs", stop_signal == SIGTERM ? "SIGTERM" : "SIGINT");
    if (!server_stop(server)) {
        /* Threads still use the engine, so it cannot be closed; what they have not finished was not
         * acknowledged. */
        engine_save(engine);
        log_error("requests still ran after --drain-timeout-s; leaving without them");
        fflush(stdout);
        _exit(EXIT_FAILURE);
    }
    POINT(before_stop);
    engine_close(engine);
    log_info("stopped");
    return EXIT_SUCCESS;
}

static int command_serve(char *const *options)
{
    struct config config;
    struct fault fault;
    sigset_t signals;

    if (config_read(options, &config, &fault) != STATUS_OK) {
        fprintf(stderr, "descent: %s\n", fault.detail);
        return EXIT_USAGE;
    }
    log_set_level(config_log_level(&config));
    log_set_format(config_log_format(&config));
    if (log_open(config.log_file, &fault) != STATUS_OK) {
        config_close(&config);
        return fail(&fault);
    }
    catch_signals(&signals);
    raise_descriptors(config.connections_max);
    int code = run(&config, &signals);
    config_close(&config);
    return code;
}

int main(int count, char **arguments)
{
    const char *command = count > 1 ? arguments[1] : NULL;

    for (int i = 1; i < count; i++) {
        if (strcmp(arguments[i], "--help") == 0 || strcmp(arguments[i], "-h") == 0) {
            print_help(stdout);
            return EXIT_SUCCESS;
        }
    }
    if (command == NULL)
        return command_usage("no command");
    if (strcmp(command, "--version") == 0) {
        printf("descent %s\n", DESCENT_VERSION);
        return EXIT_SUCCESS;
    }
    if (strcmp(command, "serve") == 0)
        return command_serve(arguments + 2);
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(command, commands[i].name) == 0)
            return commands[i].run(arguments + 2);
    char what[120];
    snprintf(what, sizeof what, "there is no command \"%.80s\"", command);
    return command_usage(what);
}
