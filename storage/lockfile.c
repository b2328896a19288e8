/* flock on FOLDER/descent.lock. */
#include "storage/lockfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* What is new in a folder is not durable before the folder is. */
static void folder_sync(const char *folder, const char *below)
{
    char path[PATH_MAX];

    if ((size_t)snprintf(path, sizeof path, "%s%s", folder, below) >= sizeof path)
        return;
    int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor >= 0) {
        fsync(descriptor); /* some file systems cannot: the folder is then as durable as it gets */
        close(descriptor);
    }
}

enum status lockfile_folder(const char *folder, struct fault *fault)
{
    if (mkdir(folder, 0700) == 0) {
        folder_sync(folder, "/..");
        return STATUS_OK;
    }
    if (errno == EEXIST)
        return STATUS_OK;
    return fault_set(fault, STATUS_STORAGE_FAILED, "",
                     "The storage folder %s cannot be made: %s. Make it, or name another one.",
                     folder, strerror(errno));
}

static enum status refused(int descriptor, const char *folder, struct fault *fault)
{
    char owner[24] = "";
    int cause = errno;

    if (cause != EWOULDBLOCK)
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "The storage folder %s cannot be locked: %s.", folder, strerror(cause));
    ssize_t size = pread(descriptor, owner, sizeof owner - 1, 0);
    owner[size > 0 ? size : 0] = '\0';
    return fault_set(fault, STATUS_STORAGE_FAILED, "",
                     "The storage folder %s is in use by process %ld. Stop that process, or give "
                     "this one a folder of its own.",
                     folder, strtol(owner, NULL, 10));
}

/* What root makes in the folder of another is that one's: its server has to lock it, too. Not what
 * has another name elsewhere, and may be another's. */
static bool give_away(int file, const char *folder)
{
    struct stat about, own;

    return geteuid() != 0 || (stat(folder, &about) == 0 && fstat(file, &own) == 0 &&
                              own.st_nlink == 1 && fchown(file, about.st_uid, about.st_gid) == 0);
}

enum status lockfile_take(const char *folder, bool create, int *descriptor, struct fault *fault)
{
    enum status status = STATUS_OK;
    char path[PATH_MAX];
    char pid[24];
    int lock = -1;

    if ((size_t)snprintf(path, sizeof path, "%s/descent.lock", folder) >= sizeof path)
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "The path of the storage folder is too long.");
    if (create && (status = lockfile_folder(folder, fault)) != STATUS_OK)
        return status;
    lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (lock < 0)
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "The storage folder %s cannot be used: %s. It must exist and be writable "
                         "by this user.",
                         folder, strerror(errno));
    if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
        status = refused(lock, folder, fault);
        goto done;
    }
    int size = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    give_away(lock, folder); /* else only root opens the folder, as long as the file is there */
    if (ftruncate(lock, 0) != 0 || pwrite(lock, pid, (size_t)size, 0) != size) {
        status = fault_set(fault, errno == ENOSPC ? STATUS_STORAGE_FULL : STATUS_STORAGE_FAILED, "",
                           "The storage folder %s cannot be written: %s.", folder, strerror(errno));
        goto done;
    }
    folder_sync(folder, "");
    *descriptor = lock;
    lock = -1;
done:
    if (lock >= 0)
        close(lock);
    return status;
}

enum status lockfile_share(const char *folder, int *descriptor, struct fault *fault)
{
    char path[PATH_MAX];

    if ((size_t)snprintf(path, sizeof path, "%s/descent.lock", folder) >= sizeof path)
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "The path of the storage folder is too long.");
    int lock = open(path, O_RDONLY | O_CLOEXEC);
    if (lock < 0 && errno != ENOENT)
        return fault_set(fault, STATUS_STORAGE_FAILED, "", "%s cannot be read: %s.", path,
                         strerror(errno));
    if (lock >= 0 && flock(lock, LOCK_SH | LOCK_NB) != 0) {
        enum status status = refused(lock, folder, fault);
        close(lock);
        return status;
    }
    *descriptor = lock;
    return STATUS_OK;
}

void lockfile_release(int take_descriptor)
{
    close(take_descriptor);
}
