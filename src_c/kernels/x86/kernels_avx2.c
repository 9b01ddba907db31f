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
#define FL_DIGIT_ISA avx2
#define FL_DOTS "kernels/x86/dots_avx2.h"
#include "kernels/digits_tpl.h"
FL_TARGET_END

#if FL_AVX_VNNI
FL_TARGET_BEGIN("avx2,fma,avxvnni")
#define FL_DIGIT_ISA avx2_vnni
#define FL_DOTS "kernels/x86/dots_vnni.h"
#include "kernels/digits_tpl.h"
FL_TARGET_END
#endif
#endif
