/* Numbers for people. */
#ifndef DESCENT_CORE_NUMBER_H
#define DESCENT_CORE_NUMBER_H

enum { NUMBER_BYTES = 32 };

/* The shortest decimal that reads back as the same double. Returns out. */
const char *number_text(char out[NUMBER_BYTES], double value);

#endif
