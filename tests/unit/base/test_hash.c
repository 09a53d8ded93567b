#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

/* The vectors of the SipHash paper's reference code: key 00 .. 0f, input 00 01 02 ... */
static void test_is_siphash_2_4(void **state)
{
    (void)state;
    uint8_t key[HASH_KEY_BYTES], input[15];
    for (uint8_t i = 0; i < sizeof(key); i++)
        key[i] = i;
    for (uint8_t i = 0; i < sizeof(input); i++)
        input[i] = i;
    assert_true(hash_keyed(key, NULL, 0) == UINT64_C(0x726fdb47dd0e0e31));
    assert_true(hash_keyed(key, input, 1) == UINT64_C(0x74f839c593dc67fd));
    assert_true(hash_keyed(key, input, 15) == UINT64_C(0xa129ca6149be45e5));
}

static void test_process_key_matters(void **state)
{
    (void)state;
    uint8_t key[HASH_KEY_BYTES] = {1};
    hash_set_key(key);
    uint64_t first = hash_bytes("lobby", 5);
    assert_true(first == hash_keyed(key, "lobby", 5));
    key[15] = 1;
    hash_set_key(key);
    assert_true(first != hash_bytes("lobby", 5));
    assert_true(hash_bytes("lobby", 5) == hash_keyed(key, "lobby", 5));
    assert_true(hash_bytes("lobby", 5) != hash_bytes("lobbx", 5));
    assert_true(hash_bytes("lobby", 5) != hash_bytes("lobby", 4));
}

/* What is on the disks of users: these may never change. */
static void test_stable_never_changes(void **state)
{
    (void)state;
    uint8_t key[HASH_KEY_BYTES];
    memcpy(key, "roda stable hash", sizeof(key));
    assert_true(hash_stable("lobby", 5) == hash_keyed(key, "lobby", 5));
    assert_true(hash_stable("lobby", 5) == UINT64_C(0xd80d8b38a8c3a459));
    assert_true(hash_stable("", 0) == UINT64_C(0x31d664134cdb2d3d));
    key[0] ^= 1;
    hash_set_key(key);
    assert_true(hash_stable("lobby", 5) == UINT64_C(0xd80d8b38a8c3a459));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_is_siphash_2_4),
        cmocka_unit_test(test_process_key_matters),
        cmocka_unit_test(test_stable_never_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
