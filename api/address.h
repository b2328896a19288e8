/* HOST:PORT in text and as sockets. */
#ifndef DESCENT_API_ADDRESS_H
#define DESCENT_API_ADDRESS_H

#include <stdbool.h>

#include "service/core/status.h"

enum {
    ADDRESS_BYTES = 320, /* a name of 253 characters, brackets, colon, port, with room */
    PEER_BYTES = 56      /* numbers, brackets, colon, port, with room */
};

/* A listening socket for "HOST:PORT" (IPv6 in brackets, port 0 picks one); `text` gets the address
 * in use with the port that was picked, `loopback` whether only this machine can reach it.
 * INVALID_FIELD: not HOST:PORT; INTERNAL: it cannot be bound. Either fault names the address and
 * the reason. The socket is the caller's to close. */
enum status address_listen(const char *address, int *socket_out, char text[ADDRESS_BYTES],
                           bool *loopback, struct fault *fault);

/* The same for a listening socket that was opened by another program: sets it to close at exec and
 * not to block. INVALID_FIELD when it is no listening TCP socket. */
enum status address_adopt(int socket, char text[ADDRESS_BYTES], bool *loopback,
                          struct fault *fault);

/* Whether "HOST:PORT" can be read and is known here, and whether only this machine can reach it.
 * Faults as of address_listen. */
enum status address_check(const char *address, bool *loopback, struct fault *fault);

/* A connected socket, whose reads and writes give up after timeout_s. Faults as above. */
enum status address_connect(const char *address, unsigned timeout_s, int *socket_out,
                            struct fault *fault);

/* Who is at the other end of a socket, as "127.0.0.1:40312", "[::1]:40312" or "unix"; "" when it
 * cannot be told any more. */
void address_peer(int socket, char out[PEER_BYTES]);

#endif
