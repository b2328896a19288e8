/* A database file in the making, beside the place it is meant for: FOLDER/descent.new/descent.db.
 * One at a time: whoever is at work holds the folder descent.new with flock. What an interrupted
 * one left is cleared away by the next. */
#ifndef DESCENT_STORAGE_DRAFT_H
#define DESCENT_STORAGE_DRAFT_H

#include <limits.h>
#include <stdbool.h>

#include "service/core/status.h"

struct draft {
    char place[PATH_MAX];   /* FOLDER/descent.db */
    char folder[PATH_MAX];  /* FOLDER/descent.new */
    char path[PATH_MAX];    /* FOLDER/descent.new/descent.db: empty at first, mode 0600 */
    char journal[PATH_MAX]; /* the same with -journal */
    int lock;               /* -1: closed */
};

/* Starts a new draft in an existing folder. On failure it is closed. */
enum status draft_open(struct draft *draft, const char *folder, struct fault *fault);

/* Puts it in place, durably: no reader and no crash ever sees a part of it. What is in the place is
 * replaced, or kept and STATUS_STORAGE_FAILED. No one has the draft open any more. */
enum status draft_publish(struct draft *draft, bool replace, struct fault *fault);

/* Removes what was not put in place. */
void draft_close(struct draft *draft);

/* The status and the sentence for errno after an operation on `path`. */
enum status draft_fault(const char *path, const char *what, struct fault *fault);

#endif
