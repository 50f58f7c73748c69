/* Text into words. */
#ifndef WORDS_H
#define WORDS_H

#include "table.h"

/* Counts every word of a text in a table; returns how many there were. Words longer than 63 letters are cut. */
size_t words_count(table *t, const char *text, size_t length);

#endif
