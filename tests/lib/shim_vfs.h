/* A layer between SQLite and the disk that fails on demand, and that can forget what was never
 * synced. */
#ifndef DESCENT_TESTS_SHIM_VFS_H
#define DESCENT_TESTS_SHIM_VFS_H

#include <stdbool.h>
#include <stdint.h>

enum shim_mode {
    SHIM_ONCE,  /* operation n fails, EIO */
    SHIM_EVER,  /* operation n and all after it fail, EIO: also what a killed process leaves behind
                 */
    SHIM_FULL,  /* operation n and all after it fail; a write with ENOSPC */
    SHIM_POWER, /* power cut at operation n: of the writes not yet synced some are lost; all after
                   it fails */
    SHIM_MODES
};

/* Becomes the default of every connection opened later. Syncs are counted, not done. */
void shim_vfs_install(void);

/* Arms operation n (from 1; writes, syncs and truncations count) and forgets what happened so far.
 * n = 0 disarms. */
void shim_vfs_arm(enum shim_mode mode, uint64_t n, uint64_t seed);

/* Did the armed operation happen? */
bool shim_vfs_fired(void);

#endif
