/* Engine and server in a process of their own. */
#include "tests/lib/forked_server.h"

#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/config.h"
#include "api/server.h"
#include "service/core/arena.h"
#include "service/core/log.h"
#include "service/session/checkpoint.h"
#include "service/session/session.h"
#include "tests/lib/engines.h"
#include "tests/lib/oom.h"

enum { EVICT = 'e', FORGET = 'f', STOP = 's' };

static bool evict_all(struct engine *engine, bool saved)
{
    size_t count;
    struct session **sessions = engine_sessions(engine, &count);
    struct fault fault;
    bool all = sessions != NULL;

    for (size_t i = 0; i < count; i++) {
        if (!saved) {
            pthread_mutex_lock(&sessions[i]->mutex);
            sessions[i]->dirty = 0;
            pthread_mutex_unlock(&sessions[i]->mutex);
        } else if (session_pin(sessions[i], &fault) == STATUS_OK) {
            all &= session_save(sessions[i], true, &fault) == STATUS_OK;
            session_unpin(sessions[i]);
        } else {
            all = false;
        }
        session_evict(sessions[i]);
        session_release(sessions[i]);
    }
    free(sessions);
    return all;
}

/* In the child: to its end. */
static void serve(const char *url, int line)
{
    static const char *const arguments[] = {"--listen", "127.0.0.1:0", NULL};
    struct engine *engine = engines_open(url, NULL);
    struct server *server;
    struct config config;
    struct fault fault;
    unsigned port;
    char command;

    arena_block_bytes = 1; /* every piece is an allocation */
    log_set_level(getenv("OOM_LOG") != NULL ? LOG_DEBUG : LOG_OFF);
    if (config_read((char *const *)(const void *)arguments, &config, &fault) != STATUS_OK ||
        server_start(&config, engine, -1, &server, &fault) != STATUS_OK ||
        sscanf(server_address(server), "127.0.0.1:%u", &port) != 1 ||
        write(line, &port, sizeof port) != sizeof port) {
        fprintf(stderr, "the server does not start: %s\n", fault.detail);
        _exit(2);
    }
    oom_enlist();
    while (read(line, &command, 1) == 1 && command != STOP) {
        bool done = evict_all(engine, command == EVICT);
        if (write(line, &done, sizeof done) != sizeof done)
            _exit(2);
    }
    if (!server_stop(server))
        _exit(2);
    engine_close(engine);
    config_close(&config);
    _exit(oom_leaks(stderr) > 0);
}

void forked_server_start(struct forked_server *server, const char *url)
{
    int ends[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    fflush(NULL);
    server->pid = fork();
    ck_assert_int_ge(server->pid, 0);
    if (server->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGPIPE, SIG_IGN);
        close(ends[0]);
        serve(url, ends[1]);
    }
    close(ends[1]);
    server->line = ends[0];
    ck_assert_int_eq(read(server->line, &server->port, sizeof server->port), sizeof server->port);
}

static void say(const struct forked_server *server, char command)
{
    ck_assert_int_eq(send(server->line, &command, 1, MSG_NOSIGNAL), 1);
}

static bool tell(const struct forked_server *server, char command)
{
    bool done = false;

    say(server, command);
    ck_assert_int_eq(read(server->line, &done, sizeof done), sizeof done);
    return done;
}

bool forked_server_evict(struct forked_server *server)
{
    return tell(server, EVICT);
}

void forked_server_forget(struct forked_server *server)
{
    ck_assert(tell(server, FORGET));
}

int forked_server_stop(struct forked_server *server)
{
    int status = 0;

    say(server, STOP);
    while (waitpid(server->pid, &status, 0) < 0)
        ck_assert_int_eq(errno, EINTR);
    close(server->line);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
