/* A table of counters by name. */
#ifndef TABLE_H
#define TABLE_H

#include <stddef.h>

typedef struct table table;

typedef struct {
    const char *key; /* the table's own copy */
    long count;
} table_row;

table *table_new(void);
void table_free(table *t);

/* Adds to a key's count, which begins at 0, and returns the new one. The key has `length` bytes and no end. */
long table_count(table *t, const char *key, size_t length, long amount);
/* A key's count, 0 for one that was never counted. */
long table_get(const table *t, const char *key, size_t length);
/* Whether there was such a key. */
int table_remove(table *t, const char *key, size_t length);
size_t table_size(const table *t);

/* All rows for the caller to free, the highest count first, equal ones by key. */
table_row *table_sorted(const table *t);

#endif
