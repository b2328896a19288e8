/* status -> RFC 9457 document. `type` is a relative reference: it names the kind of problem,
 * wherever we are served. */
#include <string.h>

#include "api/endpoint.h"
#include "api/json_text.h"

struct reply reply_fault(const struct request *request, const struct fault *fault)
{
    unsigned http = status_http(fault->status);
    const char *code = status_code(fault->status);
    struct json_text text;

    json_text_init(&text, request->arena);
    json_text_open(&text, '{');
    json_text_member_string(&text, "type", arena_format(request->arena, "/problems/%s", code));
    json_text_member_string(&text, "title", status_title(fault->status));
    json_text_member_u64(&text, "status", http);
    json_text_member_string(&text, "detail", fault->detail);
    json_text_member_string(&text, "code", code);
    json_text_member_string(&text, "request_id", request->id);
    if (fault->extra_name != NULL) {
        json_text_member_u64(&text, fault->extra_name, fault->extra);
    }
    if (fault->where[0] == '/') {
        json_text_key(&text, "errors");
        json_text_open(&text, '[');
        json_text_open(&text, '{');
        json_text_member_string(&text, "pointer", fault->where);
        json_text_member_string(&text, "detail", fault->detail);
        json_text_close(&text, '}');
        json_text_close(&text, ']');
    }
    json_text_close(&text, '}');

    struct reply reply = reply_json(http, json_text_end(&text));
    reply.media_type = "application/problem+json";
    reply.problem = fault->status;
    if (fault->status == STATUS_OVERLOADED || fault->status == STATUS_DRAINING ||
        fault->status == STATUS_TOO_FAR_AHEAD)
        reply_header(&reply, "Retry-After", "1");
    if (fault->status == STATUS_UNSUPPORTED_MEDIA_TYPE && request->taken.name != NULL)
        reply_header(&reply, request->taken.name, request->taken.value);
    if (fault->status == STATUS_UNSUPPORTED_MEDIA_TYPE && request->method == METHOD_PATCH &&
        request->taken.name != NULL && strcmp(request->taken.name, "Accept") == 0)
        reply_header(&reply, "Accept-Patch", request->taken.value); /* RFC 5789, 2.2 */
    else if (fault->extra_name != NULL && strcmp(fault->extra_name, "retry_after_s") == 0)
        reply_header(&reply, "Retry-After",
                     arena_format(request->arena, "%llu", (unsigned long long)fault->extra));
    return reply;
}
