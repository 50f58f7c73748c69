#include "table.h"

#include <stdlib.h>
#include <string.h>

enum { CHAINS = 64 };

typedef struct entry {
    struct entry *next;
    long count;
    char key[];
} entry;

struct table {
    entry *chains[CHAINS];
};

static size_t chain_of(const char *key, size_t length)
{
    size_t sum = 0;
    for (size_t i = 0; i < length; i++)
        sum += (unsigned char)key[i];
    return sum % CHAINS;
}

static int is_key(const entry *e, const char *key, size_t length)
{
    return strlen(e->key) == length && memcmp(e->key, key, length) == 0;
}

table *table_new(void)
{
    return calloc(1, sizeof(table));
}

void table_free(table *t)
{
    for (size_t i = 0; t != NULL && i < CHAINS; i++) {
        while (t->chains[i] != NULL) {
            entry *first = t->chains[i];
            t->chains[i] = first->next;
            free(first);
        }
    }
    free(t);
}

long table_count(table *t, const char *key, size_t length, long amount)
{
    entry **place = &t->chains[chain_of(key, length)];
    while (*place != NULL && !is_key(*place, key, length))
        place = &(*place)->next;
    if (*place == NULL) {
        *place = calloc(1, sizeof(entry) + length + 1);
        if (*place == NULL)
            abort();
        memcpy((*place)->key, key, length);
    }
    return (*place)->count += amount;
}

long table_get(const table *t, const char *key, size_t length)
{
    for (const entry *e = t->chains[chain_of(key, length)]; e != NULL; e = e->next)
        if (is_key(e, key, length))
            return e->count;
    return 0;
}

int table_remove(table *t, const char *key, size_t length)
{
    for (entry **place = &t->chains[chain_of(key, length)]; *place != NULL; place = &(*place)->next) {
        if (is_key(*place, key, length)) {
            entry *gone = *place;
            *place = gone->next;
            free(gone);
            return 1;
        }
    }
    return 0;
}

size_t table_size(const table *t)
{
    size_t size = 0;
    for (size_t i = 0; i < CHAINS; i++)
        for (const entry *e = t->chains[i]; e != NULL; e = e->next)
            size++;
    return size;
}

static int by_count(const void *left, const void *right)
{
    const table_row *a = left, *b = right;
    if (a->count != b->count)
        return a->count < b->count ? 1 : -1;
    return strcmp(a->key, b->key);
}

table_row *table_sorted(const table *t)
{
    size_t size = 0;
    table_row *rows = malloc((table_size(t) + 1) * sizeof *rows);
    if (rows == NULL)
        abort();
    for (size_t i = 0; i < CHAINS; i++)
        for (const entry *e = t->chains[i]; e != NULL; e = e->next)
            rows[size++] = (table_row){e->key, e->count};
    qsort(rows, size, sizeof *rows, by_count);
    return rows;
}
