/* Bytes that become more. */
#ifndef BUFFER_H
#define BUFFER_H

#include <stddef.h>

typedef struct {
    unsigned char *bytes;
    size_t size;
} buffer;

void buffer_init(buffer *b);
void buffer_add(buffer *b, unsigned char byte);
/* The bytes with a NUL behind them, for the caller to free. */
unsigned char *buffer_take(buffer *b, size_t *size);
void buffer_drop(buffer *b);

#endif
