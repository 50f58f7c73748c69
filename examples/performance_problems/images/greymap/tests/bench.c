/* A made-up photograph through all filters; prints a digest of every result. */
#include "greymap.h"

#include <stdlib.h>

enum { WIDTH = 560, HEIGHT = 470 };

static uint32_t state = 2463534242u;

static uint32_t next(void) /* xorshift32 */
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

static void show(const char *name, greymap *image)
{
    uint64_t a = 1, b = 0; /* like Adler's, with a larger modulus */
    for (int i = 0; i < image->width * image->height; i++) {
        a = (a + image->pixels[i]) % 4294967291u;
        b = (b + a) % 4294967291u;
    }
    printf("%s %08lx%08lx\n", name, (unsigned long)b, (unsigned long)a);
    greymap_free(image);
}

int main(void)
{
    const char *seed = getenv("BENCH_SEED");
    for (seed = seed ? seed : "0"; *seed; seed++)
        state = (state ^ (uint8_t)*seed) * 16777619u | 1;
    greymap *image = greymap_new(WIDTH + (int)(next() % 16), HEIGHT + (int)(next() % 16));
    int light = 128;
    for (int i = 0; i < image->width * image->height; i++) {
        light += (int)(next() % 61) - 30;
        light = light < 0 ? 0 : light > 255 ? 255 : light;
        image->pixels[i] = (uint8_t)light;
    }
    show("blur", greymap_blur(image, 8 + (int)(next() % 2)));
    show("sharpen", greymap_sharpen(image, 5));
    show("threshold", greymap_threshold(image, 11));
    greymap_free(image);
    return 0;
}
