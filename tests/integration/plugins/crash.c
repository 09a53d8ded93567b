/* Dies of SIGSEGV when a text is "crash": the broker's last line must name plugin and hook. */
#include <signal.h>

#include "text.h"

static roda_verdict crash_submit(struct roda_ctx *x, struct roda_event *ev)
{
    (void)x;
    if (text_is(ev->msg, "crash"))
        (void)raise(SIGSEGV);
    return RODA_PASS;
}

RODA_PLUGIN(.name = "crash", .summary = "dies when asked", .version = "1", .submit = crash_submit);
