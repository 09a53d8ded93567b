/* The right ABI with a descriptor that is larger than the broker knows. */
#include <stdio.h>
#include <stdlib.h>

#include <roda/plugin.h>

struct larger {
    struct roda_plugin known;
    void (*unknown)(void);
};

__attribute__((section(".note.roda"), used, aligned(4))) static const struct roda_note note =
    {5, 8, RODA_NOTE_TYPE, RODA_NOTE_NAME, RODA_ABI, sizeof(struct larger)};

__attribute__((constructor)) static void leave_mark(void)
{
    const char *path = getenv("RODA_TEST_MARK");
    FILE *file = path ? fopen(path, "we") : NULL;

    if (file)
        (void)fclose(file);
}

RODA_EXPORT extern const struct larger roda_plugin_entry;
const struct larger roda_plugin_entry =
    {{.abi = RODA_ABI, .size = sizeof(struct larger), .name = "wrong_size", .summary = "too large"},
     NULL};
