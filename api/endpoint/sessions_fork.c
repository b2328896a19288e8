/* POST /v1/sessions/{id}/forks: a new session that goes on from a revision of this one. */
#include <string.h>

#include "api/json_body.h"
#include "api/moment.h"
#include "api/router.h"
#include "api/session_json.h"
#include "api/spec_json.h"

struct body {
    const json_t *unread;
    struct moment_choice at;
    const char *id;
    int state; /* enum fork_state */
    bool replay;
};

#define PLACE(member) .offset = offsetof(struct body, member)
#define CONFIGURATION(name)                                                                        \
    {                                                                                              \
        name, FIELD_VALUE, PLACE(unread)                                                           \
    }

static const char *const states[] = {"keep", "reset", NULL};

static const struct field fields[] = {
    MOMENT_FIELDS(struct body, at),
    {"id", FIELD_TEXT, PLACE(id), .max = SESSION_ID_BYTES, .nullable = true},
    {"state", FIELD_CHOICE, PLACE(state), .choices = states},
    {"replay", FIELD_FLAG, PLACE(replay)},
    CONFIGURATION("optimizer"),
    CONFIGURATION("schedule"),
    CONFIGURATION("gradient"),
    CONFIGURATION("aggregation"),
    CONFIGURATION("svrg"),
    CONFIGURATION("durability"),
    CONFIGURATION("history"),
    CONFIGURATION("hash_every"),
    CONFIGURATION("labels"),
    {.name = NULL},
};

struct change {
    struct arena *arena;
    const struct json_document *document;
};

static enum status change(void *context, struct spec *spec, struct fault *fault)
{
    const struct change *made = context;

    return spec_fork(made->arena, made->document, spec, fault);
}

static enum status fork_session(struct request *request, struct session *session, bool *replay,
                                struct session **out, struct fork_outcome *outcome,
                                struct fault *fault)
{
    struct body body = {.id = NULL};
    struct fork_request wanted = {.change = change};
    struct owner owner = request_owner(request);
    struct json_document document;
    enum status status = json_body_read(request, "{\"step\": 100}", &document, fault);

    if (status != STATUS_OK)
        return status;
    struct change made = {request->arena, &document};
    if ((status = fields_read(request->arena, &document, document.root, fields, &body, fault)) !=
            STATUS_OK ||
        (status = moment_settle(&body.at, &wanted.query, fault)) != STATUS_OK)
        goto done;
    if (body.id != NULL && !session_id_valid(body.id)) {
        status = fault_set(fault, STATUS_INVALID_FIELD, "/id",
                           "\"%.80s\" cannot be a session's id; use 1 to 64 of a-z, 0-9, _ and -, "
                           "beginning with a letter or digit",
                           body.id);
        goto done;
    }
    wanted.id = body.id;
    wanted.context = &made;
    wanted.state = (enum fork_state)body.state;
    wanted.replay = *replay = body.replay;
    wanted.owner = &owner;
    status = session_fork(session, &wanted, out, outcome, fault);
done:
    json_close(&document);
    return status;
}

/* A slot that was dropped may have the name of a new one. */
static bool is_named_before(const struct fork_outcome *outcome, size_t index)
{
    for (size_t i = 0; i < index; i++)
        if (strcmp(outcome->slots[i].name, outcome->slots[index].name) == 0)
            return true;
    return false;
}

static void write_fork(struct json_text *text, const struct fork_outcome *outcome, bool replay)
{
    static const char *const words[] = {
        [FORK_KEPT] = "kept", [FORK_CONVERTED] = "converted", [FORK_FRESH] = "reset"};
    static const char *const fates[] = {
        [FORK_SLOT_KEPT] = "kept", [FORK_SLOT_FRESH] = "fresh", [FORK_SLOT_DROPPED] = "dropped"};

    json_text_key(text, "fork");
    json_text_open(text, '{');
    json_text_member_string(text, "state", words[outcome->state]);
    json_text_key(text, "slots");
    json_text_open(text, '{');
    for (size_t i = 0; i < outcome->slot_count; i++)
        if (!is_named_before(outcome, i))
            json_text_member_string(text, outcome->slots[i].name, fates[outcome->slots[i].fate]);
    json_text_close(text, '}');
    json_text_member_u64(text, "replayed", outcome->replayed);
    if (replay)
        json_text_member_bool(text, "off_policy", true);
    json_text_close(text, '}');
}

static struct reply answer(struct request *request, struct session *fork,
                           const struct fork_outcome *outcome, bool replay)
{
    struct session_view *view = arena_take(request->arena, sizeof *view);
    struct json_text text;
    struct fault fault;

    if (view == NULL) {
        fault_set(&fault, STATUS_INTERNAL, "", "out of memory");
        return reply_fault(request, &fault);
    }
    if (session_view(fork, false, view, &fault) != STATUS_OK)
        return reply_fault(request, &fault);
    json_text_init(&text, request->arena);
    json_text_open(&text, '{');
    session_members_write(&text, fork, view, false);
    write_fork(&text, outcome, replay);
    json_text_close(&text, '}');
    struct reply reply = reply_json(201, json_text_end(&text));
    reply_header(&reply, "Location", arena_format(request->arena, "/v1/sessions/%s", view->id));
    return reply;
}

struct reply serve_sessions_fork(struct engine *engine, struct request *request)
{
    struct session *session, *fork;
    struct fork_outcome outcome;
    struct reply reply;
    struct fault fault;
    bool replay = false;

    if (request_session(engine, request, &session, &fault) != STATUS_OK)
        return reply_fault(request, &fault);
    if (fork_session(request, session, &replay, &fork, &outcome, &fault) == STATUS_OK) {
        reply = answer(request, fork, &outcome, replay);
        session_release(fork);
    } else {
        reply = reply_fault(request, &fault);
    }
    session_release(session);
    return reply;
}
