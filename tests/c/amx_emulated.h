/* AMX's tiles in plain C, for machines without: included before anything else (-include) it takes
 * the place of the compiler's intrinsics, so that the kernels that use them compile as they stand.
 *
 * It does what Intel's manual says of the instructions (volume 2, LDTILECFG and those on tiles),
 * and ends the program where they would fault: a tile that is not configured, or of a size that
 * does not fit the others'. Tiles are a thread's own.
 */
#ifndef AMX_EMULATED_H
#define AMX_EMULATED_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

/* What a thread's instructions have been so far. */
typedef struct amx_counts {
    long configured, loads, products, stores;
} amx_counts;

void amx_emulated_configure(const void *config);
void amx_emulated_release(void);
void amx_emulated_load(int tile, const void *from, ptrdiff_t stride);
void amx_emulated_store(int tile, void *to, ptrdiff_t stride);
void amx_emulated_dpbusd(int sums, int rows, int weights);

/* Whether this thread's tiles are configured, and what it has counted. */
int amx_emulated_is_configured(void);
amx_counts amx_emulated_counts(void);

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbusd
#define _tile_loadconfig amx_emulated_configure
#define _tile_release amx_emulated_release
#define _tile_loadd amx_emulated_load
#define _tile_stored amx_emulated_store
#define _tile_dpbusd amx_emulated_dpbusd

#endif
