/* Elementary functions whose bits do not depend on the libm or the CPU: in double, of nothing but
 * IEEE + - * / and operations on bits, without branches (but for elementary_power), so that loops
 * over them vectorise. Errors in ulp of the result, as tests/unit/test_elementary.c measures them:
 *
 *     elementary_exp, elementary_log      1
 *     elementary_cospi, elementary_sinpi  2, relative also next to the zeros
 *     elementary_power                    1 + 3 |exponent * log(base)|
 *
 * The polynomials are cut Taylor series, after the argument is brought to where what is cut off is
 * below an eighth of an ulp; coefficients are rounded once from their exact values. */
#ifndef DESCENT_KERNEL_ELEMENTARY_H
#define DESCENT_KERNEL_ELEMENTARY_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

/* ln 2 = LN2_HIGH + LN2_LOW. LN2_HIGH ends in 11 zero bits: times a binary exponent it is exact. */
#define ELEMENTARY_LN2_HIGH 0x1.62e42fefa38p-1
#define ELEMENTARY_LN2_LOW 0x1.ef35793c7673p-45
/* Added to and taken from a double below 2^51 in size it leaves a whole number: the double's last
 * bit is then worth 1, and adding rounds to nearest. The low bits of the sum are that number's. */
#define ELEMENTARY_ROUND 0x1.8p52

static inline uint64_t elementary_bits(double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline double elementary_of_bits(uint64_t bits)
{
    double value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

/* A whole number below 2^52 as a double: put under the exponent of 2^52. Vectorises where there is
 * no instruction to convert. */
static inline double elementary_of_whole(uint64_t whole)
{
    return elementary_of_bits(0x4330000000000000 | whole) - 0x1p52;
}

/* e^x = 2^k e^r, r = x - k ln 2, |r| <= ln 2 / 2: the series to r^13 / 13!. */
static inline double elementary_exp(double x)
{
    x = x > 710 ? 710 : x; /* more than the largest double, and its k is still in range */
    x = x < -746 ? -746 : x;
    double shifted = x * 1.4426950408889634074 + ELEMENTARY_ROUND, k = shifted - ELEMENTARY_ROUND;
    double high = x - k * ELEMENTARY_LN2_HIGH, low = k * ELEMENTARY_LN2_LOW; /* high is exact */
    double r = high - low, rest = (high - r) - low;
    double tail = 1.0 / 479001600 + r * (1.0 / 6227020800);
    tail = 1.0 / 39916800 + r * tail;
    tail = 1.0 / 3628800 + r * tail;
    tail = 1.0 / 362880 + r * tail;
    tail = 1.0 / 40320 + r * tail;
    tail = 1.0 / 5040 + r * tail;
    tail = 1.0 / 720 + r * tail;
    tail = 1.0 / 120 + r * tail;
    tail = 1.0 / 24 + r * tail;
    tail = 1.0 / 6 + r * tail;
    tail = 0.5 + r * tail;
    double power = 1 + (r + (rest + r * r * tail));
    /* 2^k in two factors, as k can be beyond a double's exponents: only the second one rounds. */
    uint64_t biased = elementary_bits(shifted) - elementary_bits(ELEMENTARY_ROUND) + 2048;
    uint64_t half = biased >> 1; /* 1024 + about k / 2 */
    return power * elementary_of_bits((half - 1) << 52) *
           elementary_of_bits((biased - half - 1) << 52);
}

/* log(x 2^shift) for normal x > 0. x = 2^k m with sqrt(1/2) <= m < sqrt(2); with f = m - 1 and
 * s = f / (2 + f), log m = 2 atanh s = 2s + s R, R = 2/3 s^2 + 2/5 s^4 + ... + 2/21 s^20 (s^2 is
 * below 0.0295). As 2s = f - s f and s f = f^2/2 - s f^2/2 that is f - (f^2/2 - s (f^2/2 + R)),
 * whose largest term f is exact. */
static inline double elementary_log_normal(double x, double shift)
{
    const uint64_t one = 0x3ff0000000000000, root = 0x3fe6a09e667f3bcd; /* bits of 1, sqrt(1/2) */
    uint64_t shifted = elementary_bits(x) + (one - root);
    double k = (elementary_of_whole(shifted >> 52) - 1023) + shift;
    double f = elementary_of_bits((shifted & 0x000fffffffffffff) + root) - 1;
    double s = f / (2 + f), z = s * s, half = 0.5 * f * f;
    double series = 2.0 / 19 + z * (2.0 / 21);
    series = 2.0 / 17 + z * series;
    series = 2.0 / 15 + z * series;
    series = 2.0 / 13 + z * series;
    series = 2.0 / 11 + z * series;
    series = 2.0 / 9 + z * series;
    series = 2.0 / 7 + z * series;
    series = 2.0 / 5 + z * series;
    series = 2.0 / 3 + z * series;
    double tail = s * (half + z * series) + k * ELEMENTARY_LN2_LOW;
    return k * ELEMENTARY_LN2_HIGH - ((half - tail) - f);
}

/* log 0 = -infinity; of less than 0 and of NaN: NaN. */
static inline double elementary_log(double x)
{
    double shift = x < DBL_MIN ? -54 : 0; /* subnormal */
    double value = elementary_log_normal(x < DBL_MIN ? x * 0x1p54 : x, shift);

    value = x <= DBL_MAX ? value : x;
    value = x == 0 ? -(double)INFINITY : value;
    return x < 0 ? (double)NAN : value;
}

/* base^exponent, base >= 0: e^(exponent log base). The logarithm and the product each round by half
 * to one ulp, which the exponential turns into a relative error |exponent * log(base)| times as
 * large. Exponents 0, 1, 2, 3 and 4 are multiplied out: base^1 is base, base^2 is rounded once. */
static inline double elementary_power(double base, double exponent)
{
    if (exponent == 0 || exponent == 1 || exponent == 2)
        return exponent == 0 ? 1 : exponent == 1 ? base : base * base;
    if (exponent == 3 || exponent == 4)
        return base * base * (exponent == 3 ? base : base * base);
    return elementary_exp(exponent * elementary_log(base));
}

/* cos(pi x) and sin(pi x) for |x| < 2^50: x = n/2 + r, exactly, |r| <= 1/4; the series to
 * (pi r)^16 / 16! and (pi r)^17 / 17!; the two lowest bits of n say which is which, and the signs.
 * pi = 3.14... + 1.22e-16. */
static inline void elementary_turn(double x, double *cosine, double *sine)
{
    double shifted = 2 * x + ELEMENTARY_ROUND, r = x - 0.5 * (shifted - ELEMENTARY_ROUND);
    double z = r * r;
    double even = -0.10463810492484570712e-3 + z * 0.43030695870329470073e-5;
    even = 0.19295743094039230479e-2 + z * even;
    even = -0.25806891390014060013e-1 + z * even;
    even = 0.23533063035889320454 + z * even;
    even = -1.3352627688545894959 + z * even;
    even = 4.0587121264167682182 + z * even;
    even = -4.9348022005446793094 + z * even;
    even = 1 + z * even;
    double odd = -0.21915353447830215827e-4 + z * 0.79520540014755127848e-6;
    odd = 0.46630280576761256442e-3 + z * odd;
    odd = -0.73704309457143507773e-2 + z * odd;
    odd = 0.82145886611128228799e-1 + z * odd;
    odd = -0.59926452932079207689 + z * odd;
    odd = 2.5501640398773454439 + z * odd;
    odd = -5.1677127800499700292 + z * odd;
    odd = 1.2246467991473531772e-16 + z * odd;
    odd = r * 3.1415926535897932385 + r * odd;

    uint64_t quadrant = elementary_bits(shifted), swap = 0 - (quadrant & 1);
    uint64_t even_bits = elementary_bits(even), odd_bits = elementary_bits(odd);
    uint64_t other = (even_bits ^ odd_bits) & swap;
    *cosine = elementary_of_bits((even_bits ^ other) ^ ((quadrant + 1) & 2) << 62);
    *sine = elementary_of_bits((odd_bits ^ other) ^ (quadrant & 2) << 62);
}

/* x without a multiple of 2^32, exactly. From 2^53 on every double is even; infinity is NaN. */
static inline double elementary_unwind(double x)
{
    double inner = fabs(x) < 0x1p53 ? x : x - x;

    return inner - ((inner * 0x1p-32 + ELEMENTARY_ROUND) - ELEMENTARY_ROUND) * 0x1p32;
}

/* cos(pi x), sin(pi x): exactly 0, 1 and -1 where they are (0 without a sign). */
static inline double elementary_cospi(double x)
{
    double cosine, sine;

    elementary_turn(elementary_unwind(x), &cosine, &sine);
    return cosine + 0.0;
}

static inline double elementary_sinpi(double x)
{
    double cosine, sine;

    elementary_turn(elementary_unwind(x), &cosine, &sine);
    return sine + 0.0;
}

#endif
