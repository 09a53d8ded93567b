/*
 * Feeds files to a fuzz target, in builds without libFuzzer: the seeds stay a test on every
 * compiler, and an input that once failed keeps being tried when it is added to them.
 *
 *     replay-NAME FILE-OR-FOLDER ...
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static int replay_file(const char *path, size_t size)
{
    /* Exactly as large as the input, so that AddressSanitizer sees the first byte too far. */
    uint8_t *bytes = malloc(size > 0 ? size : 1);
    FILE *file = fopen(path, "rb");
    int result = -1;

    if (bytes != NULL && file != NULL && fread(bytes, 1, size, file) == size) {
        (void)LLVMFuzzerTestOneInput(bytes, size);
        result = 1;
    } else {
        (void)fprintf(stderr, "%s: cannot be read: %s\n", path, strerror(errno));
    }
    if (file != NULL)
        (void)fclose(file);
    free(bytes);
    return result;
}

static int replay_folder(const char *path);

/* How many files were replayed, or -1. */
static int replay(const char *path)
{
    struct stat status;

    if (stat(path, &status) != 0) {
        (void)fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    if (S_ISDIR(status.st_mode))
        return replay_folder(path);
    return replay_file(path, (size_t)status.st_size);
}

static int replay_folder(const char *path)
{
    struct dirent **entries;
    int n_entries = scandir(path, &entries, NULL, alphasort);
    int n_files = 0;

    if (n_entries < 0) {
        (void)fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    for (int i = 0; i < n_entries; i++) {
        char name[PATH_MAX];
        int length = snprintf(name, sizeof(name), "%s/%s", path, entries[i]->d_name);

        if (n_files >= 0 && entries[i]->d_name[0] != '.') {
            int n = length < (int)sizeof(name) ? replay(name) : -1;
            n_files = n < 0 ? -1 : n_files + n;
        }
        free(entries[i]);
    }
    free(entries);
    return n_files;
}

int main(int argc, char **argv)
{
    int n_files = 0;

    for (int i = 1; i < argc; i++) {
        int n = replay(argv[i]);
        if (n < 0)
            return 1;
        n_files += n;
    }
    if (n_files == 0) {
        (void)fprintf(stderr, "no input: give files or folders\n");
        return 1;
    }
    printf("%d inputs\n", n_files);
    return 0;
}
