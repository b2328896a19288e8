/* Bodies and answers that are tensors. */
#include "api/tensors_body.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/media.h"
#include "api/session_json.h"
#include "service/core/contract.h"

enum { JSON_NUMBERS_UNASKED = 1000000 };

/* --- in --- */

/* A member of the document with all tensors. */
static enum status read_member(const struct json_document *document, const struct session *session,
                               const char *member, const json_t *value, struct tensors *out,
                               struct fault *fault)
{
    const struct layout *layout = session_layout(session);
    enum dtype dtype = session_dtype(session);
    struct buffer *buffer;
    char where[64];

    snprintf(where, sizeof where, "/%s", member);
    if (!json_is_object(value))
        return fault_set(fault, STATUS_INVALID_FIELD, where,
                         "%s must be an object with one array per tensor", member);
    if ((buffer = buffer_new(layout->count * dtype_size(dtype))) == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    enum status status = json_tensors(document, value, layout, dtype, buffer->data, fault);
    if (status != STATUS_OK) {
        buffer_release(buffer);
        fault_prefix(fault, where);
        return status;
    }
    *out = (struct tensors){.buffer = buffer, .dtype = dtype};
    return STATUS_OK;
}

/* A pair is whole, or there is none. */
static enum status check_half(const struct pair_half *pair, struct fault *fault)
{
    if (*pair->snapshot > 0 && *pair->member_value == NULL)
        return fault_set(
            fault, STATUS_INVALID_FIELD, "/snapshot_gradients",
            "a step that names a snapshot has two gradients of its batch: \"gradients\" "
            "at the weights now, \"snapshot_gradients\" at those of the snapshot");
    if (*pair->snapshot == 0 && json_is_object(*pair->member_value))
        return fault_set(fault, STATUS_INVALID_FIELD, "/snapshot",
                         "say which snapshot's weights snapshot_gradients were computed at, for "
                         "instance \"snapshot\": 3");
    return STATUS_OK;
}

static enum status read_json(struct request *request, const struct session *session,
                             const struct field *fields, void *out, const char *member,
                             const json_t *const *member_value, struct tensors *tensors,
                             struct pair_half *pair, struct fault *fault)
{
    struct json_document document;
    enum status status;

    status = json_read(request->arena, span_of(request->body->data, request->body->size), &document,
                       fault);
    if (status != STATUS_OK)
        return status;
    if ((status = fields_read(request->arena, &document, document.root, fields, out, fault)) !=
        STATUS_OK)
        goto done;
    if (pair != NULL && (status = check_half(pair, fault)) != STATUS_OK)
        goto done;
    status = read_member(&document, session, member, *member_value, tensors, fault);
    if (status != STATUS_OK || pair == NULL || *pair->member_value == NULL)
        goto done;
    status = read_member(&document, session, "snapshot_gradients", *pair->member_value,
                         &pair->tensors, fault);
    if (status != STATUS_OK)
        buffer_release(tensors->buffer);
done:
    json_close(&document);
    return status;
}

static enum status read_dtype(struct request *request, enum dtype *dtype, struct fault *fault)
{
    const char *name = request_query(request, "dtype");

    if (name == NULL || dtype_find(name, strlen(name), dtype))
        return STATUS_OK;
    return fault_set(fault, STATUS_INVALID_FIELD, "/dtype",
                     "dtype is \"%.40s\"; it must be f64, f32, f16 or bf16", name);
}

static enum status decode_pair(const struct codec *codec, const struct session *session,
                               enum dtype dtype, struct buffer *body, struct tensors *tensors,
                               struct pair_half *pair, struct fault *fault)
{
    struct tensors both[2];
    enum status status;

    if (codec->decode_pair == NULL)
        return fault_set(fault, STATUS_INVALID_FIELD, "/snapshot",
                         "%s has room for one array, and a step that names a snapshot has two "
                         "gradients; send application/octet-stream with one after the other",
                         codec->media_type);
    status = codec->decode_pair(session_layout(session), dtype, body, both, fault);
    if (status == STATUS_OK) {
        *tensors = both[0];
        pair->tensors = both[1];
    }
    return status;
}

static enum status read_body(struct request *request, const struct session *session,
                             const struct field *fields, void *out, const char *member,
                             const json_t *const *member_value, struct tensors *tensors,
                             struct pair_half *pair, struct fault *fault)
{
    const char *type = request_header(request, "Content-Type");
    const struct codec *codec = codec_find(type == NULL ? "application/json" : type);
    enum dtype dtype = session_dtype(session);
    enum status status;

    if ((status = media_check(request, codec != NULL, codec != NULL && !codec->binary,
                              "tensors come", codec_media_types(), fault)) != STATUS_OK)
        return status;
    /* No bytes are a length like any other for the binary types, and never enough. */
    if (request->body == NULL && codec->binary)
        request->body = buffer_new(0);
    if (request->body == NULL)
        return fault_set(fault, STATUS_INVALID_REQUEST, "",
                         "the body is empty; send the tensors in it");
    if (!codec->binary) {
        if ((status = request_query_end(request, fault)) != STATUS_OK)
            return status;
        return read_json(request, session, fields, out, member, member_value, tensors, pair, fault);
    }
    if (strcmp(codec->name, "raw") != 0 && request_query(request, "dtype") != NULL)
        return fault_set(fault, STATUS_INVALID_REQUEST, "",
                         "%s says itself of what type its numbers are; leave dtype out, it goes "
                         "with application/octet-stream",
                         codec->media_type);
    if ((status = read_dtype(request, &dtype, fault)) != STATUS_OK ||
        (status = fields_read_query(request, fields, out, fault)) != STATUS_OK ||
        (status = request_query_end(request, fault)) != STATUS_OK)
        return status;
    if (pair != NULL && *pair->snapshot > 0)
        return decode_pair(codec, session, dtype, request->body, tensors, pair, fault);
    status = codec->decode(session_layout(session), dtype, request->body, tensors, fault);
    if (status != STATUS_OK && fault->where[0] == '/') {
        char prefix[64];
        snprintf(prefix, sizeof prefix, "/%s", member);
        fault_prefix(fault, prefix);
    }
    return status;
}

enum status tensors_read(struct request *request, const struct session *session,
                         const struct field *fields, void *out, const char *member,
                         const json_t *const *member_value, struct tensors *tensors,
                         struct fault *fault)
{
    return read_body(request, session, fields, out, member, member_value, tensors, NULL, fault);
}

enum status tensors_read_pair(struct request *request, const struct session *session,
                              const struct field *fields, void *out, const json_t *const *gradients,
                              struct tensors *tensors, struct pair_half *pair, struct fault *fault)
{
    pair->tensors = (struct tensors){.buffer = NULL};
    return read_body(request, session, fields, out, "gradients", gradients, tensors, pair, fault);
}

/* --- out --- */

static enum status choose_tensors(struct request *request, const struct layout *layout,
                                  struct answer_form *out, struct fault *fault)
{
    const char *list = request_query(request, "tensors");
    size_t count = 1;

    if (list == NULL)
        return STATUS_OK;
    for (const char *c = list; *c != '\0'; c++)
        count += *c == ',';
    out->chosen = arena_take(request->arena, count * sizeof *out->chosen);
    if (out->chosen == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    for (const char *name = list; out->chosen_count < count;) {
        size_t size = strcspn(name, ",");
        const struct tensor *tensor = layout_find(layout, name, size);
        if (tensor == NULL)
            return fault_set(fault, STATUS_UNKNOWN_TENSOR, "/tensors",
                             "the model has no tensor \"%.*s\"; GET the session for their names",
                             (int)(size < 100 ? size : 100), name);
        for (size_t i = 0; i < out->chosen_count; i++)
            if (out->chosen[i] == tensor)
                return fault_set(fault, STATUS_INVALID_FIELD, "/tensors",
                                 "tensor \"%.100s\" is named twice", tensor->name);
        out->chosen[out->chosen_count++] = tensor;
        name += size + 1;
    }
    return STATUS_OK;
}

static enum status read_average(struct request *request, bool *average, struct fault *fault)
{
    const char *kind = request_query(request, "average");

    *average = kind != NULL;
    if (kind == NULL || strcmp(kind, "ema") == 0)
        return STATUS_OK;
    return fault_set(fault, STATUS_INVALID_FIELD, "/average",
                     "average is \"%.40s\"; it must be ema, or left out", kind);
}

enum status answer_form_read(struct request *request, const struct session *session, bool query,
                             struct answer_form *out, struct fault *fault)
{
    const struct layout *layout = session_layout(session);
    size_t numbers = layout->count;
    bool named;
    enum status status;

    *out = (struct answer_form){.dtype = session_dtype(session)};
    out->codec = codec_negotiate(request_list(request, "Accept"), &named);
    if (out->codec == NULL)
        return fault_set(fault, STATUS_NOT_ACCEPTABLE, "", "tensors are served as %s",
                         codec_media_types());
    if (query) {
        if (!out->codec->binary && request_query(request, "dtype") != NULL)
            return fault_set(fault, STATUS_INVALID_REQUEST, "",
                             "dtype goes with a binary type; set Accept, or leave dtype out");
        if ((status = choose_tensors(request, layout, out, fault)) != STATUS_OK ||
            (status = read_dtype(request, &out->dtype, fault)) != STATUS_OK ||
            (status = read_average(request, &out->average, fault)) != STATUS_OK)
            return status;
    }
    if (out->chosen != NULL) {
        numbers = 0;
        for (size_t i = 0; i < out->chosen_count; i++)
            numbers += out->chosen[i]->count;
    }
    if (!out->codec->binary && !named && numbers > JSON_NUMBERS_UNASKED)
        return fault_set(fault, STATUS_NOT_ACCEPTABLE, "",
                         "%zu numbers are too many for JSON unless Accept names application/json; "
                         "better ask for one of %s",
                         numbers, codec_media_types());
    return STATUS_OK;
}

enum status answer_form_of_vector(struct request *request, const struct session *session,
                                  struct answer_form *out, struct fault *fault)
{
    enum status status = answer_form_read(request, session, true, out, fault);

    if (status != STATUS_OK || !out->average)
        return status;
    return fault_set(fault, STATUS_INVALID_REQUEST, "",
                     "a snapshot has no moving average; leave average out");
}

void answer_encoded(struct reply *reply, const struct codec *codec, const struct encoded *encoded)
{
    reply->media_type = codec->media_type;
    reply->head = encoded->head;
    reply->buffer = encoded->buffer;
    reply->offset = encoded->offset;
    reply->size = encoded->size;
    if (!codec->binary)
        reply->tail = span_text("}\n");
}

enum status answer_weights(struct request *request, const struct session *session,
                           const struct answer_form *form, const struct revision *revision,
                           struct buffer *values, struct span opening, struct reply *reply,
                           struct fault *fault)
{
    struct tensors weights = {.buffer = values, .dtype = session_dtype(session)};
    struct encoded encoded;
    const struct text_pair metadata[] = {
        {"step", arena_format(request->arena, "%" PRIu64, revision->step)},
        {"lineage", arena_format(request->arena, "%" PRIu64, revision->lineage)},
        {"session", request->path_parameters[0]},
        {"average", "ema"},
    };
    size_t metadata_count = sizeof metadata / sizeof *metadata - !form->average;
    struct encode_request encode = {.arena = request->arena,
                                    .layout = session_layout(session),
                                    .chosen = form->chosen,
                                    .chosen_count = form->chosen_count,
                                    .tensors = &weights,
                                    .dtype = form->dtype,
                                    .metadata = metadata,
                                    .metadata_count = metadata_count,
                                    .opening = opening};

    if (metadata[0].value == NULL || metadata[1].value == NULL || opening.data == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    enum status status = form->codec->encode(&encode, &encoded, fault);
    if (status != STATUS_OK)
        return status;
    answer_encoded(reply, form->codec, &encoded);
    reply->ranges = form->codec->binary;
    return STATUS_OK;
}

/* --- receipts --- */

static void write_receipt(struct json_text *text, const struct receipt *receipt, bool dry_run)
{
    json_text_open(text, '{');
    receipt_write(text, receipt);
    if (dry_run)
        json_text_member_bool(text, "dry_run", true);
}

static struct reply receipt_reply(struct request *request, const struct receipt *receipt,
                                  bool dry_run)
{
    struct json_text text;

    json_text_init(&text, request->arena);
    write_receipt(&text, receipt, dry_run);
    json_text_close(&text, '}');
    return reply_json(200, json_text_end(&text));
}

/* The receipt with the weights. False when they cannot be written, for instance for want of memory.
 */
static bool weights_reply(struct request *request, const struct session *session,
                          const struct outcome *outcome, bool dry_run,
                          const struct answer_form *form, struct reply *reply)
{
    struct json_text text;
    struct fault fault;

    json_text_init(&text, request->arena);
    write_receipt(&text, &outcome->receipt, dry_run);
    json_text_member_u64(&text, "parameters_step", outcome->revision->step);
    json_text_key(&text, "parameters");
    *reply = (struct reply){.http = 200};
    if (answer_weights(request, session, form, outcome->revision, outcome->revision->weights,
                       json_text_end(&text), reply, &fault) != STATUS_OK)
        return false;
    reply_header(reply, "Preference-Applied", "return=representation");
    reply_header(reply, "Vary", "Accept");
    if (form->codec->binary)
        receipt_headers(request->arena, reply, &outcome->receipt);
    if (form->codec->binary && dry_run)
        reply_header(reply, "Descent-Dry-Run", "true");
    return true;
}

struct reply outcome_reply(struct request *request, const struct session *session,
                           const struct outcome *outcome, bool dry_run,
                           const struct answer_form *form)
{
    bool weights = form != NULL;
    struct reply reply;

    /* The step stands, so its receipt must go out; a preference may be left unmet. */
    if (weights)
        weights = weights_reply(request, session, outcome, dry_run, form, &reply);
    if (!weights)
        reply = receipt_reply(request, &outcome->receipt, dry_run);
    /* The tag names the weights that are sent: those of a replayed step may be gone. */
    if (!dry_run)
        reply_header(
            &reply, "ETag",
            weights ? etag_text(request->arena, outcome->revision->lineage, outcome->revision->step)
                    : etag_text(request->arena, outcome->receipt.lineage, outcome->receipt.step));
    if (outcome->replayed)
        reply_header(&reply, "Idempotency-Replayed", "true");
    revision_release(outcome->revision);
    return reply;
}
