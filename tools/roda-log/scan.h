#ifndef RODA_LOG_SCAN_H
#define RODA_LOG_SCAN_H
/* Records in a file of which any byte may be damaged. */
#include <stdint.h>

#include "folder.h"

/* 0; -ENODATA: the file ends here; -EAGAIN: a record that is cut off by the end of the file;
 * -EILSEQ: damaged; another negative errno: it cannot be read. The texts are valid until the
 * window is used again. */
int scan_at(struct window *window, uint64_t offset, struct log_record *ret_record);
/* The next offset, from this one on, where a record stands; the file's size if there is none. */
int scan_search(struct window *window, uint64_t offset, uint64_t *ret_offset);
/* What cannot be read from offset to the end of the file. */
enum scan_rest {
    SCAN_CUT,     /* the beginning of a record, or zeros: nobody has finished writing it */
    SCAN_DAMAGED, /* all of a record, but wrong */
};
int scan_rest(struct window *window, uint64_t offset, enum scan_rest *ret_rest);

#endif
