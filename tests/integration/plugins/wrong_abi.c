/* Built for an ABI that no broker has yet. Its constructor leaves a mark if any code of it runs. */
#include <stdio.h>
#include <stdlib.h>

#include <roda/plugin.h>

#undef RODA_ABI
#define RODA_ABI ((RODA_ABI_MAJOR + 1) << 16)

__attribute__((constructor)) static void leave_mark(void)
{
    const char *path = getenv("RODA_TEST_MARK");
    FILE *file = path ? fopen(path, "we") : NULL;

    if (file)
        (void)fclose(file);
}

RODA_PLUGIN(.name = "wrong_abi", .summary = "from the future", .version = "1");
