/* Runs the commands of a case on numbered images. A case has these words:
 *
 *     new M WIDTH HEIGHT PIXELS      made by greymap_new; pixels in hexadecimal, "-" for none
 *     end M WIDTH HEIGHT PIXELS      the caller's own struct and pixels; nothing behind the last may be touched
 *     start M WIDTH HEIGHT PIXELS    the same, with nothing in front of the first
 *     go                             what comes behind is measured
 *     blur M FROM RADIUS, sharpen M FROM RADIUS, threshold M FROM RADIUS     M is the result
 *     set M INDEX PIXEL, shape M WIDTH HEIGHT, free M
 *
 * The results: which images were made, then all that are left, whole.
 */
#include "protocol.h"

#include "greymap.h"

enum { IMAGES = 24 };

struct slot {
    greymap *image;
    greymap own;      /* the caller's struct, with pixels in `room` */
    struct room room;
    int is_own;
};

struct command {
    char name[12];
    size_t image, from;
    long long first, second; /* radius; index and pixel; width and height */
    int is_null;
    struct command *next;
};

struct job {
    struct slot slots[IMAGES];
    struct command *first;
};

static size_t next_slot(char **place)
{
    long long slot = next_number(place);
    if (slot < 0 || slot >= IMAGES)
        stop("no such image", "0 to 23");
    return (size_t)slot;
}

static void decode_image(struct job *job, const char *kind, char **place)
{
    struct slot *slot = &job->slots[next_slot(place)];
    int width = (int)next_number(place), height = (int)next_number(place);
    size_t size;
    unsigned char *pixels = next_bytes(place, &size);
    if (width > 0 && height > 0 && size != (size_t)width * (size_t)height)
        stop("another number of pixels", "width x height");
    if (strcmp(kind, "new") == 0) {
        slot->image = greymap_new(width, height);
        if (slot->image == NULL)
            stop("no image", "greymap_new");
    } else {
        slot->is_own = 1;
        slot->room = room_new(size, strcmp(kind, "end") == 0);
        slot->own = (greymap){width, height, slot->room.start};
        slot->image = &slot->own;
    }
    memcpy(slot->image->pixels, pixels, size);
    free(pixels);
}

static struct command *decode_command(const char *name, char **place)
{
    struct command *command = allocate(sizeof *command);
    snprintf(command->name, sizeof command->name, "%s", name);
    command->image = next_slot(place);
    if (strcmp(name, "free") == 0)
        return command;
    if (strcmp(name, "set") == 0 || strcmp(name, "shape") == 0) {
        command->first = next_number(place);
        command->second = next_number(place);
    } else {
        command->from = next_slot(place);
        command->first = next_number(place);
    }
    return command;
}

static struct job *decode_case(char *text)
{
    struct job *job = allocate(sizeof *job);
    struct command **end = &job->first;
    char *word;
    while ((word = expect_word(&text)), strcmp(word, "go") != 0)
        decode_image(job, word, &text);
    while ((word = next_word(&text)) != NULL) {
        *end = decode_command(word, &text);
        end = &(*end)->next;
    }
    return job;
}

static void run_case(struct job *job)
{
    for (struct command *command = job->first; command != NULL; command = command->next) {
        struct slot *slot = &job->slots[command->image];
        const greymap *from = job->slots[command->from].image;
        const char *name = command->name;
        if (strcmp(name, "blur") == 0)
            slot->image = greymap_blur(from, (int)command->first);
        else if (strcmp(name, "sharpen") == 0)
            slot->image = greymap_sharpen(from, (int)command->first);
        else if (strcmp(name, "threshold") == 0)
            slot->image = greymap_threshold(from, (int)command->first);
        else if (strcmp(name, "set") == 0)
            slot->image->pixels[command->first] = (uint8_t)command->second;
        else if (strcmp(name, "shape") == 0)
            slot->image->width = (int)command->first, slot->image->height = (int)command->second;
        else if (strcmp(name, "free") == 0)
            greymap_free(slot->image), slot->image = NULL;
        else
            stop("no such command", name);
        command->is_null = slot->image == NULL;
    }
}

static void encode_results(const struct job *job, struct line *line)
{
    for (const struct command *command = job->first; command != NULL; command = command->next)
        line_add(line, "%s %s ", command->name, command->is_null ? "NULL" : "image");
    for (size_t i = 0; i < IMAGES; i++) {
        const struct slot *slot = &job->slots[i];
        const greymap *image = slot->image;
        if (image == NULL)
            continue;
        line_add(line, " | %zu: %d x %d", i, image->width, image->height);
        if (image->width > 0 && image->height > 0)
            line_add_bytes(line, image->pixels, (size_t)image->width * (size_t)image->height);
        if (slot->is_own && !room_is_whole(&slot->room))
            line_add(line, " written outside");
    }
}

static void free_case(struct job *job)
{
    for (size_t i = 0; i < IMAGES; i++) {
        if (job->slots[i].is_own)
            room_free(&job->slots[i].room);
        else
            greymap_free(job->slots[i].image);
    }
    while (job->first != NULL) {
        struct command *first = job->first;
        job->first = first->next;
        free(first);
    }
    free(job);
}

int main(int count, char **arguments)
{
    return answer_cases(count, arguments);
}
