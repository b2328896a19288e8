/* `descent health`: GET /readyz of a running server for a container's HEALTHCHECK; over TLS when
 * that is configured. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/address.h"
#include "api/commands.h"
#include "api/config.h"
#include "api/tls.h"

enum { TIMEOUT_S = 5 };

/* The first bytes of the answer into answer[capacity]; *used: how many. */
static enum status ask_plainly(int fd, struct span request, char *answer, size_t capacity,
                               size_t *used, struct fault *fault)
{
    ssize_t got = send(fd, request.data, request.size, MSG_NOSIGNAL);

    while (got > 0 && *used < capacity) {
        got = recv(fd, answer + *used, capacity - *used, 0);
        *used += got > 0 ? (size_t)got : 0;
    }
    if (got < 0 && *used == 0)
        return fault_set(fault, STATUS_INTERNAL, "", "no answer: %s", strerror(errno));
    return STATUS_OK;
}

static int ask(const struct config *config)
{
    static const char expected[] = "HTTP/1.1 200 ";
    const struct span request =
        span_text("GET /readyz HTTP/1.1\r\nHost: health\r\nConnection: close\r\n\r\n");
    char answer[512] = "";
    size_t used = 0;
    struct fault fault;
    int fd;

    if (address_connect(config->listen, TIMEOUT_S, &fd, &fault) != STATUS_OK) {
        fprintf(stderr, "descent: %s\n", fault.detail);
        return 1;
    }
    /* The certificate is made for the name that clients use, not for --listen, and nothing secret
     * is sent: it is not verified. */
    enum status status = config->tls_cert[0] != '\0'
                             ? tls_ask(fd, request, answer, sizeof answer - 1, &used, &fault)
                             : ask_plainly(fd, request, answer, sizeof answer - 1, &used, &fault);
    close(fd);
    if (status == STATUS_OK && strncmp(answer, expected, sizeof expected - 1) == 0)
        return 0;
    answer[used] = '\0';
    answer[strcspn(answer, "\r\n")] = '\0';
    fprintf(stderr, "descent: %s is not ready: %s\n", config->listen,
            status != STATUS_OK ? fault.detail
            : used > 0          ? answer
                                : "no answer");
    return 1;
}

int command_health(char *const *options)
{
    static const char *const flags[] = {"listen", "config", "log", "tls-cert", "tls-key", NULL};
    struct config config;
    struct fault fault;

    if (config_read_some(options, flags, &config, &fault) != STATUS_OK) {
        fprintf(stderr, "descent: %s\n", fault.detail);
        return EXIT_USAGE;
    }
    int code = ask(&config);
    config_close(&config);
    return code;
}
