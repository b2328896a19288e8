/* Every input that is kept, through its target, without a fuzzer: the seeds, and what once broke a
 * parser. Run from the project's root. */
#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define TARGET(name) int fuzz_##name(const uint8_t *data, size_t size);
#include "tests/fuzz/targets.def"
#undef TARGET

static const struct {
    const char *name;
    int (*run)(const uint8_t *data, size_t size);
} targets[] = {
#define TARGET(name) {#name, fuzz_##name},
#include "tests/fuzz/targets.def"
#undef TARGET
};

/* The file's bytes, of just that size. */
static uint8_t *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = NULL;

    if (file == NULL || fseek(file, 0, SEEK_END) != 0)
        goto done;
    long end = ftell(file);
    rewind(file);
    data = malloc(end > 0 ? (size_t)end : 1);
    if (data != NULL && end > 0 && fread(data, 1, (size_t)end, file) != (size_t)end) {
        free(data);
        data = NULL;
    }
    *size = (size_t)end;
done:
    if (file != NULL)
        fclose(file);
    return data;
}

/* What a child is at, seen by its parent when it dies. */
static struct at {
    char path[600];
    size_t inputs[2]; /* seeds, crashes */
} * at;

/* How many inputs the folder has; 0 when it is not there. */
static size_t run_folder(size_t target, const char *kind)
{
    char folder[256];
    struct dirent *entry;
    size_t count = 0, size;

    snprintf(folder, sizeof folder, "tests/fuzz/%s/%s", kind, targets[target].name);
    DIR *all = opendir(folder);
    while (all != NULL && (entry = readdir(all)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(at->path, sizeof at->path, "%s/%s", folder, entry->d_name);
        uint8_t *data = read_file(at->path, &size);
        if (data == NULL)
            exit(1);
        targets[target].run(data, size);
        free(data);
        count++;
    }
    if (all != NULL)
        closedir(all);
    return count;
}

/* In a process of its own, since it may end there. */
static bool run_target(size_t target)
{
    int status = 0;
    pid_t child = fork();

    if (child == 0) {
        at->inputs[1] = run_folder(target, "crashes");
        at->inputs[0] = run_folder(target, "corpus");
        exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return false;
    if (status != 0)
        printf("%s broke %s (status %d)\n", at->path, targets[target].name, status);
    else if (at->inputs[0] == 0)
        printf("%s has no seeds\n", targets[target].name);
    return status == 0 && at->inputs[0] > 0;
}

int main(int count, char **names)
{
    size_t inputs = 0, crashes = 0, failed = 0;

    setvbuf(stdout, NULL, _IOLBF, 0);
    at = mmap(NULL, sizeof *at, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return 1;
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        if (count > 1 && strcmp(names[1], targets[i].name) != 0)
            continue;
        *at = (struct at){.path = "nothing"};
        failed += !run_target(i);
        inputs += at->inputs[0] + at->inputs[1];
        crashes += at->inputs[1];
    }
    printf("fuzz targets: %zu inputs, %zu of which once broke one, %zu targets failed\n", inputs,
           crashes, failed);
    return failed == 0 && inputs > 0 ? 0 : 1;
}
