/* The version, in one place. */
#ifndef DESCENT_CORE_VERSION_H
#define DESCENT_CORE_VERSION_H

#define DESCENT_VERSION "0.1.0"

#endif
