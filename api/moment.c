/* The revision that a request asks for. */
#include "api/moment.h"

enum status moment_settle(struct moment_choice *choice, const struct moment_query **out,
                          struct fault *fault)
{
    choice->query.has_lineage = choice->has_lineage;
    *out = choice->has_step ? &choice->query : NULL;
    if (choice->has_lineage && !choice->has_step)
        return fault_set(fault, STATUS_INVALID_FIELD, "/lineage",
                         "lineage goes with a step: say which one of that line");
    return STATUS_OK;
}

enum status moment_read(struct request *request, struct moment_choice *choice,
                        const struct moment_query **out, struct fault *fault)
{
    static const struct field fields[] = {
        {"step", FIELD_U64, .offset = offsetof(struct moment_choice, query.step),
         .max = 9007199254740991, .present = offsetof(struct moment_choice, has_step)},
        {"lineage", FIELD_U64, .offset = offsetof(struct moment_choice, query.lineage),
         .max = 9007199254740991, .present = offsetof(struct moment_choice, has_lineage)},
        {.name = NULL},
    };

    *choice = (struct moment_choice){.has_step = false};
    enum status status = fields_read_query(request, fields, choice, fault);
    return status == STATUS_OK ? moment_settle(choice, out, fault) : status;
}
