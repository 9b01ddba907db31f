/* The kernels on AMX's tiles, by what they ask of them: see amx_emulated.h, with which this is
 * built. That their results are right is tested with those of the other kernels, by test_digits.
 *
 * Prints how many loads, products and stores of tiles a step takes.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "amx_emulated.h"
#include "check.h"
#include "digits.h"
#include "memory.h"
#include "platform.h"

/* LDTILECFG's 64 bytes: palette, sizes of tiles 0 to 7, of which tile t has rows[t] of row_bytes.
 */
typedef struct config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} config;
static const config usual = {1, 0, {0}, {64, 64, 64, 64}, {3, 3, 16, 5}};

/* What a fault is made of: the steps of test_faults by number. */
static void misuse(int number) {
    static uint8_t memory[1024];
    config changed = usual;
    if (number == 0) _tile_loadd(0, memory, 64); /* nothing is configured */
    if (number == 1) changed.palette = 2;
    if (number == 2) changed.reserved[3] = 1;
    if (number == 3) changed.rows[1] = 17;
    if (number == 4) changed.row_bytes[1] = 65;
    if (number == 5) changed.rows[1] = 0;
    if (number == 6) changed.rows[8] = 1;
    _tile_loadconfig(&changed);
    if (number == 7) _tile_loadd(4, memory, 64);
    if (number == 8) _tile_dpbusd(0, 1, 1);
    if (number == 9) _tile_dpbusd(0, 2, 1);  /* rows of sums and of rows */
    if (number == 10) _tile_dpbusd(0, 1, 3); /* columns of rows and rows of weights */
    _tile_release();
    if (number == 11) _tile_stored(0, memory, 64);
}
enum { MISUSES = 12 };

static void test_faults(void) {
    for (int number = 0; number <= MISUSES; number++) {
        const pid_t child = fork();
        if (child == 0) {
            fclose(stderr);
            misuse(number);
            _exit(0);
        }
        int status = 0;
        CHECK(child > 0 && waitpid(child, &status, 0) == child);
        CHECK(number == MISUSES ? WIFEXITED(status) : WIFSIGNALED(status));
    }
}

static void test_product_of_tiles(void) {
    uint8_t rows[3][64];
    int8_t weights[16][64];
    int32_t sums[3][16], expected[3][16];
    for (int j = 0; j < 3 * 64; j++) rows[j / 64][j % 64] = (uint8_t)(j * 37 + 255);
    for (int j = 0; j < 16 * 64; j++) weights[j / 64][j % 64] = (int8_t)(j * 91 - 128);
    for (int r = 0; r < 3; r++)
        for (int unit = 0; unit < 16; unit++) {
            sums[r][unit] = expected[r][unit] = r - 100 * unit;
            for (int k = 0; k < 64; k++)
                expected[r][unit] += rows[r][k] * weights[k / 4][4 * unit + k % 4];
        }
    _tile_loadconfig(&usual);
    CHECK(amx_emulated_is_configured());
    _tile_loadd(0, sums, 64);
    _tile_loadd(1, rows, 64);
    _tile_loadd(2, weights, 64);
    _tile_dpbusd(0, 1, 2);
    _tile_stored(0, sums, 64);
    CHECK(memcmp(sums, expected, sizeof sums) == 0);
    _tile_loadd(0, expected, 0); /* the same in all rows */
    _tile_stored(0, sums, 64);
    for (int r = 0; r < 3; r++) CHECK(memcmp(sums[r], expected[0], sizeof sums[r]) == 0);
    _tile_release();
    CHECK(!amx_emulated_is_configured());
}

/* A step of `rows` rows of a layer of H units. */
static amx_counts counts_of(const fl_digit_kernels *kernels, int bits, ptrdiff_t rows,
                            ptrdiff_t H) {
    const fl_digits_sizes sizes = {bits, bits == 8 ? 1 : 3, 4, H, H, 0};
    const size_t count = (size_t)(rows * H);
    size_t bytes;
    CHECK(fl_digits_count(kernels, &sizes, &bytes));
    const fl_quantized_matrix matrix = {calloc((size_t)(bits / 8) * 4, (size_t)(H * H)),
                                        calloc(4, (size_t)H * sizeof(float))};
    fl_digits u;
    void *memory = fl_memory_alloc(bytes, 1);
    fl_digits_pack(kernels, &sizes, &matrix, NULL, memory, &u);
    const fl_digit_rows h = {calloc((size_t)(rows * bits / 8), (size_t)(4 * u.k_blocks)),
                             calloc((size_t)rows, sizeof(float))};
    float *z = calloc(4 * count, sizeof *z), *c = calloc(count, sizeof *c);
    float *h_out = calloc(count, sizeof *h_out);
    const amx_counts before = amx_emulated_counts();
    kernels->step(&u, 0, H / 16, rows, H, &h, z, 4 * H, c, h_out, H, 0);
    const amx_counts after = amx_emulated_counts();
    CHECK(!amx_emulated_is_configured());
    void *blocks[] = {(void *)matrix.digits, (void *)matrix.units, h.digits, h.units, z, c, h_out};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) free(blocks[i]);
    fl_memory_free(memory);
    return (amx_counts){after.configured - before.configured, after.loads - before.loads,
                        after.products - before.products, after.stores - before.stores};
}

static void test_counts(const fl_digit_kernels *kernels) {
    static const ptrdiff_t rows[] = {1, 3, 4, 16, 17, 32, 40, 128};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int bits = 8; bits <= 24; bits += 8)
            for (ptrdiff_t H = 256; H <= 512; H *= 2) {
                const amx_counts counts = counts_of(kernels, bits, rows[i], H);
                CHECK(counts.configured == (rows[i] >= 4));
                if (rows[i] < 4) {
                    CHECK(counts.products == 0);
                    continue;
                }
                const long tiles = (rows[i] + 15) / 16, of_digits = bits == 8    ? 1
                                                                    : bits == 16 ? 4
                                                                                 : 6;
                CHECK(counts.products == tiles * of_digits * (H / 16) * 4 * (H / 64));
                CHECK(counts.stores == tiles * (bits == 8 ? 1 : 3) * (H / 16) * 4);
                /* About one for a product, besides those that sums begin at. */
                CHECK((counts.loads - counts.stores) * 4 <= counts.products * 5);
                if (rows[i] == 32)
                    printf("%d bits, %d rows, H = %d: %ld loads, %ld products, %ld stores\n", bits,
                           (int)rows[i], (int)H, counts.loads, counts.products, counts.stores);
            }
}

int main(void) {
    const fl_digit_kernels *kernels = fl_digit_kernels_find("avx512_amx");
    test_faults();
    test_product_of_tiles();
    if (kernels && strcmp(kernels->isa, "avx512_amx") == 0) test_counts(kernels);
    else printf("no AVX512-VNNI\n");
    return checks_report();
}
