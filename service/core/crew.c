/* The crew. A helper joins a job only while it is open, so that a caller who finished alone need
 * not wait for one that is slow to wake. */
#include "service/core/crew.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <unistd.h>

enum { HELPERS_MAX = 63 };

static struct {
    pthread_mutex_t life; /* start and stop */
    pthread_mutex_t busy; /* held by the caller who has the crew */
    pthread_mutex_t mutex;
    pthread_cond_t work, left;
    pthread_t helpers[HELPERS_MAX];
    unsigned starts;
    size_t helper_count; /* changed under life and busy */
    bool stopping, open;
    unsigned inside; /* helpers at the job */
    unsigned long jobs;
    void (*task)(void *context, size_t index);
    void *context;
    size_t count;
    atomic_size_t next;
} crew = {.life = PTHREAD_MUTEX_INITIALIZER,
          .busy = PTHREAD_MUTEX_INITIALIZER,
          .mutex = PTHREAD_MUTEX_INITIALIZER,
          .work = PTHREAD_COND_INITIALIZER,
          .left = PTHREAD_COND_INITIALIZER};

static void take_tasks(void (*task)(void *, size_t), void *context, size_t count)
{
    size_t index;

    while ((index = atomic_fetch_add(&crew.next, 1)) < count)
        task(context, index);
}

static void *help(void *unused)
{
    unsigned long seen = 0;

    (void)unused;
    pthread_mutex_lock(&crew.mutex);
    while (!crew.stopping) {
        if (!crew.open || crew.jobs == seen) {
            pthread_cond_wait(&crew.work, &crew.mutex);
            continue;
        }
        seen = crew.jobs;
        crew.inside++;
        pthread_mutex_unlock(&crew.mutex);
        take_tasks(crew.task, crew.context, crew.count);
        pthread_mutex_lock(&crew.mutex);
        if (--crew.inside == 0)
            pthread_cond_signal(&crew.left);
    }
    pthread_mutex_unlock(&crew.mutex);
    return NULL;
}

void crew_start(void)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    pthread_mutex_lock(&crew.life);
    if (crew.starts++ == 0) {
        crew.stopping = false;
        pthread_mutex_lock(&crew.busy);
        while ((long)crew.helper_count < cores - 1 && crew.helper_count < HELPERS_MAX &&
               pthread_create(&crew.helpers[crew.helper_count], NULL, help, NULL) == 0)
            crew.helper_count++;
        pthread_mutex_unlock(&crew.busy);
    }
    pthread_mutex_unlock(&crew.life);
}

void crew_stop(void)
{
    pthread_mutex_lock(&crew.life);
    if (--crew.starts == 0) {
        pthread_mutex_lock(&crew.busy);
        pthread_mutex_lock(&crew.mutex);
        crew.stopping = true;
        pthread_cond_broadcast(&crew.work);
        pthread_mutex_unlock(&crew.mutex);
        while (crew.helper_count > 0)
            pthread_join(crew.helpers[--crew.helper_count], NULL);
        pthread_mutex_unlock(&crew.busy);
    }
    pthread_mutex_unlock(&crew.life);
}

void crew_run(size_t count, void (*task)(void *context, size_t index), void *context)
{
    bool alone = count < 2 || pthread_mutex_trylock(&crew.busy) != 0;

    if (alone || crew.helper_count == 0) {
        if (!alone)
            pthread_mutex_unlock(&crew.busy);
        for (size_t index = 0; index < count; index++)
            task(context, index);
        return;
    }
    pthread_mutex_lock(&crew.mutex);
    crew.task = task;
    crew.context = context;
    crew.count = count;
    atomic_store(&crew.next, 0);
    crew.open = true;
    crew.jobs++;
    pthread_cond_broadcast(&crew.work);
    pthread_mutex_unlock(&crew.mutex);
    take_tasks(task, context, count);
    pthread_mutex_lock(&crew.mutex);
    crew.open = false;
    while (crew.inside > 0)
        pthread_cond_wait(&crew.left, &crew.mutex);
    pthread_mutex_unlock(&crew.mutex);
    pthread_mutex_unlock(&crew.busy);
}
