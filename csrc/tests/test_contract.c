/* The pure functions of the contract: the generator against its published answer, the threshold against its law. */
#include "testing.h"

static void test_threefry(void) {
    /* Random123's kat_vectors, threefry4x32 with 20 rounds: key, counter, output. */
    static const uint32_t known[3][12] = {
        {0, 0, 0, 0, 0, 0, 0, 0, 0x9c6ca96au, 0xe17eae66u, 0xfc10ecd4u, 0x5256a7d8u},
        {0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu,
         0x2a881696u, 0x57012287u, 0xf6c7446eu, 0xa16a6732u},
        {0xa4093822u, 0x299f31d0u, 0x082efa98u, 0xec4e6c89u, 0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u,
         0x59cd1dbbu, 0xb8879579u, 0x86b5d00cu, 0xac8b6d84u},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        glb_test_threefry(known[i], known[i] + 4, out);
        CHECK(memcmp(out, known[i] + 8, sizeof out) == 0, "threefry4x32-20 vector %d: %08x %08x %08x %08x", i, out[0],
              out[1], out[2], out[3]);
    }
    /* the key's words, machine.md section 3: seed low, seed high, purpose + 16 layout + 256 stream, sweep high */
    glb_key key = glb_make_key(UINT64_C(0x0123456789abcdef), 3, 1, 5, UINT64_C(0xfedc000000000001));
    CHECK(key.k[0] == 0x89abcdefu && key.k[1] == 0x01234567u && key.k[2] == 3 + 16 + 5 * 256 && key.k[3] == 0xfedc0000u,
          "glb_make_key: %08x %08x %08x %08x", key.k[0], key.k[1], key.k[2], key.k[3]);
}

static void test_threshold(void) {
    static const int32_t fields[] = {1, 2, 3, 7, 1000, 32767, 32768, (1 << 30) - 1, INT32_MAX};
    CHECK(glb_contract_version() == 1, "contract version %d", glb_contract_version());
    for (int shift = 0; shift < 63; shift++) {
        uint64_t b = (UINT64_C(1) << shift) | (random_u64() & ((UINT64_C(1) << shift) - 1));
        CHECK(glb_test_threshold(0, b) == 0x80000000u, "T(0) with b = %llu", (unsigned long long)b);
        for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
            uint64_t up = glb_test_threshold(fields[i], b);
            uint64_t down = glb_test_threshold(-fields[i], b);
            CHECK(up + down == UINT64_C(1) << 32, "T(x) + T(-x) with field %d, b = %llu", (int)fields[i],
                  (unsigned long long)b);
            CHECK(up >= 0x80000000u && down >= 1, "T outside its half with field %d, b = %llu", (int)fields[i],
                  (unsigned long long)b);
        }
    }
    CHECK(glb_test_threshold((1 << 30) - 1, 0) == 0x80000000u, "b = 0 is a fair coin whatever the field");
    /* far beyond saturation nothing overflows, and no probability is exactly 0 or 1 */
    static const int32_t extreme[] = {1, (1 << 30) - 1, INT32_MAX};
    static const uint64_t cold[] = {GLB_X_MAX - 1, GLB_X_MAX, GLB_X_MAX + 1, (UINT64_C(1) << 63) - 1};
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 4; j++) {
            CHECK(glb_test_threshold(extreme[i], cold[j]) == 0xFFFFFFFFu, "saturation upwards, %d %d", i, j);
            CHECK(glb_test_threshold(-extreme[i], cold[j]) == 1, "saturation downwards, %d %d", i, j);
        }
    }
    /* products that reach 2^64 must saturate before they wrap to 0 */
    for (int k = 2; k < 31; k++) {
        CHECK(glb_test_threshold((int32_t)1 << k, UINT64_C(1) << (64 - k)) == 0xFFFFFFFFu, "2^%d * 2^%d", k, 64 - k);
    }
    CHECK(glb_test_threshold(INT32_MIN, (UINT64_C(1) << 63) - 1) == 1, "the most negative field");
    CHECK(glb_test_exp2(0) == UINT64_C(1) << 62, "exp2(0)");
    for (uint64_t n = 0; n < 62; n++) {
        CHECK(glb_test_exp2(n << 32) == (UINT64_C(1) << 62) >> n, "exp2 at the integer %d", (int)n);
    }
    CHECK(glb_test_exp2(UINT64_C(62) << 32) == 0 && glb_test_exp2(GLB_X_MAX) == 0, "exp2 is 0 from n = 62");
}

/* The filter's bracket against the threshold: every field up to 2^15 or, beyond, a random half and the first after each
 * boundary of a piece, for temperatures from hot to where one step saturates. */
static void test_bracket(void) {
    static const int64_t sums[] = {1, 5, 63, 1000, 32767, 32768, 200000, (1 << 30) - 1};
    for (size_t s = 0; s < sizeof sums / sizeof sums[0]; s++) {
        for (int shift = 0; shift < 63; shift += 1 + (int)(random_u64() % 3)) {
            uint64_t b = (UINT64_C(1) << shift) | (random_u64() & ((UINT64_C(1) << shift) - 1));
            int64_t wrong = 0;
            int64_t n = sums[s] < 4000 ? 2 * sums[s] + 1 : 8000;
            for (int64_t i = 0; i < n; i++) {
                int32_t field = (int32_t)(i - sums[s]);
                if (sums[s] >= 4000) {
                    int32_t piece = random_int(-33, 33);
                    int64_t edge = b > 0 ? (int64_t)((uint64_t)(piece < 0 ? -piece : piece) * 256 * 5242880 / b) : 0;
                    edge = edge > sums[s] ? sums[s] : edge;
                    edge = (piece < 0 ? -edge : edge) + random_int(-2, 2);
                    field = i % 2 ? random_int(-(int32_t)sums[s], (int32_t)sums[s])
                                  : (int32_t)(edge > sums[s] ? sums[s] : edge < -sums[s] ? -sums[s] : edge);
                }
                uint32_t top = glb_test_threshold(field, b) >> 24; /* what the kernels compare */
                for (int coarse = 0; coarse < 2; coarse++) {
                    uint32_t bracket[2];
                    glb_test_bracket(sums[s], field, b, coarse, bracket);
                    wrong += top < bracket[0] >> 8 || top > bracket[1] >> 8;
                }
            }
            CHECK(wrong == 0, "%d of %d thresholds outside the filter's bracket, sum %d, b %llu", (int)wrong, (int)n,
                  (int)sums[s], (unsigned long long)b);
        }
    }
}

/* The cuts by the upper byte of u: fields beyond them are decided whatever the lower bytes are, and few others are left:
 * those whose threshold lies about where the byte is. All fields of small sums, those around the cuts of large ones. */
static void test_cuts(void) {
    static const int64_t sums[] = {0, 1, 5, 63, 32767, 200000, (1 << 30) - 1};
    for (size_t s = 0; s < sizeof sums / sizeof sums[0]; s++) {
        for (int shift = -1; shift < 63; shift += 1 + (int)(random_u64() % 3)) {
            uint64_t b = shift < 0 ? 0 : (UINT64_C(1) << shift) | (random_u64() & ((UINT64_C(1) << shift) - 1));
            int32_t cuts[512];
            int64_t wrong = 0;
            int64_t loose = 0;
            glb_test_cuts(sums[s], b, cuts);
            for (int byte = 0; byte < 256; byte++) {
                int32_t down = cuts[byte];
                int32_t up = cuts[256 + byte];
                int64_t n = sums[s] <= 63 ? 2 * sums[s] + 1 : 30;
                for (int64_t i = 0; i < n; i++) {
                    int64_t field = i - sums[s];
                    if (sums[s] > 63) {
                        int64_t near = (i % 2 ? down : up) + (int64_t)random_int(-9, 9);
                        field = i < 20 ? near : random_int(-(int32_t)sums[s], (int32_t)sums[s]);
                        field = field > sums[s] ? sums[s] : field < -sums[s] ? -sums[s] : field;
                    }
                    uint64_t threshold = glb_test_threshold((int32_t)field, b);
                    uint64_t from = (uint64_t)byte << 24;
                    uint64_t to = from + (1 << 24);
                    wrong += (field > up && threshold < to) || (field <= down && threshold > from);
                    loose += field > down && field <= up && (threshold > to + 16 || threshold + 16 < from);
                }
            }
            CHECK(wrong == 0 && loose == 0, "%d fields are decided too early, %d too late, sum %d, b %llu", (int)wrong,
                  (int)loose, (int)sums[s], (unsigned long long)b);
        }
    }
}

/* A field about where x = |field| b crosses into another entry of the table or saturates, or any. */
static int32_t telling_field(uint64_t b, int32_t limit) {
    static const uint64_t ends[] = {0, UINT64_C(62) << 32, UINT64_C(63) << 32};
    uint64_t x = random_u64() % 2 ? (uint64_t)random_int(0, 64 * 256) << 24 : ends[random_u64() % 3];
    uint64_t magnitude = b == 0 ? 0 : x / b;
    int64_t near = (int64_t)(magnitude > (uint64_t)limit ? (uint64_t)limit : magnitude) + random_int(-2, 2);
    int64_t any = random_int(-limit, limit) >> random_int(0, 30);
    int64_t field = random_u64() % 4 ? (random_u64() % 2 ? near : -near) : any;
    return (int32_t)(field > limit ? limit : field < -limit ? -limit : field);
}

/* Temperatures from 0 to where one step is beyond all: powers of two, for which the products meet 62 2^32 exactly. */
static uint64_t telling_b(int shift) {
    uint64_t b = shift < 0 ? 0 : UINT64_C(1) << shift;
    return random_u64() % 2 ? b : b | (random_u64() & (b == 0 ? 0 : b - 1));
}

/* Many thresholds at once, on every instruction set, against one at a time. */
static void test_thresholds(void) {
    enum { MOST = 700, LIMIT = (1 << 30) - 1 };
    for (int isa = 0; isa < GLB_N_ISA; isa++) {
        for (int k = 0; k < 3 * 64 && glb_isa_available(isa); k++) {
            uint64_t b = telling_b(k % 64 - 1);
            int32_t n = random_int(1, MOST);
            int32_t *field = NEW(int32_t, n);
            uint32_t *out = NEW(uint32_t, n);
            int32_t wrong = 0;
            for (int32_t i = 0; i < n; i++) {
                field[i] = telling_field(b, LIMIT);
            }
            CHECK(glb_test_thresholds(isa, field, n, b, out) == GLB_OK, "isa %d is there", isa);
            for (int32_t i = 0; i < n; i++) {
                wrong += out[i] != glb_threshold(field[i], b);
            }
            CHECK(wrong == 0, "%d of %d thresholds differ, isa %d, b %llu", wrong, n, isa, (unsigned long long)b);
            free(field);
            free(out);
        }
    }
    CHECK(glb_test_thresholds(GLB_N_ISA, NULL, 0, 0, NULL) == GLB_E_ISA, "there is no such instruction set");
}

/* The sums of a p-dit against glb_potts_weight of one state at a time, with and without states that are not allowed. */
static void test_dit_sums(void) {
    enum { MOST = 600, LIMIT = (1 << 30) - 1 };
    for (int isa = 0; isa < GLB_N_ISA; isa++) {
        for (int k = 0; k < 3 * 64 && glb_isa_available(isa); k++) {
            uint64_t b = telling_b(k % 64 - 1);
            int32_t q = random_u64() % 3 == 0 ? random_int(2, 70) : random_int(2, MOST);
            uint32_t bits = glb_ceil_log2((uint32_t)q);
            int masked = (int)(random_u64() % 2);
            int32_t *field = NEW(int32_t, q);
            uint8_t *allowed = NEW(uint8_t, q);
            uint64_t *out = NEW(uint64_t, q);
            int32_t wrong = 0;
            int64_t best = INT64_MIN;
            uint64_t total = 0;
            for (int32_t i = 0; i < q; i++) { /* the best is 0, so that gaps are the telling ones */
                int32_t gap = telling_field(b, LIMIT);
                field[i] = i == 0 ? 0 : gap < 0 ? gap : -gap;
                allowed[i] = (uint8_t)(i == 0 || random_u64() % 3 > 0);
                field[i] += masked && !allowed[i] ? LIMIT / 2 : 0; /* may be better than the best */
            }
            uint32_t shift = q <= 64 ? 31 + bits : bits;
            CHECK(glb_test_dit_sums(isa, field, masked ? allowed : NULL, b, shift, q, out) == GLB_OK, "isa %d is there",
                  isa);
            for (int32_t i = 0; i < q; i++) {
                best = (!masked || allowed[i]) && field[i] > best ? field[i] : best;
            }
            for (int32_t i = 0; i < q; i++) {
                if (!masked || allowed[i]) {
                    total += glb_potts_weight(glb_scale((uint64_t)(best - field[i]), b), (uint32_t)q, bits);
                }
                wrong += out[i] != total;
            }
            CHECK(wrong == 0, "%d of %d sums differ, isa %d, b %llu", wrong, q, isa, (unsigned long long)b);
            free(field);
            free(allowed);
            free(out);
        }
    }
    CHECK(glb_test_dit_sums(GLB_N_ISA, NULL, NULL, 0, 0, 0, NULL) == GLB_E_ISA, "there is no such instruction set");
}

void test_contract(void) {
    test_threefry();
    test_threshold();
    test_thresholds();
    test_dit_sums();
    test_bracket();
    test_cuts();
}
