/* What the files of the server share; for api/server*.c only, the users of libmicrohttpd. */
#ifndef DESCENT_API_SERVER_INSIDE_H
#define DESCENT_API_SERVER_INSIDE_H

#include "api/address.h"
#include "api/alive.h"
#include "api/exchange.h"
#include "api/server.h"

struct MHD_Daemon;
struct tls;

struct server {
    struct commons commons;
    struct MHD_Daemon *daemon;
    struct tls *tls; /* NULL: plain HTTP */
    struct alive alive;
    int socket;
    char address[ADDRESS_BYTES];
};

/* --- server.c --- */

/* Starts to serve on server->socket; NULL with errno. */
struct MHD_Daemon *server_daemon(struct server *server);

#endif
