/*
 * Model: three steps, each of which goes on after errors, so that one run tells all of them.
 *
 *     1  read     the named file, then what its core.include matches, into the store
 *     2  sections are they known, do they have the name they need
 *     3  fill     the core's tables from the store; listener.c checks listeners
 *
 * Everything a struct conf points to, itself included, lives in its store's arena, so there is one
 * owner and one free. What a file left out has its default; what it got wrong too, and an error.
 */
#include "conf/conf.h"

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"
#include "conf/fill.h"
#include "conf/listener.h"
#include "conf/option.h"
#include "conf/reader.h"
#include "conf/sections.h"

#define STRIDE sizeof(struct roda_option)

/* ---- places ----------------------------------------------------------------------------- */

static const struct store_entry *entry_at(const struct conf *conf, const char *section,
                                          const char *key)
{
    return key ? store_entry_find(store_section_find(conf->store, section), key) : NULL;
}

bool conf_is_set(const struct conf *conf, const char *section, const char *key)
{
    return entry_at(conf, section, key) != NULL;
}

struct conf_place conf_place(const struct conf *conf, const char *section, const char *key)
{
    const struct store_entry *entry = entry_at(conf, section, key);
    const struct store_section *found = store_section_find(conf->store, section);

    if (entry)
        return entry->place;
    return found ? found->place : conf->store->file;
}

static const char *written_value(const struct conf *conf, const char *section, const char *key)
{
    const struct store_entry *entry = entry_at(conf, section, key);

    return entry ? entry->value : NULL;
}

int conf_error_at(struct roda_conf_errors *errors, const struct conf *conf, const char *section,
                  const char *key, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    conf_errors_add_list(errors, CONF_ERROR, conf_place(conf, section, key), section, key,
                         written_value(conf, section, key), fmt, args);
    va_end(args);
    return -EINVAL;
}

int conf_error_near(struct roda_conf_errors *errors, const struct conf *conf, const char *section,
                    const char *key, const char *const *names, size_t n_names, const char *fmt, ...)
{
    const char *value = written_value(conf, section, key);
    const char *near = value ? suggest_name(value, names, n_names) : NULL;
    char reason[OPTION_REASON_BYTES];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(reason, sizeof(reason), fmt, args);
    va_end(args);
    if (near)
        return conf_error_at(errors, conf, section, key, "%s; did you mean \"%s\"?", reason, near);
    return conf_error_at(errors, conf, section, key, "%s", reason);
}

/* ---- read ------------------------------------------------------------------------------- */

/* The patterns of core.include, as written; what else is wrong in [core] is told when it is
 * filled. */
static int include_patterns(struct conf_store *store, struct roda_list *ret_patterns)
{
    struct roda_conf_errors *ignored = conf_errors_new();
    struct conf_core core = {.name = NULL};
    const struct roda_option *option =
        option_find(sections[SECTIONS_CORE].options, STRIDE, "include");
    const struct roda_option table[] = {*option, {.name = NULL}};
    struct fill fill = {
        .store = store,
        .errors = ignored,
        .name = sections[SECTIONS_CORE].kind,
        .section = store_section_find(store, sections[SECTIONS_CORE].kind),
        .prefix = "",
        .table = table,
        .stride = STRIDE,
        .target = &core,
    };
    int result = ignored ? fill_section(&fill) : -ENOMEM;

    conf_errors_free(ignored);
    if (result == 0)
        *ret_patterns = core.include;
    return result;
}

struct includes {
    struct conf_store *store;
    struct roda_conf_errors *errors;
    const char *files[CONF_FILES_MAX]; /* the named one first */
    unsigned n_files;
};

static bool includes_has(const struct includes *includes, const char *path)
{
    for (unsigned i = 0; i < includes->n_files; i++) {
        if (strcmp(includes->files[i], path) == 0)
            return true;
    }
    return false;
}

static int include_file(struct includes *includes, struct conf_place from, const char *path)
{
    struct conf_place place = {.order = includes->n_files};
    int result;

    if (includes_has(includes, path))
        return 0;
    if (includes->n_files == CONF_FILES_MAX) {
        conf_errors_add(includes->errors, CONF_ERROR, from, "core", "include", NULL,
                        "more than %u files", CONF_FILES_MAX);
        return 0;
    }
    place.file = store_copy(includes->store, path, strlen(path));
    if (!place.file)
        return -ENOMEM;
    includes->files[includes->n_files++] = place.file;
    result = reader_file(includes->store, place, includes->errors);
    return result == -ENOMEM ? result : 0; /* all else is told */
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* pattern: relative to the working directory. Told at from if nothing is found that must be. */
static int include_pattern(struct includes *includes, struct conf_place from, const char *pattern,
                           const char *written)
{
    glob_t found = {.gl_pathc = 0};
    int result = 0;

    switch (glob(pattern, GLOB_NOSORT, NULL, &found)) {
    case 0:
        qsort(found.gl_pathv, found.gl_pathc, sizeof(*found.gl_pathv), by_bytes);
        for (size_t i = 0; i < found.gl_pathc && result == 0; i++)
            result = include_file(includes, from, found.gl_pathv[i]);
        break;
    case GLOB_NOSPACE:
        result = -ENOMEM;
        break;
    default: /* a pattern may match nothing: the folder is there to be filled */
        if (!strpbrk(written, "*?["))
            conf_errors_add(includes->errors, CONF_ERROR, from, "core", "include", written,
                            "no such file (looked for %s)", pattern);
    }
    globfree(&found);
    return result;
}

static int read_includes(struct conf_store *store, struct roda_conf_errors *errors)
{
    struct includes includes = {.store = store,
                                .errors = errors,
                                .files = {store->file.file},
                                .n_files = 1};
    const struct store_section *core = store_section_find(store, sections[SECTIONS_CORE].kind);
    struct store_entry *first = store_entry_find(core, "include");
    const char *slash = strrchr(store->file.file, '/');
    struct roda_list patterns = {NULL, 0};
    char *folder;
    int result = include_patterns(store, &patterns);

    for (size_t i = 0; i < patterns.n && result == 0; i++) {
        const char *written = patterns.items[i].ptr, *pattern = written;

        if (slash && written[0] != '/') {
            folder = store_copy(store, store->file.file, (size_t)(slash - store->file.file));
            pattern = folder ? store_path(store, folder, written) : NULL;
        }
        result = pattern ? include_pattern(&includes, first->place, pattern, written) : -ENOMEM;
    }
    return result;
}

/* An included file that includes: told, not done. */
static void check_include_depth(const struct conf_store *store, struct roda_conf_errors *errors)
{
    struct store_entry *entry =
        store_entry_find(store_section_find(store, sections[SECTIONS_CORE].kind), "include");

    for (; entry; entry = store_entry_next(entry)) {
        if (entry->place.order > 0)
            conf_errors_add(errors, CONF_ERROR, entry->place, "core", "include", entry->value,
                            "an included file cannot include others; name them in %s",
                            store->file.file);
    }
}

/* ---- sections --------------------------------------------------------------------------- */

static const struct sections_entry *section_kind(const char *kind)
{
    for (size_t i = 0; i < SECTIONS_N; i++) {
        if (strcmp(sections[i].kind, kind) == 0)
            return &sections[i];
    }
    return NULL;
}

static void tell_section(struct roda_conf_errors *errors, struct store_section *section,
                         const char *fmt, ...) RODA_PRINTF(3, 4);
static void tell_section(struct roda_conf_errors *errors, struct store_section *section,
                         const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    conf_errors_add_list(errors, CONF_ERROR, section->place, section->name, NULL, NULL, fmt, args);
    va_end(args);
    section->refused = true;
}

static void tell_unknown_section(struct roda_conf_errors *errors, struct store_section *section)
{
    struct suggest near = suggest_for(section->kind);
    const struct sections_entry *kind;

    for (size_t i = 0; i < SECTIONS_N; i++)
        suggest_offer(&near, sections[i].kind);
    kind = near.best ? section_kind(near.best) : NULL;
    if (!kind)
        tell_section(errors, section,
                     "unknown section; there are [core], [messages], [limits], [listener NAME] and "
                     "[plugin NAME]");
    else if (kind->named)
        tell_section(errors, section, "unknown section; did you mean \"%s %s\"?", kind->kind,
                     section->label[0] ? section->label : "NAME");
    else
        tell_section(errors, section, "unknown section; did you mean \"%s\"?", kind->kind);
}

static bool label_is_good(const char *label)
{
    for (; *label; label++) {
        bool letter = (*label >= 'a' && *label <= 'z') || (*label >= 'A' && *label <= 'Z');
        bool digit = *label >= '0' && *label <= '9';

        if (!letter && !digit && *label != '-' && *label != '_')
            return false;
    }
    return true;
}

static void check_section(struct roda_conf_errors *errors, struct store_section *section)
{
    const struct sections_entry *kind = section_kind(section->kind);

    if (!kind)
        tell_unknown_section(errors, section);
    else if (kind->named && !section->label[0])
        tell_section(errors, section, "the name is missing; write [%s NAME]", kind->kind);
    else if (!kind->named && section->label[0])
        tell_section(errors, section, "has no name; write [%s]", kind->kind);
    else if (!label_is_good(section->label))
        tell_section(errors, section, "a name is made of letters, digits, \"-\" and \"_\"");
}

/* ---- fill ------------------------------------------------------------------------------- */

static int fill_core_section(struct conf *conf, enum sections_kind kind, void *target,
                             struct roda_conf_errors *errors)
{
    const struct sections_entry *entry = &sections[kind];
    const struct fill_names names[] = {{entry->options, STRIDE, 0}, {NULL, 0, 0}};
    struct fill fill = {
        .store = conf->store,
        .errors = errors,
        .name = entry->kind,
        .section = store_section_find(conf->store, entry->kind),
        .prefix = "",
        .table = entry->options,
        .stride = STRIDE,
        .target = target,
    };
    int result = fill_section(&fill);

    if (result == 0 && fill.section)
        fill_unknown(errors, fill.section, names, false);
    return result;
}

/* What stands in messages to others must not be taken apart by them. */
static void check_name(const struct conf *conf, struct roda_conf_errors *errors)
{
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";

    if (conf->core.name[strspn(conf->core.name, good)] != '\0')
        (void)conf_error_at(errors, conf, "core", "name",
                            "a name like a host's: letters, digits, \".\", \"-\" and \"_\"");
}

static int use_defaults(struct conf *conf, const struct conf_defaults *defaults)
{
    const char *state = defaults ? defaults->state_dir : NULL;
    const char *plugins = defaults ? defaults->plugin_dir : NULL;
    struct conf_store *store = conf->store;

    if (!conf->core.state_dir[0])
        conf->core.state_dir =
            store_path(store, store->directory, state && state[0] ? state : "state");
    if (!conf->core.plugin_dir[0])
        conf->core.plugin_dir = store_path(store, store->directory, plugins ? plugins : "");
    store->state_directory = conf->core.state_dir;
    return conf->core.state_dir && conf->core.plugin_dir ? 0 : -ENOMEM;
}

static bool is_plugin(const struct store_section *section)
{
    return !section->refused && strcmp(section->kind, sections[SECTIONS_PLUGIN].kind) == 0;
}

/* Only the keys that every plugin has; conf_plugin_fill() does the others. */
static int fill_plugin(struct conf *conf, struct store_section *section, struct conf_plugin *plugin,
                       struct roda_conf_errors *errors)
{
    struct fill fill = {
        .store = conf->store,
        .errors = errors,
        .name = section->name,
        .section = section,
        .prefix = "",
        .table = sections[SECTIONS_PLUGIN].options,
        .stride = STRIDE,
        .target = plugin,
    };

    plugin->name = section->label;
    plugin->place = section->place;
    return fill_section(&fill);
}

static int fill_plugins(struct conf *conf, struct roda_conf_errors *errors)
{
    struct conf_plugin *plugins;
    size_t n = 0;
    int result = 0;

    for (struct store_section *section = conf->store->sections; section; section = section->next)
        n += is_plugin(section);
    plugins = store_alloc(conf->store, (n + 1) * sizeof(*plugins));
    if (!plugins)
        return -ENOMEM;
    conf->plugins = plugins;
    for (struct store_section *section = conf->store->sections; section && result == 0;
         section = section->next) {
        if (is_plugin(section))
            result = fill_plugin(conf, section, &plugins[conf->n_plugins++], errors);
    }
    return result;
}

static int fill_all(struct conf *conf, const struct conf_defaults *defaults,
                    struct roda_conf_errors *errors)
{
    int result;

    for (struct store_section *section = conf->store->sections; section; section = section->next)
        check_section(errors, section);
    check_include_depth(conf->store, errors);
    result = fill_core_section(conf, SECTIONS_CORE, &conf->core, errors);
    if (result == 0) {
        check_name(conf, errors);
        result = use_defaults(conf, defaults);
    }
    if (result == 0)
        result = fill_core_section(conf, SECTIONS_MESSAGES, &conf->messages, errors);
    if (result == 0)
        result = fill_core_section(conf, SECTIONS_LIMITS, &conf->limits, errors);
    if (result == 0) {
        limits_check(conf, sections[SECTIONS_LIMITS].kind, &conf->limits, errors);
        result = listeners_fill(conf, errors);
    }
    if (result == 0)
        result = fill_plugins(conf, errors);
    return result;
}

/* ---- load ------------------------------------------------------------------------------- */

const char *conf_state_dir_default(bool root, char *buf, size_t size)
{
    const char *service = getenv("STATE_DIRECTORY");
    const char *xdg = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");

    if (service && service[0] == '/')
        (void)snprintf(buf, size, "%.*s", (int)strcspn(service, ":"), service);
    else if (root)
        (void)snprintf(buf, size, "/var/lib/roda");
    else if (xdg && xdg[0] == '/')
        (void)snprintf(buf, size, "%s/roda", xdg);
    else if (home && home[0] == '/')
        (void)snprintf(buf, size, "%s/.local/state/roda", home);
    else
        (void)snprintf(buf, size, "state");
    return buf;
}

static int conf_new(const char *path, struct conf **ret_conf)
{
    struct conf_store *store = store_new();
    struct conf *conf = store ? store_alloc(store, sizeof(*conf)) : NULL;

    if (conf) {
        conf->store = store;
        store->file.file = store_copy(store, path, strlen(path));
        store->directory = store_directory_of(store, path);
    }
    if (!conf || !store->file.file || !store->directory) {
        store_free(store);
        return -ENOMEM;
    }
    *ret_conf = conf;
    return 0;
}

int conf_load(const char *path, const struct conf_defaults *defaults,
              struct roda_conf_errors *errors, struct conf **ret_conf)
{
    struct conf *conf = NULL;
    int result = conf_new(path, &conf);

    if (result < 0)
        return result;
    result = reader_file(conf->store, conf->store->file, errors);
    if (result == 0)
        result = read_includes(conf->store, errors);
    if (result == 0)
        result = fill_all(conf, defaults, errors);
    if (result < 0) {
        conf_free(conf);
        return result;
    }
    *ret_conf = conf;
    return 0;
}

int conf_load_text(const char *name, const char *text, size_t len,
                   const struct conf_defaults *defaults, struct roda_conf_errors *errors,
                   struct conf **ret_conf)
{
    struct conf *conf = NULL;
    int result = conf_new(name, &conf);

    if (result < 0)
        return result;
    result = reader_text(conf->store, conf->store->file, len ? text : "", len, errors);
    if (result == 0)
        result = fill_all(conf, defaults, errors);
    if (result < 0) {
        conf_free(conf);
        return result;
    }
    *ret_conf = conf;
    return 0;
}

void conf_free(struct conf *conf)
{
    if (conf)
        store_free(conf->store); /* conf itself is in it */
}
