#ifndef RODA_BASE_SUGGEST_H
#define RODA_BASE_SUGGEST_H
/*
 * "Did you mean ...?": the nearest of some valid names. Near is at most a third of the typed
 * name's length wrong, at least one letter; of equally near ones the first offered wins.
 * Nothing is allocated; names are kept by pointer.
 *
 *     struct suggest s = suggest_for("max_conections");
 *     for each name: suggest_offer(&s, name);
 *     if (s.best) ...
 */
#include <stddef.h>

#define SUGGEST_BYTES_MAX 64 /* longer names get no suggestion and are none */

struct suggest {
    const char *typed;
    size_t len;
    size_t limit;     /* only nearer than this or as near is of interest */
    const char *best; /* NULL: none yet */
};

struct suggest suggest_for(const char *typed);
void suggest_offer(struct suggest *s, const char *name);

/* The nearest of n names; NULL: none is near. */
const char *suggest_name(const char *typed, const char *const *names, size_t n);

#endif
