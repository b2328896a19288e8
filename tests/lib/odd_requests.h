/* Requests that two HTTP implementations could read in two ways, or that are beside what HTTP
 * allows, and the one answer that each of them has. */
#ifndef DESCENT_TESTS_ODD_REQUESTS_H
#define DESCENT_TESTS_ODD_REQUESTS_H

#include <stddef.h>

struct odd_request {
    const char *name;
    const char *bytes;
    size_t size;
    unsigned status; /* 0: the connection is closed without an answer */
    const char
        *code; /* of the problem document; NULL: there is none; "html": libmicrohttpd's page */
};

extern const struct odd_request odd_requests[];
extern const size_t odd_requests_count;

#endif
