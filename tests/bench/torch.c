/* PyTorch beside us: tests/bench/torch_rules.py as a child that times on request. */
#include "tests/bench/bench.h"

void torch_start(struct torch *torch, const struct bench *bench)
{
    const char *arguments[] = {bench->python, "tests/bench/torch_rules.py", NULL};

    torch->version[0] = '\0';
    if (!child_start(&torch->child, arguments) ||
        fscanf(torch->child.out, "%63s", torch->version) != 1) {
        torch->version[0] = '\0';
        fprintf(stderr, "bench: no PyTorch to compare with in %s\n", bench->python);
    }
}

double torch_time(struct torch *torch, const char *rule, size_t count, size_t repeats)
{
    double took = 0;

    if (torch->version[0] == '\0')
        return 0;
    fprintf(torch->child.in, "%s %zu %zu\n", rule, count, repeats);
    fflush(torch->child.in);
    if (fscanf(torch->child.out, "%lf", &took) != 1)
        bench_fail("torch_rules.py ended");
    return took;
}

void torch_stop(struct torch *torch)
{
    child_stop(&torch->child);
}
