#ifndef RODA_CONF_STORE_H
#define RODA_CONF_STORE_H
/*
 * What the files said, before anything is known about types: sections in the order in which they
 * first appear, each with its "key = value" entries in order; and the memory that lives as long as
 * the configuration.
 */
#include <stdbool.h>
#include <stddef.h>

#include "conf/errors.h"

#define STORE_SECTIONS_MAX 1024u

struct store_entry {
    const char *key, *value;
    struct conf_place place;
    bool known; /* an option table has it */
    struct store_entry *next;
};

struct store_section {
    const char *name;  /* "listener web": one blank */
    const char *kind;  /* "listener" */
    const char *label; /* "web"; "" if there is none */
    struct conf_place place;
    bool refused; /* told already; nothing in it counts */
    struct store_entry *entries, **end;
    struct store_section *next;
};

struct store_fill; /* plugins.c: a plugin whose options are filled */

struct conf_store {
    struct store_block *blocks;
    struct store_section *sections, **end;
    unsigned n_sections;
    struct store_fill *fills;
    struct conf_place file;      /* the file that was named */
    const char *directory;       /* where that file is: absolute */
    const char *state_directory; /* what relative paths start from; set once it is known */
};

struct conf_store *store_new(void);
void store_free(struct conf_store *store); /* NULL is a no-op */

/* NULL: out of memory. Zeroed and aligned for anything; lives until store_free(). */
void *store_alloc(struct conf_store *store, size_t size);
char *store_copy(struct conf_store *store, const char *text, size_t len);
/* text as a path: itself if absolute or empty, else below directory. */
const char *store_path(struct conf_store *store, const char *directory, const char *text);
/* The folder of path, absolute, where a relative path starts from the working directory. */
const char *store_directory_of(struct conf_store *store, const char *path);

struct store_section *store_section_find(const struct conf_store *store, const char *name);
/* NULL: no memory, or more than STORE_SECTIONS_MAX. */
struct store_section *store_section_add(struct conf_store *store, const char *kind,
                                        const char *label, struct conf_place place);
/* 0 or -ENOMEM. */
int store_entry_add(struct conf_store *store, struct store_section *section, const char *key,
                    const char *value, struct conf_place place);
/* The first with that key (section may be NULL), and the next of the same key. */
struct store_entry *store_entry_find(const struct store_section *section, const char *key);
struct store_entry *store_entry_next(const struct store_entry *entry);

#endif
