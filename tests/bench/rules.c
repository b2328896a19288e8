/* Every rule in f32 at 1 M and 16 M parameters (a matrix), with its defaults: nanoseconds a
 * parameter and the share of the triad's bytes a second, by the bytes its formula moves; one
 * thread and all; beside PyTorch's rule where it has one. A step takes the receipt's norms in the
 * same pass; rules of grain tensor have no other form. Also as build/bench/rules.csv, for the
 * README's table. */
#include <math.h>
#include <string.h>

#include "service/core/crew.h"
#include "tests/bench/bench.h"
#include "tests/bench/subject.h"

enum { ROUNDS = 7, TRIAD_BYTES = 12 };
static const double share_aim = 0.8, torch_aim = 3;

/* What rules of grain tensor read and write beside each vector once: numbers a parameter in their
 * passes before the last. The head of each rule's file says the same. */
static const struct {
    const char *rule;
    double more;
} passes[] = {
    {"lars", 2},      /* g, w for the norms */
    {"lamb", 3},      /* m, v, w once more: the first pass makes them, the second reads them */
    {"lans", 5},      /* g for its norm; then as lamb, and g */
    {"adafactor", 3}, /* g, w for the means; g for the norm of the update */
    {"group_adagrad", 1},
};

static double bytes_of(const struct subject *subject)
{
    double bytes = subject_bytes(subject);

    for (size_t i = 0; i < sizeof passes / sizeof *passes; i++)
        if (strcmp(passes[i].rule, subject->rule->name) == 0)
            bytes += passes[i].more * (double)sizeof(float);
    return bytes;
}

struct figures {
    double triad, alone, step, all, torch; /* ns; alone and torch 0: there is none */
};

static void keep_least(double *least, double value)
{
    if (*least == 0 || value < *least)
        *least = value;
}

static struct figures measure(struct subject *subject, struct torch *torch)
{
    const char *rule = subject->rule->name;
    size_t repeats = 2000000 / subject->count + 1;
    struct figures f = {0};

    for (size_t round = 0; round < ROUNDS; round++) {
        keep_least(&f.triad, subject_time(subject_triad, subject, repeats));
        if (subject->rule->update != NULL)
            keep_least(&f.alone, subject_time(subject_update, subject, repeats));
        keep_least(&f.step, subject_time(subject_step, subject, repeats));
        crew_start();
        keep_least(&f.all, subject_time(subject_step, subject, repeats));
        crew_stop();
        keep_least(&f.torch, torch_time(torch, rule, subject->count, repeats));
    }
    return f;
}

static void print_aimed(double value, bool aimed, double aim)
{
    printf(" %.2f%s |", value, !aimed ? "" : value >= aim ? " yes" : " **no**");
}

static void print_row(const struct subject *subject, size_t count, const struct figures *f,
                      FILE *table)
{
    double bytes = bytes_of(subject), best = f->alone > 0 ? f->alone : f->step;
    double share = bytes / best / (TRIAD_BYTES / f->triad);
    bool large = count >= 16000000;

    printf("| %s | %zu M | %.0f |", subject->rule->name, count / 1000000, bytes);
    if (f->alone > 0)
        printf(" %.3f |", f->alone);
    else
        printf(" |");
    print_aimed(share, large && f->alone > 0, share_aim);
    printf(" %.3f | %.3f |", f->step, f->all);
    if (f->torch > 0) {
        printf(" %.3f |", f->torch);
        print_aimed(f->torch / best, true, torch_aim);
        printf("\n");
    } else {
        printf(" | |\n");
    }
    fprintf(table, "%s,%zu,%.1f,%.4f,%.4f,%.4f,%.4f,%.4f,%.4f\n", subject->rule->name, count, bytes,
            f->alone, f->step, f->all, f->torch, f->triad, share);
    fflush(stdout);
}

void bench_rules(const struct bench *bench)
{
    static const struct {
        size_t rows, columns;
    } shapes[] = {{1000, 1000}, {16000, 1000}};
    FILE *table = fopen("build/bench/rules.csv", "w");
    const struct optimizer *rule;
    struct torch torch;

    if (table == NULL)
        bench_fail("build/bench/rules.csv");
    torch_start(&torch, bench);
    fprintf(table, "rule,parameters,bytes,alone_ns,step_ns,all_ns,torch_ns,triad_ns,share\n");
    printf("\n| rule | parameters | B/parameter | alone, ns | of the triad's bytes/s (aim %g) | "
           "with norms, ns | all threads, ns | PyTorch %s, ns | times ours (aim %g) |\n"
           "|---|---|---|---|---|---|---|---|---|\n",
           share_aim, torch.version, torch_aim);
    for (size_t i = 0; (rule = optimizer_at(i, DTYPE_F32)) != NULL; i++)
        for (size_t k = 0; k < 2 && rule->propose == NULL; k++) {
            struct subject subject;
            subject_open(&subject, rule->name, shapes[k].rows, shapes[k].columns);
            struct figures figures = measure(&subject, &torch);
            print_row(&subject, subject.count, &figures, table);
            subject_close(&subject);
        }
    printf("\n| figure | ours | limit | ratio | aim | met |\n|---|---|---|---|---|---|\n");
    torch_stop(&torch);
    fclose(table);
}
