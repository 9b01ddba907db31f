/* How large the caches of this machine are. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* _SC_LEVEL1_DCACHE_SIZE */
#endif
#include <stddef.h>
#include <stdint.h>

#include "cpu/caches.h"
#include "cpu/cpuid.h"
#include "fastlstm.h"
#include "platform.h"
#include "threads.h"

#if defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__unix__)
#include <unistd.h>
#endif

/* A cache: its size in bytes, 0 when unknown, and how many logical processors share it. */
typedef struct cache {
    size_t size, processors;
} cache;

#if FL_X86
/* Deterministic cache parameters: leaf 4 (Intel), leaf 0x8000001D (AMD, where leaf 4 is empty). */
static cache cache_of_leaf(uint32_t leaf, int level) {
    for (uint32_t i = 0; i < 16; i++) {
        const fl_cpuid words = fl_cpuid_ask(leaf, i);
        const uint32_t type = words.eax & 0x1f, instruction_cache = 2;
        if (type == 0) break;
        if (type == instruction_cache || (int)(words.eax >> 5 & 0x7) != level) continue;
        const size_t ways = (words.ebx >> 22) + 1, partitions = (words.ebx >> 12 & 0x3ff) + 1;
        const size_t line = (words.ebx & 0xfff) + 1, sets = (size_t)words.ecx + 1;
        return (cache){ways * partitions * line * sets, (words.eax >> 14 & 0xfff) + 1};
    }
    return (cache){0, 1};
}

static cache cache_of_processor(int level) {
    const cache intel = cache_of_leaf(4, level);
    return intel.size ? intel : cache_of_leaf(0x8000001Du, level);
}

/* Logical processors of a core, which share all of its caches: leaf 0xB. */
static size_t processors_of_core(void) {
    const size_t count = fl_cpuid_ask(0xb, 0).ebx & 0xffff;
    return count ? count : 1;
}
#endif

static size_t cache_size_of_system(int level) {
#if defined(__APPLE__)
    static const char *const names[] = {"hw.l1dcachesize", "hw.l2cachesize", "hw.l3cachesize"};
    int64_t size = 0;
    size_t bytes = sizeof size;
    return sysctlbyname(names[level - 1], &size, &bytes, NULL, 0) == 0 ? (size_t)size : 0;
#elif defined(_SC_LEVEL1_DCACHE_SIZE)
    static const int names[] = {_SC_LEVEL1_DCACHE_SIZE, _SC_LEVEL2_CACHE_SIZE,
                                _SC_LEVEL3_CACHE_SIZE};
    const long size = sysconf(names[level - 1]);
    return size > 0 ? (size_t)size : 0;
#else
    (void)level;
    return 0;
#endif
}

size_t fl_cache_size(int level) {
    if (level < 1 || level > 3) return 0;
#if FL_X86
    const size_t size = cache_of_processor(level).size;
    if (size != 0) return size;
#endif
    return cache_size_of_system(level);
}

static size_t near_size(void) {
    const size_t usual = 1 << 20;
#if FL_X86
    const cache l2 = cache_of_processor(2);
    const size_t cores = l2.processors / processors_of_core();
    if (l2.size != 0) return l2.size / (cores ? cores : 1);
#endif
    const size_t size = cache_size_of_system(2);
    return size ? size : usual;
}

ptrdiff_t fl_cache_near(void) {
    static fl_atomic known; /* 0: not yet */
    if (fl_atomic_load(&known) == 0) fl_atomic_store(&known, (long)near_size());
    return fl_atomic_load(&known);
}
