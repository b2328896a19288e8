/* A crew of threads for one large loop at a time: the caller and the idle cores take its tasks one
 * by one. */
#ifndef DESCENT_CORE_CREW_H
#define DESCENT_CORE_CREW_H

#include <stddef.h>

/* Starts one helper for every core but the caller's (fewer when threads cannot be had: the caller
 * can do all alone). Counted: each crew_start wants a crew_stop. */
void crew_start(void);
void crew_stop(void);

/* Calls task(context, 0) .. task(context, count - 1), each once, in any order and on any thread,
 * and returns when all are done. While another caller has the crew, or without one, this caller
 * does all of them. Tasks must not call crew_run. */
void crew_run(size_t count, void (*task)(void *context, size_t index), void *context);

#endif
