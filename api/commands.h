/* The commands of the binary besides `serve`. Each returns the exit status. */
#ifndef DESCENT_API_COMMANDS_H
#define DESCENT_API_COMMANDS_H

struct config;

/* `descent optimizers [NAME]` and the like: print a catalogue, or one entry; name may be NULL. A
 * preset is an entry among the optimizers too. */
int command_optimizers(const char *name);
int command_presets(const char *name);
int command_schedules(const char *name);

/* `descent health`: asks a running server's /readyz; 0 when it is ready. */
int command_health(const struct config *config);

#endif
