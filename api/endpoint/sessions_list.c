/* GET /v1/sessions?page_size=&page_token=: sessions in id order, page by page. The token is the
 * last id of the page before. */
#include "api/fields.h"
#include "api/router.h"
#include "api/session_json.h"

enum { PAGE_MAX = 500 };

struct page {
    uint64_t size;
    const char *token;
};

static const struct field fields[] = {
    {"page_size", FIELD_U64, .offset = offsetof(struct page, size), .min = 1, .max = PAGE_MAX},
    {"page_token", FIELD_TEXT, .offset = offsetof(struct page, token), .max = SESSION_ID_BYTES},
    {.name = NULL},
};

struct reply serve_sessions_list(struct engine *engine, struct request *request)
{
    struct page page = {.size = 50, .token = ""};
    struct session *sessions[PAGE_MAX];
    struct session_view *view = arena_take(request->arena, sizeof *view);
    struct json_text text;
    struct fault fault;
    bool more;

    if (view == NULL) {
        fault_set(&fault, STATUS_INTERNAL, "", "out of memory");
        return reply_fault(request, &fault);
    }
    if (fields_read_query(request, fields, &page, &fault) != STATUS_OK ||
        request_query_end(request, &fault) != STATUS_OK)
        return reply_fault(request, &fault);
    if (page.token[0] != '\0' && !session_id_valid(page.token)) {
        fault_set(&fault, STATUS_INVALID_FIELD, "/page_token",
                  "page_token must be the next_page_token of the page before");
        return reply_fault(request, &fault);
    }
    size_t count = engine_list(engine, request->tenant, page.token, sessions, page.size, &more);
    json_text_init(&text, request->arena);
    json_text_open(&text, '{');
    json_text_key(&text, "sessions");
    json_text_open(&text, '[');
    view->id[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        if (session_view(sessions[i], true, view, &fault) == STATUS_OK)
            session_write(&text, sessions[i], view, true);
        session_release(sessions[i]);
    }
    json_text_close(&text, ']');
    json_text_member_string(&text, "next_page_token", more && count > 0 ? view->id : NULL);
    json_text_close(&text, '}');
    return reply_json(200, json_text_end(&text));
}
