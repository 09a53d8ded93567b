#ifndef RODA_CONF_READER_H
#define RODA_CONF_READER_H
/*
 * From a file to sections and entries, with the line of each. What is no "key = value", no
 * "[section]" and no comment is an error; whether a section or a key means anything is not
 * decided here.
 */
#include <stddef.h>

#include "conf/errors.h"
#include "conf/store.h"

#define READER_FILE_BYTES_MAX (256u * 1024u)

/* place: the file as a whole. 0, also if errors were added; -ENOMEM; reader_file() also the errno
 * for which the file could not be read, which errors tells. */
int reader_text(struct conf_store *store, struct conf_place place, const char *text, size_t len,
                struct roda_conf_errors *errors);
int reader_file(struct conf_store *store, struct conf_place place, struct roda_conf_errors *errors);

#endif
