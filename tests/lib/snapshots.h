/* Snapshots, shards and pairs in a line each, for tests of service/session/. What should work and
 * does not fails the test. */
#ifndef DESCENT_TESTS_SNAPSHOTS_H
#define DESCENT_TESTS_SNAPSHOTS_H

#include "service/session/engine.h"

struct state;

enum { SNAPSHOTS_COUNT = 1031 }; /* numbers of a model */

extern uint64_t snapshots_random; /* where random numbers come from */

struct spec snapshots_spec(enum dtype dtype, const char *rule);
struct snapshot_view snapshots_make(struct session *session, uint64_t workers, double examples);
struct snapshot_view snapshots_look(struct session *session);
struct shard snapshots_shard(struct buffer *gradient, enum dtype wire, double examples,
                             const char *worker, const char *part);
enum status snapshots_try_add(struct session *session, uint64_t number, const struct shard *shard,
                              bool *replayed);
/* A random shard in f32. */
enum status snapshots_add_random(struct session *session, uint64_t number, double examples,
                                 const char *worker, const char *part);
enum status snapshots_close(struct session *session, uint64_t number);
/* A snapshot that is ready, of so many random shards. */
uint64_t snapshots_make_ready(struct session *session, size_t parts);
struct buffer *snapshots_mean(struct session *session);
struct submission snapshots_pair(struct buffer *gradient, struct buffer *pair, enum dtype wire,
                                 uint64_t number);
enum status snapshots_try_pair(struct session *session, uint64_t number, struct receipt *receipt,
                               struct fault *fault);
/* Element i of a vector on the wire, as the session sees it. */
double snapshots_element(const struct buffer *vector, enum dtype wire, enum dtype own, size_t i);
double snapshots_rounded(double value, enum dtype own);
/* All of a state's snapshot, and its weights. */
struct digest snapshots_digest_of(const struct state *state, const struct layout *layout,
                                  enum dtype dtype);
struct digest snapshots_digest(struct session *session); /* of the one it has now */
/* What a process that is started after a crash of now would have. */
void snapshots_check_replay(struct session *session);

#endif
