/* GET /v1/sessions/{id}/hash: the hash of a revision's whole state. */
#include "api/moment.h"
#include "api/router.h"
#include "api/session_json.h"

static enum status get(struct request *request, struct session *session, struct reply *reply,
                       struct fault *fault)
{
    const struct moment_query *query;
    struct moment_choice choice;
    struct moment moment;
    struct digest digest;
    struct json_text text;
    char hash[DIGEST_TEXT_BYTES];
    enum status status;

    if ((status = moment_read(request, &choice, &query, fault)) != STATUS_OK ||
        (status = request_query_end(request, fault)) != STATUS_OK ||
        (status = session_hash(session, query, &moment, &digest, fault)) != STATUS_OK)
        return status;
    json_text_init(&text, request->arena);
    json_text_open(&text, '{');
    json_text_member_u64(&text, "step", moment.step);
    json_text_member_u64(&text, "lineage", moment.lineage);
    json_text_member_string(&text, "state_hash", digest_text(hash, &digest));
    json_text_close(&text, '}');
    *reply = reply_json(200, json_text_end(&text));
    return STATUS_OK;
}

struct reply serve_hash_get(struct engine *engine, struct request *request)
{
    return session_serve(engine, request, get);
}
