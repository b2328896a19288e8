/* Parts of a layout. */
#include "service/session/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/core/glob.h"

/* The first names of a layout, for people. */
static void list_tensors(const struct layout *layout, char *out, size_t size)
{
    size_t used = 0;

    out[0] = '\0';
    for (size_t i = 0; i < layout->tensor_count && used + 80 < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%.64s", i > 0 ? ", " : "",
                                 layout->tensors[i].name);
    if (used + 80 >= size)
        snprintf(out + used, size - used, " ...");
}

static enum status matches_nothing(const struct layout *layout, size_t group, size_t index,
                                   const char *pattern, struct fault *fault)
{
    char where[48], known[320];

    snprintf(where, sizeof where, "/groups/%zu/tensors/%zu", group, index);
    list_tensors(layout, known, sizeof known);
    return fault_set(fault, STATUS_INVALID_FIELD, where,
                     "no tensor is named like \"%.100s\"; there are: %s", pattern, known);
}

/* Group number of every tensor, or GROUPS_MAX: none. The first group with a pattern that matches
 * wins; a pattern that matches only what an earlier one has taken is fine. */
static enum status assign_groups(const struct spec *spec, const struct layout *layout,
                                 unsigned char *group_of, struct fault *fault)
{
    const char *pattern = spec->groups.patterns;

    memset(group_of, GROUPS_MAX, layout->tensor_count);
    for (size_t g = 0; g < spec->groups.count; g++)
        for (size_t k = 0; k < spec->groups.group[g].pattern_count; k++) {
            bool any = false;
            for (size_t i = 0; i < layout->tensor_count; i++) {
                if (!glob_match(pattern, layout->tensors[i].name))
                    continue;
                any = true;
                if (group_of[i] == GROUPS_MAX)
                    group_of[i] = (unsigned char)g;
            }
            if (!any)
                return matches_nothing(layout, g, k, pattern, fault);
            pattern += strlen(pattern) + 1;
        }
    return STATUS_OK;
}

static bool same_group(const struct part *part, const struct group *group)
{
    return part->lr_mult == group->lr_mult && part->weight_decay_mult == group->weight_decay_mult &&
           part->adapt == group->adapt;
}

static void add_part(struct plan *plan, size_t index, const struct group *group)
{
    const struct tensor *tensor = &plan->layout->tensors[index];
    const struct optimizer *rule = plan->rule;
    bool whole = rule->update_tensor != NULL;
    struct part *last = plan->part_count == 0 ? NULL : &plan->parts[plan->part_count - 1];

    if (tensor->count == 0)
        return;
    if (!whole && last != NULL && same_group(last, group)) {
        last->count += tensor->count; /* what was between them is empty */
        last->tensor_count = index + 1 - last->tensor_start;
    } else {
        struct part *part = &plan->parts[plan->part_count++];
        *part = (struct part){.tensor = whole ? tensor : NULL,
                              .tensor_start = index,
                              .tensor_count = 1,
                              .start = tensor->offset,
                              .count = tensor->count,
                              .lr_mult = group->lr_mult,
                              .weight_decay_mult = group->weight_decay_mult,
                              .adapt = group->adapt,
                              .proposal_start = plan->proposal_count};
        for (size_t k = 0; k < rule->slot_count; k++)
            part->slot_start[k] = plan->slot_count[k];
    }
    for (size_t k = 0; k < rule->slot_count; k++)
        plan->slot_count[k] += slot_extent(&rule->slots[k], tensor);
    if (rule->proposal_extent != NULL)
        plan->proposal_count += rule->proposal_extent(tensor);
    size_t workspace = rule->workspace == NULL ? 0 : rule->workspace(tensor);
    if (workspace > plan->workspace)
        plan->workspace = workspace;
}

enum status plan_new(const struct spec *spec, const struct layout *layout, struct plan **out,
                     struct fault *fault)
{
    static const struct group no_group = {.lr_mult = 1, .weight_decay_mult = 1, .adapt = true};
    struct plan *plan = calloc(1, sizeof *plan);
    struct part *parts = calloc(layout->tensor_count, sizeof *parts);
    unsigned char *group_of = malloc(layout->tensor_count);
    enum status status;

    if (plan == NULL || parts == NULL || group_of == NULL)
        status = fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    else
        status = assign_groups(spec, layout, group_of, fault);
    if (status == STATUS_OK) {
        plan->rule = spec->rule;
        plan->layout = layout;
        plan->parts = parts;
        for (size_t i = 0; i < layout->tensor_count; i++)
            add_part(plan, i,
                     group_of[i] == GROUPS_MAX ? &no_group : &spec->groups.group[group_of[i]]);
        *out = plan;
    } else {
        free(plan);
        free(parts);
    }
    free(group_of);
    return status;
}

void plan_free(struct plan *plan)
{
    if (plan == NULL)
        return;
    free(plan->parts);
    free(plan);
}
