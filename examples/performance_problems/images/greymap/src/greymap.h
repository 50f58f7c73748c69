/* Grey images and their filters. */
#ifndef GREYMAP_H
#define GREYMAP_H

#include <stdint.h>
#include <stdio.h>

typedef struct {
    int width, height;
    uint8_t *pixels; /* row by row, from the top */
} greymap;

/* NULL without memory or for a side below 1. */
greymap *greymap_new(int width, int height);
void greymap_free(greymap *image);

/* NULL for what is no binary PGM with values up to 255. */
greymap *greymap_read(FILE *file);
int greymap_write(const greymap *image, FILE *file);

/* New images; NULL without memory or for a negative radius. */
greymap *greymap_blur(const greymap *image, int radius);
greymap *greymap_sharpen(const greymap *image, int radius);
greymap *greymap_threshold(const greymap *image, int radius);

#endif
