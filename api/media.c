/* The media type of a body. */
#include "api/media.h"

#include "api/accept.h"

/* ASCII is UTF-8 too, and some libraries call it so. */
static bool is_utf8(struct span charset)
{
    return charset.size == 0 || accept_is(charset, "utf-8") || accept_is(charset, "utf8") ||
           accept_is(charset, "us-ascii");
}

enum status media_check(struct request *request, bool known, bool is_json, const char *what,
                        const char *types, struct fault *fault)
{
    const char *type = request_header(request, "Content-Type");
    struct span charset = span_of(NULL, 0);

    if (known && is_json && type != NULL)
        charset = accept_parameter(type, "charset");
    if (known && is_utf8(charset))
        return STATUS_OK;
    request->taken = (struct header){"Accept", types};
    if (known)
        return fault_set(
            fault, STATUS_UNSUPPORTED_MEDIA_TYPE, "",
            "Content-Type says charset=%.*s, and JSON is always UTF-8; send it so, and "
            "leave charset out (taken are %s)",
            (int)(charset.size < 40 ? charset.size : 40), (const char *)charset.data, types);
    return fault_set(fault, STATUS_UNSUPPORTED_MEDIA_TYPE, "",
                     "%s as %s; set Content-Type to it, or to one of them", what, types);
}
