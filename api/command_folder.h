/* What the commands that care for a data folder share: their options, progress and report. */
#ifndef DESCENT_API_COMMAND_FOLDER_H
#define DESCENT_API_COMMAND_FOLDER_H

#include "api/config.h"
#include "storage/store.h"

struct folder_command {
    struct config config; /* of the common options */
    char *url;            /* of config.data, for store_open and its kin */
    const char *other;    /* the folder of the command's own option */
};

/* Reads `options`, in which `own` ("--to") must stand; NULL: there is no such option. Returns 0;
 * else the exit status, and it has said why and nothing is to be closed. */
int folder_command_open(struct folder_command *command, char *const *options, const char *own);
void folder_command_close(struct folder_command *command);

/* Prints the fault on stderr; returns 1. */
int folder_command_failed(const struct fault *fault);

/* Shows on stderr how far it is: rewrites a line of a terminal, else adds one every few seconds.
 * The findings go to stdout. One at a time in a process. */
struct store_watch folder_command_watch(void);
void folder_command_watched(void); /* ends the line */

/* Sessions, checkpoints, events, bytes and findings on stdout, a line each. */
void folder_command_report(const struct store_report *report);

#endif
