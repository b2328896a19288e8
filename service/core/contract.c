/* The end of the line for broken contracts. */
#include "service/core/contract.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void contract_broken(const char *kind, const char *what, const char *file, int line)
{
    fprintf(stderr, "descent: %s broken: %s (%s:%d)\n", kind, what, file, line);
    abort();
}
