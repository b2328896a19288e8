/* Allocations that fail. oom.c defines malloc, calloc, realloc and free for the whole program, its
 * libraries included, and hands on to the next definition (libc, or a sanitizer's): so it works in
 * every flavour. What neither goes through these four nor fails: mmap (large buffers, thread
 * stacks, OpenBLAS) and aligned_alloc, which only tests call; with a sanitizer also what libc
 * allocates for itself. */
#ifndef DESCENT_TESTS_OOM_H
#define DESCENT_TESTS_OOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Makes the state that the processes of a test share. Before it is forked. */
void oom_share(void);

/* From now on the allocations of this process count: one process of those that share. */
void oom_enlist(void);

/* Until oom_disarm the allocations of the enlisted process, in all its threads, are counted, and
 * that of this index (0: the next) fails; `forever`: and all that follow. */
void oom_arm(uint64_t index, bool forever);
/* How many failed. */
uint64_t oom_disarm(void);
/* How many there were from oom_arm to oom_disarm. */
uint64_t oom_counted(void);

/* The callers of the first allocation that failed after oom_arm. */
void oom_show_failure(FILE *out);
/* Whether the allocation that failed was the HTTP library's own or a thread's: then it is the
 * library that cuts the connection, and no code of ours could answer. */
bool oom_failed_outside(void);

/* Prints what the enlisted process, which calls this, allocated between oom_arm and oom_disarm and
 * has not freed; returns how much it is. Descriptors of threads, which libc keeps, are left out. */
size_t oom_leaks(FILE *out);

#endif
