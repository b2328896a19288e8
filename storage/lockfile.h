/* One process per folder: FOLDER/descent.lock, held with flock, names the process that holds it.
 * The system lets go of it when the process ends, however it ends; the file itself stays and means
 * nothing. */
#ifndef DESCENT_STORAGE_LOCKFILE_H
#define DESCENT_STORAGE_LOCKFILE_H

#include <stdbool.h>

#include "service/core/status.h"

/* Makes the folder (one level) where there is none. */
enum status lockfile_folder(const char *folder, struct fault *fault);

/* Takes the folder; makes it (one level) when `create` is set; syncs it. *descriptor is for
 * lockfile_release. Fails with STATUS_STORAGE_FAILED: no such folder, not writable, in use (the
 * detail names the process). */
enum status lockfile_take(const char *folder, bool create, int *descriptor, struct fault *fault);

/* Keeps others from taking a folder that is only read: writes nothing. *descriptor is for
 * lockfile_release, or -1 where there is no lock file, so that nobody has it. Fails as
 * lockfile_take does. */
enum status lockfile_share(const char *folder, int *descriptor, struct fault *fault);

void lockfile_release(int take_descriptor);

#endif
