/* Allocations that fail. */
#include "tests/lib/oom.h"

#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <link.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { STACK_DEPTH = 24, HELD_MAX = 1 << 15, BUCKETS = 1 << 13 };

/* These run before a sanitizer's runtime has begun to. */
#define PLAIN __attribute__((no_sanitize("address", "thread", "undefined")))

struct stack {
    int first, depth; /* the first caller that is not of this file */
    void *callers[STACK_DEPTH];
};

struct shared {
    atomic_bool armed, forever;
    _Atomic uint64_t index, seen, failed;
    struct stack first; /* of the first failure */
};

/* What was allocated while armed and is not freed: chains of indices from 1, 0 ends one. */
struct held {
    void *pointer;
    size_t size;
    unsigned next;
    struct stack stack;
};

static struct shared *shared;
static bool enlisted;
static __thread bool inside; /* the stack is being walked */
static struct range {
    uintptr_t begin, end;
} loader, libc;

/* A sanitizer's runtime asks libc for what it cannot do without: in those flavours what libc
 * allocates for itself does not fail. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = true };
#else
enum { SANITIZED = false };
#endif
void __lsan_disable(void) __attribute__((weak));
void __lsan_enable(void) __attribute__((weak));

static struct {
    atomic_flag lock;
    _Atomic size_t count;
    unsigned buckets[BUCKETS], unused, taken;
    struct held all[HELD_MAX];
} table = {.lock = ATOMIC_FLAG_INIT};

static void *(*next_malloc)(size_t);
static void *(*next_calloc)(size_t, size_t);
static void *(*next_realloc)(void *, size_t);
static void (*next_free)(void *);

PLAIN static void find_next(void)
{
    *(void **)(void *)&next_calloc = dlsym(RTLD_NEXT, "calloc");
    *(void **)(void *)&next_realloc = dlsym(RTLD_NEXT, "realloc");
    *(void **)(void *)&next_free = dlsym(RTLD_NEXT, "free");
    *(void **)(void *)&next_malloc = dlsym(RTLD_NEXT, "malloc");
}

/* --- what is held --- */

PLAIN static void lock(void)
{
    while (atomic_flag_test_and_set_explicit(&table.lock, memory_order_acquire))
        continue;
}

PLAIN static void unlock(void)
{
    atomic_flag_clear_explicit(&table.lock, memory_order_release);
}

PLAIN static unsigned *bucket_of(const void *pointer)
{
    return &table.buckets[(uintptr_t)pointer / 16 * 0x9E3779B97F4A7C15u >> 51];
}

PLAIN static void walk(struct stack *stack, const void *caller)
{
    inside = true;
    stack->depth = backtrace(stack->callers, STACK_DEPTH);
    inside = false;
    stack->first = 0;
    while (stack->first < stack->depth && stack->callers[stack->first] != caller)
        stack->first++;
}

/* By hand: memcpy would be seen by the thread sanitizer, and what orders these copies is not. */
PLAIN static void copy(struct stack *to, const struct stack *from)
{
    to->first = from->first;
    to->depth = from->depth;
    for (int i = 0; i < from->depth; i++)
        to->callers[i] = from->callers[i];
}

PLAIN static void hold(void *pointer, size_t size, const void *caller)
{
    struct stack stack;

    walk(&stack, caller);
    lock();
    unsigned place = table.unused;
    if (place != 0)
        table.unused = table.all[place].next;
    else if (table.taken + 1 < HELD_MAX)
        place = ++table.taken;
    if (place != 0) {
        unsigned *bucket = bucket_of(pointer);
        table.all[place].pointer = pointer;
        table.all[place].size = size;
        table.all[place].next = *bucket;
        copy(&table.all[place].stack, &stack);
        *bucket = place;
        atomic_fetch_add(&table.count, 1);
    }
    unlock();
}

PLAIN static void let_go(const void *pointer)
{
    if (pointer == NULL || atomic_load_explicit(&table.count, memory_order_relaxed) == 0)
        return;
    lock();
    for (unsigned *at = bucket_of(pointer); *at != 0; at = &table.all[*at].next) {
        unsigned place = *at;
        if (table.all[place].pointer != pointer)
            continue;
        *at = table.all[place].next;
        table.all[place].next = table.unused;
        table.unused = place;
        atomic_fetch_sub(&table.count, 1);
        break;
    }
    unlock();
}

/* --- what fails --- */

PLAIN static bool within(const struct range *range, const void *caller)
{
    return (uintptr_t)caller >= range->begin && (uintptr_t)caller < range->end;
}

PLAIN static bool counts(const void *caller)
{
    return enlisted && !inside && atomic_load_explicit(&shared->armed, memory_order_acquire) &&
           !(SANITIZED && (within(&libc, caller) || within(&loader, caller)));
}

PLAIN static bool fails(const void *caller)
{
    uint64_t number = atomic_fetch_add(&shared->seen, 1);
    uint64_t index = atomic_load(&shared->index);

    if (number < index || (number > index && !atomic_load(&shared->forever)))
        return false;
    if (number == index) {
        struct stack stack;
        walk(&stack, caller);
        copy(&shared->first, &stack);
    }
    atomic_fetch_add(&shared->failed, 1);
    errno = ENOMEM;
    return true;
}

/* Memory of threads stays with libc for the next thread. */
PLAIN static void *keep(void *pointer, size_t size, const void *caller)
{
    if (pointer != NULL && !within(&loader, caller))
        hold(pointer, size, caller);
    return pointer;
}

PLAIN void *malloc(size_t size)
{
    const void *caller = __builtin_return_address(0);

    if (next_malloc == NULL)
        find_next();
    if (!counts(caller))
        return next_malloc(size);
    return fails(caller) ? NULL : keep(next_malloc(size), size, caller);
}

PLAIN void *calloc(size_t count, size_t size)
{
    const void *caller = __builtin_return_address(0);

    if (next_malloc == NULL)
        find_next();
    if (!counts(caller))
        return next_calloc(count, size);
    return fails(caller) ? NULL : keep(next_calloc(count, size), count * size, caller);
}

PLAIN void *realloc(void *pointer, size_t size)
{
    const void *caller = __builtin_return_address(0);

    if (next_malloc == NULL)
        find_next();
    bool counted = counts(caller);
    if (counted && fails(caller))
        return NULL;
    /* Let go first: the address may be another thread's as soon as it is given back. */
    let_go(pointer);
    void *moved = next_realloc(pointer, size);
    return counted ? keep(moved, size, caller) : moved;
}

PLAIN void free(void *pointer)
{
    if (next_malloc == NULL)
        find_next();
    let_go(pointer);
    next_free(pointer);
}

/* --- for tests --- */

static int find_ranges(struct dl_phdr_info *info, size_t size, void *context)
{
    struct range *range = strstr(info->dlpi_name, "/ld-") != NULL       ? &loader
                          : strstr(info->dlpi_name, "/libc.so") != NULL ? &libc
                                                                        : NULL;

    (void)size;
    (void)context;
    if (range == NULL)
        return 0;
    range->begin = UINTPTR_MAX;
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        uintptr_t begin = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        uintptr_t end = begin + info->dlpi_phdr[i].p_memsz;
        if (info->dlpi_phdr[i].p_type != PT_LOAD)
            continue;
        range->begin = begin < range->begin ? begin : range->begin;
        range->end = end > range->end ? end : range->end;
    }
    return 0;
}

void oom_share(void)
{
    struct stack stack;

    if (shared != NULL)
        return;
    if (__lsan_disable != NULL)
        __lsan_disable();
    walk(&stack, NULL); /* loads what walking needs, for good */
    if (__lsan_enable != NULL)
        __lsan_enable();
    dl_iterate_phdr(find_ranges, NULL);
    void *memory =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        abort();
    shared = memory;
}

void oom_enlist(void)
{
    enlisted = true;
}

void oom_arm(uint64_t index, bool forever)
{
    atomic_store(&shared->index, index);
    atomic_store(&shared->forever, forever);
    atomic_store(&shared->seen, 0);
    atomic_store(&shared->failed, 0);
    atomic_store(&shared->armed, true);
}

uint64_t oom_disarm(void)
{
    atomic_store(&shared->armed, false);
    return atomic_load(&shared->failed);
}

uint64_t oom_counted(void)
{
    return atomic_load(&shared->seen);
}

static void show(const struct stack *stack, FILE *out)
{
    fflush(out);
    backtrace_symbols_fd(stack->callers + stack->first, stack->depth - stack->first, fileno(out));
}

void oom_show_failure(FILE *out)
{
    show(&shared->first, out);
}

/* The file that has the code of a caller. */
static const char *file_of(void *caller)
{
    Dl_info info;

    return dladdr(caller, &info) != 0 && info.dli_fname != NULL ? info.dli_fname : "";
}

bool oom_failed_outside(void)
{
    static const char *const outside[] = {"libmicrohttpd", "/ld-", "libpthread"};
    const struct stack *stack = &shared->first;
    Dl_info own;

    if (dladdr(__extension__(void *) oom_share, &own) == 0)
        return false;
    /* The first caller beyond libc, where strdup and pthread_create are. */
    for (int i = stack->first; i < stack->depth; i++) {
        const char *file = file_of(stack->callers[i]);
        for (size_t k = 0; k < sizeof outside / sizeof *outside; k++)
            if (strstr(file, outside[k]) != NULL)
                return true;
        if (strcmp(file, own.dli_fname) == 0)
            return false;
    }
    return false;
}

size_t oom_leaks(FILE *out)
{
    enum { SHOWN_MAX = 20 };
    size_t count = 0;

    enlisted = false;
    for (size_t bucket = 0; bucket < BUCKETS; bucket++)
        for (unsigned at = table.buckets[bucket]; at != 0; at = table.all[at].next)
            if (count++ < SHOWN_MAX) {
                fprintf(out, "not freed: %zu bytes, allocated by\n", table.all[at].size);
                show(&table.all[at].stack, out);
            }
    memset(table.buckets, 0, sizeof table.buckets);
    table.unused = table.taken = 0;
    atomic_store(&table.count, 0);
    return count;
}
