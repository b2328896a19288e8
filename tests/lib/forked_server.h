/* Engine and server in a process of their own, forked off the test: so that its allocations can be
 * made to fail (oom.h) and the test's cannot, and a crash of it is seen. */
#ifndef DESCENT_TESTS_FORKED_SERVER_H
#define DESCENT_TESTS_FORKED_SERVER_H

#include <stdbool.h>
#include <sys/types.h>

struct forked_server {
    pid_t pid;
    int line; /* commands there, answers back */
    unsigned port;
};

/* Opens an engine on the store of that URL, enlists the process, serves. oom_share was called.
 * Fails the test when it does not start. It dies with this process. */
void forked_server_start(struct forked_server *server, const char *url);

/* Saves the state of all sessions and takes it out of memory; false when one could not be saved. */
bool forked_server_evict(struct forked_server *server);

/* Takes it out of memory without saving: the next use makes it from what is stored. Only while
 * nothing is under way and where every step is journaled. */
void forked_server_forget(struct forked_server *server);

/* Server and engine are closed in order. Its exit status: 0, 1 when something was left that it had
 * allocated between oom_arm and oom_disarm (it is printed), or 128 + the signal that ended it. */
int forked_server_stop(struct forked_server *server);

#endif
