/* One story that faults are thrown at: sessions in every durability mode, each with a fixed list
 * of actions (creation, steps with a key or a worker's number, a PATCH, new weights, deletion), so
 * that the state after its k-th action is known to the last bit from an engine that never fails.
 * Whatever happened, a session must stand at one of its states, not before what it called durable,
 * not after what was sent. What is wrong ends the process with a sentence on stderr: stories also
 * run in processes of their own. */
#ifndef DESCENT_TESTS_STORY_H
#define DESCENT_TESTS_STORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/lib/engines.h"

enum { STORY_SESSIONS = 4, STORY_ACTIONS_MAX = 16 };

struct story {
    const char *what, *folder;
    uint64_t number, seed; /* of the run, for messages */
    struct engine *engine; /* NULL: closed */
    struct session *session[STORY_SESSIONS];
    size_t done[STORY_SESSIONS];      /* actions acknowledged */
    size_t sure[STORY_SESSIONS];      /* of those, so many must survive whatever the mode */
    bool failed[STORY_SESSIONS];      /* the action after them failed at least once */
    uint64_t durable[STORY_SESSIONS]; /* the highest durable_step told */
    bool struck;                      /* the shim's fault happened, though it was disarmed since */
    unsigned failures, doubts, lost;  /* failed actions; restarts that were asked for; actions that
                                         came undone, none of them durable */
};

/* Learns the states, from an engine in memory. Once a process, before story_begin. */
void story_learn(void);

/* A story in that folder with nothing done and nothing open. */
struct story story_begin(const char *folder, const char *what, uint64_t number, uint64_t seed);

/* Opens; false when that failed cleanly. With `must` a failure is the end. */
bool story_open(struct story *story, bool must);
void story_close(struct story *story);

/* Holds every session against its states, and takes up from where they stand. Open, no fault
 * armed. */
void story_take_up(struct story *story);

/* Goes through what is left, each action until it works. After a failure: with `stop` returns
 * false; else, once the fault has passed, tries again, or opens anew when the store says that only
 * a restart helps. */
bool story_go(struct story *story, bool stop);

/* At the end of the story every session is in its last state; also after another opening. Closes.
 */
void story_end(struct story *story);

/* Removes a folder of files. */
void story_remove(const char *folder);

#endif
