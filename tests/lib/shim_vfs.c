/* The failing layer. Each write notes what it overwrites; a sync forgets the notes of its file; a
 * power cut plays a random part of the notes back. */
#include "tests/lib/shim_vfs.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/testing.h"

struct shim_file {
    sqlite3_file base;
    const char *path; /* SQLite keeps it while the file is open */
    sqlite3_file *real;
};

struct note {
    struct note *older;
    char path[256];
    sqlite3_int64 offset, size_before; /* of the file */
    int size;
    unsigned char before[];
};

static sqlite3_vfs shim, *real;
static struct note *notes; /* newest first */
static enum shim_mode mode;
static uint64_t armed, count, random_state;
static bool fired;

static void notes_drop(const char *path)
{
    struct note **at = &notes;

    while (*at != NULL) {
        struct note *note = *at;
        if (path == NULL || strcmp(note->path, path) == 0) {
            *at = note->older;
            free(note);
        } else {
            at = &note->older;
        }
    }
}

/* Notes the bytes at [offset, offset + size) and the size of the file. */
static int note_add(struct shim_file *file, sqlite3_int64 offset, sqlite3_int64 size)
{
    sqlite3_int64 whole = 0;
    int code = file->real->pMethods->xFileSize(file->real, &whole);

    if (code != SQLITE_OK || file->path == NULL)
        return code;
    if (offset + size > whole)
        size = whole > offset ? whole - offset : 0;
    struct note *note = malloc(sizeof *note + (size_t)size);
    if (note == NULL)
        return SQLITE_NOMEM;
    note->older = notes;
    snprintf(note->path, sizeof note->path, "%s", file->path);
    note->offset = offset;
    note->size_before = whole;
    note->size = (int)size;
    code = size > 0 ? file->real->pMethods->xRead(file->real, note->before, note->size, offset)
                    : SQLITE_OK;
    notes = note;
    return code;
}

/* Seed 0 loses everything not synced, others lose half of it. */
static void power_cut(void)
{
    for (struct note *note = notes; note != NULL; note = note->older) {
        if (random_state != 0 && testing_random(&random_state) % 2 == 0)
            continue;
        int descriptor = open(note->path, O_RDWR);
        if (descriptor < 0 || ftruncate(descriptor, note->size_before) != 0 ||
            pwrite(descriptor, note->before, (size_t)note->size, note->offset) != note->size)
            abort();
        close(descriptor);
    }
    notes_drop(NULL);
}

/* The code to fail with, or SQLITE_OK. */
static int strike(int code, bool write)
{
    count++;
    if (armed == 0 || count < armed || (mode == SHIM_ONCE && count > armed))
        return SQLITE_OK;
    if (!fired && mode == SHIM_POWER)
        power_cut();
    fired = true;
    return mode == SHIM_FULL && write ? SQLITE_FULL : code;
}

static int shim_close(sqlite3_file *base)
{
    struct shim_file *file = (struct shim_file *)base;
    int code = file->real->pMethods->xClose(file->real);

    free(file->real);
    return code;
}

static int shim_read(sqlite3_file *base, void *out, int size, sqlite3_int64 offset)
{
    struct shim_file *file = (struct shim_file *)base;

    return file->real->pMethods->xRead(file->real, out, size, offset);
}

static int shim_write(sqlite3_file *base, const void *data, int size, sqlite3_int64 offset)
{
    struct shim_file *file = (struct shim_file *)base;
    int code = strike(SQLITE_IOERR_WRITE, true);

    if (code == SQLITE_OK)
        code = note_add(file, offset, size);
    return code == SQLITE_OK ? file->real->pMethods->xWrite(file->real, data, size, offset) : code;
}

static int shim_truncate(sqlite3_file *base, sqlite3_int64 size)
{
    struct shim_file *file = (struct shim_file *)base;
    sqlite3_int64 whole = 0;
    int code = strike(SQLITE_IOERR_TRUNCATE, false);

    if (code == SQLITE_OK)
        code = file->real->pMethods->xFileSize(file->real, &whole);
    if (code == SQLITE_OK)
        code = note_add(file, size, whole > size ? whole - size : 0);
    return code == SQLITE_OK ? file->real->pMethods->xTruncate(file->real, size) : code;
}

static int shim_sync(sqlite3_file *base, int flags)
{
    struct shim_file *file = (struct shim_file *)base;
    int code = strike(SQLITE_IOERR_FSYNC, false);

    (void)flags;
    if (code == SQLITE_OK && file->path != NULL)
        notes_drop(file->path);
    return code;
}

static int shim_file_size(sqlite3_file *base, sqlite3_int64 *size)
{
    struct shim_file *file = (struct shim_file *)base;

    return file->real->pMethods->xFileSize(file->real, size);
}

static int shim_lock(sqlite3_file *base, int level)
{
    struct shim_file *file = (struct shim_file *)base;

    return file->real->pMethods->xLock(file->real, level);
}

static int shim_unlock(sqlite3_file *base, int level)
{
    struct shim_file *file = (struct shim_file *)base;

    return file->real->pMethods->xUnlock(file->real, level);
}

static int shim_reserved(sqlite3_file *base, int *out)
{
    struct shim_file *file = (struct shim_file *)base;

    return file->real->pMethods->xCheckReservedLock(file->real, out);
}

static int shim_control(sqlite3_file *base, int verb, void *argument)
{
    struct shim_file *file = (struct shim_file *)base;

    return file->real->pMethods->xFileControl(file->real, verb, argument);
}

static int shim_sector(sqlite3_file *base)
{
    struct shim_file *file = (struct shim_file *)base;

    return file->real->pMethods->xSectorSize(file->real);
}

static int shim_device(sqlite3_file *base)
{
    struct shim_file *file = (struct shim_file *)base;

    return file->real->pMethods->xDeviceCharacteristics(file->real);
}

static const sqlite3_io_methods methods = {
    .iVersion = 1,
    .xClose = shim_close,
    .xRead = shim_read,
    .xWrite = shim_write,
    .xTruncate = shim_truncate,
    .xSync = shim_sync,
    .xFileSize = shim_file_size,
    .xLock = shim_lock,
    .xUnlock = shim_unlock,
    .xCheckReservedLock = shim_reserved,
    .xFileControl = shim_control,
    .xSectorSize = shim_sector,
    .xDeviceCharacteristics = shim_device,
};

static int shim_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *base, int flags, int *out)
{
    struct shim_file *file = (struct shim_file *)base;

    (void)vfs;
    file->base.pMethods = NULL;
    file->path = path;
    file->real = calloc(1, (size_t)real->szOsFile);
    if (file->real == NULL)
        return SQLITE_NOMEM;
    int code = real->xOpen(real, path, file->real, flags, out);
    if (code == SQLITE_OK)
        file->base.pMethods = &methods;
    else
        free(file->real);
    return code;
}

void shim_vfs_install(void)
{
    sqlite3_initialize();
    if (real != NULL)
        return;
    real = sqlite3_vfs_find(NULL);
    shim = *real;
    shim.szOsFile = sizeof(struct shim_file);
    shim.zName = "shim";
    shim.xOpen = shim_open;
    sqlite3_vfs_register(&shim, 1);
}

void shim_vfs_arm(enum shim_mode new_mode, uint64_t n, uint64_t seed)
{
    notes_drop(NULL);
    mode = new_mode;
    armed = n;
    count = 0;
    random_state = seed;
    fired = false;
}

bool shim_vfs_fired(void)
{
    return fired;
}
