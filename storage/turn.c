/* Tickets under a mutex. */
#include "storage/turn.h"

#include "service/core/contract.h"

bool turn_init(struct turn *turn)
{
    turn->next = 0;
    turn->serving = 0;
    if (pthread_mutex_init(&turn->mutex, NULL) != 0)
        return false;
    if (pthread_cond_init(&turn->passed, NULL) != 0) {
        pthread_mutex_destroy(&turn->mutex);
        return false;
    }
    return true;
}

void turn_close(struct turn *turn)
{
    PRE(turn->next == turn->serving);
    pthread_cond_destroy(&turn->passed);
    pthread_mutex_destroy(&turn->mutex);
}

void turn_take(struct turn *turn)
{
    pthread_mutex_lock(&turn->mutex);
    uint64_t ticket = turn->next++;
    while (turn->serving != ticket)
        pthread_cond_wait(&turn->passed, &turn->mutex);
    pthread_mutex_unlock(&turn->mutex);
}

void turn_pass(struct turn *turn)
{
    pthread_mutex_lock(&turn->mutex);
    PRE(turn->serving != turn->next);
    turn->serving++;
    pthread_cond_broadcast(&turn->passed);
    pthread_mutex_unlock(&turn->mutex);
}
