/* x86-64 with AVX-512F: Intel servers since Skylake-SP (2017), AMD since Zen 4 (2022). */
#include "kernels/kernels.h"
#include "platform.h"

#if FL_X86
#include <immintrin.h>
FL_TARGET_BEGIN("avx512f")
#define FL_ISA avx512
#define FL_HALF avx2
#define FL_WIDTH 512
#define FL_VOCABULARY "kernels/x86/simd_x86.h"
#include "kernels/kernels_tpl.h"
FL_TARGET_END

FL_TARGET_BEGIN("avx512f,avx512vnni")
#define FL_DIGIT_ISA avx512_vnni
#define FL_DOTS "kernels/x86/dots_vnni.h"
#include "kernels/digits_tpl.h"
FL_TARGET_END

#if FL_AMX
FL_TARGET_BEGIN("avx512f,avx512vnni,amx-tile,amx-int8")
#include "kernels/x86/digits_amx.h"
FL_TARGET_END
#endif
#endif
