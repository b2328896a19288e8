/* The commands of the binary besides `serve`. Each returns the exit status. */
#ifndef DESCENT_API_COMMANDS_H
#define DESCENT_API_COMMANDS_H

struct config;

/* `descent optimizers [NAME]`: prints the catalogue, or one entry; name may be NULL. */
int command_optimizers(const char *name);

/* `descent health`: asks a running server's /readyz; 0 when it is ready. */
int command_health(const struct config *config);

#endif
