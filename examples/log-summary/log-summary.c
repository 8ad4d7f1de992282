/* Counts levels and recurring errors in application logs.
 *
 *   log-summary LOGS OUT      reads every *.log beneath LOGS, writes OUT/log-summary.json, prints a table
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEBUG, INFO, WARN, ERROR, FATAL, OTHER, LEVELS };
static const char *const level_names[LEVELS] = {"debug", "info", "warn", "error", "fatal", "other"};

struct counts { long lines, by_level[LEVELS]; };
struct file { char *name; struct counts counts; char first[32], last[32]; };
struct message { char *text; long count; };

static struct file *files;
static struct message *messages;
static size_t file_count, message_count;

static void *grow(void *array, size_t count, size_t size) {
    if (count & (count - 1)) return array; /* doubled at each power of two */
    array = realloc(array, (count ? count * 2 : 1) * size);
    if (!array) abort();
    return array;
}

static int level_of(const char *line, const char **after) {
    static const struct { const char *word; int level; } words[] = {
        {"DEBUG", DEBUG}, {"INFO", INFO}, {"WARNING", WARN}, {"WARN", WARN}, {"ERROR", ERROR}, {"FATAL", FATAL}, {"CRITICAL", FATAL},
    };
    for (const char *p = line; *p; p++) {
        if (p > line && isalnum((unsigned char)p[-1])) continue;
        for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
            size_t n = strlen(words[i].word);
            if (!strncmp(p, words[i].word, n) && !isalnum((unsigned char)p[n])) return *after = p + n, words[i].level;
        }
    }
    return *after = line, OTHER;
}

/* Numbers become #, so that the same error of another request counts as the same. */
static void count_message(const char *text) {
    char plain[160];
    size_t n = 0;
    while (*text && strchr(" :]-", *text)) text++;
    for (; *text && *text != '\n' && n < sizeof plain - 1; text++) {
        if (isdigit((unsigned char)*text)) {
            if (!n || plain[n - 1] != '#') plain[n++] = '#';
        } else plain[n++] = *text;
    }
    plain[n] = 0;
    for (size_t i = 0; i < message_count; i++)
        if (!strcmp(messages[i].text, plain)) {
            messages[i].count++;
            return;
        }
    messages = grow(messages, message_count, sizeof *messages);
    messages[message_count++] = (struct message){strdup(plain), 1};
}

static int read_log(const char *path, const char *name) {
    FILE *in = fopen(path, "r");
    if (!in) return fprintf(stderr, "log-summary: %s: %s\n", path, strerror(errno)), 1;
    files = grow(files, file_count, sizeof *files);
    struct file *file = &files[file_count++];
    memset(file, 0, sizeof *file);
    file->name = strdup(name);
    static char line[16384];
    while (fgets(line, sizeof line, in)) {
        const char *after;
        int level = level_of(line, &after);
        file->counts.lines++;
        file->counts.by_level[level]++;
        if (level == ERROR || level == FATAL) count_message(after);
        if (isdigit((unsigned char)line[0])) {
            size_t n = strcspn(line, " \n");
            if (n >= sizeof file->last) n = sizeof file->last - 1;
            memcpy(file->last, line, n), file->last[n] = 0;
            if (!file->first[0]) strcpy(file->first, file->last);
        }
    }
    fclose(in);
    return 0;
}

static int read_logs(const char *directory, const char *prefix) {
    DIR *dir = opendir(directory);
    if (!dir) return fprintf(stderr, "log-summary: %s: %s\n", directory, strerror(errno)), 1;
    int failed = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        char path[4096], name[4096];
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", directory, e->d_name);
        snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "/" : "", e->d_name);
        size_t n = strlen(name);
        if (e->d_type == DT_DIR) failed |= read_logs(path, name);
        else if (n > 4 && !strcmp(name + n - 4, ".log")) failed |= read_log(path, name);
    }
    closedir(dir);
    return failed;
}

static int by_name(const void *a, const void *b) { return strcmp(((const struct file *)a)->name, ((const struct file *)b)->name); }
static int by_count(const void *a, const void *b) {
    const struct message *x = a, *y = b;
    return x->count != y->count ? (x->count < y->count ? 1 : -1) : strcmp(x->text, y->text);
}

static void json_string(FILE *out, const char *text) {
    putc('"', out);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c == '"' || *c == '\\') fprintf(out, "\\%c", *c);
        else if (*c < 32 || *c == 127) fprintf(out, "\\u%04x", *c);
        else putc(*c, out);
    }
    putc('"', out);
}

static void json_counts(FILE *out, const struct counts *counts) {
    fprintf(out, "\"lines\": %ld", counts->lines);
    for (int i = 0; i < LEVELS; i++) fprintf(out, ", \"%s\": %ld", level_names[i], counts->by_level[i]);
}

static int write_summary(const char *path, const struct counts *total) {
    FILE *out = fopen(path, "w");
    if (!out) return fprintf(stderr, "log-summary: %s: %s\n", path, strerror(errno)), 1;
    fprintf(out, "{\n  \"total\": {");
    json_counts(out, total);
    fprintf(out, "},\n  \"files\": [");
    for (size_t i = 0; i < file_count; i++) {
        fprintf(out, "%s\n    {\"name\": ", i ? "," : "");
        json_string(out, files[i].name);
        fprintf(out, ", ");
        json_counts(out, &files[i].counts);
        fprintf(out, ", \"first\": ");
        json_string(out, files[i].first);
        fprintf(out, ", \"last\": ");
        json_string(out, files[i].last);
        putc('}', out);
    }
    fprintf(out, "\n  ],\n  \"errors\": [");
    for (size_t i = 0; i < message_count && i < 20; i++) {
        fprintf(out, "%s\n    {\"count\": %ld, \"message\": ", i ? "," : "", messages[i].count);
        json_string(out, messages[i].text);
        putc('}', out);
    }
    fprintf(out, "\n  ]\n}\n");
    return fclose(out) ? (fprintf(stderr, "log-summary: %s: %s\n", path, strerror(errno)), 1) : 0;
}

int main(int argc, char **argv) {
    if (argc != 3) return fprintf(stderr, "usage: log-summary LOGS OUT\n"), 64;
    int failed = read_logs(argv[1], "");
    if (!file_count) return fprintf(stderr, "log-summary: no *.log beneath %s\n", argv[1]), 1;
    qsort(files, file_count, sizeof *files, by_name);
    if (message_count) qsort(messages, message_count, sizeof *messages, by_count);

    struct counts total = {0};
    printf("%-24s %7s", "", "lines");
    for (int i = 0; i < LEVELS; i++) printf(" %7s", level_names[i]);
    puts("");
    for (size_t i = 0; i < file_count; i++) {
        printf("%-24s %7ld", files[i].name, files[i].counts.lines);
        total.lines += files[i].counts.lines;
        for (int k = 0; k < LEVELS; k++) {
            printf(" %7ld", files[i].counts.by_level[k]);
            total.by_level[k] += files[i].counts.by_level[k];
        }
        puts("");
    }
    printf("%-24s %7ld", "total", total.lines);
    for (int i = 0; i < LEVELS; i++) printf(" %7ld", total.by_level[i]);
    puts("");
    for (size_t i = 0; i < message_count && i < 3; i++) printf("%ld times: %s\n", messages[i].count, messages[i].text);

    char path[4096];
    snprintf(path, sizeof path, "%s/log-summary.json", argv[2]);
    return write_summary(path, &total) || failed;
}
