/* Settings of schedules from text, for tests. What cannot be read is a failed test. */
#ifndef DESCENT_TESTS_SETTINGS_H
#define DESCENT_TESTS_SETTINGS_H

#include "service/optim/schedule.h"

/* Sets a field; a list of steps is "10,20,30". */
void settings_set(struct schedule_setting *setting, const char *name, const char *text);

#endif
