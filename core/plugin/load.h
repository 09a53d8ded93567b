#ifndef RODA_PLUGIN_LOAD_H
#define RODA_PLUGIN_LOAD_H
/* Loading one shared object: finding it, refusing what does not fit, copying its descriptor. */
#include <stddef.h>

#include "roda/plugin.h"

struct loaded {
    char *path;
    void *handle;
    struct roda_plugin plugin; /* ours: what the file's is shorter is zero */
    const char *name;          /* of the section; equals plugin.name */
};

/* Looks for NAME.so and NAME/NAME.so in directory, or takes path if that is not "". On failure a
 * negative errno and a sentence with cause and remedy. */
int plugin_load(const char *name, const char *path, const char *directory, struct loaded *ret,
                char *problem, size_t size);
/* Does not unmap the code when sanitizers watch, since their reports need its names. */
void plugin_unload(struct loaded *loaded);

/* Entry i of a table with that stride; NULL: its end (name or id is NULL) or no table. */
const void *plugin_table_entry(const void *table, uint16_t stride, size_t i);

#endif
