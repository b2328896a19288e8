/* A real server process for scenario tests: started on a free port and a folder, stopped, killed,
 * started again. */
#ifndef DESCENT_TESTS_LIVE_SERVER_H
#define DESCENT_TESTS_LIVE_SERVER_H

#include <stddef.h>
#include <sys/types.h>

enum { LIVE_SERVER_OPTIONS_MAX = 24 };

struct live_server {
    pid_t pid; /* 0: not running */
    unsigned port;
    const char *folder;                           /* --data */
    const char *options[LIVE_SERVER_OPTIONS_MAX]; /* more flags, NULL after the last */
    char log[256];                                /* the file with its stderr, over all starts */
};

/* Starts $DESCENT_BINARY (build/release/descent when unset) on `folder` with the flags of `options`
 * (NULL after the last; may be NULL) and waits until it says it listens; fails the test when it
 * does not. It dies with this process. */
void live_server_start(struct live_server *server, const char *folder, const char *const *options);

/* Starts it again on the same folder with the same flags; the port is another. */
void live_server_restart(struct live_server *server);

void live_server_kill(struct live_server *server); /* SIGKILL, and waits */
void live_server_signal(const struct live_server *server, int signal);
int live_server_wait(
    struct live_server *server); /* its exit status; 128 + the signal that ended it */
int live_server_stop(struct live_server *server); /* SIGTERM, and waits: the exit status */

/* Runs the binary with these arguments (NULL after the last) to its end; what it writes on stdout
 * and stderr goes to out[size], cut. Returns its exit status. */
int live_server_run(const char *const *arguments, char *out, size_t size);

#endif
