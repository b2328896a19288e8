/* The composition root: config -> store -> engine -> server, and the orderly stop. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "api/commands.h"
#include "api/config.h"
#include "api/process.h"
#include "api/server.h"
#include "api/signals.h"
#include "api/systemd.h"
#include "service/core/clock.h"
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
    fprintf(
        out,
        "descent %s: an optimizer service over HTTP\n"
        "\n"
        "  descent serve [OPTIONS] [--check-config] [--print-config]\n"
        "      serve until SIGTERM; or only check the options, or print them with their sources\n",
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

/* Every connection is a descriptor, and the server takes an eighth more to refuse them in words;
 * the usual soft limit of 1024 would end us before --connections-max does. Where the hard limit
 * is too low fewer connections are let in, so that there are always descriptors for storage. */
static enum status fit_descriptors(uint64_t *connections_max, struct fault *fault)
{
    uint64_t wanted = *connections_max + *connections_max / 8 + DESCRIPTORS_SPARE;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted)
        return STATUS_OK;
    struct rlimit raised = {limit.rlim_max < wanted ? limit.rlim_max : wanted, limit.rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0)
        limit = raised;
    if (limit.rlim_cur >= wanted)
        return STATUS_OK;
    if (limit.rlim_cur <= DESCRIPTORS_SPARE)
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "only %llu files can be open at once, and %d are kept for storage: raise "
                         "ulimit -n (LimitNOFILE= of a unit) to %llu",
                         (unsigned long long)limit.rlim_cur, DESCRIPTORS_SPARE,
                         (unsigned long long)wanted);
    uint64_t left = ((limit.rlim_cur - DESCRIPTORS_SPARE) * 8 + 7) / 9;
    log_warning("only %llu files can be open at once: at most %llu connections instead of "
                "--connections-max %llu, for which ulimit -n would be %llu",
                (unsigned long long)limit.rlim_cur, (unsigned long long)left,
                (unsigned long long)*connections_max, (unsigned long long)wanted);
    *connections_max = left;
    return STATUS_OK;
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

/* --- serving --- */

enum {
    RECOVERY_S_MAX = 3600, /* a folder of 1 TB is checked in less */
    SAVE_S_MAX = 600,      /* 16 GB of state at 30 MB/s */
    SILENCE_US_MIN = 2000000,
};

struct service {
    const struct config *config;
    struct systemd *systemd;
    struct engine *engine;
    struct server *server;
};

static void tell_ready(const struct service *service)
{
    systemd_notify(service->systemd, "READY=1\nSTATUS=serving %zu sessions at %s://%s",
                   engine_session_count(service->engine), server_scheme(service->server),
                   server_address(service->server));
}

/* Whatever can be taken up anew while it serves. */
static void reload(const struct service *service)
{
    systemd_notify_reload(service->systemd);
    log_reopen();
    server_reload(service->server);
    tell_ready(service);
}

/* The main thread itself has to come by for the watchdog to be fed, the list of sessions has to be
 * free, and the server has to move (alive.c says what that is, and what it is not). */
static void tell_alive(const struct service *service)
{
    uint64_t silence_us = systemd_watchdog_us(service->systemd);
    const char *why;

    systemd_notify(service->systemd, "STATUS=serving %zu sessions at %s://%s",
                   engine_session_count(service->engine), server_scheme(service->server),
                   server_address(service->server));
    if (silence_us == 0)
        return;
    if (silence_us < SILENCE_US_MIN)
        silence_us = SILENCE_US_MIN;
    if (server_alive(service->server, silence_us, &why))
        systemd_notify(service->systemd, "WATCHDOG=1");
    else
        log_error("%s: the watchdog is not fed", why);
}

/* Until a stop is asked for. */
static void attend(const struct service *service)
{
    uint64_t next_us = systemd_next_us(service->systemd);

    for (;;) {
        enum signal_wish wish = signals_wait(next_us);
        if (wish == SIGNAL_STOP)
            return;
        if (wish == SIGNAL_RELOAD)
            reload(service);
        if (clock_monotonic_us() >= next_us) { /* however many reloads are asked for */
            tell_alive(service);
            next_us = systemd_next_us(service->systemd);
        }
    }
}

static int stop(struct service *service)
{
    const struct config *config = service->config;

    log_info("%s: finishing what runs", signals_name());
    systemd_notify(service->systemd, "STOPPING=1");
    systemd_work(service->systemd, "finishing what runs, then saving",
                 config->drain_delay_s + config->drain_timeout_s + SAVE_S_MAX);
    if (!server_stop(service->server)) {
        /* Threads still use the engine, so it cannot be closed; what they have not finished was not
         * acknowledged. */
        engine_save(service->engine);
        log_error("requests still ran after --drain-timeout-s; leaving without them");
        fflush(stdout);
        _exit(EXIT_FAILURE);
    }
    POINT(before_stop);
    engine_close(service->engine);
    log_info("stopped");
    return EXIT_SUCCESS;
}

static void tell_start(const struct service *service)
{
    const struct log_field fields[] = {{.name = "version", .text = DESCENT_VERSION},
                                       {.name = "scheme", .text = server_scheme(service->server)},
                                       {.name = "address", .text = server_address(service->server)},
                                       {.name = "data", .text = service->config->data},
                                       {.name = "simd", .text = simd_path()},
                                       {.name = "pid", .number = (uint64_t)getpid()}};

    log_fields(LOG_INFO, "serving", fields, sizeof fields / sizeof *fields);
}

static int run(struct service *service)
{
    struct fault fault;

    if (server_check(service->config, &fault) != STATUS_OK)
        return fail(&fault);
    systemd_work(service->systemd, "opening the data folder", RECOVERY_S_MAX);
    if (open_engine(service->config, &service->engine, &fault) != STATUS_OK)
        return fail(&fault);
    if (server_start(service->config, service->engine, systemd_take_socket(service->systemd),
                     &service->server, &fault) != STATUS_OK) {
        engine_close(service->engine);
        return fail(&fault);
    }
    systemd_rest(service->systemd);
    POINT(before_greeting);
    tell_ready(service);
    printf("descent listening on %s://%s\n", server_scheme(service->server),
           server_address(service->server));
    fflush(stdout);
    tell_start(service);
    attend(service);
    return stop(service);
}

static int start(struct config *config)
{
    struct service service = {.config = config};
    struct fault fault;

    if (log_open(config->log_file, &fault) != STATUS_OK)
        return fail(&fault);
    signals_catch();
    if (systemd_new(&service.systemd, &fault) != STATUS_OK)
        return fail(&fault);
    int code = fit_descriptors(&config->connections_max, &fault) == STATUS_OK ? run(&service)
                                                                              : fail(&fault);
    systemd_free(service.systemd);
    return code;
}

/* Takes the flag out of the options; whether it was there. */
static bool take_flag(char **options, const char *flag)
{
    char **kept = options;
    bool found = false;

    for (; *options != NULL; options++) {
        if (strcmp(*options, flag) == 0)
            found = true;
        else
            *kept++ = *options;
    }
    *kept = NULL;
    return found;
}

static int command_serve(char **options)
{
    bool print = take_flag(options, "--print-config"), check = take_flag(options, "--check-config");
    int code = EXIT_SUCCESS;
    struct config config;
    struct fault fault;

    if (config_read(options, &config, &fault) != STATUS_OK) {
        fail(&fault);
        return EXIT_USAGE;
    }
    log_set_level(config_log_level(&config));
    log_set_format(config_log_format(&config));
    if (check) {
        config_warn();
        if (server_check(&config, &fault) != STATUS_OK ||
            server_check_access(&config, &fault) != STATUS_OK ||
            config_check_places(&config, &fault) != STATUS_OK) {
            fail(&fault);
            code = EXIT_USAGE;
        }
    }
    if (print)
        config_print(&config, stdout);
    else if (check && code == EXIT_SUCCESS)
        printf("descent: the configuration can be used\n");
    if (!print && !check)
        code = start(&config);
    config_close(&config);
    return code;
}

int main(int count, char **arguments)
{
    const char *command = count > 1 ? arguments[1] : NULL;

    process_started();
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
