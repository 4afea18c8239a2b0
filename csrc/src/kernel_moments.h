/* Moments from histories: a spin's states at up to 64 kept sweeps are the bits of one word, so that the sum of a spin, or
 * of a product of two, is a count of bits. Histories come from turning rows of spins, and so do packed samples. */

/* 64 rows of 16 words become, in place, 16 x 32 words of 64 bits: 32 for each column of words, bit t of each from row t.
 * Rows from n on count as zeros. */
static void turn(uint64_t *group, int n) {
    enum { LINE = GLB_LINE_WORDS };
    uint32_t row[64][LINE];
    memcpy(row, group, 4 * LINE * (size_t)n);
    memset(row[n < 64 ? n : 0], 0, 4 * LINE * (size_t)(64 - n));
    for (int half = 0; half < 64; half += 32) {
        uint32_t mask = 0x0000FFFFu;
        for (int distance = 16; distance > 0; distance /= 2, mask ^= mask << distance) {
            for (int i = half; i < half + 32; i += i % distance == distance - 1 ? distance + 1 : 1) {
                uint32_t *x = row[i];
                uint32_t *y = row[i + distance];
                for (int w = 0; w < LINE; w++) {
                    uint32_t swap = ((x[w] >> distance) ^ y[w]) & mask;
                    y[w] ^= swap;
                    x[w] ^= swap << distance;
                }
            }
        }
    }
    for (int w = 0; w < LINE; w++) {
        for (int bit = 0; bit < 32; bit++) {
            group[32 * w + bit] = row[bit][w] | (uint64_t)row[32 + bit][w] << 32;
        }
    }
}

/* Adds the products of two spins over `kept` sweeps to the sums of n lanes. */
static void add_products(int64_t *sum, const uint64_t *one, const uint64_t *other, int n, int kept) {
    for (int i = 0; i < n; i++) {
        uint64_t x = one[i] ^ other[i];
        x -= (x >> 1) & UINT64_C(0x5555555555555555);
        x = (x & UINT64_C(0x3333333333333333)) + ((x >> 2) & UINT64_C(0x3333333333333333));
        x = (x + (x >> 4)) & UINT64_C(0x0F0F0F0F0F0F0F0F);
        x += x >> 8;
        x += x >> 16;
        x += x >> 32;
        sum[i] += kept - 2 * (int64_t)(x & 0x7F);
    }
}
