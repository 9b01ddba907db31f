/* Products in 8, 16 and 24 bits by AMX's tiles, for batches: see digits.h. Included after the
 * digits_tpl.h of AVX-512 VNNI, whose functions quantise rows, and serve where there are few.
 *
 * A tile of rows is up to 16 rows of 64 digits; one of weights is 16 blocks of columns of the V =
 * 16 units of one gate and one digit; their products add up in a tile of 16 x 16 sums. Rows are cut
 * into tiles of one height, so that tiles are configured once in a call; the last one may begin
 * among rows that are done already, of which nothing is kept.
 *
 * Work goes by items, one or two tiles of rows times four columns of tiles: the gates of a panel,
 * or any four that follow each other. Items go by blocks, of as many sums as there are tiles for. A
 * product takes 16 cycles, 52 until its sums can be added to, so a block has four sums at least; a
 * load takes 8. Nothing waits for sums: those of a block become real during the next one, and the
 * cells of an item are computed during the next item, some after each 64 columns, while the tiles
 * multiply. Cycles of a step for 32 rows of a panel, by count (tests/c/test_amx.c) but for all
 * other instructions, which were measured without the tiles, and which take longer up to H = 256:
 *
 *                  products (cycles), loads of tiles           other
 *                  H = 256           H = 512
 *      8 bits       32 ( 512),  40     64 (1024),  72          2200
 *     16 bits      128 (2048), 168    256 (4096), 312          2700
 *     24 bits      192 (3072), 232    384 (6144), 440          3800
 */
#include "cpu/caches.h"
#include "kernels/digits.h"

enum {
    AMX_TILE = 16,   /* rows of a tile, blocks of columns, units */
    AMX_COLUMNS = 4, /* columns of an item */
    AMX_ITEM_ROWS = 32,
    AMX_MOST_SUMS = 6, /* of a block: 2 parts of 3 sums, or 4 of one */
    AMX_MOST_PARTS = 4,
    /* A line of weights comes from the L2 in about 1.6 cycles. VNNI takes half a cycle for each row
     * that meets it, with 8 bits: up to three rows it is not slower, and has no tiles to set up. */
    AMX_LEAST_ROWS = 4
};

/* What LDTILECFG reads. */
typedef struct amx_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} amx_config;
_Static_assert(sizeof(amx_config) == 64, "LDTILECFG reads 64 bytes");

/* The cells of some rows of a panel, gates before activation in z (rows, 4, V). */
typedef void amx_cells(ptrdiff_t rows, ptrdiff_t H, ptrdiff_t unit, const float *z, float *c,
                       float *h_out, ptrdiff_t h_out_stride);

/* A call of product, or of step, which has cells: then z is scratch (2, AMX_ITEM_ROWS, 4, V) for
 * the gates of an item and of the one before. */
typedef struct amx_call {
    const fl_digits *w;
    ptrdiff_t first_panel, panels, rows;
    const fl_digit_rows *a;
    const float *start;
    ptrdiff_t start_stride;
    float *z;
    ptrdiff_t z_stride;
    amx_cells *cells; /* NULL: product */
    ptrdiff_t H;
    float *c, *h_out;
    ptrdiff_t h_out_stride;
    int backward;
} amx_call;

/* A column of tiles: V units of a gate. One that is not there is computed as the last one, for
 * nothing. */
typedef struct amx_column {
    const int8_t *weights;
    const int32_t *starts;
    const float *factors;
    ptrdiff_t vector, to; /* where it is in rows of start, and of z */
    int is_there;
} amx_column;

/* A tile of rows times a column: the first tiles of both, what sums begin at, and where they go: to
 * z (count, V) = start + t * (units * factors) for the last `count` of the rows. */
typedef struct amx_part {
    const uint8_t *rows;
    const int8_t *weights;
    const int32_t *starts;
    ptrdiff_t count;
    const float *units, *factors, *start;
    float *z;
} amx_part;

/* What blocks work on, of which each finds the sums of the block before. */
typedef struct amx_work {
    _Alignas(FL_LINE) int32_t sums[AMX_MOST_SUMS][AMX_TILE][AMX_TILE];
    amx_part parts[2][AMX_MOST_PARTS]; /* of a block and of the one before, by turns */
    const amx_part *before;            /* the latter, or NULL where they are finished */
    amx_column columns[AMX_COLUMNS];

    /* The same for all blocks. Bytes of a row of digits, and from one digit of it to the next; of a
     * block of columns, and likewise; and from the starts of one sum to those of the next. */
    ptrdiff_t height, steps; /* rows of a tile; K in steps of 64 columns */
    ptrdiff_t row_bytes, row_plane, block_bytes, block_plane, starts_plane;
    ptrdiff_t start_stride, z_stride;

    /* After each step, so many of the cells that are to be computed, of rows from cell_row on, and
     * so many lines of weights to be fetched. */
    const amx_call *call;
    ptrdiff_t cells_each, cell_row, cell_end, unit;
    const float *gates;
    ptrdiff_t lines_each;
    const int8_t *ahead;
} amx_work;

static void amx_configure(ptrdiff_t height, int first_of_weights) {
    amx_config config = {.palette = 1};
    for (int tile = 0; tile < 8; tile++) {
        config.row_bytes[tile] = 4 * AMX_TILE;
        config.rows[tile] = (uint8_t)(tile < first_of_weights ? height : AMX_TILE);
    }
    /* GCC 12 takes the instruction to read the first 8 bytes only. */
    __asm__ volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
}

/* z of a part, of its S sums. */
FL_INLINE void amx_finish_part(const int S, const amx_work *work, const amx_part *part,
                               const int32_t (*sums)[AMX_TILE][AMX_TILE]) {
    const __m512 factors = _mm512_loadu_ps(part->factors);
    const ptrdiff_t start_stride = work->start_stride, z_stride = work->z_stride;
    const ptrdiff_t count = part->count, first = work->height - count;
    const float *units = part->units, *start = part->start;
    float *z = part->z;
    for (ptrdiff_t r = 0; r < count; r++, start += start_stride, z += z_stride) {
        __m512 t = _mm512_cvtepi32_ps(_mm512_load_si512(sums[0][first + r]));
        FL_UNROLL
        for (int s = 1; s < S; s++)
            t = _mm512_fmadd_ps(t, _mm512_set1_ps(256),
                                _mm512_cvtepi32_ps(_mm512_load_si512(sums[s][first + r])));
        const __m512 factor = _mm512_mul_ps(_mm512_set1_ps(units[r]), factors);
        _mm512_storeu_ps(z, _mm512_fmadd_ps(t, factor, _mm512_loadu_ps(start)));
    }
}

FL_INLINE void amx_finish_block(const int S, amx_work *work) {
    const int parts = S == 1 ? 4 : 2;
    if (work->before == NULL) return;
    for (int p = 0; p < parts; p++) amx_finish_part(S, work, &work->before[p], &work->sums[p * S]);
    work->before = NULL;
}

/* At most `rows` of the cells to be computed. */
FL_INLINE void amx_some_cells(amx_work *work, ptrdiff_t rows) {
    const amx_call *call = work->call;
    if (rows > work->cell_end - work->cell_row) rows = work->cell_end - work->cell_row;
    if (rows == 0) return;
    call->cells(rows, call->H, work->unit, work->gates, call->c + work->cell_row * call->H,
                call->h_out + work->cell_row * call->h_out_stride, call->h_out_stride);
    work->cell_row += rows;
    work->gates += rows * work->z_stride;
}

/* Tiles are named by literals. A and B load those of part p, of a digit, 64 * k columns on. */
#define A(tile, p, digit) \
    _tile_loadd(tile, parts[p].rows + (digit) * work->row_plane + k * 4 * AMX_TILE, work->row_bytes)
#define B(tile, p, digit)                                                                          \
    _tile_loadd(tile,                                                                              \
                parts[p].weights + (digit) * work->block_plane + k * AMX_TILE * work->block_bytes, \
                work->block_bytes)
/* What a tile of sums begins at is the same in all rows. */
#define START(tile, p, s) _tile_loadd(tile, parts[p].starts + (s) * work->starts_plane, 0)
#define STORE(tile) _tile_stored(tile, work->sums[tile], 4 * AMX_TILE)
#define DOT(sum, a, b) _tile_dpbusd(sum, a, b)

/* 64 columns of the parts of a block: M tiles of rows. Parts 0 and 1 share the rows where M = 1,
 * and the weights where M = 2 and n > 1; with n = 1, M = 2, four parts are of two and two. */
FL_INLINE void amx_multiply(const int n, const int S, const int M, const amx_work *work,
                            const amx_part *parts, ptrdiff_t k) {
    if (n == 1 && M == 2) {
        A(4, 0, 0);
        B(6, 0, 0);
        DOT(0, 4, 6);
        B(7, 1, 0);
        DOT(1, 4, 7);
        A(5, 2, 0);
        DOT(2, 5, 6);
        DOT(3, 5, 7);
    } else if (n == 1) {
        A(4, 0, 0);
        B(6, 0, 0);
        DOT(0, 4, 6);
        B(7, 1, 0);
        DOT(1, 4, 7);
        B(6, 2, 0);
        DOT(2, 4, 6);
        B(7, 3, 0);
        DOT(3, 4, 7);
    } else if (S == 2) {
        A(4, 0, 0);
        B(7, 0, 1);
        DOT(1, 4, 7);
        B(6, 0, 0);
        DOT(0, 4, 6);
        A(5, 0, 1);
        DOT(1, 5, 6);
        if (M == 2) {
            A(4, 1, 0);
            A(5, 1, 1);
        } else {
            B(7, 1, 1);
            B(6, 1, 0);
        }
        DOT(3, 4, 7);
        DOT(2, 4, 6);
        DOT(3, 5, 6);
    } else if (n == 2) { /* a tile changes from one product to the next */
        A(6, 0, 0);
        B(7, 0, 0);
        DOT(0, 6, 7);
        A(6, 0, 1);
        DOT(1, 6, 7);
        B(7, 0, 1);
        DOT(2, 6, 7);
        A(6, 0, 0);
        DOT(1, 6, 7);
        if (M == 2) A(6, 1, 0);
        else B(7, 1, 1);
        DOT(4, 6, 7);
        A(6, 1, 1);
        DOT(5, 6, 7);
        B(7, 1, 0);
        DOT(4, 6, 7);
        A(6, 1, 0);
        DOT(3, 6, 7);
    } else {
        A(6, 0, 2);
        B(7, 0, 0);
        DOT(2, 6, 7);
        A(6, 0, 1);
        DOT(1, 6, 7);
        B(7, 0, 1);
        DOT(2, 6, 7);
        A(6, 0, 0);
        DOT(1, 6, 7);
        B(7, 0, 2);
        DOT(2, 6, 7);
        B(7, 0, 0);
        DOT(0, 6, 7);
        if (M == 2) A(6, 1, 0);
        else B(7, 1, 0);
        DOT(3, 6, 7);
        B(7, 1, 2);
        DOT(5, 6, 7);
        B(7, 1, 1);
        DOT(4, 6, 7);
        A(6, 1, 1);
        DOT(5, 6, 7);
        B(7, 1, 0);
        DOT(4, 6, 7);
        A(6, 1, 2);
        DOT(5, 6, 7);
    }
}

/* A block, and what is left to do of those before. */
FL_INLINE void amx_block(const int n, const int S, const int M, amx_work *work,
                         const amx_part *parts) {
    if (S == 3) {
        START(0, 0, 0);
        START(1, 0, 1);
        START(2, 0, 2);
        START(3, 1, 0);
        START(4, 1, 1);
        START(5, 1, 2);
    } else if (S == 2) {
        START(0, 0, 0);
        START(1, 0, 1);
        START(2, 1, 0);
        START(3, 1, 1);
    } else {
        START(0, 0, 0);
        START(1, 1, 0);
        START(2, 2, 0);
        START(3, 3, 0);
    }
    for (ptrdiff_t k = 0; k < work->steps; k++) {
        amx_multiply(n, S, M, work, parts, k);
        amx_finish_block(S, work);
        amx_some_cells(work, work->cells_each);
        for (ptrdiff_t line = 0; line < work->lines_each; line++, work->ahead += FL_LINE)
            FL_PREFETCH_FAR(work->ahead);
    }
    STORE(0);
    STORE(1);
    STORE(2);
    STORE(3);
    if (S == 3) {
        STORE(4);
        STORE(5);
    }
    work->before = parts;
}

#undef A
#undef B
#undef START
#undef STORE
#undef DOT

typedef void amx_block_function(amx_work *work, const amx_part *parts);
#define AMX_BLOCK(n, S, M)                                                               \
    static FL_NOINLINE void amx_block_##n##S##M(amx_work *work, const amx_part *parts) { \
        amx_block(n, S, M, work, parts);                                                 \
    }
AMX_BLOCK(1, 1, 1)
AMX_BLOCK(1, 1, 2)
AMX_BLOCK(2, 2, 1)
AMX_BLOCK(2, 2, 2)
AMX_BLOCK(2, 3, 1)
AMX_BLOCK(2, 3, 2)
AMX_BLOCK(3, 3, 1)
AMX_BLOCK(3, 3, 2)
#undef AMX_BLOCK

/* The function for blocks of M tiles of rows. */
static amx_block_function *amx_block_of(const fl_digits *w, ptrdiff_t M) {
    if (w->n == 1) return M == 1 ? amx_block_111 : amx_block_112;
    if (w->n == 3) return M == 1 ? amx_block_331 : amx_block_332;
    if (w->sums == 2) return M == 1 ? amx_block_221 : amx_block_222;
    return M == 1 ? amx_block_231 : amx_block_232;
}

/* Column `index` of a group. */
static amx_column amx_column_of(const amx_work *work, ptrdiff_t group, ptrdiff_t index) {
    const fl_digits *w = work->call->w;
    const ptrdiff_t G = w->gates, columns = work->call->panels * G;
    const ptrdiff_t column = group * AMX_COLUMNS + index;
    const ptrdiff_t known = column < columns ? column : columns - 1;
    const ptrdiff_t panel = work->call->first_panel + known / G, gate = known % G;
    const ptrdiff_t vector = (panel * G + gate) * AMX_TILE;
    return (amx_column){
        .weights = w->digits + panel * w->k_blocks * work->block_bytes + gate * 4 * AMX_TILE,
        .starts = w->starts + panel * w->sums * work->starts_plane + gate * AMX_TILE,
        .factors = w->factors + vector,
        .vector = vector,
        .to = work->call->cells ? index * AMX_TILE : vector,
        .is_there = column < columns,
    };
}

/* The part of a column and of rows from `first` on, as many as there are of a tile; z is that of
 * the first one. */
FL_INLINE amx_part amx_part_of(const amx_work *work, ptrdiff_t first, const amx_column *column,
                               float *z) {
    const amx_call *call = work->call;
    const ptrdiff_t last = call->rows - work->height, top = first < last ? first : last;
    return (amx_part){
        .rows = call->a->digits + top * work->row_bytes,
        .weights = column->weights,
        .starts = column->starts,
        .count = column->is_there ? work->height - (first - top) : 0,
        .units = call->a->units + first,
        .factors = column->factors,
        .start = call->start + first * call->start_stride + column->vector,
        .z = z + column->to,
    };
}

/* M tiles of rows from `row` on times the columns of a group; z is that of the first row. */
static void amx_item(amx_work *work, ptrdiff_t M, ptrdiff_t row, float *z) {
    const fl_digits *w = work->call->w;
    const ptrdiff_t parts = w->n == 1 ? 4 : 2, columns = parts / M, blocks = AMX_COLUMNS / columns;
    amx_block_function *const multiply = amx_block_of(w, M);
    const ptrdiff_t steps = blocks * work->steps;
    work->cells_each = (work->cell_end - work->cell_row + steps - 1) / steps;
    for (ptrdiff_t block = 0; block < blocks; block++) {
        amx_part *now = work->parts[work->before == work->parts[0]];
        for (ptrdiff_t p = 0; p < parts; p++) {
            const amx_column *column = &work->columns[block * columns + p % columns];
            const ptrdiff_t below = p / columns * work->height;
            now[p] = amx_part_of(work, row + below, column, z + below * work->z_stride);
        }
        multiply(work, now);
    }
}

/* What the last item leaves to do. */
static void amx_finish(amx_work *work) {
    const int S = work->call->w->sums;
    if (S == 1) amx_finish_block(1, work);
    else if (S == 2) amx_finish_block(2, work);
    else amx_finish_block(3, work);
    amx_some_cells(work, work->cell_end - work->cell_row);
}

/* AMX_LEAST_ROWS at least. */
static FL_NOINLINE void amx_run(const amx_call *call) {
    const fl_digits *w = call->w;
    const ptrdiff_t n = w->n, G = w->gates, rows = call->rows, columns = call->panels * G;
    const ptrdiff_t groups = (columns + AMX_COLUMNS - 1) / AMX_COLUMNS;
    const ptrdiff_t tiles = (rows + AMX_TILE - 1) / AMX_TILE, height = (rows + tiles - 1) / tiles;
    amx_work work = {
        .height = height,
        .steps = w->k_blocks / AMX_TILE,
        .row_bytes = n * 4 * w->k_blocks,
        .row_plane = 4 * w->k_blocks,
        .block_bytes = n * G * 4 * AMX_TILE,
        .block_plane = G * 4 * AMX_TILE,
        .starts_plane = G * AMX_TILE,
        .start_stride = call->start_stride,
        .z_stride = call->z_stride,
        .call = call,
    };
    amx_configure(height, w->sums == 3 ? 7 : 6);
    const ptrdiff_t group_bytes = AMX_COLUMNS * n * 4 * AMX_TILE * w->k_blocks;
    const int is_far = groups * group_bytes > fl_cache_near();
    int odd = 0;
    for (ptrdiff_t i = 0; i < groups; i++) {
        const ptrdiff_t group = call->backward ? groups - 1 - i : i;
        const ptrdiff_t next = call->backward ? group - 1 : group + 1;
        for (int column = 0; column < AMX_COLUMNS; column++)
            work.columns[column] = amx_column_of(&work, group, column);
        work.lines_each = 0;
        if (is_far && next >= 0 && (next + 1) * AMX_COLUMNS <= columns) {
            const ptrdiff_t steps = tiles * AMX_COLUMNS / (n == 1 ? 4 : 2) * work.steps;
            work.ahead =
                w->digits + call->first_panel * w->k_blocks * work.block_bytes + next * group_bytes;
            work.lines_each = (group_bytes / FL_LINE + steps - 1) / steps;
        }
        ptrdiff_t M;
        for (ptrdiff_t tile = 0, row = 0; tile < tiles; tile += M, row += M * height, odd ^= 1) {
            M = tile + 2 <= tiles ? 2 : 1;
            if (call->cells == NULL) {
                amx_item(&work, M, row, call->z + row * call->z_stride);
                continue;
            }
            float *gates = call->z + odd * AMX_ITEM_ROWS * call->z_stride;
            amx_item(&work, M, row, gates);
            work.cell_row = row;
            work.cell_end = tile + M < tiles ? row + M * height : rows;
            work.unit = (call->first_panel + group) * AMX_TILE;
            work.gates = gates;
        }
    }
    amx_finish(&work);
    _tile_release();
}

static void amx_product(const fl_digits *w, ptrdiff_t first_panel, ptrdiff_t panels, ptrdiff_t rows,
                        const fl_digit_rows *a, const float *start, ptrdiff_t start_stride,
                        float *z, ptrdiff_t z_stride) {
    if (rows < AMX_LEAST_ROWS) {
        product_avx512_vnni(w, first_panel, panels, rows, a, start, start_stride, z, z_stride);
        return;
    }
    amx_run(&(amx_call){
        .w = w,
        .first_panel = first_panel,
        .panels = panels,
        .rows = rows,
        .a = a,
        .start = start,
        .start_stride = start_stride,
        .z = z,
        .z_stride = z_stride,
    });
}

static void amx_step(const fl_digits *u, ptrdiff_t first_panel, ptrdiff_t panels, ptrdiff_t rows,
                     ptrdiff_t H, const fl_digit_rows *h, const float *z, ptrdiff_t z_stride,
                     float *c, float *h_out, ptrdiff_t h_out_stride, int backward) {
    if (rows < AMX_LEAST_ROWS) {
        step_avx512_vnni(u, first_panel, panels, rows, H, h, z, z_stride, c, h_out, h_out_stride,
                         backward);
        return;
    }
    _Alignas(FL_LINE) float gates[2 * AMX_ITEM_ROWS * AMX_COLUMNS * AMX_TILE];
    amx_run(&(amx_call){
        .w = u,
        .first_panel = first_panel,
        .panels = panels,
        .rows = rows,
        .a = h,
        .start = z,
        .start_stride = z_stride,
        .z = gates,
        .z_stride = AMX_COLUMNS * AMX_TILE,
        .cells = u->n == 1   ? cells_1_avx512_vnni
                 : u->n == 2 ? cells_2_avx512_vnni
                             : cells_3_avx512_vnni,
        .H = H,
        .c = c,
        .h_out = h_out,
        .h_out_stride = h_out_stride,
        .backward = backward,
    });
}

const fl_digit_kernels fl_digit_kernels_avx512_amx = {
    .isa = "avx512_amx",
    .real = &fl_kernels_avx512[FL_FLOAT32],
    .offset = 128,
    .block_multiple = AMX_TILE,
    .quantize = quantize_avx512_vnni,
    .product = amx_product,
    .step = amx_step,
};
