/* The test runner: descent-tests [SUITE ...]. Runs the named suites, or all of suites.def, and
 * closes with `N passed, N failed`; of one suite also with `SUITE: counted N tests`. Seeds come
 * from DESCENT_TEST_SEED (default: the clock) and are printed. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/lib/testing.h"

#define SUITE(name) Suite *suite_##name(void);
#define FAULT SUITE
#include "tests/suites.def"
#undef SUITE

static const struct {
    const char *name;
    Suite *(*make)(void);
} suites[] = {
#define SUITE(name) {#name, suite_##name},
#include "tests/suites.def"
#undef SUITE
};

int main(int count, char **names)
{
    SRunner *runner = srunner_create(NULL);
    size_t chosen = 0;

    setvbuf(stdout, NULL, _IOLBF, 0);
    testing_init();
    for (size_t i = 0; i < sizeof suites / sizeof *suites; i++) {
        int wanted = count == 1;
        for (int k = 1; k < count; k++)
            wanted |= strcmp(names[k], suites[i].name) == 0;
        if (wanted) {
            srunner_add_suite(runner, suites[i].make());
            chosen++;
        }
    }
    if (chosen == 0 || (count > 1 && chosen != (size_t)count - 1)) {
        fprintf(stderr, "no such suite; there are:");
        for (size_t i = 0; i < sizeof suites / sizeof *suites; i++)
            fprintf(stderr, " %s", suites[i].name);
        fprintf(stderr, "\n");
        return 2;
    }
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    int run = srunner_ntests_run(runner);
    srunner_free(runner);
    testing_close();
    if (count == 2)
        printf("%s: counted %d tests\n", names[1], run);
    printf("%d passed, %d failed\n", run - failed, failed);
    return failed == 0 && run > 0 ? 0 : 1;
}
