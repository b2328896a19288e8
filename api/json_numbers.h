/* Bulk numbers between JSON text and floats: the one C++ file (json_numbers.cc) behind a C
 * interface. */
#ifndef DESCENT_API_JSON_NUMBERS_H
#define DESCENT_API_JSON_NUMBERS_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a writer may touch from `out` on: the longest number has 24 characters, the rest is scratch.
 */
enum { NUMBER_TEXT_BYTES = 48 };

/* Shortest text that reads back to the same bits. Returns the end. -0 is "-0.0": some readers take
 * "-0" for an integer. value is finite. */
char *number_write_f32(char *out, float value);
char *number_write_f64(char *out, double value);

/* Reads one JSON number (strict grammar) at text, not past end. Correctly rounded; overflow gives
 * infinity. Returns the end of the number, or NULL when there is none. */
const char *number_read_f32(const char *text, const char *end, float *out);
const char *number_read_f64(const char *text, const char *end, double *out);

/* The end of the JSON number at text, or NULL when there is none; its value is not looked at. */
const char *number_end(const char *text, const char *end);

#ifdef __cplusplus
}
#endif

#endif
