#ifndef RODA_BASE_HASH_H
#define RODA_BASE_HASH_H
/* Keyed hashes (SipHash-2-4, libsodium), so that nobody outside can choose collisions. */
#include <stddef.h>
#include <stdint.h>

#define HASH_KEY_BYTES 16

/* Sets the process's key; once, before threads. */
void hash_set_key(const uint8_t key[HASH_KEY_BYTES]);
uint64_t hash_bytes(const void *bytes, size_t len); /* with the process's key */
uint64_t hash_keyed(const uint8_t key[HASH_KEY_BYTES], const void *bytes, size_t len);
/* Written to disk and shared by machines: the same for ever (SipHash-2-4 with a fixed key). */
uint64_t hash_stable(const void *bytes, size_t len);

#endif
