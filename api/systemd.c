/* sd_notify and socket activation by hand. */
#include "api/systemd.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "service/core/clock.h"
#include "service/core/log.h"

enum {
    FIRST_DESCRIPTOR = 3, /* SD_LISTEN_FDS_START */
    STATUS_US = 10 * 1000000,
    SEND_S = 5, /* a manager that does not read must not hold us up */
    WORK_TELL_S = 5,
    WORK_ASK_US = 30 * 1000000, /* asked for, each time */
};

struct systemd {
    int notify; /* -1: nobody listens */
    struct sockaddr_un address;
    socklen_t address_size;
    uint64_t watchdog_us;
    int listening; /* -1: none was passed */
    /* Work that takes its time: */
    pthread_t thread;
    bool working; /* there is a thread */
    bool resting; /* it should end; with the lock */
    pthread_mutex_t lock;
    pthread_cond_t rest;
    uint64_t until_us;
};

/* The value of a variable as a whole number; false when it is unset or none. */
static bool number_of(const char *name, uint64_t *out)
{
    const char *text = getenv(name);
    char *end = NULL;

    if (text == NULL || text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0';
}

static bool is_us(const char *name)
{
    uint64_t pid;

    return number_of(name, &pid) && pid == (uint64_t)getpid();
}

/* "/path", or "@name" for what is in no file system. */
static void open_notify(struct systemd *systemd)
{
    const char *name = getenv("NOTIFY_SOCKET");
    const struct timeval timeout = {.tv_sec = SEND_S};
    size_t size = name != NULL ? strlen(name) : 0;

    if (size == 0)
        return;
    if ((name[0] != '/' && name[0] != '@') || size >= sizeof systemd->address.sun_path) {
        log_warning("NOTIFY_SOCKET is \"%.100s\", which is no local socket: nobody is notified",
                    name);
        return;
    }
    systemd->address.sun_family = AF_UNIX;
    memcpy(systemd->address.sun_path, name, size);
    if (name[0] == '@')
        systemd->address.sun_path[0] = '\0';
    systemd->address_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
    systemd->notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (systemd->notify >= 0)
        setsockopt(systemd->notify, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
}

static enum status take_sockets(struct systemd *systemd, struct fault *fault)
{
    const char *names = getenv("LISTEN_FDNAMES");
    uint64_t count;

    if (!is_us("LISTEN_PID") || !number_of("LISTEN_FDS", &count) || count == 0)
        return STATUS_OK;
    if (count > 1)
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "the service manager passed %llu sockets (%.120s); pass one",
                         (unsigned long long)count, names != NULL ? names : "without names");
    systemd->listening = FIRST_DESCRIPTOR;
    return STATUS_OK;
}

enum status systemd_new(struct systemd **out, struct fault *fault)
{
    static const char *const variables[] = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
                                            "LISTEN_PID",    "LISTEN_FDS",    "LISTEN_FDNAMES"};
    struct systemd *systemd = calloc(1, sizeof *systemd);
    pthread_condattr_t monotonic;

    if (systemd == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    systemd->notify = systemd->listening = -1;
    pthread_mutex_init(&systemd->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&systemd->rest, &monotonic);
    pthread_condattr_destroy(&monotonic);
    open_notify(systemd);
    if (getenv("WATCHDOG_PID") != NULL && !is_us("WATCHDOG_PID"))
        unsetenv("WATCHDOG_USEC");
    if (systemd->notify < 0 || !number_of("WATCHDOG_USEC", &systemd->watchdog_us))
        systemd->watchdog_us = 0;
    enum status status = take_sockets(systemd, fault);
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        unsetenv(variables[i]);
    if (status != STATUS_OK)
        systemd_free(systemd);
    else
        *out = systemd;
    return status;
}

void systemd_free(struct systemd *take_systemd)
{
    systemd_rest(take_systemd);
    if (take_systemd->notify >= 0)
        close(take_systemd->notify);
    if (take_systemd->listening >= 0)
        close(take_systemd->listening);
    pthread_cond_destroy(&take_systemd->rest);
    pthread_mutex_destroy(&take_systemd->lock);
    free(take_systemd);
}

int systemd_take_socket(struct systemd *systemd)
{
    int socket = systemd->listening;

    systemd->listening = -1;
    return socket;
}

/* --- telling --- */

void systemd_notify(struct systemd *systemd, const char *format, ...)
{
    char words[512];
    va_list arguments;

    if (systemd->notify < 0)
        return;
    va_start(arguments, format);
    vsnprintf(words, sizeof words, format, arguments);
    va_end(arguments);
    if (sendto(systemd->notify, words, strlen(words), MSG_NOSIGNAL,
               (const struct sockaddr *)&systemd->address, systemd->address_size) < 0)
        log_debug("the service manager was not notified: %s", strerror(errno));
}

void systemd_notify_reload(struct systemd *systemd)
{
    systemd_notify(systemd, "RELOADING=1\nMONOTONIC_USEC=%llu",
                   (unsigned long long)clock_monotonic_us());
}

uint64_t systemd_next_us(const struct systemd *systemd)
{
    uint64_t half = systemd->watchdog_us / 2;

    if (systemd->notify < 0)
        return UINT64_MAX;
    return clock_monotonic_us() + (half > 0 && half < STATUS_US ? half : STATUS_US);
}

uint64_t systemd_watchdog_us(const struct systemd *systemd)
{
    return systemd->watchdog_us;
}

static void *ask_for_time(void *context)
{
    struct systemd *systemd = context;
    struct timespec until;

    pthread_mutex_lock(&systemd->lock);
    while (!systemd->resting && clock_monotonic_us() < systemd->until_us) {
        systemd_notify(systemd, "EXTEND_TIMEOUT_USEC=%d", (int)WORK_ASK_US);
        uint64_t wake_us = clock_monotonic_us() + WORK_TELL_S * 1000000;
        until.tv_sec = (time_t)(wake_us / 1000000);
        until.tv_nsec = (long)(wake_us % 1000000) * 1000;
        pthread_cond_timedwait(&systemd->rest, &systemd->lock, &until);
    }
    pthread_mutex_unlock(&systemd->lock);
    return NULL;
}

void systemd_work(struct systemd *systemd, const char *status, uint64_t seconds_max)
{
    if (systemd->notify < 0)
        return;
    systemd_rest(systemd);
    systemd_notify(systemd, "STATUS=%s", status);
    systemd->resting = false;
    systemd->until_us = clock_monotonic_us() + seconds_max * 1000000;
    /* Without a thread the manager waits as long as it would anyway. */
    systemd->working = pthread_create(&systemd->thread, NULL, ask_for_time, systemd) == 0;
}

void systemd_rest(struct systemd *systemd)
{
    if (!systemd->working)
        return;
    pthread_mutex_lock(&systemd->lock);
    systemd->resting = true;
    pthread_cond_signal(&systemd->rest);
    pthread_mutex_unlock(&systemd->lock);
    pthread_join(systemd->thread, NULL);
    systemd->working = false;
}
