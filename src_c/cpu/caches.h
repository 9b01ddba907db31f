/* What the caches of this machine mean for the kernels. */
#ifndef FL_CACHES_H
#define FL_CACHES_H

#include <stddef.h>

/* Bytes that a core's own caches hold: its L2, or on x86-64 its part where several cores share one.
 * What is larger comes from a cache that all cores share, at a fraction of the rate. The processor
 * is asked once. */
ptrdiff_t fl_cache_near(void);

#endif
