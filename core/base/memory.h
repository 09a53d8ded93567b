#ifndef RODA_BASE_MEMORY_H
#define RODA_BASE_MEMORY_H
/*
 * The one door to malloc: counted, zeroed, and able to fail on purpose, so that tests can make
 * every allocation of the broker fail in turn.
 */
#include <stddef.h>
#include <stdint.h>

void *memory_alloc(size_t size);              /* zeroed; NULL: out of memory. size 0 is 1 */
void *memory_realloc(void *ptr, size_t size); /* new bytes are not zeroed; NULL: ptr still lives */
void memory_free(void *ptr);
char *memory_copy(const char *bytes, size_t len); /* NUL-terminated copy */
/* Page-aligned and zeroed, straight from the kernel; for buffer rings and slabs. */
void *memory_map(size_t size);
void memory_unmap(void *ptr, size_t size);

/* Tests: the n-th allocation from now fails (1: the next), and with every > 0 each every-th after
 * it too. 0: never. Counts allocations of the whole process. */
void memory_fail_at(uint64_t n, uint64_t every);
uint64_t memory_allocations(void); /* since the start */

#endif
