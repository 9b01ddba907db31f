/* Which instruction sets this machine can run, and how large its caches are. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* _SC_LEVEL1_DCACHE_SIZE */
#endif
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fastlstm.h"
#include "kernels/kernels.h"
#include "platform.h"
#include "threads.h"

#if defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__unix__)
#include <unistd.h>
#endif

#if FL_X86
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif

typedef struct cpuid_result {
    uint32_t eax, ebx, ecx, edx;
} cpuid_result;

/* CPUID of a leaf, or all zeros when the processor does not have that leaf. */
static cpuid_result cpuid(uint32_t leaf, uint32_t subleaf) {
    cpuid_result result = {0, 0, 0, 0};
#if defined(_MSC_VER)
    int words[4];
    __cpuid(words, (int)(leaf & 0x80000000u));
    if ((uint32_t)words[0] >= leaf) {
        __cpuidex(words, (int)leaf, (int)subleaf);
        result.eax = (uint32_t)words[0];
        result.ebx = (uint32_t)words[1];
        result.ecx = (uint32_t)words[2];
        result.edx = (uint32_t)words[3];
    }
#else
    if (!__get_cpuid_count(leaf, subleaf, &result.eax, &result.ebx, &result.ecx, &result.edx))
        memset(&result, 0, sizeof result);
#endif
    return result;
}

/* The register states that the operating system saves (XCR0); 0 when it does not say. */
static uint64_t saved_register_states(void) {
    const uint32_t osxsave = 1u << 27;
    if (!(cpuid(1, 0).ecx & osxsave)) return 0;
#if defined(_MSC_VER)
    return _xgetbv(0);
#else
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
#endif
}

static int has_avx2(void) {
    const uint32_t fma = 1u << 12, avx = 1u << 28, avx2 = 1u << 5;
    const uint64_t xmm_ymm = 0x6;
    const uint32_t basic = cpuid(1, 0).ecx;
    return (basic & fma) && (basic & avx) && (cpuid(7, 0).ebx & avx2) &&
           (saved_register_states() & xmm_ymm) == xmm_ymm;
}

static int has_avx512(void) {
    const uint32_t avx512f = 1u << 16;
    const uint64_t xmm_ymm_zmm_masks = 0xe6;
    return has_avx2() && (cpuid(7, 0).ebx & avx512f) &&
           (saved_register_states() & xmm_ymm_zmm_masks) == xmm_ymm_zmm_masks;
}
#endif

static int always(void) { return 1; }

/* Every instruction set of this build, the fastest first. */
static const struct {
    const fl_kernels *kernels; /* [2], by precision */
    int (*available)(void);
} isas[] = {
#if FL_X86
    {fl_kernels_avx512, has_avx512},
    {fl_kernels_avx2, has_avx2},
#endif
#if FL_ARM64
    {fl_kernels_neon, always},
#endif
    {fl_kernels_scalar, always},
};
enum { ISAS = sizeof isas / sizeof isas[0] };

/* Asks the processor once: in a virtual machine each CPUID takes tens of microseconds. Threads that
 * ask at the same time find and store the same. */
static int is_available(int index) {
    static fl_atomic known[ISAS]; /* 0 not asked, 1 no, 2 yes */
    long answer = fl_atomic_load(&known[index]);
    if (answer == 0) {
        answer = isas[index].available() ? 2 : 1;
        fl_atomic_store(&known[index], answer);
    }
    return answer == 2;
}

int fl_isa_count(void) {
    int count = 0;
    for (int i = 0; i < ISAS; i++) count += is_available(i);
    return count;
}

const char *fl_isa_name(int index) {
    if (index < 0) return NULL;
    for (int i = 0; i < ISAS; i++)
        if (is_available(i) && index-- == 0) return isas[i].kernels[0].isa;
    return NULL;
}

const char *fl_isa_default(void) {
    const char *asked = getenv("FASTLSTM_ISA");
    if (asked == NULL || *asked == '\0') return fl_isa_name(0);
    const fl_kernels *kernels = fl_kernels_find(asked, FL_FLOAT32);
    return kernels ? kernels->isa : NULL;
}

const fl_kernels *fl_kernels_find(const char *isa, fl_dtype dtype) {
    if (isa == NULL) isa = fl_isa_default();
    if (isa == NULL || (dtype != FL_FLOAT32 && dtype != FL_FLOAT64)) return NULL;
    for (int i = 0; i < ISAS; i++)
        if (strcmp(isas[i].kernels[0].isa, isa) == 0)
            return is_available(i) ? &isas[i].kernels[dtype] : NULL;
    return NULL;
}

#if FL_X86
/* Deterministic cache parameters: leaf 4 (Intel), leaf 0x8000001D (AMD, where leaf 4 is empty). */
static size_t cache_size_of_processor(uint32_t leaf, int level) {
    for (uint32_t i = 0; i < 16; i++) {
        const cpuid_result cache = cpuid(leaf, i);
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

#define FL_TEXT_(x) #x
#define FL_TEXT(x) FL_TEXT_(x)

const char *fl_compiler(void) {
#if defined(__clang__)
    return "Clang " __clang_version__;
#elif defined(__GNUC__)
    return "GCC " __VERSION__;
#elif defined(_MSC_VER)
    return "MSVC " FL_TEXT(_MSC_FULL_VER);
#else
    return "unknown";
#endif
}
