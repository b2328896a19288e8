/* Snapshots in addresses and answers. */
#include "api/snapshot_json.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/fields.h"
#include "service/core/clock.h"

enum status snapshot_number(const struct request *request, uint64_t *number, struct fault *fault)
{
    const char *text = request->path_parameters[1];
    size_t size = strlen(text);

    *number = strtoull(text, NULL, 10);
    if (size > 0 && size <= 19 && strspn(text, "0123456789") == size && *number > 0)
        return STATUS_OK;
    return fault_set(fault, STATUS_SNAPSHOT_NOT_FOUND, "",
                     "no snapshot can have this number; GET the session's /snapshots for the one "
                     "that is kept");
}

#define PLACE(member) .offset = offsetof(struct snapshot_view, member)
static const struct field snapshot_fields[] = {
    {"workers", FIELD_U64, PLACE(workers_expected), .nullable = true},
    {"workers_received", FIELD_U64, PLACE(workers)},
    {"examples_expected", FIELD_F64, PLACE(examples_expected), .nullable = true},
    {"examples", FIELD_F64, PLACE(examples)},
    {"parts", FIELD_U64, PLACE(parts)},
    {.name = NULL},
};

void snapshot_write(struct json_text *text, const struct snapshot_view *view)
{
    char time[32];

    json_text_open(text, '{');
    json_text_member_u64(text, "snapshot", view->number);
    json_text_member_u64(text, "step", view->step);
    json_text_member_u64(text, "lineage", view->lineage);
    json_text_member_string(text, "status", view->ready ? "ready" : "collecting");
    fields_write(text, snapshot_fields, view);
    json_text_member_string(text, "created_at", clock_format(time, view->created_us));
    json_text_close(text, '}');
}

struct reply snapshot_reply(const struct request *request, const struct snapshot_view *view,
                            unsigned http)
{
    struct json_text text;

    json_text_init(&text, request->arena);
    snapshot_write(&text, view);
    struct reply reply = reply_json(http, json_text_end(&text));
    if (http == 201)
        reply_header(&reply, "Location",
                     arena_format(request->arena, "/v1/sessions/%s/snapshots/%" PRIu64,
                                  request->path_parameters[0], view->number));
    return reply;
}
