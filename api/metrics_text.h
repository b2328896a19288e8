/* The figures of service/core/metrics.def in Prometheus' text format, version 0.0.4, and the cells
 * of the labels that only api/ can name. */
#ifndef DESCENT_API_METRICS_TEXT_H
#define DESCENT_API_METRICS_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "api/endpoint.h"
#include "service/core/arena.h"
#include "service/core/metric.h"
#include "service/core/span.h"

/* The cells: of a route (NULL: no route was found), an HTTP status, a fault's status. */
size_t metrics_operation(const struct route *route);
size_t metrics_http(unsigned http);
size_t metrics_status(enum status status);

/* Writes a reading (metric_read) in the arena; NULL data when memory is out. */
struct span metrics_text(struct arena *arena, const uint64_t *numbers);

#endif
