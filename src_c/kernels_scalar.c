/* Portable kernels: any C11 compiler, any processor. */
#include "kernels.h"
#include "platform.h"

#define FL_ISA scalar
#define FL_VOCABULARY "simd_scalar.h"
#include "kernels_tpl.h"
