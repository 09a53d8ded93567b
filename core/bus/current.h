#ifndef RODA_BUS_CURRENT_H
#define RODA_BUS_CURRENT_H
/* Which worker's turn runs on this thread; NULL: none (main, pool and foreign threads). Needed
 * where an [any] function gives memory back. */
struct bus;

struct bus *bus_current(void);
void bus_set_current(struct bus *bus);

#endif
