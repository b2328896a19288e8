/* HOST:PORT in text and as sockets. */
#include "api/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { BACKLOG = 1024 };

/* The addresses of HOST:PORT; *host is the part before the last colon, without brackets. */
static enum status resolve(const char *address, bool passive, char host[ADDRESS_BYTES],
                           struct addrinfo **out, struct fault *fault)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = (passive ? AI_PASSIVE : 0) | AI_NUMERICSERV};
    const char *colon = strrchr(address, ':');
    size_t size = colon != NULL ? (size_t)(colon - address) : 0;
    bool bracketed = size > 2 && address[0] == '[' && address[size - 1] == ']';
    const char *start = address + bracketed;

    if (bracketed)
        size -= 2;
    if (size == 0 || size >= ADDRESS_BYTES || (!bracketed && memchr(address, ':', size) != NULL) ||
        colon[1] == '\0' || strspn(colon + 1, "0123456789") != strlen(colon + 1) ||
        strlen(colon + 1) > 5 || strtoul(colon + 1, NULL, 10) > 65535)
        return fault_set(
            fault, STATUS_INVALID_FIELD, "",
            "--listen is \"%.100s\"; it must be HOST:PORT with a port from 0 to 65535, "
            "for instance 127.0.0.1:8080 or [::1]:8080",
            address);
    memcpy(host, start, size);
    host[size] = '\0';
    int error = getaddrinfo(host, colon + 1, &hints, out);
    if (error != 0)
        return fault_set(fault, STATUS_INTERNAL, "", "%.200s is not an address here: %s", address,
                         gai_strerror(error));
    return STATUS_OK;
}

static int listen_on(const struct addrinfo *info)
{
    int on = 1;
    int fd = socket(info->ai_family, info->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -1;
    /* Without SO_REUSEADDR a restart fails while old connections are in TIME_WAIT. */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr) >> 24 ==
               127;
    return address->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
}

enum status address_listen(const char *address, int *socket_out, char text[ADDRESS_BYTES],
                           bool *loopback, struct fault *fault)
{
    char host[ADDRESS_BYTES], port[8];
    struct addrinfo *found = NULL;
    struct sockaddr_storage bound;
    socklen_t size = sizeof bound;
    int fd = -1;

    enum status status = resolve(address, true, host, &found, fault);
    if (status != STATUS_OK)
        goto done;
    for (const struct addrinfo *at = found; at != NULL && fd < 0; at = at->ai_next)
        fd = listen_on(at);
    if (fd < 0 || getsockname(fd, (struct sockaddr *)&bound, &size) != 0 ||
        getnameinfo((struct sockaddr *)&bound, size, NULL, 0, port, sizeof port, NI_NUMERICSERV)) {
        status = fault_set(fault, STATUS_INTERNAL, "", "cannot listen on %.200s: %s", address,
                           strerror(errno));
        goto done;
    }
    snprintf(text, ADDRESS_BYTES, strchr(host, ':') != NULL ? "[%s]:%s" : "%s:%s", host, port);
    *loopback = is_loopback((struct sockaddr *)&bound);
    *socket_out = fd;
    fd = -1;
done:
    if (fd >= 0)
        close(fd);
    if (found != NULL)
        freeaddrinfo(found);
    return status;
}

enum status address_adopt(int socket, char text[ADDRESS_BYTES], bool *loopback, struct fault *fault)
{
    struct sockaddr_storage bound = {.ss_family = AF_UNSPEC};
    socklen_t size = sizeof bound, option_size = sizeof(int);
    char host[NI_MAXHOST / 4], port[8];
    int type = 0, listening = 0;

    if (getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &option_size) != 0 || type != SOCK_STREAM ||
        getsockopt(socket, SOL_SOCKET, SO_ACCEPTCONN, &listening, &option_size) != 0 ||
        listening == 0 || getsockname(socket, (struct sockaddr *)&bound, &size) != 0 ||
        (bound.ss_family != AF_INET && bound.ss_family != AF_INET6))
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "descriptor %d is no listening TCP socket: the service manager must pass "
                         "one (ListenStream=ADDRESS:PORT, Accept=no)",
                         socket);
    int flags = fcntl(socket, F_GETFL);
    if (flags < 0 || fcntl(socket, F_SETFL, flags | O_NONBLOCK) != 0 ||
        fcntl(socket, F_SETFD, FD_CLOEXEC) != 0 ||
        getnameinfo((struct sockaddr *)&bound, size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return fault_set(fault, STATUS_INTERNAL, "", "descriptor %d cannot be used: %s", socket,
                         strerror(errno));
    snprintf(text, ADDRESS_BYTES, strchr(host, ':') != NULL ? "[%s]:%s" : "%s:%s", host, port);
    *loopback = is_loopback((struct sockaddr *)&bound);
    return STATUS_OK;
}

enum status address_check(const char *address, bool *loopback, struct fault *fault)
{
    char host[ADDRESS_BYTES];
    struct addrinfo *found = NULL;
    enum status status = resolve(address, true, host, &found, fault);

    if (status == STATUS_OK)
        *loopback = is_loopback(found->ai_addr);
    if (found != NULL)
        freeaddrinfo(found);
    return status;
}

static int connect_to(const struct addrinfo *info, unsigned timeout_s)
{
    struct timeval timeout = {.tv_sec = (time_t)timeout_s};
    int fd = socket(info->ai_family, info->ai_socktype | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    /* On Linux the send timeout bounds connect() as well. */
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) == 0 &&
        connect(fd, info->ai_addr, info->ai_addrlen) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

enum status address_connect(const char *address, unsigned timeout_s, int *socket_out,
                            struct fault *fault)
{
    char host[ADDRESS_BYTES];
    struct addrinfo *found = NULL;
    int fd = -1;

    enum status status = resolve(address, false, host, &found, fault);
    if (status != STATUS_OK)
        return status;
    for (const struct addrinfo *at = found; at != NULL && fd < 0; at = at->ai_next)
        fd = connect_to(at, timeout_s);
    if (fd < 0)
        status = fault_set(fault, STATUS_INTERNAL, "", "cannot connect to %.200s: %s", address,
                           strerror(errno));
    else
        *socket_out = fd;
    freeaddrinfo(found);
    return status;
}

void address_peer(int socket, char out[PEER_BYTES])
{
    union {
        struct sockaddr any;
        struct sockaddr_in four;
        struct sockaddr_in6 six;
        struct sockaddr_storage room;
    } peer;
    socklen_t size = sizeof peer;
    char host[INET6_ADDRSTRLEN];

    out[0] = '\0';
    if (getpeername(socket, &peer.any, &size) != 0)
        return;
    if (peer.any.sa_family == AF_UNIX)
        snprintf(out, PEER_BYTES, "unix");
    else if (peer.any.sa_family == AF_INET &&
             inet_ntop(AF_INET, &peer.four.sin_addr, host, sizeof host) != NULL)
        snprintf(out, PEER_BYTES, "%s:%u", host, (unsigned)ntohs(peer.four.sin_port));
    else if (peer.any.sa_family == AF_INET6 &&
             inet_ntop(AF_INET6, &peer.six.sin6_addr, host, sizeof host) != NULL)
        snprintf(out, PEER_BYTES, "[%s]:%u", host, (unsigned)ntohs(peer.six.sin6_port));
}
