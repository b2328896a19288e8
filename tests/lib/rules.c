/* Forms are counted in a mixed radix: one digit for each hyperparameter. */
#include "tests/lib/rules.h"

static size_t values_of(const struct hyper *hyper)
{
    size_t count = 0;

    if (hyper->kind == HYPER_FLAG)
        return 2;
    if (hyper->kind == HYPER_NUMBER)
        return hyper->initial == 0 && hyper->max >= 0.25 ? 2 : 1;
    while (hyper->choices[count] != NULL)
        count++;
    return count;
}

size_t rule_forms(const struct optimizer *rule)
{
    size_t forms = 1;

    for (size_t i = 0; i < rule->hyper_count; i++)
        forms *= values_of(&rule->hypers[i]);
    return forms;
}

void rule_form(const struct optimizer *rule, size_t form, double *hyper)
{
    for (size_t i = 0; i < rule->hyper_count; i++) {
        size_t values = values_of(&rule->hypers[i]), digit = form % values;
        form /= values;
        if (rule->hypers[i].kind == HYPER_NUMBER)
            hyper[i] = digit == 0 ? rule->hypers[i].initial : 0.25;
        else
            hyper[i] = (double)digit;
    }
}
