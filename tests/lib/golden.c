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

static void read_vector(const struct golden *golden, char *at, double *out)
{
    for (size_t i = 0; i < golden->count; i++)
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

void golden_open(struct golden *golden, const char *rule)
{
    char path[128];
    char *at;

    memset(golden, 0, sizeof *golden);
    snprintf(path, sizeof path, "tests/golden/rules/%s.golden", rule);
    golden->file = fopen(path, "r");
    ck_assert_msg(golden->file != NULL, "%s is missing: every rule has golden traces (make golden)",
                  path);
    for (bool more = next_line(golden); more && after(golden, "trace") == NULL;
         more = next_line(golden)) {
        if ((at = after(golden, "shape")) != NULL) {
            size_t product = 1;
            while (*at != '\0')
                product *= (size_t)read_number(&at);
            golden->count += product;
            ck_assert_uint_le(golden->count, GOLDEN_COUNT_MAX);
        } else if ((at = after(golden, "weights")) != NULL) {
            read_vector(golden, at, golden->weights);
        } else {
            ck_assert_ptr_nonnull(at = after(golden, "gradient"));
            golden->steps++;
            ck_assert_uint_le(golden->steps, GOLDEN_STEPS_MAX);
            ck_assert_uint_eq((size_t)read_number(&at), golden->steps);
            read_vector(golden, at, golden->gradient[golden->steps]);
        }
    }
    ck_assert_uint_ge(golden->steps, 20);
}

void golden_close(struct golden *golden)
{
    fclose(golden->file);
    free(golden->line);
}

static void read_declaration(const struct golden *golden, struct golden_trace *out)
{
    char kind[16], *at;

    if ((at = after(golden, "set")) != NULL) {
        ck_assert_uint_lt(out->set_count, GOLDEN_SETS_MAX);
        ck_assert_int_eq(
            sscanf(at, "%31s %39s", out->set[out->set_count].name, out->set[out->set_count].value),
            2);
        out->set_count++;
    } else {
        ck_assert_msg((at = after(golden, "slot")) != NULL, "unknown line: %.40s", golden->line);
        ck_assert_uint_lt(out->slot_count, GOLDEN_SLOTS_MAX);
        ck_assert_int_eq(sscanf(at, "%15s %15s", out->slot[out->slot_count].name, kind), 2);
        out->slot[out->slot_count++].square = strcmp(kind, "square") == 0;
    }
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
    ck_assert(next_line(golden));
    ck_assert_ptr_nonnull(at = after(golden, "w"));
    read_vector(golden, at, state->weights);
    for (size_t k = 0; k < out->slot_count; k++) {
        ck_assert(next_line(golden));
        ck_assert_ptr_nonnull(at = after(golden, out->slot[k].name));
        read_vector(golden, at, state->slot[k]);
    }
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
