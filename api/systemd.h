/* What systemd, or another service manager that speaks as it does, may want of a server: to hear
 * how it is, and to pass it a listening socket. By the protocols of sd_notify(3) and
 * sd_listen_fds(3), without libsystemd. Without such a manager nothing here does anything. */
#ifndef DESCENT_API_SYSTEMD_H
#define DESCENT_API_SYSTEMD_H

#include <stdint.h>

#include "service/core/status.h"

struct systemd;

/* Reads NOTIFY_SOCKET, WATCHDOG_* and LISTEN_* and takes them out of the environment, so that no
 * child process believes that they are meant for it. INVALID_FIELD, in one line, when a socket was
 * meant for us that cannot be used. Before other threads read the environment. */
enum status systemd_new(struct systemd **out, struct fault *fault);
void systemd_free(struct systemd *take_systemd);

/* The listening socket that was passed, the caller's now; -1: none was. */
int systemd_take_socket(struct systemd *systemd);

/* Tells the manager, in lines `NAME=value`. A manager that does not hear is no error. */
void systemd_notify(struct systemd *systemd, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* RELOADING=1; READY=1 must follow. */
void systemd_notify_reload(struct systemd *systemd);

/* When something should be said again, monotonic: after half of what the watchdog waits, and soon
 * enough for the status to be worth reading. UINT64_MAX: never, nobody listens. */
uint64_t systemd_next_us(const struct systemd *systemd);

/* What the watchdog waits before it acts, microseconds; 0: there is none. */
uint64_t systemd_watchdog_us(const struct systemd *systemd);

/* Until systemd_rest the manager is asked for more time, again and again, at most seconds_max: the
 * start and the stop may take longer than it waits for others, and say with STATUS why. */
void systemd_work(struct systemd *systemd, const char *status, uint64_t seconds_max);
void systemd_rest(struct systemd *systemd); /* also when there was no work */

#endif
