/* The CPUID instruction of x86-64. */
#ifndef FL_CPUID_H
#define FL_CPUID_H

#include <stdint.h>

#include "platform.h"

#if FL_X86
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif

typedef struct fl_cpuid {
    uint32_t eax, ebx, ecx, edx;
} fl_cpuid;

/* What a leaf says, or all zeros when the processor does not have that leaf. */
static inline fl_cpuid fl_cpuid_ask(uint32_t leaf, uint32_t subleaf) {
    fl_cpuid result = {0, 0, 0, 0};
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
        result.eax = result.ebx = result.ecx = result.edx = 0;
#endif
    return result;
}
#endif

#endif
