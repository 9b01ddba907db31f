/* Which instructions this machine can run. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* syscall */
#endif
#include "cpu/features.h"

#include <stddef.h>

#include "cpu/cpuid.h"
#include "platform.h"
#include "threads.h"

#if defined(__linux__) && FL_ARM64
#include <sys/auxv.h>
#elif defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(_WIN32) && FL_ARM64
#include <windows.h>
#endif

const char *fl_features_name(int index) {
    static const char *const names[FL_FEATURES] = {
        "fma", "avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "neon", "dotprod", "i8mm"};
    return index >= 0 && index < FL_FEATURES ? names[index] : NULL;
}

fl_features fl_features_of_x86(const fl_x86_words *words) {
    const uint32_t fma = 1u << 12, avx = 1u << 28;                   /* leaf 1, ecx */
    const uint32_t avx2 = 1u << 5, avx512f = 1u << 16;               /* leaf 7, ebx */
    const uint32_t avx512_vnni = 1u << 11;                           /* ecx */
    const uint32_t amx_tile = 1u << 24, amx_int8 = 1u << 25;         /* edx */
    const uint32_t avx_vnni = 1u << 4;                               /* leaf 7.1, eax */
    const uint64_t xmm_ymm = 0x6, zmm_masks = 0xe0, tiles = 0x60000; /* XCR0 */
    fl_features found = 0;
    if (!(words->leaf_1_ecx & avx) || (words->xcr0 & xmm_ymm) != xmm_ymm) return 0;
    if (words->leaf_1_ecx & fma) found |= FL_FEATURE_FMA;
    if (words->leaf_7_0_ebx & avx2) found |= FL_FEATURE_AVX2;
    if (words->leaf_7_1_eax & avx_vnni) found |= FL_FEATURE_AVX_VNNI;
    if ((words->xcr0 & zmm_masks) == zmm_masks) {
        if (words->leaf_7_0_ebx & avx512f) found |= FL_FEATURE_AVX512F;
        if (words->leaf_7_0_ecx & avx512_vnni) found |= FL_FEATURE_AVX512_VNNI;
    }
    if ((words->xcr0 & tiles) == tiles && (words->leaf_7_0_edx & amx_tile) &&
        (words->leaf_7_0_edx & amx_int8))
        found |= FL_FEATURE_AMX_INT8;
    return found;
}

fl_features fl_features_of_arm64(uint64_t hwcap, uint64_t hwcap2) {
    const uint64_t asimddp = 1u << 20, i8mm = 1u << 13;
    fl_features found = FL_FEATURE_NEON;
    if (hwcap & asimddp) found |= FL_FEATURE_DOTPROD;
    if (hwcap2 & i8mm) found |= FL_FEATURE_I8MM;
    return found;
}

#if FL_X86
/* The register states that the operating system saves (XCR0); 0 when it does not say. */
static uint64_t saved_register_states(uint32_t leaf_1_ecx) {
    const uint32_t osxsave = 1u << 27;
    if (!(leaf_1_ecx & osxsave)) return 0;
#if defined(_MSC_VER)
    return _xgetbv(0);
#else
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
#endif
}

static fl_features detect(void) {
    const fl_cpuid leaf_1 = fl_cpuid_ask(1, 0), leaf_7 = fl_cpuid_ask(7, 0);
    const uint32_t last_subleaf = leaf_7.eax;
    const fl_x86_words words = {
        .leaf_1_ecx = leaf_1.ecx,
        .leaf_7_0_ebx = leaf_7.ebx,
        .leaf_7_0_ecx = leaf_7.ecx,
        .leaf_7_0_edx = leaf_7.edx,
        .leaf_7_1_eax = last_subleaf >= 1 ? fl_cpuid_ask(7, 1).eax : 0,
        .xcr0 = saved_register_states(leaf_1.ecx),
    };
    return fl_features_of_x86(&words);
}
#elif FL_ARM64 && defined(__linux__)
static fl_features detect(void) {
    return fl_features_of_arm64(getauxval(AT_HWCAP), getauxval(AT_HWCAP2));
}
#elif FL_ARM64 && defined(__APPLE__)
static int has(const char *name) {
    int answer = 0;
    size_t bytes = sizeof answer;
    return sysctlbyname(name, &answer, &bytes, NULL, 0) == 0 && answer;
}

static fl_features detect(void) {
    fl_features found = FL_FEATURE_NEON;
    if (has("hw.optional.arm.FEAT_DotProd")) found |= FL_FEATURE_DOTPROD;
    if (has("hw.optional.arm.FEAT_I8MM")) found |= FL_FEATURE_I8MM;
    return found;
}
#elif FL_ARM64 && defined(_WIN32)
static fl_features detect(void) {
    const DWORD dotprod = 43, i8mm = 66; /* PF_ARM_..., which older headers lack */
    fl_features found = FL_FEATURE_NEON;
    if (IsProcessorFeaturePresent(dotprod)) found |= FL_FEATURE_DOTPROD;
    if (IsProcessorFeaturePresent(i8mm)) found |= FL_FEATURE_I8MM;
    return found;
}
#else
static fl_features detect(void) { return FL_ARM64 ? FL_FEATURE_NEON : 0; }
#endif

/* In a virtual machine each CPUID takes tens of microseconds. Threads that ask at the same time
 * find and store the same. */
fl_features fl_features_detect(void) {
    static fl_atomic known; /* 0: not asked yet */
    const long asked = 1L << FL_FEATURES;
    long answer = fl_atomic_load(&known);
    if (answer == 0) {
        answer = asked | (long)detect();
        fl_atomic_store(&known, answer);
    }
    return (fl_features)(answer & ~asked);
}

int fl_amx_request(void) {
    if (!(fl_features_detect() & FL_FEATURE_AMX_INT8)) return 0;
#if defined(__linux__) && FL_X86
    const long arch_req_xcomp_perm = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, arch_req_xcomp_perm, tile_data) == 0;
#else
    return 0; /* other systems are not asked yet */
#endif
}
