/* Bodies that are a JSON document and nothing else. */
#include "api/json_body.h"

#include "api/codec.h"
#include "api/media.h"

enum status promise_refuse(const struct request *request, const char *name, struct fault *fault)
{
    if (request_header(request, name) == NULL)
        return STATUS_OK;
    return fault_set(fault, STATUS_INVALID_REQUEST, "",
                     "%s is not heeded at this address; leave it out", name);
}

enum status promises_refuse(const struct request *request, struct fault *fault)
{
    enum status status = promise_refuse(request, "If-Match", fault);

    return status == STATUS_OK ? promise_refuse(request, "Idempotency-Key", fault) : status;
}

enum status json_body_read(struct request *request, const char *example, struct json_document *out,
                           struct fault *fault)
{
    const char *type = request_header(request, "Content-Type");
    const struct codec *codec = codec_find(type == NULL ? "application/json" : type);
    enum status status;

    if ((status = media_check(request, codec != NULL && codec->decode == NULL, true, "this is read",
                              "application/json", fault)) != STATUS_OK ||
        (status = promises_refuse(request, fault)) != STATUS_OK ||
        (status = request_query_end(request, fault)) != STATUS_OK)
        return status;
    if (request->body == NULL)
        return fault_set(fault, STATUS_INVALID_REQUEST, "",
                         "the body is empty; send for instance %s", example);
    return json_read(request->arena, span_of(request->body->data, request->body->size), out, fault);
}
