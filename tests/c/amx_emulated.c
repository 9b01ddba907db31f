/* See amx_emulated.h. Linked with --wrap=fl_features_detect and --wrap=fl_amx_request, so that the
 * library finds a machine with AMX. */
#include "amx_emulated.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/features.h"

enum { TILES = 8, ROWS = 16, ROW_BYTES = 64 };

typedef struct amx_tile {
    int rows, row_bytes; /* 0: not configured */
    uint8_t bytes[ROWS][ROW_BYTES];
} amx_tile;

static _Thread_local struct {
    int is_configured;
    amx_tile tiles[TILES];
    amx_counts counts;
} state;

static void expect(int condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "AMX would fault: %s\n", what);
    abort();
}

static amx_tile *tile_of(int tile) {
    expect(state.is_configured, "no configuration");
    expect(tile >= 0 && tile < TILES, "there are eight tiles");
    expect(state.tiles[tile].rows > 0, "a tile that is not configured");
    return &state.tiles[tile];
}

void amx_emulated_configure(const void *config) {
    uint8_t bytes[64];
    memcpy(bytes, config, sizeof bytes);
    expect(bytes[0] <= 1, "palette");
    expect(bytes[0] == 1 || !bytes[1], "first row");
    memset(state.tiles, 0, sizeof state.tiles);
    state.is_configured = bytes[0] == 1;
    state.counts.configured++;
    if (!state.is_configured) return;
    for (int j = 2; j < 16; j++) expect(bytes[j] == 0, "reserved bytes of the configuration");
    for (int tile = 0; tile < 16; tile++) {
        const int row_bytes = bytes[16 + 2 * tile] | bytes[17 + 2 * tile] << 8;
        const int rows = bytes[48 + tile];
        if (tile >= TILES) {
            expect(rows == 0 && row_bytes == 0, "the configuration of a ninth tile");
            continue;
        }
        expect(rows <= ROWS && row_bytes <= ROW_BYTES, "the size of a tile");
        expect((rows == 0) == (row_bytes == 0), "a tile with rows, or columns, alone");
        state.tiles[tile].rows = rows;
        state.tiles[tile].row_bytes = row_bytes;
    }
}

void amx_emulated_release(void) {
    state.is_configured = 0;
    memset(state.tiles, 0, sizeof state.tiles);
}

void amx_emulated_load(int tile, const void *from, ptrdiff_t stride) {
    amx_tile *to = tile_of(tile);
    memset(to->bytes, 0, sizeof to->bytes);
    for (int r = 0; r < to->rows; r++)
        memcpy(to->bytes[r], (const uint8_t *)from + r * stride, (size_t)to->row_bytes);
    state.counts.loads++;
}

void amx_emulated_store(int tile, void *to, ptrdiff_t stride) {
    const amx_tile *from = tile_of(tile);
    for (int r = 0; r < from->rows; r++)
        memcpy((uint8_t *)to + r * stride, from->bytes[r], (size_t)from->row_bytes);
    state.counts.stores++;
}

void amx_emulated_dpbusd(int sums, int rows, int weights) {
    amx_tile *c = tile_of(sums);
    const amx_tile *a = tile_of(rows), *b = tile_of(weights);
    expect(sums != rows && sums != weights && rows != weights, "a tile twice in a product");
    expect(c->row_bytes % 4 == 0 && a->row_bytes % 4 == 0 && b->row_bytes % 4 == 0,
           "columns of a product");
    expect(c->rows == a->rows, "rows of a product");
    expect(a->row_bytes == 4 * b->rows, "what is summed over in a product");
    expect(c->row_bytes == b->row_bytes, "columns of a product");
    for (int r = 0; r < c->rows; r++) {
        uint32_t row[ROW_BYTES / 4];
        memcpy(row, c->bytes[r], sizeof row);
        for (int k = 0; k < b->rows; k++) {
            const uint8_t *four = &a->bytes[r][4 * k];
            const int8_t *w = (const int8_t *)b->bytes[k];
            for (int j = 0; j < c->row_bytes / 4; j++, w += 4)
                row[j] +=
                    (uint32_t)(four[0] * w[0] + four[1] * w[1] + four[2] * w[2] + four[3] * w[3]);
        }
        memcpy(c->bytes[r], row, (size_t)c->row_bytes);
    }
    state.counts.products++;
}

int amx_emulated_is_configured(void) { return state.is_configured; }

amx_counts amx_emulated_counts(void) { return state.counts; }

fl_features __real_fl_features_detect(void);
fl_features __wrap_fl_features_detect(void);
fl_features __wrap_fl_features_detect(void) {
    return __real_fl_features_detect() | FL_FEATURE_AMX_INT8;
}

int __wrap_fl_amx_request(void);
int __wrap_fl_amx_request(void) { return 1; }
