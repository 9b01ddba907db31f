/* Weights of 8, 16 and 24 bits: quantised, and packed for the kernels. */
#include "digits.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "memory.h"
#include "platform.h"

/* Splits an integer into digits from -128 to 127, `apart` from each other, the highest one first.
 */
static void split(int n, int32_t q, signed char *digits, ptrdiff_t apart) {
    for (int i = n - 1; i >= 0; i--) {
        const int32_t digit = ((q + 128) & 255) - 128;
        digits[i * apart] = (signed char)digit;
        q = (q - digit) / 256;
    }
}

fl_status fl_quantize_rows(int bits, ptrdiff_t R, ptrdiff_t K, const float *weights,
                           signed char *digits, float *units) {
    const int n = bits / 8;
    size_t count;
    if (bits != 8 * n || n < 1 || n > 3 || R < 0 || K < 0) return FL_ERROR_ARGUMENT;
    if (!fl_size_multiply((size_t)R, (size_t)K, &count) ||
        !fl_size_multiply(count, sizeof(float), &count))
        return FL_ERROR_OVERFLOW;
    if ((count > 0 && (weights == NULL || digits == NULL)) || (R > 0 && units == NULL))
        return FL_ERROR_ARGUMENT;
    const double M = n == 1 ? 127 : n == 2 ? 32639 : 8355711;
    const fl_fp_state saved = fl_fp_enter();
    for (ptrdiff_t r = 0; r < R; r++, weights += K, digits += K) {
        double largest = 0;
        int finite = 1;
        for (ptrdiff_t k = 0; k < K; k++) {
            largest = fmax(largest, fabs((double)weights[k]));
            finite &= isfinite(weights[k]) != 0;
        }
        const double exact = largest / M;
        const float unit = !finite ? NAN : exact < FLT_MIN ? 0 : (float)exact;
        units[r] = unit;
        for (ptrdiff_t k = 0; k < K; k++) {
            const double q = unit > 0 ? rint((double)weights[k] / (double)unit) : 0;
            split(n, (int32_t)fmax(-M, fmin(M, q)), digits + k, R * K);
        }
    }
    fl_fp_leave(saved);
    return FL_OK;
}

/* Parts of a packed matrix: how many there are of each, all in whole lines. */
typedef struct layout {
    size_t panels, k_blocks, digits, starts, factors, multipliers; /* the last four in bytes */
} layout;

static int whole_lines(size_t count, size_t size, size_t *bytes) {
    if (!fl_size_multiply(count, size, bytes) || !fl_size_add(*bytes, FL_LINE - 1, bytes)) return 0;
    *bytes -= *bytes % FL_LINE;
    return 1;
}

static int lay_out(const fl_digit_kernels *kernels, const fl_digits_sizes *sizes, layout *parts,
                   size_t *bytes) {
    const size_t V = (size_t)kernels->real->lanes, K = (size_t)sizes->K,
                 n = (size_t)sizes->bits / 8;
    const size_t multiple = (size_t)kernels->block_multiple;
    size_t lanes, numbers;
    parts->panels = ((size_t)sizes->units + V - 1) / V;
    parts->k_blocks = ((K + 3) / 4 + multiple - 1) / multiple * multiple;
    return fl_size_multiply(parts->panels, V * (size_t)sizes->gates, &lanes) &&
           fl_size_multiply(lanes, parts->k_blocks, &numbers) &&
           whole_lines(numbers, n * 4, &parts->digits) &&
           whole_lines(lanes, (size_t)sizes->sums * sizeof(int32_t), &parts->starts) &&
           whole_lines(lanes, sizeof(float), &parts->factors) &&
           whole_lines(sizes->has_multipliers ? K : 0, sizeof(float), &parts->multipliers) &&
           fl_size_add(parts->digits, parts->starts, bytes) &&
           fl_size_add(*bytes, parts->factors, bytes) &&
           fl_size_add(*bytes, parts->multipliers, bytes);
}

int fl_digits_count(const fl_digit_kernels *kernels, const fl_digits_sizes *sizes, size_t *bytes) {
    layout parts;
    return lay_out(kernels, sizes, &parts, bytes);
}

void fl_digits_pack(const fl_digit_kernels *kernels, const fl_digits_sizes *sizes,
                    const fl_quantized_matrix *matrix, const float *multipliers, void *memory,
                    fl_digits *packed) {
    const ptrdiff_t V = kernels->real->lanes, K = sizes->K, units = sizes->units;
    const int n = sizes->bits / 8, S = sizes->sums, G = sizes->gates;
    layout parts = {0};
    size_t bytes = 0;
    lay_out(kernels, sizes, &parts, &bytes);
    int8_t *digits = memset(memory, 0, bytes);
    char *at = (char *)memory + parts.digits;
    int32_t *starts = (int32_t *)(void *)at;
    float *factors = (float *)(void *)(at += parts.starts);
    const ptrdiff_t k_blocks = (ptrdiff_t)parts.k_blocks;
    *packed = (fl_digits){K, k_blocks, n, S, G, digits, starts, factors, NULL};
    if (sizes->has_multipliers)
        packed->multipliers =
            memcpy(at + parts.factors, multipliers, (size_t)K * sizeof *multipliers);
    float power = 1; /* of 256, that the last sum has */
    for (int i = 0; i < 2 * n - 1 - S; i++) power *= 256;
    for (ptrdiff_t row = 0; row < G * units; row++) {
        const ptrdiff_t gate = row / units, panel = row % units / V, lane = row % units % V;
        factors[(panel * G + gate) * V + lane] = matrix->units[row] * power;
        uint32_t totals[3] = {0}; /* modulo 2^32, as the sums are */
        for (int e = 0; e < n; e++) {
            const signed char *from = matrix->digits + (e * G * units + row) * K;
            int8_t *to = digits + ((panel * k_blocks * n + e) * G + gate) * 4 * V + 4 * lane;
            const ptrdiff_t block = n * G * 4 * V, fours = K / 4;
            for (ptrdiff_t k = 0; k < K; k++) totals[e] += (uint32_t)from[k];
            for (ptrdiff_t k = 0; k < fours; k++) memcpy(to + k * block, from + 4 * k, 4);
            for (ptrdiff_t k = 4 * fours; k < K; k++) to[fours * block + k % 4] = from[k];
        }
        for (int s = 0; s < S; s++) {
            uint32_t added = 0;
            for (int e = 0; e < n; e++)
                if (s - e >= 0 && s - e < n) added += totals[e];
            added = 0 - added * (uint32_t)kernels->offset;
            memcpy(&starts[((panel * S + s) * G + gate) * V + lane], &added, sizeof added);
        }
    }
}
