#ifndef RODA_TESTS_SIM_WHOLE_BROKER_H
#define RODA_TESTS_SIM_WHOLE_BROKER_H
/* The whole broker on the fake kernel: real workers, without threads, and real plugins, from
 * RODA_PLUGIN_DIR. Whose turn it is, and what happens between turns, is the test's to say. */
#include "kernel.h"

#include "main/broker.h"

#define WHOLE_BROKER_WORKERS_MAX 8u

/* With this conf; what is wrong with it goes to stderr. Its workers have had no turn yet. */
bool whole_broker_new(struct sim_kernel *kernel, const char *conf, size_t length,
                      struct broker **ret_broker);
/* With its conf, after its workers have ended. */
void whole_broker_free(struct broker *broker);

/* Indices of the workers that have something to do. */
uint32_t whole_broker_ready(const struct sim_kernel *kernel, const struct broker *broker,
                            uint32_t ret_ready[WHOLE_BROKER_WORKERS_MAX]);
/* One turn, which takes no time: see kernel.h. */
void whole_broker_turn(struct sim_kernel *kernel, struct worker *worker);
/* All workers have. */
bool whole_broker_ended(const struct broker *broker);

#endif
