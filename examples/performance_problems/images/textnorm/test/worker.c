/* Runs the commands of a case on numbered strings. A case has these words, bytes in hexadecimal, "-" for none:
 *
 *     end S BYTES, start S BYTES      a string; nothing behind its NUL, or in front of it, may be touched
 *     go                              what comes behind is measured
 *     fold S PLACE, squeeze S PLACE, slug S PLACE, strip S PLACE UNWANTED
 *                                     on what begins at a place of the string, at most its end
 *     write S BYTES                   other bytes, not more than at first, in the same memory
 *
 * The results: for every call the place that is returned and the whole string. What is behind a NUL does not count.
 */
#include "protocol.h"

#include "textnorm.h"

enum { STRINGS = 8 };

struct command {
    char name[8];
    size_t string, place;
    struct room bytes;  /* what to write, or what is unwanted, with a NUL */
    char *result, *whole; /* what was returned, and a copy of the string */
    struct command *next;
};

struct job {
    struct room strings[STRINGS];
    struct command *first;
};

static struct room next_string(char **place, int at_end)
{
    size_t size;
    unsigned char *bytes = next_bytes(place, &size);
    struct room room = room_new(size + 1, at_end);
    memcpy(room.start, bytes, size);
    free(bytes);
    return room;
}

static size_t next_index(char **place)
{
    long long index = next_number(place);
    if (index < 0 || index >= STRINGS)
        stop("no such string", "0 to 7");
    return (size_t)index;
}

static struct command *decode_command(const struct job *job, const char *name, char **place)
{
    struct command *command = allocate(sizeof *command);
    size_t size;
    snprintf(command->name, sizeof command->name, "%s", name);
    command->string = next_index(place);
    size = job->strings[command->string].size;
    if (strcmp(name, "write") != 0) {
        command->place = (size_t)next_number(place);
        command->whole = allocate(size);
        memset(command->whole, 1, size); /* so that the pages are there */
    }
    if (strcmp(name, "write") == 0 || strcmp(name, "strip") == 0)
        command->bytes = next_string(place, 1);
    return command;
}

static struct job *decode_case(char *text)
{
    struct job *job = allocate(sizeof *job);
    struct command **end = &job->first;
    char *word;
    while ((word = expect_word(&text)), strcmp(word, "go") != 0) {
        size_t index = next_index(&text);
        job->strings[index] = next_string(&text, strcmp(word, "end") == 0);
    }
    while ((word = next_word(&text)) != NULL) {
        *end = decode_command(job, word, &text);
        end = &(*end)->next;
    }
    return job;
}

static void run_case(struct job *job)
{
    struct command *command;
    for (command = job->first; command != NULL; command = command->next) {
        char *start = (char *)job->strings[command->string].start, *text = start;
        if (strcmp(command->name, "write") == 0) {
            memcpy(start, command->bytes.start, command->bytes.size);
            continue;
        }
        if (command->place > 0) {
            size_t length = strlen(start);
            text += command->place < length ? command->place : length;
        }
        if (strcmp(command->name, "fold") == 0)
            command->result = tn_fold(text);
        else if (strcmp(command->name, "squeeze") == 0)
            command->result = tn_squeeze(text);
        else if (strcmp(command->name, "slug") == 0)
            command->result = tn_slug(text);
        else if (strcmp(command->name, "strip") == 0)
            command->result = tn_strip(text, (const char *)command->bytes.start);
        else
            stop("no such command", command->name);
        memcpy(command->whole, start, strnlen(start, job->strings[command->string].size));
        command->whole[strnlen(start, job->strings[command->string].size)] = '\0';
        command->result = command->whole + (command->result - start);
    }
}

static void encode_results(const struct job *job, struct line *line)
{
    const struct command *command;
    size_t i;
    for (command = job->first; command != NULL; command = command->next) {
        if (command->whole == NULL)
            continue;
        line_add(line, "%s returns %ld:", command->name, (long)(command->result - command->whole));
        line_add_bytes(line, command->whole, strlen(command->whole));
        if (command->bytes.pages != NULL)
            line_add_bytes(line, command->bytes.start, command->bytes.size);
        line_add(line, " | ");
    }
    for (i = 0; i < STRINGS; i++)
        if (job->strings[i].pages != NULL)
            line_add(line, "%s", room_is_whole(&job->strings[i]) ? "whole " : "written outside ");
}

static void free_case(struct job *job)
{
    size_t i;
    for (i = 0; i < STRINGS; i++)
        if (job->strings[i].pages != NULL)
            room_free(&job->strings[i]);
    while (job->first != NULL) {
        struct command *first = job->first;
        job->first = first->next;
        if (first->bytes.pages != NULL)
            room_free(&first->bytes);
        free(first->whole);
        free(first);
    }
    free(job);
}

int main(int count, char **arguments)
{
    return answer_cases(count, arguments);
}
