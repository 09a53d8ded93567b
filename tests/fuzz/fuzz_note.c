#include "plugin/note.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/*
 * Any bytes as a plugin's file. What must hold: an answer that the header names, outputs untouched
 * unless it is 0, and nothing read that the file does not have (the sanitizers see that). What is
 * found was in the file: the same four bytes stand somewhere in it.
 */
static void require(bool holds)
{
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t abi = 0x5a5a5a5a, plugin_size = 0xa5a5a5a5;
    FILE *file;
    int r;

    if (!data || !size)
        return 0;
    file = fmemopen((void *)(uintptr_t)data, size, "rb");
    if (!file)
        return 0;
    r = note_search(file, &abi, &plugin_size);
    fclose(file);
    require(r == 0 || r == -ENOEXEC || r == -ENODATA);
    if (r) {
        require(abi == 0x5a5a5a5a && plugin_size == 0xa5a5a5a5);
        return 0;
    }
    require(memmem(data, size, "roda", 5) && memmem(data, size, &abi, sizeof abi) &&
            memmem(data, size, &plugin_size, sizeof plugin_size));
    return 0;
}
