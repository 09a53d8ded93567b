/*
 * A protocol without manners: it answers every stranger's datagram with more than anybody may get,
 * and opens no session. The core's own bound is what a test of it sees.
 */
#include <roda/plugin.h>

static int loud_knock(struct roda_ctx *x, const struct roda_peer *peer, struct roda_str in,
                      struct roda_out *out, struct roda_str *ret_rest)
{
    (void)x;
    (void)peer;
    (void)ret_rest;
    /* Ten bytes if asked for them, so that silence is not all that is ever seen. */
    roda_out_put(out, in.len && in.ptr[0] == 'k' ? RODA_STR("0123456789")
                                                 : RODA_STR("0123456789 and much, much more"));
    return 0;
}

static int loud_decode(struct roda_ctx *x, struct roda_conn *c, struct roda_str unit)
{
    (void)x;
    (void)c;
    (void)unit;
    return RODA_TAKEN;
}

static const struct roda_protocol protocols[] = {
    {.name = "loud", .decode = loud_decode, .knock = loud_knock},
    {.name = NULL},
};

RODA_PLUGIN(.name = "loud", .summary = "says more than it may", .version = "1",
            .protocols = protocols);
