/* A folder beside the place, because SQLite keeps files of its own beside a database, and because a
 * folder can be locked while the file in it comes and goes. */
#include "storage/draft.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TRIES = 8 };

enum status draft_fault(const char *path, const char *what, struct fault *fault)
{
    bool full = errno == ENOSPC || errno == EDQUOT;

    return fault_set(fault, full ? STATUS_STORAGE_FULL : STATUS_STORAGE_FAILED, "",
                     "%s cannot be %s: %s.", path, what, strerror(errno));
}

static bool path_make(char out[PATH_MAX], const char *folder, const char *name)
{
    return (size_t)snprintf(out, PATH_MAX, "%s/%s", folder, name) < PATH_MAX;
}

/* Whether the folder that is locked is still the one at its path: who had it before removes it. */
static bool still_there(const struct draft *draft)
{
    struct stat locked, there;

    return fstat(draft->lock, &locked) == 0 && stat(draft->folder, &there) == 0 &&
           locked.st_ino == there.st_ino && locked.st_dev == there.st_dev;
}

static enum status folder_take(struct draft *draft, struct fault *fault)
{
    for (int i = 0; i < TRIES; i++) {
        if (mkdir(draft->folder, 0700) != 0 && errno != EEXIST)
            return draft_fault(draft->folder, "made", fault);
        draft->lock = open(draft->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (draft->lock < 0 && errno == ENOENT)
            continue;
        if (draft->lock < 0)
            return draft_fault(draft->folder, "opened", fault);
        if (flock(draft->lock, LOCK_EX | LOCK_NB) == 0 && still_there(draft))
            return STATUS_OK;
        close(draft->lock);
        draft->lock = -1;
    }
    return fault_set(fault, STATUS_STORAGE_FAILED, "",
                     "Another backup, restore or compact is at work in %s. Wait for its end.",
                     draft->folder);
}

enum status draft_open(struct draft *draft, const char *folder, struct fault *fault)
{
    *draft = (struct draft){.lock = -1};
    if (!path_make(draft->place, folder, "descent.db") ||
        !path_make(draft->folder, folder, "descent.new") ||
        !path_make(draft->path, folder, "descent.new/descent.db") ||
        !path_make(draft->journal, folder, "descent.new/descent.db-journal"))
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "The path of the storage folder is too long.");
    enum status status = folder_take(draft, fault);
    if (status != STATUS_OK)
        return status;
    unlink(draft->path);
    unlink(draft->journal);
    int file = open(draft->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0)
        status = draft_fault(draft->path, "made", fault);
    else
        close(file);
    if (status != STATUS_OK)
        draft_close(draft);
    return status;
}

/* File systems that cannot sync a folder say EINVAL: it is then as durable as it gets. */
static bool sync_path(const char *path, int flags)
{
    int descriptor = open(path, flags | O_CLOEXEC);

    if (descriptor < 0)
        return false;
    bool good = fsync(descriptor) == 0 || (errno == EINVAL && (flags & O_DIRECTORY) != 0);
    int cause = errno;
    close(descriptor);
    errno = cause;
    return good;
}

/* Renames unless the place is taken. A file system without that gets a look first. */
static bool rename_new(const char *from, const char *to)
{
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return true;
    if (errno != EINVAL && errno != ENOSYS)
        return false;
    if (access(to, F_OK) == 0) {
        errno = EEXIST;
        return false;
    }
    return rename(from, to) == 0;
}

enum status draft_publish(struct draft *draft, bool replace, struct fault *fault)
{
    char folder[PATH_MAX];

    if (!sync_path(draft->path, O_RDWR))
        return draft_fault(draft->path, "written", fault);
    if (!(replace ? rename(draft->path, draft->place) == 0 : rename_new(draft->path, draft->place)))
        return draft_fault(draft->place, "put in place", fault);
    snprintf(folder, sizeof folder, "%.*s", (int)(strlen(draft->place) - strlen("/descent.db")),
             draft->place);
    if (!sync_path(folder[0] != '\0' ? folder : "/", O_RDONLY | O_DIRECTORY))
        return draft_fault(folder, "synced, so a power cut may undo what was done", fault);
    return STATUS_OK;
}

void draft_close(struct draft *draft)
{
    if (draft->lock < 0)
        return;
    unlink(draft->path);
    unlink(draft->journal);
    rmdir(draft->folder);
    close(draft->lock);
    draft->lock = -1;
}
