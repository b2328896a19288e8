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
#include "service/core/version.h"
#include "service/session/engine.h"
#include "storage/store.h"

enum { EXIT_USAGE = 2, DESCRIPTORS_SPARE = 256 };

static void print_help(FILE *out)
{
    fprintf(out,
            "descent %s: an optimizer service over HTTP\n"
            "\n"
            "  descent serve [OPTIONS]       serve until SIGTERM\n"
            "  descent optimizers [NAME]     print the catalogue of optimizers, or one of them\n"
            "  descent presets [NAME]        the same of optimizers of other frameworks\n"
            "  descent schedules [NAME]      the same of learning-rate schedules\n"
            "  descent health [OPTIONS]      ask the server at --listen whether it is ready\n"
            "  descent --version\n"
            "  descent --help\n"
            "\n"
            "Options, as `--name value` or `--name=value`. Flags win over the environment, that "
            "over the\n"
            "file of --config, that over the default.\n",
            DESCENT_VERSION);
    config_help(out);
}

static int usage(const char *what)
{
    fprintf(stderr, "descent: %s; `descent --help` shows what there is\n", what);
    return EXIT_USAGE;
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

/* The URL of config->data: "memory:" as it is, a folder as sqlite. NULL when memory is out. */
static char *store_url(const struct config *config)
{
    const char *scheme = strcmp(config->data, "memory:") == 0 ? "" : "sqlite:";
    size_t size = strlen(scheme) + strlen(config->data) + 1;
    char *url = malloc(size);

    if (url != NULL)
        snprintf(url, size, "%s%s", scheme, config->data);
    return url;
}

static enum status open_engine(const struct config *config, struct engine **out,
                               struct fault *fault)
{
    struct store *store = NULL;
    char *url = store_url(config);

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

static int command_serve(const struct config *config)
{
    sigset_t signals;

    log_set_level(config_log_level(config));
    catch_signals(&signals);
    raise_descriptors(config->connections_max);
    return run(config, &signals);
}

static int with_config(char *const *arguments, int (*command)(const struct config *))
{
    struct config config;
    struct fault fault;

    if (config_read(arguments, &config, &fault) != STATUS_OK) {
        fprintf(stderr, "descent: %s\n", fault.detail);
        return EXIT_USAGE;
    }
    int code = command(&config);
    config_close(&config);
    return code;
}

static const struct {
    const char *name;
    int (*print)(const char *name);
} catalogues[] = {
    {"optimizers", command_optimizers},
    {"presets", command_presets},
    {"schedules", command_schedules},
};

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
        return usage("no command");
    if (strcmp(command, "--version") == 0) {
        printf("descent %s\n", DESCENT_VERSION);
        return EXIT_SUCCESS;
    }
    if (strcmp(command, "serve") == 0)
        return with_config(arguments + 2, command_serve);
    if (strcmp(command, "health") == 0)
        return with_config(arguments + 2, command_health);
    char what[120];
    for (size_t i = 0; i < sizeof catalogues / sizeof *catalogues; i++) {
        if (strcmp(command, catalogues[i].name) != 0)
            continue;
        snprintf(what, sizeof what, "%s takes one name", command);
        return count > 3 ? usage(what) : catalogues[i].print(arguments[2]);
    }
    snprintf(what, sizeof what, "there is no command \"%.80s\"", command);
    return usage(what);
}
