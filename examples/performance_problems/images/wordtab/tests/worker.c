/* Runs the commands of a case on numbered tables. A case has these words, keys in hexadecimal, "-" for none:
 *
 *     text X BYTES             a text; nothing behind it may be touched
 *     go                       what comes behind is measured
 *     new T, drop T            a table begins and ends
 *     count T KEY AMOUNT, get T KEY, remove T KEY, size T
 *     words T X                counts all words of a text
 *     rows T, all T            the sorted rows; they are written out at once, or at the end of the case
 *
 * All keys of one length are passed in the same memory, which ends with the key. The results are what the calls return.
 */
#include "protocol.h"

#include "words.h"

enum { TABLES = 8, TEXTS = 4, LONGEST_KEY = 1 << 14 };

struct rows {
    table_row *rows; /* of the table, as long as it has the keys */
    size_t size;
    struct line copy; /* what they were when asked for */
};

enum action { NEW, DROP, COUNT, GET, REMOVE, SIZE, WORDS, ROWS, ALL };

static const char *const action_names[] = {"new", "drop", "count", "get", "remove", "size", "words", "rows", "all"};

struct command {
    enum action action;
    size_t table, text, length;
    unsigned char *key;
    long amount, result;
    struct rows rows;
};

struct job {
    table *tables[TABLES];
    struct room texts[TEXTS], key;
    struct command *commands;
    size_t count;
};

static size_t next_index(char **place, size_t limit)
{
    long long index = next_number(place);
    if (index < 0 || (size_t)index >= limit)
        stop("no such table or text", "from 0");
    return (size_t)index;
}

static void decode_command(struct command *command, const char *name, char **place)
{
    int action = NEW;
    while (action <= ALL && strcmp(name, action_names[action]) != 0)
        action++;
    if (action > ALL)
        stop("no such command", name);
    command->action = (enum action)action;
    command->table = next_index(place, TABLES);
    if (action == COUNT || action == GET || action == REMOVE)
        command->key = next_bytes(place, &command->length);
    if (command->length > LONGEST_KEY)
        stop("a key is too long", name);
    if (action == COUNT)
        command->amount = (long)next_number(place);
    if (action == WORDS)
        command->text = next_index(place, TEXTS);
}

static struct job *decode_case(char *text)
{
    struct job *job = allocate(sizeof *job);
    size_t room = 0;
    char *word;
    job->key = room_new(LONGEST_KEY, 1);
    while ((word = expect_word(&text)), strcmp(word, "go") != 0) {
        size_t index = next_index(&text, TEXTS), size;
        unsigned char *bytes = next_bytes(&text, &size);
        job->texts[index] = room_new(size, 1);
        memcpy(job->texts[index].start, bytes, size);
        free(bytes);
    }
    while ((word = next_word(&text)) != NULL) {
        if (job->count == room) {
            room = 2 * room + 64;
            job->commands = realloc(job->commands, room * sizeof *job->commands);
            if (job->commands == NULL)
                stop("no memory", "realloc");
        }
        memset(&job->commands[job->count], 0, sizeof *job->commands);
        decode_command(&job->commands[job->count++], word, &text);
    }
    return job;
}

static void add_rows(struct line *line, const table_row *rows, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        line_add_bytes(line, rows[i].key, strlen(rows[i].key));
        line_add(line, " %ld", rows[i].count);
    }
}

static void run_command(struct job *job, struct command *command)
{
    table **t = &job->tables[command->table];
    size_t length = command->length;
    unsigned char *place = job->key.start + job->key.size - length;
    const char *key = memcpy(place, command->key != NULL ? command->key : place, length);
    const struct room *text = &job->texts[command->text];
    switch (command->action) {
    case NEW:
        *t = table_new();
        command->result = *t != NULL;
        break;
    case DROP:
        table_free(*t);
        *t = NULL;
        break;
    case COUNT:
        command->result = table_count(*t, key, length, command->amount);
        break;
    case GET:
        command->result = table_get(*t, key, length);
        break;
    case REMOVE:
        command->result = table_remove(*t, key, length) != 0;
        break;
    case SIZE:
        command->result = (long)table_size(*t);
        break;
    case WORDS:
        command->result = (long)words_count(*t, (const char *)text->start, text->size);
        break;
    case ROWS:
    case ALL:
        command->rows.size = table_size(*t);
        command->rows.rows = table_sorted(*t);
        if (command->action == ROWS)
            add_rows(&command->rows.copy, command->rows.rows, command->rows.size);
    }
}

static void run_case(struct job *job)
{
    for (size_t i = 0; i < job->count; i++)
        run_command(job, &job->commands[i]);
}

static void encode_results(const struct job *job, struct line *line)
{
    for (size_t i = 0; i < job->count; i++) {
        const struct command *command = &job->commands[i];
        line_add(line, "%s", action_names[command->action]);
        if (command->action == ROWS && command->rows.copy.size > 0)
            memcpy(line_reserve(line, command->rows.copy.size), command->rows.copy.bytes, command->rows.copy.size);
        else if (command->action == ALL)
            add_rows(line, command->rows.rows, command->rows.size);
        else if (command->action != ROWS)
            line_add(line, " %ld", command->result);
        line_add(line, ", ");
    }
    line_add(line, room_is_whole(&job->key) ? "whole" : "written outside");
    for (size_t i = 0; i < TEXTS; i++) {
        if (job->texts[i].pages != NULL)
            line_add_bytes(line, job->texts[i].start, job->texts[i].size);
    }
}

static void free_case(struct job *job)
{
    for (size_t i = 0; i < TABLES; i++)
        if (job->tables[i] != NULL)
            table_free(job->tables[i]);
    for (size_t i = 0; i < TEXTS; i++)
        if (job->texts[i].pages != NULL)
            room_free(&job->texts[i]);
    for (size_t i = 0; i < job->count; i++) {
        free(job->commands[i].key);
        free(job->commands[i].rows.rows);
        free(job->commands[i].rows.copy.bytes);
    }
    room_free(&job->key);
    free(job->commands);
    free(job);
}

int main(int count, char **arguments)
{
    return answer_cases(count, arguments);
}
