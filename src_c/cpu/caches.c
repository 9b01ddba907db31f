/* How large the caches of this machine are. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* _SC_LEVEL1_DCACHE_SIZE */
#endif
#include <stddef.h>
#include <stdint.h>

#include "cpu/cpuid.h"
#include "fastlstm.h"
#include "platform.h"

#if defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__unix__)
#include <unistd.h>
#endif

#if FL_X86
/* Deterministic cache parameters: leaf 4 (Intel), leaf 0x8000001D (AMD, where leaf 4 is empty). */
static size_t cache_size_of_processor(uint32_t leaf, int level) {
    for (uint32_t i = 0; i < 16; i++) {
        const fl_cpuid cache = fl_cpuid_ask(leaf, i);
        const uint32_t type = cache.eax & 0x1f, instruction_cache = 2;
        if (type == 0) break;
        if (type == instruction_cache || (int)(cache.eax >> 5 & 0x7) != level) continue;
        const size_t ways = (cache.ebx >> 22) + 1, partitions = (cache.ebx >> 12 & 0x3ff) + 1;
        const size_t line = (cache.ebx & 0xfff) + 1, sets = (size_t)cache.ecx + 1;
        return ways * partitions * line * sets;
    }
    return 0;
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
    size_t size = cache_size_of_processor(4, level);
    if (size == 0) size = cache_size_of_processor(0x8000001Du, level);
    if (size != 0) return size;
#endif
    return cache_size_of_system(level);
}
