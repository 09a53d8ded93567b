/* Needs a service that nobody offers, and could do with another. */
#include <roda/plugin.h>

static const char *const needs[] = {"nothing/1", "history/1?", NULL};

RODA_PLUGIN(.name = "missing_need", .summary = "needs what is not there", .version = "1",
            .needs = needs);
