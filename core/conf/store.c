/*
 * Model: one growing arena (a chain of blocks, never shrunk) and two singly linked lists on it.
 * Nothing is freed before store_free(), so every pointer into the store is good for the life of
 * the configuration, and an error in the middle of a load has nothing to undo. A configuration is
 * small and its sections are few (STORE_SECTIONS_MAX), so names are found by walking the lists.
 */
#include "conf/store.h"

#include <errno.h>
#include <limits.h>
#include <stdalign.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"

#define BLOCK_BYTES 8192u

struct store_block {
    struct store_block *next;
    size_t used, size;
    max_align_t bytes[];
};

struct conf_store *store_new(void)
{
    struct conf_store *store = memory_alloc(sizeof(*store));

    if (store)
        store->end = &store->sections;
    return store;
}

void store_free(struct conf_store *store)
{
    if (!store)
        return;
    while (store->blocks) {
        struct store_block *block = store->blocks;
        store->blocks = block->next;
        memory_free(block);
    }
    memory_free(store);
}

void *store_alloc(struct conf_store *store, size_t size)
{
    size_t rounded = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
    struct store_block *block = store->blocks;
    void *found;

    if (!block || block->size - block->used < rounded) {
        size_t room = rounded > BLOCK_BYTES ? rounded : BLOCK_BYTES;

        block = memory_alloc(sizeof(*block) + room);
        if (!block)
            return NULL;
        block->size = room;
        block->next = store->blocks;
        store->blocks = block;
    }
    found = (char *)block->bytes + block->used;
    block->used += rounded;
    return found;
}

char *store_copy(struct conf_store *store, const char *text, size_t len)
{
    char *copy = store_alloc(store, len + 1);

    if (copy)
        memcpy(copy, text, len);
    return copy;
}

const char *store_path(struct conf_store *store, const char *directory, const char *text)
{
    size_t size;
    char *path;

    if (text[0] == '/' || text[0] == '\0')
        return store_copy(store, text, strlen(text));
    while (text[0] == '.' && text[1] == '/')
        text += 1 + strspn(text + 1, "/");
    if (text[0] == '\0')
        return store_copy(store, directory, strlen(directory));
    size = strlen(directory) + strlen(text) + 2;
    path = store_alloc(store, size);
    if (path)
        (void)snprintf(path, size, "%s%s%s", directory, strcmp(directory, "/") == 0 ? "" : "/",
                       text);
    return path;
}

const char *store_directory_of(struct conf_store *store, const char *path)
{
    const char *slash = strrchr(path, '/');
    char here[PATH_MAX], *folder;

    if (slash == path)
        return store_copy(store, "/", 1);
    if (path[0] == '/')
        return store_copy(store, path, (size_t)(slash - path));
    if (!getcwd(here, sizeof(here)))
        (void)snprintf(here, sizeof(here), "/");
    if (!slash)
        return store_copy(store, here, strlen(here));
    folder = store_copy(store, path, (size_t)(slash - path));
    return folder ? store_path(store, here, folder) : NULL;
}

struct store_section *store_section_find(const struct conf_store *store, const char *name)
{
    struct store_section *section = store->sections;

    while (section && strcmp(section->name, name) != 0)
        section = section->next;
    return section;
}

struct store_section *store_section_add(struct conf_store *store, const char *kind,
                                        const char *label, struct conf_place place)
{
    size_t size = strlen(kind) + strlen(label) + 2;
    struct store_section *section;
    char *name;

    if (store->n_sections >= STORE_SECTIONS_MAX)
        return NULL;
    section = store_alloc(store, sizeof(*section));
    name = store_alloc(store, size);
    if (!section || !name)
        return NULL;
    (void)snprintf(name, size, "%s%s%s", kind, label[0] ? " " : "", label);
    section->name = name;
    section->kind = store_copy(store, kind, strlen(kind));
    section->label = store_copy(store, label, strlen(label));
    if (!section->kind || !section->label)
        return NULL;
    section->place = place;
    section->end = &section->entries;
    *store->end = section;
    store->end = &section->next;
    store->n_sections++;
    return section;
}

int store_entry_add(struct conf_store *store, struct store_section *section, const char *key,
                    const char *value, struct conf_place place)
{
    struct store_entry *entry = store_alloc(store, sizeof(*entry));

    if (!entry)
        return -ENOMEM;
    entry->key = store_copy(store, key, strlen(key));
    entry->value = store_copy(store, value, strlen(value));
    if (!entry->key || !entry->value)
        return -ENOMEM;
    entry->place = place;
    *section->end = entry;
    section->end = &entry->next;
    return 0;
}

static struct store_entry *entry_from(struct store_entry *entry, const char *key)
{
    while (entry && strcmp(entry->key, key) != 0)
        entry = entry->next;
    return entry;
}

struct store_entry *store_entry_find(const struct store_section *section, const char *key)
{
    return section ? entry_from(section->entries, key) : NULL;
}

struct store_entry *store_entry_next(const struct store_entry *entry)
{
    return entry_from(entry->next, entry->key);
}
