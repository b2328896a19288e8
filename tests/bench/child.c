/* Processes beside this one. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/bench.h"

enum { ARGUMENTS_MAX = 24 };

bool child_start(struct child *child, const char *const *arguments)
{
    int to[2], from[2];

    *child = (struct child){.pid = 0};
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0)
        bench_fail("pipe");
    fflush(NULL);
    child->pid = fork();
    if (child->pid < 0)
        bench_fail("fork");
    if (child->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (dup2(to[0], STDIN_FILENO) < 0 || dup2(from[1], STDOUT_FILENO) < 0)
            _exit(126);
        /* exec takes char *const[] but changes nothing. */
        execvp(arguments[0], (char *const *)(const void *)arguments);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    child->in = fdopen(to[1], "w");
    child->out = fdopen(from[0], "r");
    if (child->in == NULL || child->out == NULL)
        bench_fail("fdopen");
    /* Every program here says something when it is ready. */
    int first = fgetc(child->out);
    if (first != EOF) {
        ungetc(first, child->out);
        return true;
    }
    child_stop(child);
    return false;
}

void child_start_server(struct child *child, const struct bench *bench, const char *name,
                        const char *const *options)
{
    char data[512], line[256];
    const char *arguments[ARGUMENTS_MAX] = {bench->server, "serve", "--listen", "127.0.0.1:0",
                                            "--data",      data,    "--log",    "warning"};

    snprintf(data, sizeof data, "%s/%s", bench->folder, name);
    for (size_t i = 8; options != NULL && *options != NULL && i + 1 < ARGUMENTS_MAX; i++)
        arguments[i] = *options++;
    errno = 0;
    if (!child_start(child, arguments) || fgets(line, sizeof line, child->out) == NULL ||
        sscanf(line, "descent listening on %*[a-z]://127.0.0.1:%u", &child->port) != 1)
        bench_fail("the server did not start");
}

void child_stop(struct child *child)
{
    if (child->pid <= 0)
        return;
    kill(child->pid, SIGTERM);
    waitpid(child->pid, NULL, 0);
    if (child->in != NULL)
        fclose(child->in);
    if (child->out != NULL)
        fclose(child->out);
    *child = (struct child){.pid = 0};
}

double child_cpu(const struct child *child)
{
    struct timespec time;
    clockid_t clock;

    if (clock_getcpuclockid(child->pid, &clock) != 0 || clock_gettime(clock, &time) != 0)
        bench_fail("the CPU time of a server");
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

void bench_place(pid_t pid, enum processors processors)
{
    char path[64];
    cpu_set_t set;
    const struct dirent *entry;

    CPU_ZERO(&set);
    for (size_t cpu = 0; cpu < (processors == PROCESSORS_ONE ? 1 : CPU_SETSIZE); cpu++)
        CPU_SET(cpu, &set);
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    if (tasks == NULL)
        bench_fail("the threads of a process");
    while ((entry = readdir(tasks)) != NULL)
        if (*entry->d_name != '.' &&
            sched_setaffinity(atoi(entry->d_name), sizeof set, &set) != 0 && errno != ESRCH)
            bench_fail("the processor of a thread");
    closedir(tasks);
}
