/* The kernel tables of this build, and which of them this machine can run. */
#include <stdlib.h>
#include <string.h>

#include "cpu/features.h"
#include "fastlstm.h"
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

static const char *name_of(int index) { return isas[index].kernels[FL_WEIGHTS_REAL][0].isa; }

static int is_available(int index) { return (isas[index].needs & ~fl_features_detect()) == 0; }

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
    return NULL;
}
