/* Places where a test can kill the process, and promises that a test can break.
 *
 * Only the flavour `points` (make FLAVOUR=points, for tests alone) has them; everywhere else POINT
 * is nothing and BUG is false, and no trace is left in the program. What there is: points.def and
 * bugs.def. What the environment asks for: tests/fault/kill/point.c. */
#ifndef DESCENT_CORE_POINT_H
#define DESCENT_CORE_POINT_H

#ifdef DESCENT_POINTS

#include <stdbool.h>

enum point {
#define POINT(name, meaning) POINT_##name,
#include "service/core/points.def"
#undef POINT
    POINT_COUNT
};

enum bug {
#define BUG(name, promise, test) BUG_##name,
#include "service/core/bugs.def"
#undef BUG
    BUG_COUNT
};

/* Any thread. Returns, or the process is killed here. */
void point_pass(enum point point);
bool bug_wanted(enum bug bug);

#define POINT(name) point_pass(POINT_##name)
#define BUG(name) bug_wanted(BUG_##name)

#else

#define POINT(name) ((void)0)
#define BUG(name) 0

#endif
#endif
