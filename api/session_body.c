/* Creating a session from a request. */
#include "api/session_body.h"

#include <string.h>

#include "api/codec.h"
#include "api/config.h"
#include "api/json_body.h"
#include "api/media.h"
#include "api/parameters_json.h"
#include "api/session_json.h"
#include "api/spec_json.h"
#include "api/state_file.h"
#include "api/tensors_body.h"

struct creation {
    struct session *session; /* NULL: what follows makes it */
    bool created;
    struct spec spec;
    struct layout *layout;
    struct buffer *weights;
};

static enum status read_json(struct request *request, struct creation *creation,
                             struct fault *fault)
{
    struct json_document document;
    const json_t *parameters;
    enum status status = json_read(
        request->arena, span_of(request->body->data, request->body->size), &document, fault);

    if (status != STATUS_OK)
        return status;
    status = spec_read(request->arena, &document, &creation->spec, &parameters, fault);
    if (status == STATUS_OK)
        status = parameters_read(request->arena, &document, parameters, creation->spec.dtype,
                                 creation->spec.seed, request->config->parameters_max,
                                 &creation->layout, &creation->weights, fault);
    json_close(&document);
    return status;
}

/* The configuration is the text of __metadata__.descent. */
static enum status read_metadata(struct request *request, const struct text_pair *metadata,
                                 size_t count, struct spec *spec, struct fault *fault)
{
    const char *text = NULL;
    struct json_document document;
    enum status status;

    for (size_t i = 0; i < count; i++)
        if (strcmp(metadata[i].name, "descent") == 0)
            text = metadata[i].value;
    if (text == NULL)
        return fault_set(fault, STATUS_INVALID_FIELD, "/__metadata__/descent",
                         "put the session's configuration, at least {\"optimizer\": ...}, as JSON "
                         "text into __metadata__.descent");
    if ((status = json_read(request->arena, span_text(text), &document, fault)) != STATUS_OK)
        return status;
    status = spec_read(request->arena, &document, spec, NULL, fault);
    json_close(&document);
    return status;
}

/* The dtype is known only once the metadata is read: a first opening says it, a second, where it is
 * not f32, converts. */
static enum status read_safetensors(struct request *request, struct creation *creation,
                                    struct fault *fault)
{
    struct text_pair *metadata;
    size_t count;
    struct tensors tensors;
    enum dtype dtype = DTYPE_F32;
    enum status status;

    for (;;) {
        status = safetensors_open(request->arena, request->body, dtype, &creation->layout, &tensors,
                                  &metadata, &count, fault);
        if (status != STATUS_OK) {
            if (fault->where[0] == '/') /* it is a tensor's name */
                fault_prefix(fault, "/parameters");
            return status;
        }
        status = read_metadata(request, metadata, count, &creation->spec, fault);
        if (status != STATUS_OK || creation->spec.dtype == dtype)
            break;
        dtype = creation->spec.dtype;
        layout_release(creation->layout);
        creation->layout = NULL;
        buffer_release(tensors.buffer);
    }
    if (status == STATUS_OK) {
        size_t size = creation->layout->count * dtype_size(dtype);
        creation->weights = buffer_new(size);
        if (creation->weights == NULL)
            status = fault_set(fault, STATUS_INTERNAL, "", "out of memory");
        else
            memcpy(creation->weights->data, tensors.buffer->data + tensors.offset, size);
    }
    buffer_release(tensors.buffer);
    return status;
}

static enum status read_body(struct engine *engine, struct request *request, const char *id,
                             struct creation *creation, struct fault *fault)
{
    const char *type = request_header(request, "Content-Type");
    const struct codec *codec = codec_find(type == NULL ? "application/json" : type);
    enum status status;

    bool is_json = codec != NULL && strcmp(codec->name, "json") == 0;
    if ((status = request->method == METHOD_PUT ? promise_refuse(request, "If-Match", fault)
                                                : promises_refuse(request, fault)) != STATUS_OK ||
        (status = request_query_end(request, fault)) != STATUS_OK ||
        (status = media_check(request,
                              is_json || (codec != NULL && strcmp(codec->name, "safetensors") == 0),
                              is_json, "a session is created from a body",
                              "application/json, application/vnd.safetensors", fault)) != STATUS_OK)
        return status;
    if (request->body == NULL)
        return fault_set(fault, STATUS_INVALID_REQUEST, "",
                         "the body is empty; send {\"optimizer\": ..., \"parameters\": ...}");
    if (is_json)
        return read_json(request, creation, fault);
    bool is_state;
    if ((status = state_is_file(request, &is_state, fault)) != STATUS_OK)
        return status;
    return is_state
               ? state_restore(engine, request, id, &creation->session, &creation->created, fault)
               : read_safetensors(request, creation, fault);
}

struct reply session_create_reply(struct engine *engine, struct request *request, const char *id)
{
    struct creation creation = {.session = NULL};
    struct reply reply;
    struct fault fault;
    enum status status = read_body(engine, request, id, &creation, &fault);

    if (status == STATUS_OK && creation.session == NULL) {
        struct owner owner = request_owner(request);
        struct session_request wanted = {.id = id,
                                         .owner = &owner,
                                         .spec = &creation.spec,
                                         .layout = creation.layout,
                                         .weights = creation.weights};
        status = engine_create(engine, &wanted, &creation.session, &creation.created, &fault);
    }
    if (status == STATUS_OK) {
        reply = session_reply(request, creation.session, creation.created ? 201 : 200);
        session_release(creation.session);
    } else {
        reply = reply_fault(request, &fault);
    }
    layout_release(creation.layout);
    buffer_release(creation.weights);
    return reply;
}
