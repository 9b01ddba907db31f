/* arm64 (AArch64), where Advanced SIMD with fused multiply-add is always present. */
#include "kernels/kernels.h"
#include "platform.h"

#if FL_ARM64
#include <arm_neon.h>
#define FL_ISA neon
#define FL_VOCABULARY "kernels/arm/simd_neon.h"
#include "kernels/kernels_tpl.h"

#define FL_DIGIT_ISA neon
#define FL_DOTS "kernels/arm/dots_neon.h"
#define FL_DOTPROD 0
#include "kernels/digits_tpl.h"

/* Optional from Armv8.2 on, and in all processors from Armv8.4 on. */
#if defined(__clang__)
#define FL_TARGET_DOTPROD "dotprod"
#else
#define FL_TARGET_DOTPROD "arch=armv8.2-a+dotprod"
#endif
FL_TARGET_BEGIN(FL_TARGET_DOTPROD)
#define FL_DIGIT_ISA neon_dotprod
#define FL_DOTS "kernels/arm/dots_neon.h"
#define FL_DOTPROD 1
#include "kernels/digits_tpl.h"
FL_TARGET_END
#endif
