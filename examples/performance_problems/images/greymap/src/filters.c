#include "greymap.h"

#include <stddef.h>

greymap *greymap_blur(const greymap *image, int radius)
{
    if (radius < 0)
        return NULL;
    greymap *blurred = greymap_new(image->width, image->height);
    if (blurred == NULL)
        return NULL;
    for (int x = 0; x < image->width; x++) {
        for (int y = 0; y < image->height; y++) {
            long sum = 0, count = 0;
            for (int dx = -radius; dx <= radius; dx++) {
                for (int dy = -radius; dy <= radius; dy++) {
                    if (x + dx < 0 || x + dx >= image->width || y + dy < 0 || y + dy >= image->height)
                        continue;
                    sum += image->pixels[(ptrdiff_t)(y + dy) * image->width + x + dx];
                    count++;
                }
            }
            blurred->pixels[(ptrdiff_t)y * image->width + x] = (uint8_t)((2 * sum + count) / (2 * count));
        }
    }
    return blurred;
}

greymap *greymap_sharpen(const greymap *image, int radius)
{
    greymap *result = greymap_blur(image, radius);
    for (ptrdiff_t i = 0; result != NULL && i < (ptrdiff_t)image->width * image->height; i++) {
        int value = 2 * image->pixels[i] - result->pixels[i];
        result->pixels[i] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
    }
    return result;
}

greymap *greymap_threshold(const greymap *image, int radius)
{
    greymap *result = greymap_blur(image, radius);
    for (ptrdiff_t i = 0; result != NULL && i < (ptrdiff_t)image->width * image->height; i++)
        result->pixels[i] = image->pixels[i] >= result->pixels[i] ? 255 : 0;
    return result;
}
