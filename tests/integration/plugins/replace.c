/* "replace X" becomes "X", with a tag that says so. */
#include "text.h"

static roda_verdict replace_submit(struct roda_ctx *x, struct roda_event *ev)
{
    static const char word[] = "replace ";
    const struct roda_tag tag = {RODA_STR("replaced"), RODA_STR("yes")};
    const struct roda_msg *msg = ev->msg;
    struct roda_msg *other;

    if (!text_begins(msg, word))
        return RODA_PASS;
    /* Everything else stays: above all from and token, which the answer goes by. */
    other = roda_msg_make(x,
                          &(struct roda_msg_init){
                              .size = sizeof(struct roda_msg_init),
                              .kind = msg->kind,
                              .flags = msg->flags,
                              .from = msg->from,
                              .token = msg->token,
                              .sender = msg->sender,
                              .after = msg->after,
                              .to = msg->to,
                              .subject = msg->subject,
                              .text = {msg->text.ptr + sizeof word - 1,
                                       msg->text.len - (sizeof word - 1)},
                              .tags = &tag,
                              .n_tags = 1,
                          },
                          NULL);
    if (!other)
        return roda_reject(ev, RODA_E_MEMORY, "out of memory");
    return roda_replace(ev, other);
}

RODA_PLUGIN(.name = "replace", .summary = "changes texts", .version = "1",
            .submit = replace_submit);
