/* SQLite opens its journal anew for every transaction and asks for it to be created, there or not;
 * the system layer then syncs the folder, 0.1 to 0.2 ms of a commit of 0.8. It does not when it was
 * not asked to create. */
#include "storage/sqlite_vfs.h"

#include <pthread.h>
#include <sqlite3.h>

static sqlite3_vfs ours;
static sqlite3_vfs *base;
static int registered = SQLITE_ERROR;

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
    return base->xOpen(base, path, file, flags, out);
}

static void vfs_register(void)
{
    if ((registered = sqlite3_initialize()) != SQLITE_OK)
        return;
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
