/* What every command may say. */
#include "api/commands.h"

#include <stdio.h>

int command_usage(const char *what)
{
    fprintf(stderr, "descent: %s; `descent --help` shows what there is\n", what);
    return EXIT_USAGE;
}
