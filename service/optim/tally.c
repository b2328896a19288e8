/* Sums of tensors over segments. */
#include "service/optim/tally.h"

#include <stdint.h>

static struct tally_sums plus(struct tally_sums one, struct tally_sums other)
{
    return (struct tally_sums){one.one + other.one, one.two + other.two};
}

/* The first tensor that ends after the element: the one it is in. */
static size_t tensor_at(const struct tally_run *run, size_t element)
{
    size_t low = 0, high = run->count - 1;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (run->tensors[middle].offset + run->tensors[middle].count > element)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

void tally_begin(struct tally_walk *tally, const struct tally_run *run, size_t from,
                 struct tally_edge *edge)
{
    *tally =
        (struct tally_walk){.run = run, .edge = edge, .from = from, .index = tensor_at(run, from)};
    *edge = (struct tally_edge){.ended = SIZE_MAX};
}

void tally_close(struct tally_walk *tally)
{
    const struct tally_run *run = tally->run;

    tally->all = plus(tally->all, tally->sums);
    if (run->tensors[tally->index].offset < tally->from) {
        tally->edge->head = tally->sums;
        tally->edge->ended = tally->index;
    } else if (run->note != NULL) {
        run->note(run->context, tally->index, tally->sums);
    }
    tally->sums = (struct tally_sums){0, 0};
    tally->open = false;
    tally->index++;
}

void tally_end(struct tally_walk *tally)
{
    if (!tally->open)
        return;
    tally->all = plus(tally->all, tally->sums);
    tally->edge->begun = tally->run->tensors[tally->index].offset >= tally->from;
    if (tally->edge->begun)
        tally->edge->tail = tally->sums;
    else
        tally->edge->head = tally->sums;
}

void tally_join(const struct tally_run *run, const struct tally_edge *edges, size_t segments)
{
    struct tally_sums sums = {0, 0};

    for (size_t i = 0; i < segments && run->note != NULL; i++) {
        sums = plus(sums, edges[i].head);
        if (edges[i].ended != SIZE_MAX)
            run->note(run->context, edges[i].ended, sums);
        if (edges[i].begun)
            sums = edges[i].tail;
    }
}
