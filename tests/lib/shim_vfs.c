/* The failing layer. Each write notes what it overwrites; a sync forgets the notes of its file; a
 * power cut goes back through the notes and gives every sector the content of some moment. */
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
    int size;                          /* of before[] */
    int written;                       /* from the offset; 0: a truncation */
    unsigned char before[];
};

static sqlite3_vfs shim, *real;
static struct note *notes; /* newest first */
static enum shim_mode mode;
static uint64_t armed, count, random_state;
static bool fired, striking; /* striking: the operation under way is the first that fails */

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
static int note_add(struct shim_file *file, sqlite3_int64 offset, sqlite3_int64 size, int written)
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
    note->written = written;
    code = size > 0 ? file->real->pMethods->xRead(file->real, note->before, note->size, offset)
                    : SQLITE_OK;
    notes = note;
    return code;
}

/* One file at the moment of a power cut. Moment 0 is its last sync, moment `moments` is now. */
struct cut {
    const char *path;
    size_t moments, capacity, sector, size;
    unsigned char *image; /* as of the moment that is looked at; `size` bytes of it are the file */
    unsigned char *left;  /* what the disk is left with */
    uint32_t *chosen;     /* by sector: the moment, UNTOUCHED if no write covered it */
    uint32_t *torn;       /* by sector: so many bytes of its beginning are of the next moment */
};

#define UNTOUCHED UINT32_MAX

/* Seed 0 draws nothing: the last sync is all there is. */
static uint64_t draw(uint64_t below)
{
    return random_state == 0 ? 0 : testing_random(&random_state) % below;
}

static void *must_allocate(size_t items, size_t size)
{
    void *memory = calloc(items + 1, size);

    if (memory == NULL)
        abort();
    return memory;
}

/* Counts the notes of the path and reads the file, with room for every size it had. */
static void cut_begin(struct cut *cut, int descriptor)
{
    off_t size = lseek(descriptor, 0, SEEK_END);

    cut->size = cut->capacity = (size_t)size;
    for (const struct note *note = notes; note != NULL; note = note->older)
        if (strcmp(note->path, cut->path) == 0) {
            cut->moments++;
            if ((size_t)note->size_before > cut->capacity)
                cut->capacity = (size_t)note->size_before;
        }
    cut->sector = draw(2) == 0 ? 512 : 4096;
    size_t sectors = cut->capacity / cut->sector + 1;
    cut->image = must_allocate(cut->capacity, 1);
    cut->left = must_allocate(cut->capacity, 1);
    cut->chosen = must_allocate(sectors, sizeof *cut->chosen);
    cut->torn = must_allocate(sectors, sizeof *cut->torn);
    for (size_t i = 0; i < sectors; i++)
        cut->chosen[i] = UNTOUCHED;
    if (pread(descriptor, cut->image, cut->size, 0) != size)
        abort();
    if (draw(2) == 1)
        for (size_t i = 0; i < cut->capacity; i++)
            cut->left[i] = (unsigned char)testing_random(&random_state);
}

static void choose_moments(struct cut *cut)
{
    for (const struct note *note = notes; note != NULL; note = note->older) {
        if (strcmp(note->path, cut->path) != 0 || note->written == 0)
            continue;
        size_t last = ((size_t)note->offset + (size_t)note->written - 1) / cut->sector;
        for (size_t i = (size_t)note->offset / cut->sector; i <= last; i++) {
            if (cut->chosen[i] != UNTOUCHED)
                continue;
            cut->chosen[i] = (uint32_t)draw(cut->moments + 1);
            if (cut->chosen[i] < cut->moments && draw(8) == 1)
                cut->torn[i] = (uint32_t)draw(cut->sector);
        }
    }
}

/* Keeps what of moment `moment` the disk is left with. */
static void keep_moment(struct cut *cut, size_t moment)
{
    for (size_t i = 0; i * cut->sector < cut->size; i++) {
        size_t from = i * cut->sector, to = from + cut->sector;
        bool untouched = cut->chosen[i] == UNTOUCHED && moment == 0;
        if (cut->chosen[i] == moment)
            from += cut->torn[i];
        else if (cut->chosen[i] != UNTOUCHED && cut->chosen[i] + 1 == moment)
            to = from + cut->torn[i];
        else if (!untouched)
            continue;
        if (to > cut->size)
            to = cut->size;
        if (from < to)
            memcpy(cut->left + from, cut->image + from, to - from);
    }
}

/* Gives the file of the newest note what the cut leaves of it, and drops its notes. */
static void power_cut_file(void)
{
    char path[sizeof notes->path];
    struct cut cut = {.path = path};

    memcpy(path, notes->path, sizeof path);
    int descriptor = open(path, O_RDWR);
    if (descriptor < 0)
        abort();
    cut_begin(&cut, descriptor);
    choose_moments(&cut);
    size_t size_moment = draw(cut.moments + 1), size_left = cut.size, moment = cut.moments;
    keep_moment(&cut, moment);
    for (const struct note *note = notes; note != NULL; note = note->older) {
        if (strcmp(note->path, path) != 0)
            continue;
        memcpy(cut.image + note->offset, note->before, (size_t)note->size);
        cut.size = (size_t)note->size_before;
        keep_moment(&cut, --moment);
        if (moment >= size_moment)
            size_left = cut.size;
    }
    if (ftruncate(descriptor, 0) != 0 ||
        pwrite(descriptor, cut.left, size_left, 0) != (ssize_t)size_left)
        abort();
    close(descriptor);
    free(cut.image);
    free(cut.left);
    free(cut.chosen);
    free(cut.torn);
    notes_drop(path);
}

static void power_cut(void)
{
    while (notes != NULL)
        power_cut_file();
}

enum operation { OPERATION_READ, OPERATION_WRITE, OPERATION_SYNC, OPERATION_TRUNCATE };

/* The code to fail with, or SQLITE_OK. */
static int strike(enum operation operation)
{
    static const int codes[] = {SQLITE_IOERR_READ, SQLITE_IOERR_WRITE, SQLITE_IOERR_FSYNC,
                                SQLITE_IOERR_TRUNCATE};
    bool once = mode == SHIM_ONCE || mode == SHIM_SHORT || mode == SHIM_READ;

    if ((operation == OPERATION_READ) != (mode == SHIM_READ))
        return SQLITE_OK;
    count++;
    if (armed == 0 || count < armed || (once && count > armed))
        return SQLITE_OK;
    /* The write under way is one of those that may arrive: its turn comes when it is noted. */
    if (!fired && mode == SHIM_POWER && operation == OPERATION_SYNC)
        power_cut();
    striking = !fired;
    fired = true;
    return mode == SHIM_FULL && operation == OPERATION_WRITE ? SQLITE_FULL : codes[operation];
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
    int code = strike(OPERATION_READ);

    return code == SQLITE_OK ? file->real->pMethods->xRead(file->real, out, size, offset) : code;
}

/* What a write that fails leaves behind, all the same. */
static void write_in_part(struct shim_file *file, const void *data, int size, sqlite3_int64 offset)
{
    if (mode != SHIM_SHORT && mode != SHIM_POWER)
        return;
    int part = mode == SHIM_SHORT ? size / 2 : size;
    if (note_add(file, offset, part, part) != SQLITE_OK ||
        file->real->pMethods->xWrite(file->real, data, part, offset) != SQLITE_OK)
        abort();
    if (mode == SHIM_POWER)
        power_cut();
}

static int shim_write(sqlite3_file *base, const void *data, int size, sqlite3_int64 offset)
{
    struct shim_file *file = (struct shim_file *)base;
    int code = strike(OPERATION_WRITE);

    if (code != SQLITE_OK && striking) {
        striking = false;
        write_in_part(file, data, size, offset);
    }
    if (code == SQLITE_OK)
        code = note_add(file, offset, size, size);
    return code == SQLITE_OK ? file->real->pMethods->xWrite(file->real, data, size, offset) : code;
}

static int shim_truncate(sqlite3_file *base, sqlite3_int64 size)
{
    struct shim_file *file = (struct shim_file *)base;
    sqlite3_int64 whole = 0;
    int code = strike(OPERATION_TRUNCATE);

    if (code != SQLITE_OK && striking && mode == SHIM_POWER)
        power_cut();
    striking = false;
    if (code == SQLITE_OK)
        code = file->real->pMethods->xFileSize(file->real, &whole);
    if (code == SQLITE_OK)
        code = note_add(file, size, whole > size ? whole - size : 0, 0);
    return code == SQLITE_OK ? file->real->pMethods->xTruncate(file->real, size) : code;
}

static int shim_sync(sqlite3_file *base, int flags)
{
    struct shim_file *file = (struct shim_file *)base;
    int code = strike(OPERATION_SYNC);

    (void)flags;
    striking = false;
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
    fired = striking = false;
}

bool shim_vfs_fired(void)
{
    return fired;
}
