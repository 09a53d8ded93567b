#ifndef RODA_MAIN_MESSAGES_H
#define RODA_MAIN_MESSAGES_H
/* Where the broker's own messages go: standard error, as text or JSON lines. */
#include <stdbool.h>
#include <stdint.h>

/* level: RODA_LOG_*. Before this call nothing is shown. */
void messages_open(bool json, uint32_t level);

#endif
