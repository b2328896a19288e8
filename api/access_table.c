/* Tokens that can be looked up by their digest. */
#include "api/access_table.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct access_table {
    _Atomic uint64_t references;
    struct tokens tokens;
    struct access_entry *entries; /* by prefix; each has its usage retained */
    size_t count;
};

void table_release(struct access_table *table)
{
    if (table == NULL || atomic_fetch_sub(&table->references, 1) != 1)
        return;
    for (size_t i = 0; i < table->count; i++)
        usage_release(table->entries[i].usage);
    free(table->entries);
    tokens_close(&table->tokens);
    free(table);
}

static uint64_t prefix_of(const unsigned char hash[SHA256_BYTES])
{
    uint64_t prefix;

    memcpy(&prefix, hash, sizeof prefix);
    return prefix;
}

static int compare_entries(const void *a, const void *b)
{
    uint64_t left = ((const struct access_entry *)a)->prefix,
             right = ((const struct access_entry *)b)->prefix;

    return left < right ? -1 : left > right;
}

/* The first entry with that prefix or a higher one. */
static size_t table_place(const struct access_table *table, uint64_t prefix)
{
    size_t low = 0, high = table->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (table->entries[middle].prefix < prefix)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct access_entry *table_find(const struct access_table *table,
                                      const unsigned char hash[SHA256_BYTES])
{
    const struct access_entry *found = NULL;
    uint64_t prefix = prefix_of(hash);

    for (size_t i = table_place(table, prefix);
         i < table->count && table->entries[i].prefix == prefix; i++)
        if (crypto_equal(table->entries[i].token->hash, hash, SHA256_BYTES))
            found = &table->entries[i];
    return found;
}

/* What the token has used so far, or a new account. */
static struct access_usage *usage_of(const struct access_table *before, const struct token *token)
{
    const struct access_entry *entry = before != NULL ? table_find(before, token->hash) : NULL;

    return entry != NULL ? usage_retain(entry->usage) : usage_new();
}

struct access_table *table_new(struct tokens *take_tokens, const struct access_table *before)
{
    struct access_table *table = calloc(1, sizeof *table);
    struct access_entry *entries = calloc(take_tokens->count + 1, sizeof *entries);

    if (table == NULL || entries == NULL) {
        free(table);
        free(entries);
        tokens_close(take_tokens);
        return NULL;
    }
    table->references = 1;
    table->tokens = *take_tokens;
    table->entries = entries;
    for (size_t i = 0; i < table->tokens.count; i++) {
        const struct token *token = &table->tokens.items[i];
        struct access_usage *usage = usage_of(before, token);
        if (usage == NULL) {
            table_release(table);
            return NULL;
        }
        entries[table->count++] = (struct access_entry){prefix_of(token->hash), token, usage};
    }
    qsort(entries, table->count, sizeof *entries, compare_entries);
    return table;
}

void table_retain(struct access_table *table)
{
    atomic_fetch_add(&table->references, 1);
}

size_t table_count(const struct access_table *table)
{
    return table->count;
}
