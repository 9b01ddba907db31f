/* Portable kernels: any C11 compiler, any processor. */
#include "kernels/kernels.h"
#include "platform.h"

#define FL_ISA scalar
#define FL_VOCABULARY "kernels/generic/simd_scalar.h"
#include "kernels/kernels_tpl.h"

#define FL_DIGIT_ISA scalar
#define FL_DOTS "kernels/generic/dots_scalar.h"
#include "kernels/digits_tpl.h"
