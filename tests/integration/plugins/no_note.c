/* A descriptor without the ELF note: not made by RODA_PLUGIN(). */
#include <stdio.h>
#include <stdlib.h>

#include <roda/plugin.h>

__attribute__((constructor)) static void leave_mark(void)
{
    const char *path = getenv("RODA_TEST_MARK");
    FILE *file = path ? fopen(path, "we") : NULL;

    if (file)
        (void)fclose(file);
}

RODA_EXPORT extern const struct roda_plugin roda_plugin_entry;
const struct roda_plugin roda_plugin_entry = {.abi = RODA_ABI,
                                              .size = sizeof(struct roda_plugin),
                                              .name = "no_note",
                                              .summary = "made by hand",
                                              .version = "1"};
