/* TLS of a client that trusts anyone, over a connected socket; send and receive as send(2) and
 * recv(2) do, EAGAIN and all. Ends the program when anything else fails. */
#ifndef DESCENT_TESTS_BENCH_SECURE_H
#define DESCENT_TESTS_BENCH_SECURE_H

#include <stddef.h>
#include <sys/types.h>

struct secure;

/* Shakes hands; fd blocks meanwhile and may be set otherwise afterwards. */
struct secure *secure_open(int fd);
void secure_close(struct secure *take_secure); /* fd stays open */

ssize_t secure_send(struct secure *secure, const void *data, size_t size);
ssize_t secure_receive(struct secure *secure, void *out, size_t size);

/* Writes a certificate for localhost, and its key, as PEM files that did not exist. */
void secure_certificate(const char *certificate_path, const char *key_path);

#endif
