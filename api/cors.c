/* Browsers: whose pages may call the server. */
#include "api/cors.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#include "api/accept.h"
#include "api/config.h"

enum { HOST_BYTES = 256 };

/* What scripts may read beside what they always may. */
#define EXPOSED                                                                                    \
    "Accept, Accept-Encoding, Accept-Patch, Accept-Ranges, Allow, Content-Digest, "                \
    "Content-Encoding, Content-Range, Deprecation, "                                               \
    "Descent-Base-Step, Descent-Clip-Scale, Descent-Dry-Run, Descent-Durable-Step, "               \
    "Descent-Expected, Descent-Grad-Norm, Descent-Lineage, Descent-Loss, Descent-Lr, "             \
    "Descent-Param-Norm, Descent-Received, Descent-Snapshot, Descent-Snapshot-Due, "               \
    "Descent-Staleness, Descent-State-Hash, Descent-Status, Descent-Step, Descent-Update-Norm, "   \
    "ETag, Idempotency-Replayed, Link, Location, Preference-Applied, Request-Id, Retry-After, "    \
    "Sunset, WWW-Authenticate"
/* And send. */
#define SENT                                                                                       \
    "Accept, Authorization, Content-Digest, Content-Encoding, Content-Type, Idempotency-Key, "     \
    "If-Match, If-None-Match, If-Range, Last-Event-ID, Prefer, Range, Want-Content-Digest, "       \
    "X-Request-Id, traceparent, tracestate"
#define MAX_AGE_S "7200" /* the most that browsers keep a preflight */

/* The next of a list, cut at commas and spaces; false at its end. */
static bool next_word(const char **at, struct span *out)
{
    static const char blank[] = ", \t";

    *at += strspn(*at, blank);
    size_t size = strcspn(*at, blank);
    *out = span_of(*at, size);
    *at += size;
    return size > 0;
}

static bool lists(const char *list, const char *text)
{
    struct span word;

    while (next_word(&list, &word))
        if (accept_is(word, text))
            return true;
    return false;
}

/* --- the option --- */

static bool ends_with(struct span text, const char *end)
{
    size_t size = strlen(end);

    return text.size >= size && memcmp(text.data + text.size - size, end, size) == 0;
}

/* scheme://host[:port], and no default port, which browsers leave out. */
static bool is_origin(struct span word)
{
    char text[HOST_BYTES];

    if (word.size >= sizeof text)
        return false;
    memcpy(text, word.data, word.size);
    text[word.size] = '\0';
    size_t scheme = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789+-.");
    const char *host = text + scheme + 3;
    if (scheme == 0 || strncmp(text + scheme, "://", 3) != 0 || *host == '\0' ||
        host[strspn(
            host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._[]:")] != '\0')
        return false;
    const char *colon = *host == '[' ? strchr(host, ']') : host;
    colon = colon != NULL ? strchr(colon, ':') : NULL;
    if (*host == '[' ? strchr(host, ']') == NULL : colon == host)
        return false;
    if (colon != NULL && (colon[1] == '\0' || strlen(colon + 1) > 5 ||
                          colon[1 + strspn(colon + 1, "0123456789")] != '\0'))
        return false;
    return !(strncmp(text, "http:", 5) == 0 && ends_with(word, ":80")) &&
           !(strncmp(text, "https:", 6) == 0 && ends_with(word, ":443"));
}

enum status cors_check_origins(const char *origins, struct fault *fault)
{
    const char *at = origins;
    struct span word;

    if (strcmp(origins, "*") == 0)
        return STATUS_OK;
    while (next_word(&at, &word))
        if (!is_origin(word))
            return fault_set(
                fault, STATUS_INVALID_FIELD, "",
                "cors-origins has \"%.*s\"; it must be * alone, or origins as browsers write them, "
                "scheme://host or scheme://host:port, separated by commas, for instance "
                "https://app.example, without a path or a default port",
                word.size < 60 ? (int)word.size : 60, (const char *)word.data);
    return STATUS_OK;
}

static bool allows(const struct config *config, const char *origin)
{
    return strcmp(config->cors_origins, "*") == 0 || lists(config->cors_origins, origin);
}

/* --- what is refused --- */

/* The host of "host:port" or "[::1]:port", without brackets and a dot at its end; false: too
 * long. */
static bool host_of(const char *authority, char host[HOST_BYTES])
{
    bool bracket = authority[0] == '[';
    const char *start = authority + bracket;
    size_t size = strcspn(start, bracket ? "]" : ":");

    if (size >= HOST_BYTES)
        return false;
    size -= size > 0 && start[size - 1] == '.';
    memcpy(host, start, size);
    host[size] = '\0';
    return true;
}

/* A name that others cannot point here. */
static bool is_own_host(const struct config *config, const char *authority)
{
    static const char suffix[] = ".localhost";
    char host[HOST_BYTES];
    struct in6_addr address;

    if (strcmp(config->hosts, "*") == 0)
        return true;
    if (!host_of(authority, host))
        return false;
    size_t size = strlen(host);
    return inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1 ||
           (strchr(host, '.') == NULL && strchr(host, ':') == NULL) ||
           (size >= sizeof suffix && strcasecmp(host + size + 1 - sizeof suffix, suffix) == 0) ||
           lists(config->hosts, host);
}

enum status cors_admit(const struct request *request, bool loopback, struct fault *fault)
{
    const char *host = request_header(request, "Host");
    const char *origin = request_header(request, "Origin");

    /* A browser always says Host. */
    if (loopback && host != NULL && !is_own_host(request->config, host))
        return fault_set(fault, STATUS_FORBIDDEN, "",
                         "Host is %.100s: without tokens, what is served to this machine alone is "
                         "served under IP addresses, names without a dot and those of --hosts",
                         host);
    if (origin == NULL || allows(request->config, origin))
        return STATUS_OK;
    const char *authority = strstr(origin, "://");
    if (authority != NULL && host != NULL && strcasecmp(authority + 3, host) == 0)
        return STATUS_OK;
    return fault_set(fault, STATUS_FORBIDDEN, "",
                     "pages of %.100s may not call this server; --cors-origins says whose may",
                     origin);
}

/* --- what is told --- */

void cors_tell(const struct request *request, struct reply *reply)
{
    const struct config *config = request->config;
    const char *origin = request_header(request, "Origin");
    bool any = strcmp(config->cors_origins, "*") == 0;

    if (config->cors_origins[0] == '\0')
        return;
    if (!any) /* who has no origin gets another answer, too */
        reply_vary(reply, request->arena, "Origin");
    if (origin == NULL || !allows(config, origin))
        return;
    reply_header(reply, "Access-Control-Allow-Origin", any ? "*" : origin);
    if (request->method == METHOD_OPTIONS &&
        request_header(request, "Access-Control-Request-Method") != NULL) {
        const char **allow = reply_find(reply, "Allow");
        reply_header(reply, "Access-Control-Allow-Methods", allow != NULL ? *allow : NULL);
        reply_header(reply, "Access-Control-Allow-Headers", SENT);
        reply_header(reply, "Access-Control-Max-Age", MAX_AGE_S);
    } else {
        reply_header(reply, "Access-Control-Expose-Headers", EXPOSED);
    }
}
