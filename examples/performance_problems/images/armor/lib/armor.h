/* Base64, RFC 4648 section 4. */
#ifndef ARMOR_H
#define ARMOR_H

#include <stddef.h>

extern const char armor_alphabet[];

/* Text of `size` bytes in lines of `width` letters, each with a line end; width 0: no line ends. Its length in *length. */
char *armor_encode(const unsigned char *bytes, size_t size, size_t width, size_t *length);

/* The bytes of a text, or NULL where it is no base64. Their number in *size. */
unsigned char *armor_decode(const char *text, size_t length, size_t *size);

#endif
