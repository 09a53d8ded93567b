#ifndef RODA_CONF_PLUGINS_H
#define RODA_CONF_PLUGINS_H
/* The options of plugins that are filled, for those who show them. */
#include "conf/conf.h"
#include "conf/store.h"

struct fill_override;

struct store_fill {
    const char *plugin;
    const struct roda_option *table;
    size_t stride, conf_size;
    void *memory;
    struct fill_override *overrides;
    struct store_fill *next;
};

/* NULL: that plugin is not filled. */
struct store_fill *plugins_fill_find(const struct conf *conf, const char *plugin);
/* NULL: that listener overrides nothing of it. */
const void *plugins_override_find(const struct store_fill *made, const char *listener);

#endif
