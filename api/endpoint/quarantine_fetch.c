/* GET /v1/sessions/{id}/quarantine/{number}: a gradient that was refused, as it came. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "api/router.h"
#include "api/session_json.h"
#include "api/tensors_body.h"

static bool read_number(const char *text, uint64_t *number)
{
    size_t size = strlen(text);

    *number = strtoull(text, NULL, 10);
    return size > 0 && size <= 19 && strspn(text, "0123456789") == size;
}

static enum status encode(struct request *request, struct session *session,
                          const struct answer_form *form, const struct quarantined *about,
                          struct buffer *gradient, struct reply *reply, struct fault *fault)
{
    struct tensors tensors = {.buffer = gradient, .dtype = about->dtype};
    const struct text_pair metadata[] = {
        {"session", request->path_parameters[0]},
        {"quarantine", request->path_parameters[1]},
        {"step", arena_format(request->arena, "%" PRIu64, about->step)},
    };
    struct encode_request wanted = {.arena = request->arena,
                                    .layout = session_layout(session),
                                    .tensors = &tensors,
                                    .dtype = about->dtype,
                                    .metadata = metadata,
                                    .metadata_count = sizeof metadata / sizeof *metadata,
                                    .opening = span_text("{\"gradients\":")};
    struct encoded encoded;
    enum status status;

    if (metadata[2].value == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    status = form->codec->encode(&wanted, &encoded, fault);
    if (status == STATUS_NOT_ACCEPTABLE && about->dtype == DTYPE_BF16) {
        wanted.dtype = DTYPE_F32; /* npy has no bf16; f32 holds each of its values */
        status = form->codec->encode(&wanted, &encoded, fault);
    }
    if (status != STATUS_OK)
        return status;
    *reply = reply_empty(200);
    answer_encoded(reply, form->codec, &encoded);
    reply_header(reply, "Vary", "Accept");
    return STATUS_OK;
}

static enum status fetch(struct request *request, struct session *session, struct reply *reply,
                         struct fault *fault)
{
    struct quarantined about;
    struct answer_form form;
    struct buffer *gradient;
    uint64_t number;
    enum status status;

    if ((status = answer_form_read(request, session, false, &form, fault)) != STATUS_OK ||
        (status = request_query_end(request, fault)) != STATUS_OK)
        return status;
    if (!read_number(request->path_parameters[1], &number))
        return fault_set(fault, STATUS_NOT_FOUND, "",
                         "no gradient can have this number; GET the session's /quarantine for "
                         "those that are kept");
    status = session_quarantined(session, number, &about, &gradient, fault);
    if (status != STATUS_OK)
        return status;
    status = encode(request, session, &form, &about, gradient, reply, fault);
    buffer_release(gradient);
    return status;
}

struct reply serve_quarantine_fetch(struct engine *engine, struct request *request)
{
    return session_serve(engine, request, fetch);
}
