/* x86-64 with AVX2 and FMA: Intel since Haswell (2013), AMD since Excavator (2015). */
#include "kernels/kernels.h"
#include "platform.h"

#if FL_X86
#include <immintrin.h>
FL_TARGET_BEGIN("avx2,fma")
#define FL_ISA avx2
#define FL_WIDTH 256
#define FL_VOCABULARY "kernels/x86/simd_x86.h"
#include "kernels/kernels_tpl.h"
FL_TARGET_END
#endif
