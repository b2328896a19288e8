/* Sessions and receipts as JSON. */
#include "api/session_json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/spec_json.h"
#include "service/core/clock.h"
#include "service/core/contract.h"

static void write_tensors(struct json_text *text, const struct layout *layout)
{
    json_text_key(text, "tensors");
    json_text_open(text, '[');
    for (size_t i = 0; i < layout->tensor_count; i++) {
        json_text_open(text, '{');
        json_text_member_string(text, "name", layout->tensors[i].name);
        json_text_key(text, "shape");
        json_text_open(text, '[');
        for (unsigned k = 0; k < layout->tensors[i].rank; k++)
            json_text_u64(text, layout->tensors[i].shape[k]);
        json_text_close(text, ']');
        json_text_close(text, '}');
    }
    json_text_close(text, ']');
}

void receipt_write(struct json_text *text, const struct receipt *receipt)
{
    static const char *const kinds[] = {[RECEIPT_APPLIED] = "applied",
                                        [RECEIPT_SKIPPED] = "skipped",
                                        [RECEIPT_REPLACED] = "replaced"};

    PRE(receipt->kind != RECEIPT_NONE);
    json_text_member_string(text, "status", kinds[receipt->kind]);
    json_text_member_u64(text, "step", receipt->step);
    json_text_member_u64(text, "lineage", receipt->lineage);
    json_text_member_u64(text, "durable_step", receipt->durable_step);
    json_text_member_u64(text, "base_step", receipt->base_step);
    json_text_member_u64(text, "staleness", receipt->staleness);
    json_text_member_f64(text, "lr", receipt->lr);
    json_text_member_f64(text, "grad_norm", receipt->grad_norm);
    json_text_member_f64(text, "clip_scale", receipt->clip_scale);
    json_text_member_f64(text, "update_norm", receipt->update_norm);
    json_text_member_f64(text, "param_norm", receipt->param_norm);
    json_text_member_f64(text, "loss", receipt->loss);
}

void session_write(struct json_text *text, const struct session *session,
                   const struct session_view *view, bool brief)
{
    const struct layout *layout = session_layout(session);
    char time[32];

    json_text_open(text, '{');
    json_text_member_string(text, "id", view->id);
    json_text_member_string(text, "created_at", clock_format(time, view->created_us));
    json_text_member_u64(text, "step", view->step);
    json_text_member_u64(text, "durable_step", view->durable_step);
    json_text_member_u64(text, "lineage", view->lineage);
    json_text_member_u64(text, "parameter_count", layout->count);
    spec_write(text, &view->spec);
    json_text_key(text, "parent");
    json_text_null(text);
    if (!brief) {
        write_tensors(text, layout);
        json_text_member_string(text, "cursor", view->has_cursor ? view->cursor : NULL);
        json_text_key(text, "last");
        if (view->last.kind == RECEIPT_NONE) {
            json_text_null(text);
        } else {
            json_text_open(text, '{');
            receipt_write(text, &view->last);
            json_text_close(text, '}');
        }
    }
    json_text_close(text, '}');
}

const char *etag_text(struct arena *arena, uint64_t lineage, uint64_t step)
{
    return arena_format(arena, "\"%" PRIu64 "-%" PRIu64 "\"", lineage, step);
}

struct reply session_reply(struct request *request, struct session *session, unsigned http)
{
    struct session_view *view = arena_take(request->arena, sizeof *view);
    struct json_text text;
    struct fault fault;

    if (view == NULL) {
        fault_set(&fault, STATUS_INTERNAL, "", "out of memory");
        return reply_fault(request, &fault);
    }
    if (session_view(session, false, view, &fault) != STATUS_OK)
        return reply_fault(request, &fault);
    json_text_init(&text, request->arena);
    session_write(&text, session, view, false);
    struct reply reply = reply_json(http, json_text_end(&text));
    if (http == 201)
        reply_header(&reply, "Location", arena_format(request->arena, "/v1/sessions/%s", view->id));
    return reply;
}

void precondition_read(const struct request *request, struct precondition *out)
{
    const char *at = request_header(request, "If-Match");

    *out = (struct precondition){.given = false};
    if (at == NULL || strcmp(at, "*") == 0)
        return;
    out->given = true;
    while (*at != '\0' && out->count < PRECONDITION_TAGS_MAX) {
        uint64_t lineage, step;
        int used = 0;
        if (sscanf(at, "\"%" SCNu64 "-%" SCNu64 "\"%n", &lineage, &step, &used) == 2 && used > 0) {
            out->tags[out->count].lineage = lineage;
            out->tags[out->count++].step = step;
        }
        at += strcspn(at, ",");
        at += strspn(at, ", \t");
    }
}

enum status request_session(struct engine *engine, const struct request *request,
                            struct session **out, struct fault *fault)
{
    if (!session_id_valid(request->path_parameters[0]))
        return fault_set(fault, STATUS_SESSION_NOT_FOUND, "",
                         "no session can have this id; ids are [a-z0-9][a-z0-9_-]{0,63}");
    return engine_find(engine, request->path_parameters[0], out, fault);
}
