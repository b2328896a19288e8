/* Numbers for people. */
#include "service/core/number.h"

#include <stdio.h>
#include <stdlib.h>

const char *number_text(char out[NUMBER_BYTES], double value)
{
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(out, NUMBER_BYTES, "%.*g", digits, value);
        if (strtod(out, NULL) == value)
            break;
    }
    return out;
}
