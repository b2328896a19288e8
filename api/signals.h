/* What other processes ask of a running server. One set of signals a process. */
#ifndef DESCENT_API_SIGNALS_H
#define DESCENT_API_SIGNALS_H

#include <stdint.h>

enum signal_wish {
    SIGNAL_NONE,   /* the time is over */
    SIGNAL_STOP,   /* SIGTERM, SIGINT */
    SIGNAL_RELOAD, /* SIGHUP */
};

/* From now on these signals are kept until somebody waits for them; SIGPIPE is ignored. Before any
 * thread is started. */
void signals_catch(void);

/* Waits for the next wish, until until_us (monotonic; UINT64_MAX: for ever). A stop comes before
 * all else, and is the answer of every later call. Signals that come while nobody waits are not
 * lost; several SIGHUP may count as one. From one thread. */
enum signal_wish signals_wait(uint64_t until_us);

/* The name of the signal that asked for the stop. */
const char *signals_name(void);

#endif
