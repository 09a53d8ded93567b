#include "base/list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct item {
    int number;
    struct list link;
};

static struct item items[8];

static void fill(struct list *head, int first, int n)
{
    list_init(head);
    for (int i = first; i < first + n; i++) {
        items[i] = (struct item){.number = i};
        list_append(head, &items[i].link);
    }
}

/* The numbers of the list, in both directions, as decimal digits; consistent or fails. */
static int digits(const struct list *head)
{
    int forth = 0, back = 0, place = 1;
    for (const struct list *l = head->next; l != head; l = l->next) {
        assert_ptr_equal(l->next->prev, l);
        forth = forth * 10 + container_of(l, struct item, link)->number;
    }
    for (const struct list *l = head->prev; l != head; l = l->prev, place *= 10)
        back += place * container_of(l, struct item, link)->number;
    assert_int_equal(forth, back);
    return forth;
}

static void test_appends_in_order(void **state)
{
    (void)state;
    struct list head;
    fill(&head, 1, 0);
    assert_true(list_empty(&head));
    assert_false(list_linked(&head));
    assert_null(list_first(&head));
    assert_null(list_pop(&head));
    fill(&head, 1, 4);
    assert_false(list_empty(&head));
    assert_int_equal(digits(&head), 1234);
    assert_ptr_equal(list_first(&head), &items[1].link);
}

static void test_removes_anywhere(void **state)
{
    (void)state;
    struct list head;
    fill(&head, 1, 5);
    list_remove(&items[3].link);
    assert_int_equal(digits(&head), 1245);
    list_remove(&items[1].link);
    list_remove(&items[5].link);
    assert_int_equal(digits(&head), 24);
    assert_false(list_linked(&items[3].link));
    assert_true(list_linked(&items[2].link));
    list_append(&head, &items[3].link);
    assert_int_equal(digits(&head), 243);
}

static void test_remove_of_unlinked_is_harmless(void **state)
{
    (void)state;
    struct list head;
    struct list zero = {0}, alone;
    fill(&head, 1, 2);
    list_remove(&zero);
    assert_false(list_linked(&zero));
    list_init(&alone);
    list_remove(&alone);
    assert_false(list_linked(&alone));
    list_remove(&items[1].link);
    list_remove(&items[1].link);
    assert_int_equal(digits(&head), 2);
}

static void test_pops_first(void **state)
{
    (void)state;
    struct list head;
    fill(&head, 1, 3);
    for (int i = 1; i <= 3; i++)
        assert_ptr_equal(list_pop(&head), &items[i].link);
    assert_null(list_pop(&head));
    assert_false(list_linked(&items[3].link));
}

static void test_takes_all(void **state)
{
    (void)state;
    struct list to, from;
    fill(&to, 1, 2);
    fill(&from, 3, 3);
    list_take(&to, &from);
    assert_int_equal(digits(&to), 12345);
    assert_true(list_empty(&from));
    list_take(&to, &from);
    assert_int_equal(digits(&to), 12345);
    list_take(&from, &to);
    assert_int_equal(digits(&from), 12345);
    assert_true(list_empty(&to));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_appends_in_order),
        cmocka_unit_test(test_removes_anywhere),
        cmocka_unit_test(test_remove_of_unlinked_is_harmless),
        cmocka_unit_test(test_pops_first),
        cmocka_unit_test(test_takes_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
