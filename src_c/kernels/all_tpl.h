/* All kernels in one precision, FL_DOUBLE, which this undefines. Templates use what those above
 * them define; what they define for themselves they undefine at their end. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/loops.h"
#include "kernels/precision.h"
#include FL_VOCABULARY
#include "kernels/math_tpl.h"
#include "kernels/apply_tpl.h"
#include "kernels/gemm_tpl.h"
#include "kernels/cell_tpl.h"
#include "kernels/activations_tpl.h"
#include "kernels/train_tpl.h"
#include "kernels/variant_tpl.h"
#include "kernels/norm_tpl.h"
#include "kernels/softmax_tpl.h"
#include "kernels/limits_tpl.h"
enum { FL_NAME(lanes) = FL_V };
#include "kernels/pair_tpl.h"

#undef FL_DOUBLE
