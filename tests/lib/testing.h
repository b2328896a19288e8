/* What tests share: temporary folders, seeded random numbers, closeness. */
#ifndef DESCENT_TESTS_TESTING_H
#define DESCENT_TESTS_TESTING_H

#include <stddef.h>
#include <stdint.h>

/* Called once by main: reads DESCENT_TEST_SEED or takes the clock, prints the seed; makes the
 * temporary root. */
void testing_init(void);
void testing_close(void); /* removes the temporary root */

/* The seed of this run. Mix it with a constant of your own. */
uint64_t testing_seed(void);

/* A fresh empty folder under the temporary root (removed at the end of the run). The string lives
 * for the next 255 calls. */
const char *testing_folder(void);

void testing_pause(double seconds);

/* splitmix64: state in, next number out. */
uint64_t testing_random(uint64_t *state);
/* Uniform in [0, 1). */
double testing_uniform(uint64_t *state);
/* Standard normal (Box-Muller). */
double testing_normal(uint64_t *state);

#endif
