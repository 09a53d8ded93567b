#ifndef RODA_LOG_SHOW_H
#define RODA_LOG_SHOW_H
/* A message as a line for people, and as an object for programs. */
#include <stdio.h>

#include "reader.h"

/* All of the reader's current message. */
void show_line(FILE *to, const struct reader *r);
void show_json(FILE *to, const struct reader *r);
/* The room's name as it is shown; empty if nothing says it. */
struct roda_str show_room(const struct room *room, const struct log_message *message);
/* A text with all that is no plain character as \xNN, \n, \\; spaces too if it is a field. */
void show_text(FILE *to, struct roda_str text, int is_field);

#endif
