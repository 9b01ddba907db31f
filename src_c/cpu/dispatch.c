/* The kernel tables of this build, and which of them this machine can run. */
#include <stdlib.h>
#include <string.h>

#include "cpu/features.h"
#include "fastlstm.h"
#include "kernels/digits.h"
#include "kernels/kernels.h"
#include "platform.h"

/* One per instruction set, indexed by fl_dtype; defined where the target architecture has it. */
extern const fl_kernels fl_kernels_scalar[2], fl_kernels_avx2[2], fl_kernels_avx512[2];
extern const fl_kernels fl_kernels_neon[2];

/* Every instruction set of this build, the fastest first. Each has tables in the working precision,
 * by which it is named. */
static const struct {
    fl_features needs;
    const fl_kernels *kernels[FL_WEIGHTS_KINDS]; /* each [2], by dtype; NULL: there are none */
} isas[] = {
#if FL_X86
    {FL_FEATURE_AVX512F | FL_FEATURE_AVX2 | FL_FEATURE_FMA, {fl_kernels_avx512}},
    {FL_FEATURE_AVX2 | FL_FEATURE_FMA, {fl_kernels_avx2}},
#endif
#if FL_ARM64
    {FL_FEATURE_NEON, {fl_kernels_neon}},
#endif
    {0, {fl_kernels_scalar}},
};
enum { ISAS = sizeof isas / sizeof isas[0] };

/* One per instruction for products of 8-bit integers. */
extern const fl_digit_kernels fl_digit_kernels_scalar, fl_digit_kernels_avx2;
extern const fl_digit_kernels fl_digit_kernels_avx2_vnni, fl_digit_kernels_avx512_vnni;
extern const fl_digit_kernels fl_digit_kernels_avx512_amx;
extern const fl_digit_kernels fl_digit_kernels_neon, fl_digit_kernels_neon_dotprod;

/* Each of them in this build, the fastest first. What it needs beside its instruction set, whose
 * name it shares or begins with. */
static const struct {
    fl_features needs;
    const fl_digit_kernels *kernels;
} flavours[] = {
#if FL_AMX
    {FL_FEATURE_AMX_INT8 | FL_FEATURE_AVX512_VNNI, &fl_digit_kernels_avx512_amx},
#endif
#if FL_X86
    {FL_FEATURE_AVX512_VNNI, &fl_digit_kernels_avx512_vnni},
#endif
#if FL_AVX_VNNI
    {FL_FEATURE_AVX_VNNI, &fl_digit_kernels_avx2_vnni},
#endif
#if FL_X86
    {0, &fl_digit_kernels_avx2},
#endif
#if FL_ARM64
    {FL_FEATURE_DOTPROD, &fl_digit_kernels_neon_dotprod},
    {0, &fl_digit_kernels_neon},
#endif
    {0, &fl_digit_kernels_scalar},
};
enum { FLAVOURS = sizeof flavours / sizeof flavours[0] };

static const char *name_of(int index) { return isas[index].kernels[FL_WEIGHTS_REAL][0].isa; }

static int is_available(int index) { return (isas[index].needs & ~fl_features_detect()) == 0; }

static int is_available_by_name(const char *isa) {
    for (int i = 0; i < ISAS; i++)
        if (strcmp(name_of(i), isa) == 0) return is_available(i);
    return 0;
}

static int has_flavour(int index) {
    const fl_features needs = flavours[index].needs;
    return (needs & ~fl_features_detect()) == 0 &&
           (!(needs & FL_FEATURE_AMX_INT8) || fl_amx_request()) &&
           is_available_by_name(flavours[index].kernels->real->isa);
}

/* The flavour of this name that this machine can run, or -1. */
static int flavour_named(const char *isa) {
    for (int i = 0; i < FLAVOURS; i++)
        if (strcmp(flavours[i].kernels->isa, isa) == 0) return has_flavour(i) ? i : -1;
    return -1;
}

/* The fastest flavour of an instruction set, or if it has none here the fastest of all; or -1. */
static int flavour_of(const char *isa) {
    if (!is_available_by_name(isa)) return -1;
    for (int i = 0; i < FLAVOURS; i++)
        if (strcmp(flavours[i].kernels->real->isa, isa) == 0 && has_flavour(i)) return i;
    for (int i = 0; i < FLAVOURS; i++)
        if (has_flavour(i)) return i;
    return -1;
}

int fl_isa_count(void) {
    int count = 0;
    for (int i = 0; i < ISAS; i++) count += is_available(i);
    return count;
}

const char *fl_isa_name(int index) {
    if (index < 0) return NULL;
    for (int i = 0; i < ISAS; i++)
        if (is_available(i) && index-- == 0) return name_of(i);
    return NULL;
}

const char *fl_isa_default(void) {
    const char *asked = getenv("FASTLSTM_ISA");
    if (asked == NULL || *asked == '\0') return fl_isa_name(0);
    const fl_kernels *kernels = fl_kernels_find(asked, FL_FLOAT32, FL_WEIGHTS_REAL);
    return kernels ? kernels->isa : NULL;
}

int fl_quantized_isa_count(void) {
    int count = 0;
    for (int i = 0; i < FLAVOURS; i++) count += has_flavour(i);
    return count;
}

const char *fl_quantized_isa_name(int index) {
    if (index < 0) return NULL;
    for (int i = 0; i < FLAVOURS; i++)
        if (has_flavour(i) && index-- == 0) return flavours[i].kernels->isa;
    return NULL;
}

const fl_digit_kernels *fl_digit_kernels_find(const char *isa) {
    if (isa == NULL) isa = getenv("FASTLSTM_ISA");
    if (isa == NULL || *isa == '\0') isa = fl_quantized_isa_name(0);
    int index = flavour_named(isa);
    if (index < 0) index = flavour_of(isa);
    return index < 0 ? NULL : flavours[index].kernels;
}

const fl_kernels *fl_kernels_find(const char *isa, fl_dtype dtype, fl_weights weights) {
    if (isa == NULL) isa = fl_isa_default();
    if (isa == NULL || (dtype != FL_FLOAT32 && dtype != FL_FLOAT64) ||
        (unsigned)weights >= FL_WEIGHTS_KINDS)
        return NULL;
    for (int i = 0; i < ISAS; i++)
        if (strcmp(name_of(i), isa) == 0) {
            const fl_kernels *kernels = isas[i].kernels[weights];
            return kernels && is_available(i) ? &kernels[dtype] : NULL;
        }
    const int flavour = flavour_named(isa);
    return flavour < 0 ? NULL
                       : fl_kernels_find(flavours[flavour].kernels->real->isa, dtype, weights);
}
