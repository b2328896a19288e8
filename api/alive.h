/* Whether the server makes progress, for a watchdog. */
#ifndef DESCENT_API_ALIVE_H
#define DESCENT_API_ALIVE_H

#include <stdbool.h>
#include <stdint.h>

struct commons;

/* What was seen at the last look; zero before the first. */
struct alive {
    uint64_t accepted;
    bool waiting; /* somebody was waiting to be accepted */
};

/* Looks and says whether all moves; else *why. See server_alive. */
bool alive_look(struct alive *alive, const struct commons *commons, int listening,
                uint64_t silence_us, const char **why);

#endif
