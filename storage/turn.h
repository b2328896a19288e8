/* A lock that is handed over in the order of asking, so that a thread that commits without pause
 * cannot starve the readers, nor they it. May be passed on by another thread than the one that took
 * it. */
#ifndef DESCENT_STORAGE_TURN_H
#define DESCENT_STORAGE_TURN_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct turn {
    pthread_mutex_t mutex;
    pthread_cond_t passed;
    uint64_t next;    /* the ticket of who asks next */
    uint64_t serving; /* the ticket whose turn it is */
};

bool turn_init(struct turn *turn); /* false when the system has no resources for it */
void turn_close(struct turn *turn);

void turn_take(struct turn *turn); /* waits */
void turn_pass(struct turn *turn);

#endif
