/* Settings of schedules from text. */
#include "tests/lib/settings.h"

#include <check.h>
#include <stdlib.h>

void settings_set(struct schedule_setting *setting, const char *name, const char *text)
{
    const struct schedule *schedule = setting->schedule;
    size_t index = hyper_find(schedule->hypers, schedule->hyper_count, name), length = 0;

    ck_assert_msg(index < schedule->hyper_count, "%s has no %s", schedule->name, name);
    const struct hyper *hyper = &schedule->hypers[index];
    if (hyper->kind != HYPER_STEPS) {
        ck_assert_msg(hyper_parse(hyper, text, &setting->value[index]), "%s is not for %s", text,
                      name);
        return;
    }
    for (char *end = NULL; length == 0 || *end == ','; length++) {
        ck_assert_uint_lt(length, SCHEDULE_STEPS_MAX);
        setting->steps[length] = strtod(length == 0 ? text : end + 1, &end);
    }
    setting->value[index] = (double)length;
}
