#include "base/hash.h"

#include <string.h>

#include <sodium/crypto_shorthash.h>

/*
 * One function, SipHash-2-4, with three keys: the process's own, drawn at start and never shown,
 * for tables that strangers fill; the caller's; and a fixed one for what is written to disk or
 * compared between machines. The last gives no protection against chosen collisions, so it only
 * ever spreads things over a fixed number of places (rooms over slots).
 */
_Static_assert(HASH_KEY_BYTES == crypto_shorthash_KEYBYTES, "the key of SipHash");
_Static_assert(crypto_shorthash_BYTES == 8, "64 bits");

static uint8_t process_key[HASH_KEY_BYTES];

/* The 16 ASCII characters "roda stable hash". Changing them moves every room of every log. */
static const uint8_t stable_key[HASH_KEY_BYTES] = {'r', 'o', 'd', 'a', ' ', 's', 't', 'a',
                                                   'b', 'l', 'e', ' ', 'h', 'a', 's', 'h'};

void hash_set_key(const uint8_t key[HASH_KEY_BYTES])
{
    memcpy(process_key, key, HASH_KEY_BYTES);
}

uint64_t hash_bytes(const void *bytes, size_t len)
{
    return hash_keyed(process_key, bytes, len);
}

uint64_t hash_keyed(const uint8_t key[HASH_KEY_BYTES], const void *bytes, size_t len)
{
    uint8_t out[8];
    (void)crypto_shorthash(out, bytes, len, key);
    /* SipHash's result is defined as little-endian bytes, whatever the machine. */
    uint64_t hash = 0;
    for (size_t i = 0; i < sizeof(out); i++)
        hash |= (uint64_t)out[i] << (8 * i);
    return hash;
}

uint64_t hash_stable(const void *bytes, size_t len)
{
    return hash_keyed(stable_key, bytes, len);
}
