/* The watchdog: deadlines of connections. */
#include "api/watch.h"

#include <linux/sockios.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#include "api/tls.h"
#include "service/core/clock.h"
#include "service/core/contract.h"
#include "service/core/log.h"

enum { PERIOD_MS = 250 };

struct watch {
    pthread_mutex_t lock; /* the list and `stopping`; a socket is not closed while it is held */
    pthread_cond_t stop;
    pthread_t thread;
    struct watched *first;
    bool stopping;
    _Atomic uint64_t looked_us; /* monotonic */
};

/* Bytes that the client has not taken yet. */
static int unsent(const struct watched *watched)
{
    int bytes = 0;

    return ioctl(watched->fd, SIOCOUTQ, &bytes) == 0 ? bytes : 0;
}

/* Shuts the connection. What its client did not read is thrown away: the system would go on holding
 * it, for minutes after the end of the connection. */
static void cut(const struct watched *watched)
{
    const struct linger none = {.l_onoff = 1, .l_linger = 0};

    if (unsent(watched) > 0)
        setsockopt(watched->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    shutdown(watched->fd, SHUT_RDWR);
}

static void say(const struct watched *watched, const char *answer, size_t size)
{
    if (send(watched->fd, answer, size, MSG_NOSIGNAL | MSG_DONTWAIT) < (ssize_t)size)
        log_debug("a client does not hear why its request was refused");
}

static const char late_body[] = "{\"type\":\"/problems/request_timeout\","
                                "\"title\":\"The request did not arrive in time\",\"status\":408,"
                                "\"detail\":\"send the whole request faster, or raise the server's "
                                "timeouts\",\"code\":\"request_timeout\"}";

/* Nobody else writes to the socket: the phase went from ANSWER to EXPIRED, and a handler that finds
 * that keeps away. */
static void expire(struct watched *watched, int phase)
{
    char answer[sizeof late_body + 256];

    atomic_store(&watched->late, phase == WATCH_ANSWER);
    if (phase == WATCH_ANSWER && watched->tls == NULL) {
        int size = snprintf(answer, sizeof answer,
                            "HTTP/1.1 408 Request Timeout\r\n"
                            "Content-Type: application/problem+json\r\n"
                            "Content-Length: %zu\r\n"
                            "Cache-Control: no-store\r\n"
                            "Connection: close\r\n\r\n%s",
                            sizeof late_body - 1, late_body);
        say(watched, answer, (size_t)size);
        shutdown(watched->fd, SHUT_RDWR);
    } else {
        cut(watched);
    }
}

static void look(struct watch *watch)
{
    uint64_t now = clock_monotonic_us();

    for (struct watched *at = watch->first; at != NULL; at = at->next) {
        int phase = atomic_load(&at->phase);
        if (phase == WATCH_NONE || phase == WATCH_EXPIRED || atomic_load(&at->deadline_us) > now)
            continue;
        if (phase == WATCH_SENT && atomic_load(&at->idle_us) > now && unsent(at) == 0)
            continue;
        if (atomic_compare_exchange_strong(&at->phase, &phase, WATCH_EXPIRED))
            expire(at, phase);
    }
    atomic_store(&watch->looked_us, now);
}

static void *run(void *context)
{
    struct watch *watch = context;
    struct timespec until;

    pthread_mutex_lock(&watch->lock);
    while (!watch->stopping) {
        uint64_t wake_us = clock_monotonic_us() + PERIOD_MS * 1000;
        until.tv_sec = (time_t)(wake_us / 1000000);
        until.tv_nsec = (long)(wake_us % 1000000) * 1000;
        pthread_cond_timedwait(&watch->stop, &watch->lock, &until);
        look(watch);
    }
    pthread_mutex_unlock(&watch->lock);
    return NULL;
}

enum status watch_new(struct watch **out, struct fault *fault)
{
    struct watch *watch = calloc(1, sizeof *watch);
    pthread_condattr_t attributes;

    if (watch == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    atomic_init(&watch->looked_us, clock_monotonic_us());
    pthread_mutex_init(&watch->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&watch->stop, &attributes);
    pthread_condattr_destroy(&attributes);
    int error = pthread_create(&watch->thread, NULL, run, watch);
    if (error != 0) {
        pthread_cond_destroy(&watch->stop);
        pthread_mutex_destroy(&watch->lock);
        free(watch);
        return fault_set(fault, STATUS_INTERNAL, "", "cannot start a thread: %s", strerror(error));
    }
    *out = watch;
    return STATUS_OK;
}

void watch_free(struct watch *take_watch)
{
    PRE(take_watch->first == NULL);
    pthread_mutex_lock(&take_watch->lock);
    take_watch->stopping = true;
    pthread_cond_signal(&take_watch->stop);
    pthread_mutex_unlock(&take_watch->lock);
    pthread_join(take_watch->thread, NULL);
    pthread_cond_destroy(&take_watch->stop);
    pthread_mutex_destroy(&take_watch->lock);
    free(take_watch);
}

uint64_t watch_silence_us(const struct watch *watch)
{
    uint64_t looked_us = atomic_load(&watch->looked_us); /* first: it is never later than now */

    return clock_monotonic_us() - looked_us;
}

void watch_add(struct watch *watch, struct watched *watched, int fd, void *tls,
               enum watch_phase phase, uint64_t deadline_us)
{
    watched->fd = fd;
    watched->tls = tls;
    atomic_init(&watched->deadline_us, deadline_us);
    atomic_init(&watched->idle_us, deadline_us);
    atomic_init(&watched->phase, phase);
    atomic_init(&watched->late, false);
    pthread_mutex_lock(&watch->lock);
    watched->next = watch->first;
    watched->link = &watch->first;
    if (watched->next != NULL)
        watched->next->link = &watched->next;
    watch->first = watched;
    pthread_mutex_unlock(&watch->lock);
}

void watch_remove(struct watch *watch, struct watched *watched)
{
    pthread_mutex_lock(&watch->lock);
    *watched->link = watched->next;
    if (watched->next != NULL)
        watched->next->link = watched->link;
    pthread_mutex_unlock(&watch->lock);
}

bool watch_set(struct watched *watched, enum watch_phase phase, uint64_t deadline_us)
{
    int old = atomic_load(&watched->phase);

    /* The new deadline goes first: the new phase must never meet the old one. */
    atomic_store(&watched->deadline_us, phase == WATCH_NONE ? UINT64_MAX : deadline_us);
    while (old != WATCH_EXPIRED)
        if (atomic_compare_exchange_weak(&watched->phase, &old, (int)phase))
            return true;
    return false;
}

bool watch_left(const struct watched *watched)
{
    struct pollfd poll_fd = {.fd = watched->fd, .events = POLLRDHUP};

    return poll(&poll_fd, 1, 0) > 0;
}

bool watch_late(const struct watched *watched, size_t *size)
{
    *size = watched->tls == NULL ? sizeof late_body - 1 : 0;
    return atomic_load(&watched->late);
}

void watch_idle(struct watched *watched, uint64_t deadline_us, uint64_t idle_us)
{
    /* Small replies have the idle deadline, and cost no look. */
    bool sent = deadline_us != idle_us && unsent(watched) > 0;

    atomic_store(&watched->idle_us, idle_us);
    watch_set(watched, sent ? WATCH_SENT : WATCH_IDLE, sent ? deadline_us : idle_us);
}

bool watch_make_room(struct watch *watch)
{
    struct watched *longest = NULL;
    int phase = WATCH_NONE;

    pthread_mutex_lock(&watch->lock);
    for (struct watched *at = watch->first; at != NULL; at = at->next) {
        int now = atomic_load(&at->phase);
        bool idle = now == WATCH_IDLE || (now == WATCH_SENT && unsent(at) == 0);
        if (idle && (longest == NULL || at->idle_us < longest->idle_us)) {
            longest = at;
            phase = now;
        }
    }
    bool made =
        longest != NULL && atomic_compare_exchange_strong(&longest->phase, &phase, WATCH_EXPIRED);
    if (made)
        cut(longest);
    pthread_mutex_unlock(&watch->lock);
    return made;
}

bool watch_answer(struct watched *watched, const char *answer, size_t size)
{
    int phase = WATCH_ANSWER;

    if (!atomic_compare_exchange_strong(&watched->phase, &phase, WATCH_EXPIRED))
        return false;
    if (watched->tls != NULL)
        tls_end(watched->tls, span_of(answer, size));
    else
        say(watched, answer, size);
    shutdown(watched->fd, SHUT_RDWR);
    return true;
}
