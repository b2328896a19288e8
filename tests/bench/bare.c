/* The limit of HTTP: libmicrohttpd with nothing behind it. */
#include <microhttpd.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/bench.h"

enum { CONNECTION_BYTES = 64 * 1024, CONNECTIONS = 1024 }; /* as in api/server.c */

struct bare {
    enum bare_answer answer;
    size_t body_bytes;
};

/* A connection: its buffer, and how much of the body is there. */
struct body {
    size_t used;
    bool begun;
    char data[];
};

static enum MHD_Result handle(void *context, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *data,
                              size_t *size, void **request_context)
{
    static char words[] = "{\"status\": \"applied\"}";
    const struct bare *bare = context;
    struct body *body =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;

    (void)url;
    (void)method;
    (void)version;
    (void)request_context;
    if (!body->begun) {
        body->begun = true;
        return MHD_YES;
    }
    if (*size > 0) {
        if (body->used + *size > bare->body_bytes)
            return MHD_NO;
        memcpy(body->data + body->used, data, *size);
        body->used += *size;
        *size = 0;
        return MHD_YES;
    }
    bool echo = bare->answer == BARE_ECHO;
    struct MHD_Response *response = MHD_create_response_from_buffer(
        echo ? body->used : sizeof words - 1, echo ? body->data : words, MHD_RESPMEM_PERSISTENT);
    enum MHD_Result result = MHD_queue_response(connection, 200, response);
    MHD_destroy_response(response);
    body->begun = false;
    body->used = 0;
    return result;
}

static void connection_changed(void *context, struct MHD_Connection *connection,
                               void **socket_context, enum MHD_ConnectionNotificationCode code)
{
    const struct bare *bare = context;

    (void)connection;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        *socket_context = calloc(1, sizeof(struct body) + bare->body_bytes);
        if (*socket_context == NULL)
            bench_fail("memory");
    } else {
        free(*socket_context);
    }
}

static _Noreturn void serve(struct bare *bare, int out)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct MHD_Daemon *daemon =
        MHD_start_daemon(MHD_USE_POLL_INTERNAL_THREAD | MHD_USE_THREAD_PER_CONNECTION |
                             MHD_USE_ITC | MHD_USE_ERROR_LOG,
                         0, NULL, NULL, handle, bare, MHD_OPTION_SOCK_ADDR, &address,
                         MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
                         MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS,
                         MHD_OPTION_NOTIFY_CONNECTION, connection_changed, bare, MHD_OPTION_END);
    unsigned port = 0;

    if (daemon != NULL)
        port = MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT)->port;
    if (write(out, &port, sizeof port) != sizeof port)
        _exit(1);
    for (;;)
        pause();
}

void bare_start(struct child *child, enum bare_answer answer, size_t body_bytes)
{
    struct bare bare = {.answer = answer, .body_bytes = body_bytes};
    int ends[2];

    *child = (struct child){.pid = 0};
    if (pipe(ends) != 0)
        bench_fail("pipe");
    fflush(NULL);
    child->pid = fork();
    if (child->pid < 0)
        bench_fail("fork");
    if (child->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ends[0]);
        serve(&bare, ends[1]);
    }
    close(ends[1]);
    if (read(ends[0], &child->port, sizeof child->port) != sizeof child->port || child->port == 0)
        bench_fail("the bare server did not start");
    close(ends[0]);
}
