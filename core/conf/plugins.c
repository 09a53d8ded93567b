/*
 * Model: the options of plugins. A plugin's keys stay raw until its table is known; then one fill
 * is made for it and kept in the store: the table, the filled memory, and a copy of it for each
 * listener that overrides something. When every plugin had its turn, what no table knew is told.
 *
 * A section whose plugin was never filled is not looked at: it is switched off, or it could not
 * be loaded, which is told already.
 */
#include "conf/plugins.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/suggest.h"
#include "conf/fill.h"
#include "conf/option.h"
#include "conf/sections.h"

#define NAME_BYTES_MAX 256

struct fill_override {
    const char *listener;
    const void *memory;
    struct fill_override *next;
};

static void section_name(char buf[NAME_BYTES_MAX], enum sections_kind kind, const char *label)
{
    (void)snprintf(buf, NAME_BYTES_MAX, "%s %s", sections[kind].kind, label);
}

static struct store_section *section_of(const struct conf *conf, enum sections_kind kind,
                                        const char *label)
{
    char name[NAME_BYTES_MAX];

    section_name(name, kind, label);
    return store_section_find(conf->store, name);
}

struct store_fill *plugins_fill_find(const struct conf *conf, const char *plugin)
{
    struct store_fill *fill = conf->store->fills;

    while (fill && strcmp(fill->plugin, plugin) != 0)
        fill = fill->next;
    return fill;
}

/* ---- the plugin's table ----------------------------------------------------------------- */

static const char *option_defect(const struct roda_option *table, size_t stride,
                                 const struct roda_option *option, size_t conf_size)
{
    const char *choice;
    size_t bytes = option->type < OPTION_T_WORKERS ? option_field_bytes(option->type) : 0;

    if (bytes == 0)
        return "of a type that this roda does not know";
    if (option->offset > conf_size || conf_size - option->offset < bytes)
        return "outside of its conf_size";
    if (option_find(sections[SECTIONS_PLUGIN].options, sizeof(*option), option->name))
        return "a key that every plugin has";
    if (option_find(table, stride, option->name) != option)
        return "declared twice";
    if (option->type == RODA_T_CHOICE && option_choice(option->choices, 0, &choice) == 0)
        return "without choices";
    if (strchr(option->name, '.') || strlen(option->name) > SUGGEST_BYTES_MAX || !option->help)
        return "without a usable name or help";
    return NULL;
}

static int check_table(const struct conf *conf, const char *section,
                       const struct roda_option *table, size_t stride, size_t conf_size,
                       struct roda_conf_errors *errors)
{
    const struct roda_option *option;
    int result = 0;

    for (size_t i = 0; (option = option_at(table, stride, i)); i++) {
        const char *defect = option_defect(table, stride, option, conf_size);

        if (defect)
            result = conf_error_at(errors, conf, section, NULL,
                                   "the plugin declares an option \"%s\" %s; tell its author",
                                   option->name, defect);
    }
    return result;
}

static void append(struct store_fill **fills, struct store_fill *made)
{
    while (*fills)
        fills = &(*fills)->next;
    *fills = made;
}

/* ---- filling ---------------------------------------------------------------------------- */

int conf_plugin_fill(struct conf *conf, const char *plugin, const struct roda_option *table,
                     size_t stride, size_t conf_size, struct roda_conf_errors *errors,
                     const void **ret_conf)
{
    char name[NAME_BYTES_MAX];
    struct store_fill *made;
    struct fill fill = {
        .store = conf->store,
        .errors = errors,
        .name = name,
        .section = section_of(conf, SECTIONS_PLUGIN, plugin),
        .prefix = "",
        .table = table,
        .stride = stride,
        .directory = conf->store->state_directory,
    };
    int result;

    if (plugins_fill_find(conf, plugin))
        return -EEXIST;
    section_name(name, SECTIONS_PLUGIN, plugin);
    result = check_table(conf, name, table, stride, conf_size, errors);
    if (result < 0)
        return result;
    made = store_alloc(conf->store, sizeof(*made));
    fill.target = conf_size ? store_alloc(conf->store, conf_size) : NULL;
    if (!made || (conf_size && !fill.target))
        return -ENOMEM;
    result = fill_section(&fill);
    if (result < 0)
        return result;
    made->plugin = store_copy(conf->store, plugin, strlen(plugin));
    if (!made->plugin)
        return -ENOMEM;
    made->table = table;
    made->stride = stride;
    made->conf_size = conf_size;
    made->memory = fill.target;
    append(&conf->store->fills, made);
    *ret_conf = made->memory;
    return 0;
}

static bool overrides(const struct store_section *section, const char *prefix)
{
    size_t len = strlen(prefix);

    for (const struct store_entry *entry = section ? section->entries : NULL; entry;
         entry = entry->next) {
        if (strncmp(entry->key, prefix, len) == 0)
            return true;
    }
    return false;
}

const void *plugins_override_find(const struct store_fill *made, const char *listener)
{
    for (const struct fill_override *override = made->overrides; override;
         override = override->next) {
        if (strcmp(override->listener, listener) == 0)
            return override->memory;
    }
    return NULL;
}

static int add_override(struct conf *conf, struct store_fill *made, struct fill *fill,
                        const char *listener)
{
    struct fill_override *override = store_alloc(conf->store, sizeof(*override));
    int result;

    fill->target = store_alloc(conf->store, made->conf_size ? made->conf_size : 1);
    if (!override || !fill->target)
        return -ENOMEM;
    if (made->conf_size)
        memcpy(fill->target, made->memory, made->conf_size);
    result = fill_section(fill);
    if (result < 0)
        return result;
    override->listener = store_copy(conf->store, listener, strlen(listener));
    if (!override->listener)
        return -ENOMEM;
    override->memory = fill->target;
    override->next = made->overrides;
    made->overrides = override;
    return 0;
}

int conf_listener_fill(struct conf *conf, const char *listener, const char *plugin,
                       struct roda_conf_errors *errors, const void **ret_conf)
{
    struct store_fill *made = plugins_fill_find(conf, plugin);
    struct store_section *section = section_of(conf, SECTIONS_LISTENER, listener);
    char prefix[NAME_BYTES_MAX];
    const void *memory;
    struct fill fill = {
        .store = conf->store,
        .errors = errors,
        .section = section,
        .prefix = prefix,
        .directory = conf->store->state_directory,
        .only_flags = RODA_OPTION_LISTENER,
        .no_defaults = true,
    };
    int result;

    if (!made)
        return -ENOENT;
    (void)snprintf(prefix, sizeof(prefix), "%s.", plugin);
    memory = plugins_override_find(made, listener);
    if (!memory && made->conf_size && overrides(section, prefix)) {
        fill.name = section->name;
        fill.table = made->table;
        fill.stride = made->stride;
        result = add_override(conf, made, &fill, listener);
        if (result < 0)
            return result;
        memory = made->overrides->memory;
    }
    *ret_conf = memory ? memory : made->memory;
    return 0;
}

/* ---- what is left ----------------------------------------------------------------------- */

static bool is_switched_off(const struct conf *conf, const char *plugin)
{
    for (size_t i = 0; i < conf->n_plugins; i++) {
        if (strcmp(conf->plugins[i].name, plugin) == 0)
            return !conf->plugins[i].enabled;
    }
    return false;
}

static bool has_section(const struct conf *conf, const char *plugin)
{
    return section_of(conf, SECTIONS_PLUGIN, plugin) != NULL;
}

static void tell_no_plugin(const struct conf *conf, const struct store_section *section,
                           const struct store_entry *entry, const char *plugin,
                           struct roda_conf_errors *errors)
{
    struct suggest near = suggest_for(plugin);

    for (const struct store_fill *made = conf->store->fills; made; made = made->next)
        suggest_offer(&near, made->plugin);
    if (near.best)
        conf_errors_add(errors, CONF_ERROR, entry->place, section->name, entry->key, NULL,
                        "no plugin \"%s\" is loaded; did you mean \"%s%s\"?", plugin, near.best,
                        strchr(entry->key, '.'));
    else
        conf_errors_add(errors, CONF_ERROR, entry->place, section->name, entry->key, NULL,
                        "no plugin \"%s\" is loaded; [plugin %s] would load it", plugin, plugin);
}

static void tell_no_override(const struct store_fill *made, const struct store_section *section,
                             const struct store_entry *entry, const char *key,
                             struct roda_conf_errors *errors)
{
    struct suggest near = suggest_for(key);
    const struct roda_option *option;

    if (option_find(made->table, made->stride, key)) {
        conf_errors_add(errors, CONF_ERROR, entry->place, section->name, entry->key, NULL,
                        "a listener cannot have its own value of it; set it in [plugin %s]",
                        made->plugin);
        return;
    }
    for (size_t i = 0; (option = option_at(made->table, made->stride, i)); i++) {
        if (option->flags & RODA_OPTION_LISTENER)
            suggest_offer(&near, option->name);
    }
    if (near.best)
        conf_errors_add(errors, CONF_ERROR, entry->place, section->name, entry->key, NULL,
                        "unknown key; did you mean \"%s.%s\"?", made->plugin, near.best);
    else
        conf_errors_add(errors, CONF_ERROR, entry->place, section->name, entry->key, NULL,
                        "unknown key of the plugin \"%s\"", made->plugin);
}

static void check_override(struct conf *conf, struct store_section *section,
                           struct store_entry *entry, struct roda_conf_errors *errors)
{
    const char *dot = strchr(entry->key, '.');
    char plugin[NAME_BYTES_MAX];
    const struct store_fill *made;
    const void *memory;

    if (entry->known || !dot)
        return;
    (void)snprintf(plugin, sizeof(plugin), "%.*s", (int)(dot - entry->key), entry->key);
    made = plugins_fill_find(conf, plugin);
    if (made) {
        /* A plugin that does not serve this listener: its values are checked all the same. */
        (void)conf_listener_fill(conf, section->label, plugin, errors, &memory);
        if (!entry->known)
            tell_no_override(made, section, entry, dot + 1, errors);
    } else if (!has_section(conf, plugin)) {
        tell_no_plugin(conf, section, entry, plugin, errors);
    }
    entry->known = true;
}

void conf_check_leftovers(struct conf *conf, struct roda_conf_errors *errors)
{
    for (struct store_section *section = conf->store->sections; section; section = section->next) {
        const struct store_fill *made;

        if (section->refused)
            continue;
        if (strcmp(section->kind, sections[SECTIONS_LISTENER].kind) == 0) {
            for (struct store_entry *entry = section->entries; entry; entry = entry->next)
                check_override(conf, section, entry, errors);
            continue;
        }
        if (strcmp(section->kind, sections[SECTIONS_PLUGIN].kind) != 0 ||
            is_switched_off(conf, section->label))
            continue;
        made = plugins_fill_find(conf, section->label);
        if (made) {
            const struct fill_names names[] = {{made->table, made->stride, 0},
                                               {sections[SECTIONS_PLUGIN].options,
                                                sizeof(struct roda_option), 0},
                                               {NULL, 0, 0}};
            /* A plugin without options has no table, which would end the names. */
            fill_unknown(errors, section, made->table ? names : names + 1, false);
        }
    }
}

/* ---- what a plugin's check() finds ------------------------------------------------------ */

/* Where the option of the context's plugin was set: by the listener, or by its own section. */
static const struct store_entry *set_by(const struct conf_errors_context *context,
                                        const char *option, char section[NAME_BYTES_MAX],
                                        char key[NAME_BYTES_MAX])
{
    const struct store_entry *entry;

    if (context->listener) {
        section_name(section, SECTIONS_LISTENER, context->listener);
        (void)snprintf(key, NAME_BYTES_MAX, "%s.%s", context->plugin, option);
        entry = store_entry_find(store_section_find(context->conf->store, section), key);
        if (entry)
            return entry;
    }
    section_name(section, SECTIONS_PLUGIN, context->plugin);
    (void)snprintf(key, NAME_BYTES_MAX, "%s", option);
    return store_entry_find(store_section_find(context->conf->store, section), key);
}

RODA_EXPORT int roda_conf_error(struct roda_conf_errors *errors, const char *option,
                                const char *fmt, ...)
{
    struct conf_errors_context context = conf_errors_context_of(errors);
    char section[NAME_BYTES_MAX] = "", key[NAME_BYTES_MAX] = "";
    struct conf_place place = {.file = NULL};
    const struct store_entry *entry = NULL;
    va_list args;

    if (context.conf && context.plugin) {
        entry = set_by(&context, option ? option : "", section, key);
        place = entry ? entry->place : conf_place(context.conf, section, NULL);
    } else if (option) {
        (void)snprintf(key, sizeof(key), "%s", option);
    }
    va_start(args, fmt);
    conf_errors_add_list(errors, CONF_ERROR, place, section[0] ? section : NULL,
                         key[0] ? key : NULL, entry ? entry->value : NULL, fmt, args);
    va_end(args);
    return -EINVAL;
}
