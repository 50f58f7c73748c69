/* Runs the commands of a case on numbered pieces of memory. A case has these words, bytes in hexadecimal, "-" for none:
 *
 *     end B BYTES, start B BYTES    the caller's bytes; nothing behind, or in front, may be touched
 *     go                            what comes behind is measured
 *     encode B FROM WIDTH, decode B FROM      B is the result; FROM is the caller's, or an earlier result
 *     write B PLACE BYTES           other bytes in the same memory
 *     free B                        gives back a result
 *     alphabet
 *
 * The results: what the calls return, then all bytes that are left, with the NUL behind results.
 */
#include "protocol.h"

#include "armor.h"

enum { PIECES = 24, UNTOUCHED = 12345 };

struct piece {
    unsigned char *bytes;
    size_t size;
    struct room room; /* of the caller's bytes */
};

struct command {
    char name[12];
    size_t piece, from, width;
    unsigned char *bytes; /* to be written at `width` */
    size_t size;          /* of them; or what armor_* wrote there */
    int is_null;
    struct command *next;
};

struct job {
    struct piece pieces[PIECES];
    struct command *first;
};

static size_t next_piece(char **place)
{
    long long piece = next_number(place);
    if (piece < 0 || piece >= PIECES)
        stop("no such piece", "0 to 23");
    return (size_t)piece;
}

static void decode_piece(struct job *job, const char *kind, char **place)
{
    struct piece *piece = &job->pieces[next_piece(place)];
    unsigned char *bytes = next_bytes(place, &piece->size);
    piece->room = room_new(piece->size, strcmp(kind, "end") == 0);
    piece->bytes = piece->room.start;
    memcpy(piece->bytes, bytes, piece->size);
    free(bytes);
}

static struct command *decode_command(const char *name, char **place)
{
    struct command *command = allocate(sizeof *command);
    snprintf(command->name, sizeof command->name, "%s", name);
    if (strcmp(name, "alphabet") == 0)
        return command;
    command->piece = next_piece(place);
    if (strcmp(name, "encode") == 0 || strcmp(name, "decode") == 0)
        command->from = next_piece(place);
    if (strcmp(name, "encode") == 0 || strcmp(name, "write") == 0)
        command->width = (size_t)next_number(place);
    if (strcmp(name, "write") == 0)
        command->bytes = next_bytes(place, &command->size);
    return command;
}

static struct job *decode_case(char *text)
{
    struct job *job = allocate(sizeof *job);
    struct command **end = &job->first;
    char *word;
    while ((word = expect_word(&text)), strcmp(word, "go") != 0)
        decode_piece(job, word, &text);
    while ((word = next_word(&text)) != NULL) {
        *end = decode_command(word, &text);
        end = &(*end)->next;
    }
    return job;
}

static void run_case(struct job *job)
{
    for (struct command *command = job->first; command != NULL; command = command->next) {
        struct piece *piece = &job->pieces[command->piece], *from = &job->pieces[command->from];
        const char *name = command->name;
        if (strcmp(name, "encode") == 0 || strcmp(name, "decode") == 0) {
            command->size = UNTOUCHED;
            if (strcmp(name, "encode") == 0)
                piece->bytes = (unsigned char *)armor_encode(from->bytes, from->size, command->width, &command->size);
            else
                piece->bytes = armor_decode((const char *)from->bytes, from->size, &command->size);
            piece->size = command->size;
            command->is_null = piece->bytes == NULL;
        } else if (strcmp(name, "write") == 0) {
            if (piece->bytes == NULL || command->width + command->size > piece->size)
                stop("no room to write", name);
            memcpy(piece->bytes + command->width, command->bytes, command->size);
        } else if (strcmp(name, "free") == 0) {
            free(piece->bytes);
            piece->bytes = NULL;
        } else if (strcmp(name, "alphabet") != 0) {
            stop("no such command", name);
        }
    }
}

static void encode_results(const struct job *job, struct line *line)
{
    for (const struct command *command = job->first; command != NULL; command = command->next) {
        if (strcmp(command->name, "alphabet") == 0)
            line_add(line, "%.100s ", armor_alphabet);
        else if (strcmp(command->name, "encode") == 0 || strcmp(command->name, "decode") == 0)
            line_add(line, "%s %s, size %zu ", command->name, command->is_null ? "NULL" : "bytes", command->size);
    }
    for (size_t i = 0; i < PIECES; i++) {
        const struct piece *piece = &job->pieces[i];
        if (piece->bytes == NULL)
            continue;
        line_add(line, " | %zu:", i);
        if (piece->room.pages == NULL)
            line_add_bytes(line, piece->bytes, piece->size + 1);
        else
            line_add_bytes(line, piece->bytes, piece->size);
        if (piece->room.pages != NULL && !room_is_whole(&piece->room))
            line_add(line, " written outside");
    }
}

static void free_case(struct job *job)
{
    for (size_t i = 0; i < PIECES; i++) {
        if (job->pieces[i].room.pages != NULL)
            room_free(&job->pieces[i].room);
        else
            free(job->pieces[i].bytes);
    }
    while (job->first != NULL) {
        struct command *first = job->first;
        job->first = first->next;
        free(first->bytes);
        free(first);
    }
    free(job);
}

int main(int count, char **arguments)
{
    return answer_cases(count, arguments);
}
