/* Tokens that can be looked up by their digest. A table is never changed: the file that is read
 * anew makes another one, and requests keep the one that they came in by. What tokens have used of
 * their quotas goes from table to table. */
#ifndef DESCENT_API_ACCESS_TABLE_H
#define DESCENT_API_ACCESS_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "api/access_usage.h"
#include "api/tokens.h"

/* A token by the first bytes of its digest. Whoever looks for one does not choose its digest, so
 * that the time of the search tells nothing; the rest is compared in constant time. */
struct access_entry {
    uint64_t prefix;
    const struct token *token;
    struct access_usage *usage;
};

struct access_table;

/* A table with one reference; takes the tokens in any case. `before`: the one that it follows, or
 * NULL. NULL: memory is out. */
struct access_table *table_new(struct tokens *take_tokens, const struct access_table *before);
void table_retain(struct access_table *table);
void table_release(struct access_table *table); /* NULL is allowed */

/* The token of that digest, or NULL. Lives as long as the table. */
const struct access_entry *table_find(const struct access_table *table,
                                      const unsigned char hash[SHA256_BYTES]);

size_t table_count(const struct access_table *table);

#endif
