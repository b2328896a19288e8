/* Requests that wait. */
#include "api/waiting.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "api/config.h"

enum { WAIT_DIGITS_MAX = 9 };

uint64_t waiting_preferred_s(const struct request *request)
{
    const char *text = request_prefer(request, "wait");
    uint64_t max = request->config->wait_s_max;

    if (text == NULL || *text == '\0' || strspn(text, "0123456789") != strlen(text))
        return 0;
    uint64_t wanted = strlen(text) > WAIT_DIGITS_MAX ? max : strtoull(text, NULL, 10);
    return wanted < max ? wanted : max;
}

void waiting_applied(struct request *request, struct reply *reply, uint64_t wait_s)
{
    if (wait_s > 0)
        reply_header(reply, "Preference-Applied",
                     arena_format(request->arena, "wait=%" PRIu64, wait_s));
}

struct reply waiting_reply(struct request *request, const struct outcome *outcome,
                           const char *worker, bool dry_run)
{
    const struct receipt *receipt = &outcome->receipt;
    struct json_text text;

    json_text_init(&text, request->arena);
    json_text_open(&text, '{');
    json_text_member_string(&text, "status", "waiting");
    json_text_member_u64(&text, "round", receipt->step);
    json_text_member_u64(&text, "received", receipt->received);
    json_text_member_u64(&text, "expected", receipt->expected);
    json_text_member_u64(&text, "lineage", receipt->lineage);
    json_text_member_u64(&text, "durable_step", receipt->durable_step);
    json_text_member_u64(&text, "base_step", receipt->base_step);
    if (worker != NULL)
        json_text_member_string(&text, "worker", worker);
    if (dry_run)
        json_text_member_bool(&text, "dry_run", true);
    json_text_close(&text, '}');
    struct reply reply = reply_json(dry_run ? 200 : 202, json_text_end(&text));
    if (outcome->replayed)
        reply_header(&reply, "Idempotency-Replayed", "true");
    return reply;
}

void round_write(struct json_text *text, const struct session_view *view)
{
    uint64_t expected = spec_round_size(&view->spec);

    json_text_key(text, "round");
    if (expected == 1) {
        json_text_null(text);
        return;
    }
    json_text_open(text, '{');
    json_text_member_u64(text, "round", view->step + 1);
    json_text_member_u64(text, "received", view->round_received);
    json_text_member_u64(text, "expected", expected);
    json_text_close(text, '}');
}
