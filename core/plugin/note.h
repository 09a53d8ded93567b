#ifndef RODA_PLUGIN_NOTE_H
#define RODA_PLUGIN_NOTE_H
/* The ELF note of a plugin, read from the file before the loader may run any of its code. */
#include <stdint.h>
#include <stdio.h>

/* -ENOENT etc.: cannot be read; -ENOEXEC: no shared object for this machine; -ENODATA: it has no
 * roda note. */
int note_read(const char *path, uint32_t *ret_abi, uint32_t *ret_size);
/* The same of an open file. */
int note_search(FILE *file, uint32_t *ret_abi, uint32_t *ret_size);

#endif
