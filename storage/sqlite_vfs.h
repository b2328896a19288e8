/* The system's SQLite layer, but opening a journal that exists does not sync the folder again. */
#ifndef DESCENT_STORAGE_SQLITE_VFS_H
#define DESCENT_STORAGE_SQLITE_VFS_H

#define SQLITE_VFS_NAME "descent"

/* Registers it, once per process. Returns SQLITE_OK or the error. The caller syncs the folder
 * before it opens a database, so that a journal that is there is there for good. */
int sqlite_vfs_register(void);

#endif
