/* Whether the server makes progress, without a request of our own: one might be refused by a
 * filter (IPAddressDeny=, a firewall) or by our own limits, and a server that is merely full, of
 * connections or of descriptors, is alive. Nor is a slow or broken disk a reason to be
 * restarted: /readyz tells of that. What a restart would heal is a thread that stands still: the
 * one that keeps deadlines, which needs the lock that every new connection needs, and the one
 * that accepts. */
#include "api/alive.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/config.h"
#include "api/exchange.h"
#include "api/watch.h"

/* Of a listening socket Linux tells here how many wait to be accepted. */
static bool is_awaited(int listening)
{
    struct tcp_info info = {.tcpi_unacked = 0};
    socklen_t size = sizeof info;

    return getsockopt(listening, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 && info.tcpi_unacked > 0;
}

/* Without a descriptor or memory for one nobody can be accepted. */
static bool is_exhausted(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0)
        close(fd);
    return fd < 0;
}

bool alive_look(struct alive *alive, const struct commons *commons, int listening,
                uint64_t silence_us, const char **why)
{
    uint64_t accepted = atomic_load(&commons->accepted);
    /* Beyond the limit connections wait in the kernel, and should. */
    bool full = atomic_load(&commons->connections) >= commons->config->connections_max;
    bool waiting = !full && is_awaited(listening) && !is_exhausted();
    bool stuck = waiting && alive->waiting && accepted == alive->accepted;

    *alive = (struct alive){.accepted = accepted, .waiting = waiting};
    if (stuck)
        *why = "nobody accepts connections";
    if (watch_silence_us(commons->watch) > silence_us) {
        *why = "nobody keeps the deadlines of connections";
        stuck = true;
    }
    return !stuck;
}
