/* The client: keep-alive connections on one epoll, plain or TLS, each with a request made before
 * the clock starts, sent again as soon as its answer is there. It looks at nothing of an answer
 * but status and length. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/bench.h"
#include "tests/bench/secure.h"

enum { HEADER_BYTES = 16384, SCRATCH_BYTES = 1 << 20, LATENCIES_MAX = 1 << 20, EVENTS = 64 };

struct connection {
    int fd;
    struct secure *secure; /* NULL: plain */
    struct request_bytes request;
    bool busy, wants_out;
    size_t sent;
    size_t used; /* of header */
    bool in_body;
    size_t body_left;
    double began;
    char header[HEADER_BYTES + 1];
};

struct load {
    int epoll;
    size_t connection_count;
    struct connection *connections;
    char *scratch; /* bodies go here */
    double *latencies;
    size_t latency_count;
    double total;
    size_t started, finished;
};

struct request_bytes load_request(const char *method, const char *path, const char *headers,
                                  const void *body, size_t body_size)
{
    size_t head = strlen(method) + strlen(path) + strlen(headers) + 128;
    struct request_bytes request = {.data = malloc(head + body_size)};

    if (request.data == NULL)
        bench_fail("memory");
    int used = snprintf(request.data, head,
                        "%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n%s\r\n",
                        method, path, body_size, headers);
    if (body_size > 0)
        memcpy(request.data + used, body, body_size);
    request.size = (size_t)used + body_size;
    return request;
}

static int dial(unsigned port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((unsigned short)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        bench_fail("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static struct load *open_all(unsigned port, const struct request_bytes *requests,
                             size_t connections, bool secure)
{
    struct load *load = calloc(1, sizeof *load);

    if (load == NULL ||
        (load->connections = calloc(connections, sizeof *load->connections)) == NULL ||
        (load->scratch = malloc(SCRATCH_BYTES)) == NULL ||
        (load->latencies = calloc(LATENCIES_MAX, sizeof *load->latencies)) == NULL)
        bench_fail("memory");
    load->epoll = epoll_create1(EPOLL_CLOEXEC);
    load->connection_count = connections;
    for (size_t i = 0; i < connections; i++) {
        struct connection *c = &load->connections[i];
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        c->request = requests[i];
        c->fd = dial(port);
        c->secure = secure ? secure_open(c->fd) : NULL;
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, c->fd, &event) != 0)
            bench_fail("epoll");
    }
    return load;
}

struct load *load_open(unsigned port, const struct request_bytes *requests, size_t connections)
{
    return open_all(port, requests, connections, false);
}

struct load *load_open_secure(unsigned port, const struct request_bytes *requests,
                              size_t connections)
{
    return open_all(port, requests, connections, true);
}

void load_close(struct load *load)
{
    for (size_t i = 0; i < load->connection_count; i++) {
        if (load->connections[i].secure != NULL)
            secure_close(load->connections[i].secure);
        close(load->connections[i].fd);
    }
    close(load->epoll);
    free(load->connections);
    free(load->scratch);
    free(load->latencies);
    free(load);
}

static void want_out(struct load *load, struct connection *c, bool wanted)
{
    struct epoll_event event = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0u), .data.ptr = c};

    if (c->wants_out == wanted)
        return;
    c->wants_out = wanted;
    if (epoll_ctl(load->epoll, EPOLL_CTL_MOD, c->fd, &event) != 0)
        bench_fail("epoll");
}

static void send_more(struct load *load, struct connection *c)
{
    while (c->sent < c->request.size) {
        const char *from = c->request.data + c->sent;
        size_t left = c->request.size - c->sent;
        ssize_t sent = c->secure != NULL ? secure_send(c->secure, from, left)
                                         : send(c->fd, from, left, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN)
            break;
        if (sent < 0)
            bench_fail("send");
        c->sent += (size_t)sent;
    }
    want_out(load, c, c->sent < c->request.size);
}

static void start(struct load *load, struct connection *c)
{
    c->busy = true;
    c->sent = c->used = c->body_left = 0;
    c->in_body = false;
    c->began = bench_now();
    load->started++;
    send_more(load, c);
}

static void finish(struct load *load, struct connection *c)
{
    double took = bench_now() - c->began;

    c->busy = false;
    load->finished++;
    load->total += took;
    if (load->latency_count < LATENCIES_MAX)
        load->latencies[load->latency_count++] = took;
}

/* The header is complete: what follows it, and how much is still to come. */
static void read_header(struct connection *c, const char *end)
{
    const char *line = strstr(c->header, "\r\n");
    size_t length = 0, here = c->used - (size_t)(end - c->header);

    for (; line != NULL && line + 4 < end; line = strstr(line + 2, "\r\n"))
        if (strncasecmp(line + 2, "Content-Length:", 15) == 0)
            length = strtoul(line + 17, NULL, 10);
    if (strncmp(c->header, "HTTP/1.1 2", 10) != 0) {
        fprintf(stderr, "%s\n", c->header);
        errno = 0;
        bench_fail("the server refused a request");
    }
    c->in_body = true;
    c->body_left = length - here;
}

/* Reads what is there; true when the answer is complete. */
static bool receive(struct load *load, struct connection *c)
{
    for (;;) {
        char *to = c->in_body ? load->scratch : c->header + c->used;
        size_t room = !c->in_body                    ? HEADER_BYTES - c->used
                      : c->body_left < SCRATCH_BYTES ? c->body_left
                                                     : SCRATCH_BYTES;
        ssize_t got =
            c->secure != NULL ? secure_receive(c->secure, to, room) : recv(c->fd, to, room, 0);
        if (got < 0 && errno == EAGAIN)
            return false;
        if (got <= 0 || !c->busy) {
            errno = got < 0 ? errno : 0;
            bench_fail("the server closed a connection");
        }
        if (c->in_body) {
            c->body_left -= (size_t)got;
        } else {
            c->used += (size_t)got;
            c->header[c->used] = '\0';
            const char *end = strstr(c->header, "\r\n\r\n");
            if (end != NULL)
                read_header(c, end + 4);
        }
        if (c->in_body && c->body_left == 0)
            return true;
    }
}

/* Of latencies in order. */
static double quantile(const struct load *load, double part)
{
    return load->latencies[(size_t)(part * (double)(load->latency_count - 1))];
}

struct load_result load_run(struct load *load, double seconds, size_t count_max)
{
    double began = bench_now();
    struct epoll_event events[EVENTS];

    load->started = load->finished = load->latency_count = 0;
    load->total = 0;
    for (size_t i = 0; i < load->connection_count; i++)
        start(load, &load->connections[i]);
    while (load->finished < load->started) {
        int count = epoll_wait(load->epoll, events, EVENTS, 60000);
        if (count <= 0 && errno != EINTR)
            bench_fail("the server is silent");
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                send_more(load, c);
            if (!(events[i].events & ~(unsigned)EPOLLOUT) || !receive(load, c))
                continue;
            finish(load, c);
            if (bench_now() - began < seconds && (count_max == 0 || load->started < count_max))
                start(load, c);
        }
    }
    return (struct load_result){.count = load->finished,
                                .rate = (double)load->finished / (bench_now() - began),
                                .mean = load->total / (double)load->finished,
                                .median = bench_median(load->latencies, load->latency_count),
                                .p99 = quantile(load, 0.99),
                                .p999 = quantile(load, 0.999)};
}

void load_once(unsigned port, const char *method, const char *path, const char *body)
{
    struct request_bytes request =
        load_request(method, path, "Content-Type: application/json\r\n", body, strlen(body));
    struct load *load = load_open(port, &request, 1);

    load_run(load, 0, 1);
    load_close(load);
    free(request.data);
}

void load_create_session(unsigned port, const char *id, size_t count, const char *more)
{
    load_once(port, "PUT", bench_text("/v1/sessions/%s", id),
              bench_text("{\"optimizer\":\"adam\",\"parameters\":{\"w\":{\"shape\":[%zu],"
                         "\"init\":\"zeros\"}}%s}",
                         count, more));
}

struct request_bytes load_step_request(const char *id, size_t count, const char *headers)
{
    float *gradient = malloc(count * sizeof *gradient);

    if (gradient == NULL)
        bench_fail("memory");
    bench_fill(gradient, count, 1);
    struct request_bytes request =
        load_request("POST", bench_text("/v1/sessions/%s/gradients", id),
                     bench_text("Content-Type: application/octet-stream\r\n%s", headers), gradient,
                     count * sizeof *gradient);
    free(gradient);
    return request;
}
