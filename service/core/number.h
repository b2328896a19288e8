/* Numbers as text. */
#ifndef DESCENT_CORE_NUMBER_H
#define DESCENT_CORE_NUMBER_H

#include <stddef.h>
#include <stdint.h>

enum { NUMBER_BYTES = 32 };

/* For what every request writes: a tenth of the time of snprintf, which in this process takes the
 * slow way through positional arguments, since libquadmath, a part of OpenBLAS, hooks it. */

/* The decimal digits, at most 20, no NUL after them; returns how many. */
size_t number_digits(char *out, uint64_t value);

/* Two hexadecimal digits a byte, no NUL after them. */
void number_hex(char *out, const unsigned char *bytes, size_t count);

/* The shortest decimal that reads back as the same double. Returns out. */
const char *number_text(char out[NUMBER_BYTES], double value);

#endif
