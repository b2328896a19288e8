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
    SHIM_SHORT, /* operation n, if it is a write, puts half of its bytes down; then as SHIM_ONCE */
    SHIM_READ,  /* read n fails, EIO; nothing else does */
    SHIM_MODES
};

/* The disk that loses its power: sectors of 512 or of 4096 bytes (by the seed), written in any
 * order among the writes since the last sync of the file, the one under way included. Each sector
 * holds what it held after any of these writes or before them; one in eight is torn, its beginning
 * newer than its end. The file's size is that after any of them; where it grew and no sector
 * arrived there are zeros, or anything at all (by the seed). Bytes that no write covered stay as
 * they are (SQLite's powersafe overwrite, which its system layer claims for every file system),
 * whatever was synced is there, and no file loses its name. Seed 0: everything not synced is lost.
 */

/* Becomes the default of every connection opened later. Syncs are counted, not done. */
void shim_vfs_install(void);

/* Arms operation n (from 1; writes, syncs and truncations count; with SHIM_READ, reads) and forgets
 * what happened so far. n = 0 disarms. */
void shim_vfs_arm(enum shim_mode mode, uint64_t n, uint64_t seed);

/* Did the armed operation happen? */
bool shim_vfs_fired(void);

#endif
