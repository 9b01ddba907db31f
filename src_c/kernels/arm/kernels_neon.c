/* arm64 (AArch64), where Advanced SIMD with fused multiply-add is always present. */
#include "kernels/kernels.h"
#include "platform.h"

#if FL_ARM64
#include <arm_neon.h>
#define FL_ISA neon
#define FL_VOCABULARY "kernels/arm/simd_neon.h"
#include "kernels/kernels_tpl.h"
#endif
