/* SQLite opens its journal anew for every transaction and asks for it to be created, there or not;
 * the system layer then syncs the folder, 0.1 to 0.2 ms of a commit of 0.8. It does not when it was
 * not asked to create.
 *
 * Of the files that it opens, two methods are ours, for the figures of GET /metrics: syncs are
 * timed, and the first page of a database is looked at as it goes by, for it says how large the
 * file is and how much of it is free. */
#include "storage/sqlite_vfs.h"

#include <pthread.h>
#include <sqlite3.h>

#include "service/core/clock.h"
#include "service/core/metric.h"

static sqlite3_vfs ours;
static sqlite3_vfs *base;
static int registered = SQLITE_ERROR;

/* The methods of the layer below, as they are and with ours among them. */
static pthread_mutex_t methods_lock = PTHREAD_MUTEX_INITIALIZER;
static const sqlite3_io_methods *base_methods; /* NULL: no file was opened yet */
static sqlite3_io_methods journal_methods, database_methods;

static int file_sync(sqlite3_file *file, int flags)
{
    uint64_t begun_us = clock_monotonic_us();
    int code = base_methods->xSync(file, flags);

    metric_observe(HISTOGRAM_FSYNC_TIME, 0, clock_monotonic_us() - begun_us);
    return code;
}

static int64_t big_endian(const unsigned char *at)
{
    return (int64_t)at[0] << 24 | (int64_t)at[1] << 16 | (int64_t)at[2] << 8 | at[3];
}

static int database_write(sqlite3_file *file, const void *data, int size, sqlite3_int64 offset)
{
    enum { HEADER_BYTES = 100, PAGES_AT = 28, FREE_AT = 36 }; /* of the file format */
    const unsigned char *page = data;

    if (offset == 0 && size >= HEADER_BYTES) { /* a whole page, and so `size` is a page's */
        metric_set(GAUGE_DATABASE_BYTES, 0, big_endian(page + PAGES_AT) * size);
        metric_set(GAUGE_DATABASE_FREE, 0, big_endian(page + FREE_AT) * size);
    }
    return base_methods->xWrite(file, data, size, offset);
}

/* Puts our methods before those of a file that was opened. Another layer's, for a file system that
 * locks in another way, stay as they are: such a file has no figures. */
static void look_at(sqlite3_file *file, int flags)
{
    pthread_mutex_lock(&methods_lock);
    if (base_methods == NULL) {
        journal_methods = database_methods = *file->pMethods;
        journal_methods.xSync = database_methods.xSync = file_sync;
        database_methods.xWrite = database_write;
        base_methods = file->pMethods;
    }
    if (file->pMethods == base_methods)
        file->pMethods = flags & SQLITE_OPEN_MAIN_DB ? &database_methods : &journal_methods;
    pthread_mutex_unlock(&methods_lock);
}

static int vfs_open(sqlite3_vfs *self, const char *path, sqlite3_file *file, int flags, int *out)
{
    (void)self;
    if (flags & SQLITE_OPEN_MAIN_JOURNAL && flags & SQLITE_OPEN_CREATE) {
        int found = 0;
        int code = base->xAccess(base, path, SQLITE_ACCESS_EXISTS, &found);
        if (code != SQLITE_OK)
            return code;
        if (found) /* an empty one counts as absent: it is synced once more, which does no harm */
            flags &= ~SQLITE_OPEN_CREATE;
    }
    int code = base->xOpen(base, path, file, flags, out);
    if (code == SQLITE_OK && flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_MAIN_JOURNAL))
        look_at(file, flags);
    return code;
}

static void vfs_register(void)
{
    if ((registered = sqlite3_initialize()) != SQLITE_OK)
        return;
    metric_build(METRIC_BUILD_SQLITE, sqlite3_libversion());
    base = sqlite3_vfs_find(NULL);
    ours = *base;
    ours.zName = SQLITE_VFS_NAME;
    ours.xOpen = vfs_open;
    registered = sqlite3_vfs_register(&ours, 0);
}

int sqlite_vfs_register(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, vfs_register);
    return registered;
}
