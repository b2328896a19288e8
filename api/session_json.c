/* Sessions and receipts as JSON. */
#include "api/session_json.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/coding.h"
#include "api/fields.h"
#include "api/json_numbers.h"
#include "api/spec_json.h"
#include "api/waiting.h"
#include "service/core/clock.h"
#include "service/core/contract.h"
#include "service/core/number.h"

/* --- receipts --- */

#define PLACE(member) .offset = offsetof(struct receipt, member)

static const char *const receipt_kinds[] = {
    [RECEIPT_NONE] = "none",         [RECEIPT_APPLIED] = "applied", [RECEIPT_SKIPPED] = "skipped",
    [RECEIPT_REPLACED] = "replaced", [RECEIPT_WAITING] = "waiting", NULL};

static const struct field receipt_fields[] = {
    {"status", FIELD_CHOICE, PLACE(kind), .choices = receipt_kinds},
    {"step", FIELD_U64, PLACE(step)},
    {"lineage", FIELD_U64, PLACE(lineage)},
    {"durable_step", FIELD_U64, PLACE(durable_step)},
    {"base_step", FIELD_U64, PLACE(base_step)},
    {"staleness", FIELD_U64, PLACE(staleness)},
    {"lr", FIELD_F64, PLACE(lr)},
    {"grad_norm", FIELD_F64, PLACE(grad_norm)},
    {"clip_scale", FIELD_F64, PLACE(clip_scale)},
    {"update_norm", FIELD_F64, PLACE(update_norm)},
    {"param_norm", FIELD_F64, PLACE(param_norm)},
    {"loss", FIELD_F64, PLACE(loss)},
    {.name = NULL},
};

void receipt_write(struct json_text *text, const struct receipt *receipt)
{
    char hash[DIGEST_TEXT_BYTES];

    PRE(receipt->kind != RECEIPT_NONE);
    fields_write(text, receipt_fields, receipt);
    if (receipt->expected > 1) {
        json_text_member_u64(text, "received", receipt->received);
        json_text_member_u64(text, "expected", receipt->expected);
    }
    if (receipt->snapshot > 0)
        json_text_member_u64(text, "snapshot", receipt->snapshot);
    if (receipt->counts_due)
        json_text_member_bool(text, "snapshot_due", receipt->due);
    if (receipt->hashed)
        json_text_member_string(text, "state_hash", digest_text(hash, &receipt->state_hash));
}

/* "durable_step" as "Descent-Durable-Step", in the arena. */
static const char *header_name(struct arena *arena, const char *member)
{
    char *name = arena_format(arena, "Descent-%s", member);

    for (char *c = name; c != NULL && *c != '\0'; c++) {
        if (*c == '_')
            *c = '-';
        if (c > name && c[-1] == '-')
            *c = (char)toupper((unsigned char)*c);
    }
    return name;
}

static const char *header_number(struct arena *arena, double value)
{
    char *text = arena_take(arena, NUMBER_TEXT_BYTES);

    if (text != NULL)
        *number_write_f64(text, value) = '\0';
    return text;
}

void receipt_headers(struct arena *arena, struct reply *reply, const struct receipt *receipt)
{
    char hash[DIGEST_TEXT_BYTES];

    for (const struct field *field = receipt_fields; field->name != NULL; field++) {
        const void *place = (const char *)receipt + field->offset;
        const char *name = header_name(arena, field->name), *value = NULL;
        if (field->kind == FIELD_CHOICE)
            value = field->choices[*(const int *)place];
        else if (field->kind == FIELD_U64)
            value = arena_format(arena, "%" PRIu64, *(const uint64_t *)place);
        else if (!isnan(*(const double *)place))
            value = header_number(arena, *(const double *)place);
        if (name != NULL)
            reply_header(reply, name, value);
    }
    if (receipt->expected > 1) {
        reply_header(reply, "Descent-Received", arena_format(arena, "%" PRIu64, receipt->received));
        reply_header(reply, "Descent-Expected", arena_format(arena, "%" PRIu64, receipt->expected));
    }
    if (receipt->snapshot > 0)
        reply_header(reply, "Descent-Snapshot", arena_format(arena, "%" PRIu64, receipt->snapshot));
    if (receipt->counts_due)
        reply_header(reply, "Descent-Snapshot-Due", receipt->due ? "true" : "false");
    if (receipt->hashed)
        reply_header(reply, "Descent-State-Hash",
                     arena_copy(arena, digest_text(hash, &receipt->state_hash), sizeof hash - 1));
}

/* --- sessions --- */

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

static void write_parent(struct json_text *text, const struct session_view *view)
{
    json_text_key(text, "parent");
    if (view->parent[0] == '\0') {
        json_text_null(text);
        return;
    }
    json_text_open(text, '{');
    json_text_member_string(text, "id", view->parent);
    json_text_member_u64(text, "step", view->parent_moment.step);
    json_text_member_u64(text, "lineage", view->parent_moment.lineage);
    json_text_close(text, '}');
}

static void write_snapshot(struct json_text *text, const struct session_view *view)
{
    json_text_key(text, "snapshot");
    if (view->snapshot == 0) {
        json_text_null(text);
        return;
    }
    json_text_open(text, '{');
    json_text_member_u64(text, "snapshot", view->snapshot);
    json_text_member_string(text, "status", view->snapshot_ready ? "ready" : "collecting");
    json_text_close(text, '}');
}

void session_members_write(struct json_text *text, const struct session *session,
                           const struct session_view *view, bool brief)
{
    const struct layout *layout = session_layout(session);
    char time[32];

    json_text_member_string(text, "id", view->id);
    json_text_member_string(text, "created_at", clock_format(time, view->created_us));
    json_text_member_u64(text, "step", view->step);
    json_text_member_u64(text, "durable_step", view->durable_step);
    json_text_member_u64(text, "lineage", view->lineage);
    json_text_member_u64(text, "parameter_count", layout->count);
    spec_write(text, &view->spec);
    write_parent(text, view);
    if (!brief) {
        write_tensors(text, layout);
        round_write(text, view);
        write_snapshot(text, view);
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
}

void session_write(struct json_text *text, const struct session *session,
                   const struct session_view *view, bool brief)
{
    json_text_open(text, '{');
    session_members_write(text, session, view, brief);
    json_text_close(text, '}');
}

char *digest_text(char out[DIGEST_TEXT_BYTES], const struct digest *digest)
{
    number_hex(out, digest->bytes, sizeof digest->bytes);
    out[2 * sizeof digest->bytes] = '\0';
    return out;
}

const char *etag_text(struct arena *arena, uint64_t lineage, uint64_t step)
{
    char text[2 * NUMBER_BYTES] = "\"";
    size_t used = 1 + number_digits(text + 1, lineage);

    text[used++] = '-';
    used += number_digits(text + used, step);
    text[used++] = '"';
    return arena_copy(arena, text, used);
}

/* What follows a tag's own text in the tag of its coded form, and its closing quote: "-zstd\"".
 * NULL: `rest` is no such thing. *coding is NULL for the plain form. */
static const char *tag_end(const char *rest, const struct coding **coding)
{
    *coding = NULL;
    for (size_t i = 0; *rest == '-' && (*coding = coding_at(i)) != NULL; i++) {
        size_t size = strlen((*coding)->name);
        if (strncmp(rest + 1, (*coding)->name, size) == 0 && rest[1 + size] == '"')
            return rest + size + 2;
    }
    return *rest == '"' ? rest + 1 : NULL;
}

/* Which of the tags of a list is that of this answer: `etag`, or that of a coded form that `accept`
 * takes. NULL: none. */
static const char *find_tag(const struct request *request, const char *list, const char *accept,
                            const char *etag, bool weak)
{
    size_t size = strlen(etag) - 1; /* without its closing quote */

    for (const char *at = list; *at != '\0';) {
        const struct coding *coding;
        at += strspn(at, " \t,");
        if (*at == '*')
            return etag;
        if (weak && strncmp(at, "W/", 2) == 0)
            at += 2;
        const char *end = strncmp(at, etag, size) == 0 ? tag_end(at + size, &coding) : NULL;
        if (end != NULL && coding_quality(accept, coding) > 0)
            return coding == NULL ? etag : arena_copy(request->arena, at, (size_t)(end - at));
        if (*at == '"') {
            at++;
            at += strcspn(at, "\"");
            at += *at == '"'; /* it may not be closed */
        } else {
            at += strcspn(at, ",");
        }
    }
    return NULL;
}

const char *etag_none_match(const struct request *request, const char *etag)
{
    const char *list = request_list(request, "If-None-Match");

    if (list == NULL)
        return NULL;
    return find_tag(request, list, request_list(request, "Accept-Encoding"), etag, true);
}

enum status etag_match(const struct request *request, const char *etag, uint64_t step,
                       struct fault *fault)
{
    const char *list = request_list(request, "If-Match"), *accept = NULL;

    if (request_header(request, "Range") == NULL) /* a part is of the plain form */
        accept = request_list(request, "Accept-Encoding");
    if (list == NULL || find_tag(request, list, accept, etag, false) != NULL)
        return STATUS_OK;
    fault_set(fault, STATUS_STEP_CONFLICT, "",
              "the tag here is %s, which If-Match does not name; fetch it whole", etag);
    return fault_extra(fault, "current_step", step);
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

/* Only as it is written: a tag is compared by its bytes. */
static bool take_number(const char **at, uint64_t *out)
{
    size_t size = strspn(*at, "0123456789");

    if (size == 0 || size > 19 || (size > 1 && **at == '0'))
        return false;
    *out = strtoull(*at, NULL, 10);
    *at += size;
    return true;
}

void precondition_read(const struct request *request, struct precondition *out)
{
    const char *at = request_list(request, "If-Match");

    *out = (struct precondition){.given = false};
    if (at == NULL || strcmp(at, "*") == 0)
        return;
    out->given = true;
    while (*at != '\0' && out->count < PRECONDITION_TAGS_MAX) {
        const struct coding *coding;
        uint64_t lineage, step;
        const char *rest = at + 1;
        if (*at == '"' && take_number(&rest, &lineage) && *rest++ == '-' &&
            take_number(&rest, &step) && tag_end(rest, &coding) != NULL) {
            out->tags[out->count].lineage = lineage;
            out->tags[out->count++].step = step;
        }
        at += strcspn(at, ",");
        at += strspn(at, ", \t");
    }
}

struct owner request_owner(const struct request *request)
{
    struct owner owner = {.tenant = request->tenant};

    if (request->quotas != NULL) {
        owner.sessions_max = request->quotas->sessions;
        owner.parameters_max = request->quotas->parameters;
    }
    return owner;
}

enum status request_session(struct engine *engine, const struct request *request,
                            struct session **out, struct fault *fault)
{
    if (!session_id_valid(request->path_parameters[0]))
        return fault_set(fault, STATUS_SESSION_NOT_FOUND, "",
                         "no session can have this id; ids are [a-z0-9][a-z0-9_-]{0,63}");
    return engine_find(engine, request->tenant, request->path_parameters[0], out, fault);
}

struct reply session_serve(struct engine *engine, struct request *request,
                           enum status (*serve)(struct request *request, struct session *session,
                                                struct reply *reply, struct fault *fault))
{
    struct session *session;
    struct reply reply;
    struct fault fault;

    if (request_session(engine, request, &session, &fault) != STATUS_OK)
        return reply_fault(request, &fault);
    if (serve(request, session, &reply, &fault) != STATUS_OK)
        reply = reply_fault(request, &fault);
    session_release(session);
    return reply;
}
