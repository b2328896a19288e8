/* The commands of the binary besides `serve`: the table commands.def. */
#ifndef DESCENT_API_COMMANDS_H
#define DESCENT_API_COMMANDS_H

enum { EXIT_USAGE = 2 };

/* Each gets what stands behind its name on the command line, ending with NULL, and returns the exit
 * status: 0, 1 when it failed (a line on stderr says why), EXIT_USAGE. */
#define COMMAND(file, name, arguments, meaning) int command_##name(char *const *options);
#include "api/commands.def"
#undef COMMAND

/* A mistake on the command line: says so and returns EXIT_USAGE. */
int command_usage(const char *what);

#endif
