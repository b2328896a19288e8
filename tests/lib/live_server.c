/* A real server process for scenario tests. */
#include "tests/lib/live_server.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/testing.h"

static const char *binary(void)
{
    const char *given = getenv("DESCENT_BINARY");

    return given != NULL ? given : "build/release/descent";
}

/* Starts the binary; its stdout is the returned descriptor, so is its stderr unless `log` names a
 * file for it. */
static int spawn(const char *const *arguments, const char *log, pid_t *pid)
{
    int ends[2];

    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    fflush(NULL);
    *pid = fork();
    ck_assert_int_ge(*pid, 0);
    if (*pid == 0) {
        /* A failed assertion ends the test process at once: the server must not outlive it. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int errors =
            log != NULL ? open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : ends[1];
        if (errors < 0 || dup2(ends[1], STDOUT_FILENO) < 0 || dup2(errors, STDERR_FILENO) < 0)
            _exit(126);
        /* exec takes char *const[] but changes nothing. */
        execv(binary(), (char *const *)(const void *)arguments);
        fprintf(stderr, "%s: %s\n", binary(), strerror(errno));
        _exit(127);
    }
    close(ends[1]);
    return ends[0];
}

static int wait_for(pid_t pid)
{
    int status = 0;

    while (waitpid(pid, &status, 0) < 0)
        ck_assert_int_eq(errno, EINTR);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void live_server_restart(struct live_server *server)
{
    const char *arguments[LIVE_SERVER_OPTIONS_MAX + 8] = {
        binary(), "serve", "--listen", "127.0.0.1:0", "--data", server->folder,
    };
    char line[256] = "";
    size_t count = 6;

    for (size_t i = 0; server->options[i] != NULL; i++)
        arguments[count++] = server->options[i];
    FILE *out = fdopen(spawn(arguments, server->log, &server->pid), "r");
    ck_assert_ptr_nonnull(out);
    ck_assert_msg(fgets(line, sizeof line, out) != NULL, "%s did not start; see %s", binary(),
                  server->log);
    fclose(out);
    ck_assert_msg(sscanf(line, "descent listening on http://127.0.0.1:%u\n", &server->port) == 1,
                  "it said: %s", line);
}

void live_server_start(struct live_server *server, const char *folder, const char *const *options)
{
    *server = (struct live_server){.folder = folder};
    for (size_t i = 0; options != NULL && options[i] != NULL; i++) {
        ck_assert_uint_lt(i, LIVE_SERVER_OPTIONS_MAX - 1);
        server->options[i] = options[i];
    }
    snprintf(server->log, sizeof server->log, "%s/stderr", testing_folder());
    live_server_restart(server);
}

void live_server_signal(const struct live_server *server, int signal)
{
    ck_assert_int_gt(server->pid, 0);
    ck_assert_int_eq(kill(server->pid, signal), 0);
}

int live_server_wait(struct live_server *server)
{
    int code = wait_for(server->pid);

    server->pid = 0;
    return code;
}

void live_server_kill(struct live_server *server)
{
    live_server_signal(server, SIGKILL);
    live_server_wait(server);
}

int live_server_stop(struct live_server *server)
{
    live_server_signal(server, SIGTERM);
    return live_server_wait(server);
}

int live_server_run(const char *const *arguments, char *out, size_t size)
{
    const char *all[LIVE_SERVER_OPTIONS_MAX + 2] = {binary()};
    size_t used = 0;
    ssize_t got;
    char rest[4096];
    pid_t pid;

    for (size_t i = 0; arguments[i] != NULL; i++) {
        ck_assert_uint_lt(i, LIVE_SERVER_OPTIONS_MAX);
        all[i + 1] = arguments[i];
    }
    int fd = spawn(all, NULL, &pid);
    while ((got = read(fd, rest, sizeof rest)) > 0) {
        size_t part = (size_t)got < size - 1 - used ? (size_t)got : size - 1 - used;
        memcpy(out + used, rest, part);
        used += part;
    }
    out[used] = '\0';
    close(fd);
    return wait_for(pid);
}
