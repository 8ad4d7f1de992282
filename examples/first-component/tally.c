/* Counts the lines and words of each file that it is given: tally FILE... */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static int tally(const char *path) {
    FILE *in = fopen(path, "r");
    if (!in) {
        fprintf(stderr, "tally: %s: %s\n", path, strerror(errno));
        return 1;
    }
    long lines = 0, words = 0;
    for (int c, before = ' '; (c = fgetc(in)) != EOF; before = c) {
        lines += c == '\n';
        words += !isspace(c) && isspace(before);
    }
    fclose(in);
    printf("%s: %ld lines, %ld words\n", path, lines, words);
    return 0;
}

int main(int argc, char **argv) {
    int failed = 0;
    for (int i = 1; i < argc; i++) failed |= tally(argv[i]);
    return failed;
}
