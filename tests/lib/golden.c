/* Golden traces, line by line. */
#include "tests/lib/golden.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

/* The next line that is not a comment, without its end; false at the end of the file. */
static bool next_line(struct golden *golden)
{
    do {
        if (getline(&golden->line, &golden->line_capacity, golden->file) < 0)
            return false;
    } while (golden->line[0] == '#');
    golden->line[strcspn(golden->line, "\n")] = '\0';
    return true;
}

static double read_number(char **at)
{
    char *end;
    double value = strtod(*at, &end);

    ck_assert_msg(end != *at, "not a number: %.40s", *at);
    *at = end;
    return value;
}

static void read_vector(char *at, double *out, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = read_number(&at);
    ck_assert_str_eq(at, "");
}

/* What follows the word the line starts with, or NULL when it starts with another. */
static char *after(const struct golden *golden, const char *word)
{
    size_t length = strlen(word);

    if (strncmp(golden->line, word, length) != 0 || golden->line[length] != ' ')
        return NULL;
    return golden->line + length + 1;
}

static void add_tensor(struct golden *golden, char *at)
{
    size_t shape[LAYOUT_RANK_MAX];
    unsigned rank = 0;
    struct fault fault;
    char name[16];

    for (; *at != '\0'; shape[rank++] = (size_t)read_number(&at))
        ck_assert_uint_lt(rank, LAYOUT_RANK_MAX);
    int size = snprintf(name, sizeof name, "%zu", golden->layout->tensor_count);
    ck_assert_int_eq(layout_add(golden->layout, name, (size_t)size, rank, shape, &fault),
                     STATUS_OK);
    golden->count += golden->layout->tensors[golden->layout->tensor_count - 1].count;
    ck_assert_uint_le(golden->count, GOLDEN_COUNT_MAX);
}

bool golden_open(struct golden *golden, const char *rule)
{
    struct fault fault;
    char path[128];
    char *at;

    memset(golden, 0, sizeof *golden);
    snprintf(path, sizeof path, "tests/golden/rules/%s.golden", rule);
    if ((golden->file = fopen(path, "r")) == NULL)
        return false;
    ck_assert_ptr_nonnull(golden->layout = layout_new());
    for (bool more = next_line(golden); more && after(golden, "trace") == NULL;
         more = next_line(golden)) {
        if ((at = after(golden, "shape")) != NULL) {
            add_tensor(golden, at);
        } else if ((at = after(golden, "weights")) != NULL) {
            read_vector(at, golden->weights, golden->count);
        } else {
            ck_assert_ptr_nonnull(at = after(golden, "gradient"));
            golden->steps++;
            ck_assert_uint_le(golden->steps, GOLDEN_STEPS_MAX);
            ck_assert_uint_eq((size_t)read_number(&at), golden->steps);
            read_vector(at, golden->gradient[golden->steps], golden->count);
        }
    }
    ck_assert_uint_ge(golden->steps, 20);
    ck_assert_int_eq(layout_seal(golden->layout, &fault), STATUS_OK);
    return true;
}

void golden_close(struct golden *golden)
{
    fclose(golden->file);
    free(golden->line);
    layout_release(golden->layout);
}

static void read_slot(const char *at, struct golden_trace *out)
{
    char kind[16];

    ck_assert_uint_lt(out->slot_count, SLOTS_MAX);
    ck_assert_int_eq(sscanf(at, "%15s %15s %zu", out->slot[out->slot_count].name, kind,
                            &out->slot[out->slot_count].count),
                     3);
    ck_assert_uint_le(out->slot[out->slot_count].count, GOLDEN_COUNT_MAX);
    ck_assert(strcmp(kind, "square") == 0 || strcmp(kind, "linear") == 0);
    out->slot[out->slot_count++].square = strcmp(kind, "square") == 0;
}

static void read_declaration(const struct golden *golden, struct golden_trace *out)
{
    char *at;

    if ((at = after(golden, "set")) != NULL) {
        ck_assert_uint_lt(out->set_count, GOLDEN_SETS_MAX);
        ck_assert_int_eq(
            sscanf(at, "%31s %39s", out->set[out->set_count].name, out->set[out->set_count].value),
            2);
        out->set_count++;
    } else if ((at = after(golden, "slot")) != NULL) {
        read_slot(at, out);
    } else if ((at = after(golden, "scalar")) != NULL) {
        ck_assert_uint_lt(out->scalar_count, SCALARS_MAX);
        ck_assert_int_eq(sscanf(at, "%15s", out->scalar[out->scalar_count++]), 1);
    } else if ((at = after(golden, "base")) != NULL) {
        size_t step = (size_t)read_number(&at), base = (size_t)read_number(&at);
        ck_assert(step >= 1 && step <= golden->steps && base < step);
        out->base[step] = base;
        out->has_base[step] = true;
    } else {
        ck_assert_msg((at = after(golden, "only")) != NULL, "unknown line: %.40s", golden->line);
        ck_assert_str_eq(at, "f64");
        out->only_f64 = true;
    }
}

/* The next line's numbers; it must start with that word. */
static void read_numbers(struct golden *golden, const char *word, double *out, size_t count)
{
    char *at;

    if (count == 0 && strcmp(word, "scalars") == 0)
        return; /* no line */
    ck_assert(next_line(golden));
    at = after(golden, word);
    if (at == NULL && count == 0 && strcmp(golden->line, word) == 0)
        return;
    ck_assert_msg(at != NULL, "not a line of %s: %.40s", word, golden->line);
    read_vector(at, out, count);
}

/* The head of a state's block is in the line; the vectors follow. */
static void read_state(struct golden *golden, struct golden_trace *out)
{
    char *free_at = after(golden, "free"), *at = free_at != NULL ? free_at : after(golden, "step");
    size_t step = (size_t)read_number(&at);

    ck_assert(step >= 1 && step <= golden->steps);
    struct golden_state *state = free_at != NULL ? &out->free[step] : &out->step[step];
    if (free_at == NULL) {
        double *const heads[] = {&state->lr, &state->norm, &state->clip_scale, &state->update_norm,
                                 &state->param_norm};
        for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
            *heads[i] = read_number(&at);
    }
    read_numbers(golden, "w", state->weights, golden->count);
    for (size_t k = 0; k < out->slot_count; k++)
        read_numbers(golden, out->slot[k].name, state->slot[k], out->slot[k].count);
    read_numbers(golden, "scalars", state->scalar, out->scalar_count);
    state->given = true;
}

bool golden_next(struct golden *golden, struct golden_trace *out)
{
    char *at;

    memset(out, 0, sizeof *out);
    if (feof(golden->file) || (at = after(golden, "trace")) == NULL)
        return false;
    ck_assert_int_eq(sscanf(at, "%31s %63s", out->rule, out->label), 2);
    while (next_line(golden) && after(golden, "trace") == NULL) {
        if (after(golden, "step") != NULL || after(golden, "free") != NULL)
            read_state(golden, out);
        else
            read_declaration(golden, out);
    }
    for (size_t t = 1; t <= golden->steps; t++)
        ck_assert_msg(out->step[t].given, "%s %s has no step %zu", out->rule, out->label, t);
    return true;
}
