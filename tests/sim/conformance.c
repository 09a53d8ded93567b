#include "conformance.h"

/*
 * The same scripts on the fake kernel and on the real one. A script speaks only to struct system
 * and to a ring, and to far ends through the functions below; everything that comes back is
 * written into a transcript, and the two transcripts must be equal. So what the fake does is
 * what this kernel does, for all that is scripted here; nobody writes down what to expect.
 *
 * What may differ from run to run is left out: the order of completions of different requests
 * within a step (they are sorted), descriptor numbers, byte counts that depend on buffer sizes
 * ("some"), and hints.
 */

struct script {
    const char *name;
    script_fn *fn;
    int family; /* 0: no stream in it */
    unsigned cq_entries;
};

static void run_script(void **state)
{
    const struct script *s = *state;

    family = s->family;
    compare(s->fn, s->cq_entries);
}

#define BOTH(name)                                                                                 \
    {#name ", TCP", script_##name, AF_INET, 64},                                                   \
    {                                                                                              \
#name ", UNIX", script_##name, AF_UNIX, 64                                                 \
    }
#define TCP(name)                                                                                  \
    {                                                                                              \
#name ", TCP", script_##name, AF_INET, 64                                                  \
    }
#define OTHER(name)                                                                                \
    {                                                                                              \
#name, script_##name, 0, 64                                                                \
    }

static struct script scripts[] = {
    BOTH(receive),
    BOTH(receive_ended_by_shutdown),
    BOTH(shut_for_writing),
    BOTH(receive_without_buffers),
    BOTH(receive_once),
    TCP(reset),
    TCP(reset_told_to_a_send),
    TCP(reset_after_data),
    BOTH(far_end_closed_with_unread_data),
    BOTH(close_under_a_receive),
    BOTH(close_with_unread_data),
    BOTH(data_for_a_shut_side),
    BOTH(linger_zero),
    BOTH(send_that_waits),
    BOTH(untaken),
    BOTH(untaken_by_who_does_not_read),
    BOTH(send_cut_by_shutdown),
    BOTH(send_to_a_closed_end),
    BOTH(send_vector),
    {"full_completion_queue", script_full_completion_queue, AF_INET, 16},
    BOTH(accept),
    BOTH(accept_on_a_closed_listener),
    BOTH(clients_of_a_shut_listener),
    TCP(accept_with_a_full_table),
    TCP(raised_limit),
    BOTH(cancel),
    OTHER(restrictions),
    TCP(misuse),
    OTHER(eventfd),
    OTHER(files),
    OTHER(names),
    OTHER(datagrams),
    OTHER(datagram_shutdown),
    OTHER(datagram_sends),
};

int main(void)
{
    struct CMUnitTest tests[sizeof scripts / sizeof *scripts];

    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++)
        tests[i] = (struct CMUnitTest){.name = scripts[i].name,
                                       .test_func = run_script,
                                       .initial_state = &scripts[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
