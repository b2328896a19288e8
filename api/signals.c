/* What other processes ask of a running server. */
#include "api/signals.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>

static sem_t asked; /* posted whenever one of these was set */
static atomic_int stop_signal;
static atomic_bool reload_asked;
static sigset_t caught;

/* Two threads may be in here at once. */
static void take_signal(int signal)
{
    int kept = errno;

    if (signal == SIGHUP)
        reload_asked = true;
    else
        stop_signal = signal;
    sem_post(&asked); /* fails only at INT_MAX: then whoever waits is awake */
    errno = kept;
}

/* A signal is taken by whichever thread it finds. There may be threads that do not block it: a
 * library (OpenBLAS) starts its own before main. */
void signals_catch(void)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
    struct sigaction action = {.sa_handler = take_signal, .sa_flags = SA_RESTART};

    signal(SIGPIPE, SIG_IGN);
    sem_init(&asked, 0, 0);
    sigemptyset(&caught);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaddset(&caught, numbers[i]);
    action.sa_mask = caught;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaction(numbers[i], &action, NULL);
    /* All threads of ours inherit it, so that their system calls are not cut. */
    pthread_sigmask(SIG_BLOCK, &caught, NULL);
}

enum signal_wish signals_wait(uint64_t until_us)
{
    struct timespec until = {.tv_sec = (time_t)(until_us / 1000000),
                             .tv_nsec = (long)(until_us % 1000000) * 1000};
    int got = 0;

    pthread_sigmask(SIG_UNBLOCK, &caught, NULL);
    while (stop_signal == 0 && !reload_asked && (got == 0 || errno == EINTR))
        got = until_us == UINT64_MAX ? sem_wait(&asked)
                                     : sem_clockwait(&asked, CLOCK_MONOTONIC, &until);
    pthread_sigmask(SIG_BLOCK, &caught, NULL); /* a second one does not break what comes now */
    if (stop_signal != 0)
        return SIGNAL_STOP;
    return atomic_exchange(&reload_asked, false) ? SIGNAL_RELOAD : SIGNAL_NONE;
}

const char *signals_name(void)
{
    return stop_signal == SIGINT ? "SIGINT" : "SIGTERM";
}
