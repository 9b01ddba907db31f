/* Loops that the templates share. They expand by the vocabulary and the precision in force where
 * they are used, and are the same text for all of them. */
#ifndef FL_LOOPS_H
#define FL_LOOPS_H

/* What a tile fetches into the core's cache while it multiplies: at each k the line at this
 * address, which moves on by `step` bytes. */
typedef struct fl_ahead {
    const char *at;
    ptrdiff_t step;
} fl_ahead;

/* Where weights w are far (see kernels.h), the tile of rows row..row+R-1 of `rows` fetches its
 * share of panel `next`, of (K, columns) reals. Otherwise nothing: a line that is there already. */
FL_INLINE fl_ahead fl_ahead_of(int is_far, const void *w, ptrdiff_t K, ptrdiff_t column_bytes,
                               ptrdiff_t next, ptrdiff_t panels, ptrdiff_t row, ptrdiff_t R,
                               ptrdiff_t rows) {
    if (!is_far || next < 0 || next >= panels) return (fl_ahead){w, 0};
    const ptrdiff_t bytes = K * column_bytes, step = column_bytes * R / rows;
    return (fl_ahead){(const char *)w + next * bytes + bytes * row / rows,
                      step < FL_LINE ? step : FL_LINE};
}

#define FL_PANEL (4 * FL_V)
#define FL_TILE_MAX (4 * (FL_TILE_ROWS > FL_TILE_PANELS ? FL_TILE_ROWS : FL_TILE_PANELS))

/* Calls DO(j, n) for the vectors of a row from `first` up to `end`; UNROLL: nothing, or FL_UNROLL_4
 * where DO is short. */
#define FL_FOR_VECTORS_BY(UNROLL, first, end, DO)         \
    do {                                                  \
        ptrdiff_t j = (first);                            \
        UNROLL                                            \
        for (; j + FL_V <= (end); j += FL_V) DO(j, FL_V); \
        if (j < (end)) DO(j, (end) - j);                  \
    } while (0)
#define FL_FOR_VECTORS(first, end, DO) FL_FOR_VECTORS_BY(, first, end, DO)

/* Calls TILE(R, N, row, panel) so that the tiles cover a single row's panels: several at a time
 * where the weights are far, or FL_GROUP_ALWAYS (see the vocabularies). With `backward`, the last
 * panel comes first: what the sweep before read last is still in the cache. */
#define FL_FOR_PANELS(panels, is_far, backward, TILE)                             \
    do {                                                                          \
        const int grouped = FL_GROUP_ALWAYS || (is_far);                          \
        const ptrdiff_t groups = grouped ? (panels) / FL_TILE_PANELS : 0;         \
        const ptrdiff_t stops = (panels) - groups * (FL_TILE_PANELS - 1);         \
        for (ptrdiff_t i = 0; i < stops; i++) {                                   \
            const ptrdiff_t stop = (backward) ? stops - 1 - i : i;                \
            if (stop < groups) TILE(1, FL_TILE_PANELS, 0, stop * FL_TILE_PANELS); \
            else TILE(1, 1, 0, stop + groups * (FL_TILE_PANELS - 1));             \
        }                                                                         \
    } while (0)

/* The same over rows x panels. Panels are the outer loop: the weights of a panel are read once for
 * all rows. */
#define FL_FOR_TILES(rows, panels, backward, TILE)                      \
    do {                                                                \
        for (ptrdiff_t i = 0; i < (panels); i++)                        \
            FL_FOR_ROWS(rows, (backward) ? (panels) - 1 - i : i, TILE); \
    } while (0)

/* Rows are cut into tiles of nearly equal height: 8 rows are 4 + 4 rather than 6 + 2. */
#define FL_FOR_ROWS(rows, panel, TILE)                                         \
    do {                                                                       \
        const ptrdiff_t tiles = ((rows) + FL_TILE_ROWS - 1) / FL_TILE_ROWS;    \
        const ptrdiff_t low = (rows) / tiles, taller = (rows) % tiles;         \
        for (ptrdiff_t tile = 0, row = 0, R; tile < tiles; tile++, row += R) { \
            R = low + (tile < taller);                                         \
            FL_TILE_OF_ROWS(R, row, panel, TILE)                               \
        }                                                                      \
    } while (0)

#define FL_TILE_OF_ROWS(R, row, panel, TILE)            \
    switch (R) {                                        \
        case 6: FL_TILE_IF(6, row, panel, TILE); break; \
        case 5: FL_TILE_IF(5, row, panel, TILE); break; \
        case 4: FL_TILE_IF(4, row, panel, TILE); break; \
        case 3: FL_TILE_IF(3, row, panel, TILE); break; \
        case 2: FL_TILE_IF(2, row, panel, TILE); break; \
        default: TILE(1, 1, row, panel);                \
    }
/* Tiles that are too tall for this instruction set are not compiled. */
#define FL_TILE_IF(R, row, panel, TILE) \
    if (R <= FL_TILE_ROWS) TILE((R <= FL_TILE_ROWS ? R : 1), 1, row, panel)

#endif
