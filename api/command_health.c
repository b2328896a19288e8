/* `descent health`: GET /readyz of a running server over a plain socket, for a container's
 * HEALTHCHECK. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/address.h"
#include "api/commands.h"
#include "api/config.h"

enum { TIMEOUT_S = 5 };

static int ask(const struct config *config)
{
    static const char expected[] = "HTTP/1.1 200 ";
    static const char request[] =
        "GET /readyz HTTP/1.1\r\nHost: health\r\nConnection: close\r\n\r\n";
    char answer[512] = "";
    size_t used = 0;
    ssize_t got = 0;
    struct fault fault;
    int fd;

    if (address_connect(config->listen, TIMEOUT_S, &fd, &fault) != STATUS_OK) {
        fprintf(stderr, "descent: %s\n", fault.detail);
        return 1;
    }
    if (send(fd, request, sizeof request - 1, MSG_NOSIGNAL) == (ssize_t)sizeof request - 1)
        while (used < sizeof expected - 1 &&
               (got = recv(fd, answer + used, sizeof answer - 1 - used, 0)) > 0)
            used += (size_t)got;
    close(fd);
    answer[used] = '\0';
    if (strncmp(answer, expected, sizeof expected - 1) == 0)
        return 0;
    answer[strcspn(answer, "\r\n")] = '\0';
    fprintf(stderr, "descent: %s is not ready: %s\n", config->listen,
            used > 0 ? answer : "no answer");
    return 1;
}

int command_health(char *const *options)
{
    struct config config;
    struct fault fault;

    if (config_read(options, &config, &fault) != STATUS_OK) {
        fprintf(stderr, "descent: %s\n", fault.detail);
        return EXIT_USAGE;
    }
    int code = ask(&config);
    config_close(&config);
    return code;
}
