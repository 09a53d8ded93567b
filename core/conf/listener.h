#ifndef RODA_CONF_LISTENER_H
#define RODA_CONF_LISTENER_H
/* The [listener NAME] sections: filled, and checked against each other. */
#include "conf/conf.h"

/* Sets conf->listeners; conf->limits and the state directory are known. 0, also if errors were
 * added; -ENOMEM. */
int listeners_fill(struct conf *conf, struct roda_conf_errors *errors);
/* Limits that must fit each other; section says where they come from. */
void limits_check(const struct conf *conf, const char *section, const struct conf_limits *limits,
                  struct roda_conf_errors *errors);

#endif
