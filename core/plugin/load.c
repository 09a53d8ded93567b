#include "plugin/load.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "plugin/note.h"

/*
 * In this order, so that a plugin that does not fit runs no code: find the file, read its note,
 * compare ABI and size, only then dlopen() and copy the descriptor.
 */

static bool exists(const char *path)
{
    FILE *file = fopen(path, "re");

    if (file)
        fclose(file);
    return file;
}

static int find(const char *name, const char *path, const char *directory, char *found, size_t size,
                char *problem, size_t problem_size)
{
    if (path && path[0]) {
        /* Without a slash dlopen() would look elsewhere, and load what nobody has checked. */
        const char *here = strchr(path, '/') ? "" : "./";
        if ((size_t)snprintf(found, size, "%s%s", here, path) >= size) {
            (void)snprintf(problem, problem_size, "%.64s...: the path is too long", path);
            return -ENAMETOOLONG;
        }
        if (!exists(found)) {
            (void)snprintf(problem, problem_size, "%s: cannot be read: %s", path, strerror(errno));
            return -ENOENT;
        }
        return 0;
    }
    for (int nested = 0; nested <= 1; nested++) {
        int n = nested ? snprintf(found, size, "%s/%s/%s.so", directory, name, name)
                       : snprintf(found, size, "%s/%s.so", directory, name);
        if (n > 0 && (size_t)n < size && exists(found))
            return 0;
    }
    (void)snprintf(problem, problem_size,
                   "no such plugin: neither %s.so nor %s/%s.so is in %s; install it there, or set "
                   "path, or core.plugin_dir",
                   name, name, name, directory[0] ? directory : "(plugin_dir is empty)");
    return -ENOENT;
}

static int check_note(const char *found, char *problem, size_t size)
{
    uint32_t abi = 0, plugin_size = 0;
    int r = note_read(found, &abi, &plugin_size);

    switch (r) {
    case 0:
        break;
    case -ENODATA:
        (void)snprintf(problem, size, "%s: is no roda plugin: it was not made with RODA_PLUGIN()",
                       found);
        return r;
    case -ENOEXEC:
        (void)snprintf(problem, size, "%s: is no shared object for this machine", found);
        return r;
    default:
        (void)snprintf(problem, size, "%s: cannot be read: %s", found, strerror(-r));
        return r;
    }
    if (abi >> 16 != RODA_ABI_MAJOR || (abi & 0xffff) > RODA_ABI_MINOR) {
        (void)snprintf(problem, size,
                       "%s: was built for plugin ABI %u.%u, this broker offers %u.%u; %s", found,
                       abi >> 16, abi & 0xffff, RODA_ABI_MAJOR, RODA_ABI_MINOR,
                       abi > RODA_ABI ? "update the broker, or build the plugin with its headers"
                                      : "build the plugin again with this broker's headers");
        return -ELIBBAD;
    }
    if (plugin_size > sizeof(struct roda_plugin) ||
        plugin_size < offsetof(struct roda_plugin, conf_size)) {
        (void)snprintf(problem, size,
                       "%s: its descriptor has %u bytes, this broker knows %zu; build the plugin "
                       "again with this broker's headers",
                       found, plugin_size, sizeof(struct roda_plugin));
        return -ELIBBAD;
    }
    return 0;
}

const void *plugin_table_entry(const void *table, uint16_t stride, size_t i)
{
    const char *entry = table;
    const char *name;

    if (!table || !stride)
        return NULL;
    entry += i * stride;
    memcpy(&name, entry, sizeof name); /* every table begins with its name */
    return name ? entry : NULL;
}

static int check_descriptor(const struct roda_plugin *p, const char *name, const char *found,
                            char *problem, size_t size)
{
    const char *wrong = NULL;

    if (!p->name || strcmp(p->name, name))
        wrong = "its name is not the one it is loaded by";
    else if (p->flags)
        wrong = "it asks for flags this broker does not know";
    else if (p->layers)
        wrong = "it offers layers, which this broker does not have yet";
    else if (p->kinds && (!p->handle || !p->arrive || !p->distributed))
        wrong = "it owns kinds of messages without handle, arrive and distributed";
    else if (p->option_size > sizeof(struct roda_option) ||
             p->metric_size > sizeof(struct roda_metric) ||
             p->protocol_size > sizeof(struct roda_protocol) ||
             p->service_size > sizeof(struct roda_service_table))
        wrong = "its tables are of a newer kind; update the broker";
    if (!wrong)
        return 0;
    (void)snprintf(problem, size, "%s: %s (its name is \"%s\")", found, wrong,
                   p->name ? p->name : "");
    return -EINVAL;
}

int plugin_load(const char *name, const char *path, const char *directory, struct loaded *ret,
                char *problem, size_t size)
{
    struct loaded loaded = {0};
    const struct roda_plugin *plugin;
    char found[4096];
    int r = find(name, path, directory, found, sizeof found, problem, size);

    if (!r)
        r = check_note(found, problem, size);
    if (r)
        return r;
    loaded.handle = dlopen(found, RTLD_NOW | RTLD_LOCAL);
    if (!loaded.handle) {
        (void)snprintf(problem, size, "%s", dlerror());
        return -ELIBACC;
    }
    plugin = dlsym(loaded.handle, "roda_plugin_entry");
    if (!plugin) {
        (void)snprintf(problem, size, "%s: has a note but no descriptor", found);
        plugin_unload(&loaded);
        return -ELIBBAD;
    }
    memcpy(&loaded.plugin, plugin,
           plugin->size < sizeof loaded.plugin ? plugin->size : sizeof loaded.plugin);
    r = check_descriptor(&loaded.plugin, name, found, problem, size);
    if (!r && !(loaded.path = memory_copy(found, strlen(found))))
        r = -ENOMEM;
    if (r) {
        plugin_unload(&loaded);
        return r;
    }
    loaded.name = loaded.plugin.name;
    *ret = loaded;
    return 0;
}

void plugin_unload(struct loaded *loaded)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    if (loaded->handle)
        dlclose(loaded->handle);
#endif
    memory_free(loaded->path);
    *loaded = (struct loaded){0};
}
