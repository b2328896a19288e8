/* What the tests of the HTTP shell share. */
#ifndef DESCENT_TESTS_HTTP_CHECKS_H
#define DESCENT_TESTS_HTTP_CHECKS_H

#include "tests/lib/http_client.h"
#include "tests/lib/live_server.h"

enum { HTTP_WAIT_S = 10 };

/* The live server of the suite, in a folder of the test's own; and a connection to it. */
extern struct live_server http_server;
void http_start(const char *const *options);
struct http_client *http_dial(void);

/* Fails unless it is a problem document of ours with this code and the request id of the header. */
void check_problem(const struct http_response *response, const char *code);

/* GETs the path on an open connection; the status of the answer. */
unsigned get_status(struct http_client *client, const char *path);

double now_s(void); /* monotonic */
void sleep_ms(long ms);

#endif
