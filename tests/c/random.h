/* Numbers to test with, and a hash of what came of them: the same on every machine. */
#ifndef RANDOM_H
#define RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* xorshift64*, for numbers in [-1, 1) that are exact in float. */
static uint64_t random_state = 88172645463325252u;
static inline double random_real(void) {
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    const uint64_t bits = random_state * 2685821657736338717u;
    return (double)(bits >> 40) / (double)(1 << 23) - 1.0;
}

/* FNV-1a of every result so far: equal on every machine and instruction set (nox -s emulated). */
static uint64_t results_hash = 14695981039346656037u;
static inline void hash_bytes(const void *data, size_t count) {
    const unsigned char *bytes = data;
    for (size_t j = 0; j < count; j++) results_hash = (results_hash ^ bytes[j]) * 1099511628211u;
}

#endif
