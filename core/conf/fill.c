/*
 * Model: for each option of the table, its default is parsed into the field first, then the
 * entries of that key; so whatever goes wrong with an entry, the field holds a usable value and
 * the load can go on to find the other errors. A list takes all entries of its key, from all
 * files; any other option takes the first, and each further one is an error that names both.
 */
#include "conf/fill.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/suggest.h"
#include "conf/option.h"
#include "conf/sections.h"

#define KEY_BYTES_MAX 256

static struct store_entry *first_entry(const struct fill *fill, const struct roda_option *option)
{
    char key[KEY_BYTES_MAX];

    (void)snprintf(key, sizeof(key), "%s%s", fill->prefix, option->name);
    return store_entry_find(fill->section, key);
}

static int fill_default(const struct fill *fill, const struct roda_option *option)
{
    struct option_value value = {option, fill->store, fill->directory, &option->initial, 1};
    char reason[OPTION_REASON_BYTES];
    struct conf_place place = fill->section ? fill->section->place : fill->store->file;
    int result;

    if (fill->no_defaults || !option->initial)
        return 0;
    if (!value.directory)
        value.directory = fill->store->directory;
    result = option_parse(&value, (char *)fill->target + option->offset, reason);
    if (result == -EINVAL)
        conf_errors_add(fill->errors, CONF_ERROR, place, fill->name, option->name, option->initial,
                        "the default that the plugin declares is wrong: %s; tell its author",
                        reason);
    return result;
}

static void tell_twice(const struct fill *fill, const struct store_entry *first,
                       const struct store_entry *again)
{
    conf_errors_add(fill->errors, CONF_ERROR, again->place, fill->name, again->key, again->value,
                    "given twice; the first is %s:%u", first->place.file, first->place.line);
}

/* The texts of all entries of a key that is a list, or of the first. */
static int gather(const struct fill *fill, struct store_entry *first, bool is_list,
                  struct option_value *ret_value)
{
    const char **texts;
    size_t n = 0;

    for (struct store_entry *entry = first; entry; entry = store_entry_next(entry)) {
        entry->known = true;
        if (entry != first && !is_list)
            tell_twice(fill, first, entry);
        n++;
    }
    texts = store_alloc(fill->store, n * sizeof(*texts));
    if (!texts)
        return -ENOMEM;
    n = 0;
    for (struct store_entry *entry = first; entry; entry = store_entry_next(entry))
        texts[n++] = entry->value;
    ret_value->texts = texts;
    ret_value->n_texts = is_list ? n : 1;
    return 0;
}

static int fill_entries(const struct fill *fill, const struct roda_option *option,
                        struct store_entry *first)
{
    struct option_value value = {option, fill->store, fill->directory, NULL, 0};
    char reason[OPTION_REASON_BYTES];
    int result = gather(fill, first, option->type == RODA_T_LIST, &value);

    if (result < 0)
        return result;
    if (!value.directory && option->type == RODA_T_PATH) {
        value.directory = store_directory_of(fill->store, first->place.file);
        if (!value.directory)
            return -ENOMEM;
    }
    result = option_parse(&value, (char *)fill->target + option->offset, reason);
    if (result != -EINVAL)
        return result;
    conf_errors_add(fill->errors, CONF_ERROR, first->place, fill->name, first->key, first->value,
                    "%s", reason);
    return 0;
}

static int fill_option(const struct fill *fill, const struct roda_option *option)
{
    struct store_entry *first = first_entry(fill, option);
    int result = fill_default(fill, option);

    if (result < 0)
        return result;
    if (first)
        return fill_entries(fill, option, first);
    if (!option->initial && !fill->no_defaults && !fill->allow_missing)
        conf_errors_add(fill->errors, CONF_ERROR,
                        fill->section ? fill->section->place : fill->store->file, fill->name,
                        option->name, NULL, "missing; it must be given (%s)", option->help);
    return 0;
}

int fill_section(const struct fill *fill)
{
    const struct roda_option *option;
    int result = 0;

    for (size_t i = 0; result == 0 && (option = option_at(fill->table, fill->stride, i)); i++) {
        if ((option->flags & fill->only_flags) == fill->only_flags)
            result = fill_option(fill, option);
    }
    return result;
}

/* ---- what nobody knows ------------------------------------------------------------------ */

static void offer_names(struct suggest *near, const struct fill_names *names)
{
    const struct roda_option *option;

    for (; names->table; names++) {
        for (size_t i = 0; (option = option_at(names->table, names->stride, i)); i++) {
            if ((option->flags & names->only_flags) == names->only_flags)
                suggest_offer(near, option->name);
        }
    }
}

/* The section of the core in which that key would be right; NULL: none. */
static const char *other_section(const char *kind, const char *key)
{
    for (size_t i = 0; i < SECTIONS_N; i++) {
        if (strcmp(sections[i].kind, kind) != 0 && !sections[i].named &&
            option_find(sections[i].options, sizeof(struct roda_option), key))
            return sections[i].kind;
    }
    return NULL;
}

static void tell_unknown(struct roda_conf_errors *errors, const struct store_section *section,
                         const struct store_entry *entry, const struct fill_names *names)
{
    struct suggest near = suggest_for(entry->key);
    const char *other = other_section(section->kind, entry->key);

    offer_names(&near, names);
    if (near.best)
        conf_errors_add(errors, CONF_ERROR, entry->place, section->name, entry->key, NULL,
                        "unknown key; did you mean \"%s\"?", near.best);
    else if (other)
        conf_errors_add(errors, CONF_ERROR, entry->place, section->name, entry->key, NULL,
                        "unknown key here; it belongs in [%s]", other);
    else
        conf_errors_add(errors, CONF_ERROR, entry->place, section->name, entry->key, NULL,
                        "unknown key");
}

void fill_unknown(struct roda_conf_errors *errors, struct store_section *section,
                  const struct fill_names *names, bool skip_overrides)
{
    for (struct store_entry *entry = section->entries; entry; entry = entry->next) {
        if (entry->known || (skip_overrides && strchr(entry->key, '.')))
            continue;
        entry->known = true;
        tell_unknown(errors, section, entry, names);
    }
}
