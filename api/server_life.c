/* The life of a server: what it needs, how it starts, takes things up anew and stops. */
#include <errno.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "api/access.h"
#include "api/config.h"
#include "api/server_inside.h"
#include "api/tls.h"
#include "service/core/clock.h"
#include "service/core/log.h"
#include "service/session/engine.h"

enum {
    STOP_POLL_MS = 5,
    FOLLOWERS_STOP_MS = 1000, /* for streams to end in order; then they are cut */
};

/* *out NULL: plain HTTP. */
static enum status open_tls(const struct config *config, struct tls **out, struct fault *fault)
{
    *out = NULL;
    if (config->tls_cert[0] == '\0' && config->tls_key[0] == '\0')
        return STATUS_OK;
    return tls_open(config->tls_cert, config->tls_key, out, fault);
}

enum status server_check(const struct config *config, struct fault *fault)
{
    struct tls *tls = NULL;
    bool loopback;
    enum status status = address_check(config->listen, &loopback, fault);

    if (status == STATUS_OK)
        status = open_tls(config, &tls, fault);
    if (tls != NULL)
        tls_advise(tls);
    tls_close(tls);
    return status;
}

enum status server_check_access(const struct config *config, struct fault *fault)
{
    struct access *access = NULL;
    bool loopback;
    enum status status = address_check(config->listen, &loopback, fault);

    if (status == STATUS_OK)
        status = access_new(config, config->listen, loopback, &access, fault);
    access_free(access);
    return status;
}

enum status server_start(const struct config *config, struct engine *engine, int take_socket,
                         struct server **out, struct fault *fault)
{
    struct server *server = calloc(1, sizeof *server);
    bool loopback = true;
    enum status status;

    if (server == NULL) {
        if (take_socket >= 0)
            close(take_socket);
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    }
    server->commons.config = config;
    server->commons.engine = engine;
    server->commons.id_seed = clock_unix_us() * 0xD1342543DE82EF95u ^ (uint64_t)getpid() << 40;
    server->socket = take_socket;
    if ((status = open_tls(config, &server->tls, fault)) != STATUS_OK)
        goto done;
    status = take_socket >= 0 ? address_adopt(take_socket, server->address, &loopback, fault)
                              : address_listen(config->listen, &server->socket, server->address,
                                               &loopback, fault);
    if (status != STATUS_OK)
        goto done;
    server->commons.loopback = loopback;
    status = access_new(config, server->address, loopback, &server->commons.access, fault);
    if (status != STATUS_OK)
        goto done;
    status = watch_new(&server->commons.watch, fault);
    if (status != STATUS_OK)
        goto done;
    server->daemon = server_daemon(server);
    if (server->daemon == NULL) {
        status = fault_set(fault, STATUS_INTERNAL, "", "cannot serve %.200s: %s", server->address,
                           strerror(errno));
        goto done;
    }
    if (!loopback && server->commons.access == NULL)
        log_warning("%s can be reached from other machines, and whoever does can do everything "
                    "(--insecure)",
                    server->address);
    else if (!loopback && server->tls == NULL)
        log_warning("%s can be reached from other machines without TLS: who sees the network sees "
                    "the tokens",
                    server->address);
    *out = server;
    server = NULL;
done:
    if (server != NULL) {
        if (server->commons.watch != NULL)
            watch_free(server->commons.watch);
        access_free(server->commons.access);
        if (server->socket >= 0)
            close(server->socket);
        tls_close(server->tls);
        free(server);
    }
    return status;
}

const char *server_address(const struct server *server)
{
    return server->address;
}

const char *server_scheme(const struct server *server)
{
    return server->tls != NULL ? "https" : "http";
}

bool server_alive(struct server *server, uint64_t silence_us, const char **why)
{
    return alive_look(&server->alive, &server->commons, server->socket, silence_us, why);
}

static bool reload_tls(struct server *server)
{
    struct fault fault;
    bool changed;

    if (server->tls == NULL)
        return true;
    if (tls_reload(server->tls, &changed, &fault) != STATUS_OK) {
        log_error("the certificate in use stays: %s", fault.detail);
        return false;
    }
    if (changed)
        log_info("new connections see the new certificate");
    return true;
}

bool server_reload(struct server *server)
{
    bool done = true;

    /* Each part says in the log what is wrong. */
    if (server->commons.access != NULL)
        done &= access_reload(server->commons.access);
    done &= reload_tls(server);
    if (done)
        log_info("reloaded");
    else
        log_error("not all was reloaded; what was in use before stays in use");
    return done;
}

static void drain(struct server *server)
{
    if (atomic_exchange(&server->commons.draining, true))
        return;
    int socket = MHD_quiesce_daemon(server->daemon);
    if (socket != MHD_INVALID_SOCKET)
        close(socket);
    if (server->commons.engine != NULL)
        engine_drain(server->commons.engine);
}

bool server_stop(struct server *take_server)
{
    const struct timespec pause = {.tv_nsec = STOP_POLL_MS * 1000000L};
    struct commons *commons = &take_server->commons;
    uint64_t until_us = clock_monotonic_us() + commons->config->drain_delay_s * 1000000;

    atomic_store(&commons->leaving, true);
    while (clock_monotonic_us() < until_us)
        nanosleep(&pause, NULL);
    drain(take_server);
    until_us = clock_monotonic_us() + commons->config->drain_timeout_s * 1000000;
    while (atomic_load(&commons->running) > 0) {
        if (clock_monotonic_us() > until_us)
            return false;
        nanosleep(&pause, NULL);
    }
    until_us = clock_monotonic_us() + FOLLOWERS_STOP_MS * 1000;
    while (atomic_load(&commons->followers) > 0 && clock_monotonic_us() < until_us)
        nanosleep(&pause, NULL);
    MHD_stop_daemon(take_server->daemon);
    watch_free(commons->watch);
    access_free(commons->access);
    tls_close(take_server->tls);
    free(take_server);
    return true;
}
