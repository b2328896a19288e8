/* What is refused before anything else looks at a request. */
#include "api/guard.h"

#include <string.h>
#include <strings.h>

#include "api/percent.h"

/* Not strspn, which makes a table of the set for each call: every request has a few names. */
static bool is_token_byte(unsigned char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || byte == '-' ||
           (byte >= '0' && byte <= '9') || (byte != '\0' && strchr("!#$%&'*+.^_`|~", byte) != NULL);
}

bool guard_is_token(const char *text)
{
    const char *at = text;

    while (is_token_byte((unsigned char)*at))
        at++;
    return at > text && *at == '\0';
}

static enum status check_line(const struct envelope *envelope, struct fault *fault)
{
    const char *target = envelope->target;

    if (!envelope->plain)
        return fault_set(fault, STATUS_INVALID_REQUEST, "",
                         "the request header is not plain: end every line with CRLF, fold no line, "
                         "put one space between the parts of the first line, send no NUL");
    if (!guard_is_token(envelope->method))
        return fault_set(fault, STATUS_INVALID_REQUEST, "", "the method is not a token");
    if (strlen(target) > TARGET_BYTES_MAX)
        return fault_set(fault, STATUS_URI_TOO_LONG, "", "the address has %zu bytes; at most %d",
                         strlen(target), TARGET_BYTES_MAX);
    if (target[0] != '/')
        return fault_set(fault, STATUS_INVALID_REQUEST, "",
                         "the target must be a path that begins with /, not a whole URL or *");
    for (const unsigned char *c = (const unsigned char *)target; *c != '\0'; c++)
        if (*c <= ' ' || *c >= 0x7F || *c == '#')
            return fault_set(fault, STATUS_INVALID_REQUEST, "",
                             "the target has byte 0x%02x; percent-encode it", (unsigned)*c);
    return STATUS_OK;
}

/* Values are visible ASCII, spaces, tabs and bytes above 0x7F (RFC 9110, 5.5). */
static bool is_field_value(const char *value)
{
    for (const unsigned char *c = (const unsigned char *)value; *c != '\0'; c++)
        if ((*c < ' ' && *c != '\t') || *c == 0x7F)
            return false;
    return true;
}

static enum status check_fields(const struct envelope *envelope, const struct request *request,
                                struct fault *fault)
{
    if (envelope->header_count > HEADERS_MAX)
        return fault_set(fault, STATUS_HEADERS_TOO_LARGE, "",
                         "the request has %zu header fields; at most %d", envelope->header_count,
                         HEADERS_MAX);
    for (size_t i = 0; i < request->header_count; i++) {
        if (!guard_is_token(request->headers[i].name))
            return fault_set(fault, STATUS_INVALID_REQUEST, "",
                             "header field %zu has a name that is not a token (a space before the "
                             "colon?)",
                             i + 1);
        if (!is_field_value(request->headers[i].value))
            return fault_set(fault, STATUS_INVALID_REQUEST, "",
                             "header field %.60s holds a control character",
                             request->headers[i].name);
    }
    return STATUS_OK;
}

/* Fields of one value. Where two come, one of them would be passed over, and be it a key that
 * was to apply a step once. */
static enum status check_single(const struct request *request, struct fault *fault)
{
    static const char *const single[] = {"Content-Type",  "Idempotency-Key", "If-Range",
                                         "Last-Event-ID", "Range",           "X-Request-Id"};

    for (size_t i = 1; i < request->header_count; i++) {
        const char *name = request->headers[i].name;
        size_t before = 0, k = 0;
        while (before < i && strcasecmp(request->headers[before].name, name) != 0)
            before++;
        if (before == i)
            continue;
        while (k < sizeof single / sizeof *single && strcasecmp(single[k], name) != 0)
            k++;
        if (k < sizeof single / sizeof *single)
            return fault_set(fault, STATUS_INVALID_REQUEST, "",
                             "the request has more than one %s; send one", single[k]);
    }
    return STATUS_OK;
}

static bool read_length(const char *text, uint64_t *out)
{
    uint64_t value = 0;

    for (const char *c = text; *c != '\0'; c++) {
        if (*c < '0' || *c > '9' || value > (UINT64_MAX - 9) / 10)
            return false;
        value = value * 10 + (uint64_t)(*c - '0');
    }
    *out = value;
    return text[0] != '\0';
}

/* A host name, IPv4 or bracketed IPv6 address, and a port or none (RFC 9110, 7.2). Whoever lets a
 * path, a user or a list pass here may have been led to another place than we were. */
static bool is_host(const char *value)
{
    static const char name[] = "-._~%0123456789abcdefghijklmnopqrstuvwxyz"
                               "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    size_t size;

    if (value[0] == '[') {
        size = 1 + strspn(value + 1, "0123456789abcdefABCDEF:.");
        if (size < 3 || value[size] != ']')
            return false;
        size++;
    } else {
        size = strspn(value, name);
        if (size == 0)
            return false;
    }
    if (value[size] == '\0')
        return true;
    size_t digits = strspn(value + size + 1, "0123456789");
    return value[size] == ':' && digits <= 5 && value[size + 1 + digits] == '\0';
}

static enum status check_framing(const struct envelope *envelope, const struct request *request,
                                 struct framing *out, struct fault *fault)
{
    const char *length, *encoding, *host;
    size_t lengths = request_header_count(request, "Content-Length", &length);
    size_t encodings = request_header_count(request, "Transfer-Encoding", &encoding);
    size_t hosts = request_header_count(request, "Host", &host);
    bool old = strcmp(envelope->version, "HTTP/1.0") == 0;

    if (lengths > 1 || encodings > 1 || (lengths > 0 && encodings > 0))
        return fault_set(fault, STATUS_INVALID_REQUEST, "",
                         "the length of the body is said more than once; send one Content-Length "
                         "or one Transfer-Encoding");
    if (hosts > 1 || (hosts == 0 && !old))
        return fault_set(fault, STATUS_INVALID_REQUEST, "",
                         "the request has %zu Host fields; send one", hosts);
    if (hosts == 1 && !is_host(host))
        return fault_set(fault, STATUS_INVALID_REQUEST, "",
                         "Host is not a name or address with a port or none");
    if (encodings > 0 && old)
        return fault_set(fault, STATUS_INVALID_REQUEST, "",
                         "HTTP/1.0 has no Transfer-Encoding; send Content-Length");
    if (encodings > 0 && strcasecmp(encoding, "chunked") != 0)
        return fault_set(fault, STATUS_INVALID_REQUEST, "",
                         "the only Transfer-Encoding here is chunked");
    if (lengths > 0 && !read_length(length, &out->length))
        return fault_set(fault, STATUS_INVALID_REQUEST, "", "Content-Length is not a number");
    out->chunked = encodings > 0;
    return STATUS_OK;
}

static enum status check_expect(const struct envelope *envelope, const struct request *request,
                                struct framing *out, struct fault *fault)
{
    if (strcmp(envelope->version, "HTTP/1.0") == 0)
        return STATUS_OK;
    for (size_t i = 0; i < request->header_count; i++) {
        if (strcasecmp(request->headers[i].name, "Expect") != 0)
            continue;
        if (strcasecmp(request->headers[i].value, "100-continue") != 0)
            return fault_set(fault, STATUS_EXPECTATION_FAILED, "",
                             "the only Expect here is 100-continue");
        out->expects_continue = true;
    }
    return STATUS_OK;
}

enum status guard_check(const struct envelope *envelope, const struct request *request,
                        struct framing *out, struct fault *fault)
{
    *out = (struct framing){.chunked = false};
    enum status status = check_line(envelope, fault);
    if (status == STATUS_OK)
        status = check_fields(envelope, request, fault);
    if (status == STATUS_OK)
        status = check_single(request, fault);
    if (status == STATUS_OK)
        status = check_framing(envelope, request, out, fault);
    if (status == STATUS_OK)
        status = check_expect(envelope, request, out, fault);
    return status;
}

static enum status query_add(struct request *request, const char *piece, size_t size,
                             struct fault *fault)
{
    const char *equals = memchr(piece, '=', size);
    size_t name_size = equals != NULL ? (size_t)(equals - piece) : size;
    const char *value = equals != NULL ? equals + 1 : piece + size;
    struct query_pair *pair = &request->query[request->query_count];

    if (request->query_count == QUERY_MAX)
        return fault_set(fault, STATUS_INVALID_REQUEST, "", "the query has more than %d parameters",
                         QUERY_MAX);
    if (name_size == 0)
        return fault_set(fault, STATUS_INVALID_REQUEST, "",
                         "the query has a parameter without a name; write name=value, joined by &");
    pair->used = false;
    enum status status = percent_decode(request->arena, piece, name_size, &pair->name, fault);
    if (status == STATUS_OK)
        status = percent_decode(request->arena, value, (size_t)(piece + size - value), &pair->value,
                                fault);
    if (status != STATUS_OK)
        return status;
    for (size_t i = 0; i < request->query_count; i++)
        if (strcmp(request->query[i].name, pair->name) == 0)
            return fault_set(fault, STATUS_INVALID_REQUEST, "",
                             "the query has \"%.100s\" more than once; send it once", pair->name);
    request->query_count++;
    return STATUS_OK;
}

enum status guard_query(struct request *request, const char *query, struct fault *fault)
{
    enum status status = STATUS_OK;

    request->query_count = 0;
    while (status == STATUS_OK && *query != '\0') {
        size_t size = strcspn(query, "&");
        status = query_add(request, query, size, fault);
        query += size;
        if (*query == '&' && *++query == '\0' && status == STATUS_OK)
            status = fault_set(fault, STATUS_INVALID_REQUEST, "", "the query ends with &");
    }
    return status;
}
