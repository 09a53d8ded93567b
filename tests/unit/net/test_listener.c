/* What listeners do without a socket. */
#include "unit/net/fixture.h"

static void never(struct wheel_timer *timer)
{
    (void)timer;
    fail();
}

/* A listener that is closed cancels its accept by its timer, until the last completion came. */
static void a_descriptor_that_comes_free_is_none_of_a_closed_listeners_business(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct listener *l = memory_alloc(2 * sizeof *l);

    assert_non_null(l);
    f->net.listeners = l;
    f->net.n_listeners = 2;
    for (uint32_t i = 0; i < 2; i++) {
        l[i] = (struct listener){.address = &f->address, .net = &f->net, .index = i};
        l[i].paused = true;
        wheel_arm(&f->wheel, &l[i].timer, 1000, never);
    }
    l[0].closed = true;
    f->net.accept_waits = true;
    listener_retry(&f->net);
    assert_false(f->net.accept_waits);
    assert_true(wheel_armed(&l[0].timer));
    assert_false(wheel_armed(&l[1].timer));
    assert_false(l[1].paused);
    wheel_disarm(&f->wheel, &l[0].timer);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_descriptor_that_comes_free_is_none_of_a_closed_listeners_business),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
