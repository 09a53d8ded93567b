#ifndef RODA_MAIN_PRIVILEGES_H
#define RODA_MAIN_PRIVILEGES_H
#include <stdbool.h>
#include <stddef.h>

bool privileges_user_exists(const char *user);

/* Becomes that user for good, with its groups. "": stays. 0, or negative and a sentence. */
int privileges_drop(const char *user, char *problem, size_t size);
/* Makes the directory if it is missing, owned by user ("": whoever runs this). */
int privileges_make_directory(const char *path, const char *user, char *problem, size_t size);

#endif
