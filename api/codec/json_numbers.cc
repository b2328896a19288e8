// Numbers between JSON text and floats, exact both ways. The only C++ file: fast_float is a C++
// header.
//
// Reading: up to 19 digits are gathered in an integer. Where it and its power of ten are exact
// doubles, one division or product rounds once (Clinger, "How to Read Floating Point Numbers
// Accurately", 1990); everything else is left to fast_float. Writing: Raffaele Giulietti, "The
// Schubfach way to render doubles", 2020, section 9.
#include "api/json_numbers.h"
#include "api/codec/json_numbers_powers.h"

#include <cstdint>
#include <cstring>
#include <fast_float/fast_float.h>

namespace
{

constexpr uint64_t whole_powers[] = {1,
                                     10,
                                     100,
                                     1000,
                                     10000,
                                     100000,
                                     1000000,
                                     10000000,
                                     100000000,
                                     1000000000,
                                     10000000000,
                                     100000000000,
                                     1000000000000,
                                     10000000000000,
                                     100000000000000,
                                     1000000000000000,
                                     10000000000000000,
                                     100000000000000000};

// --- reading ---

struct Scan {
    const char *end;  // of the number; nullptr: there is none
    uint64_t digits;  // all digits as one integer, when there are at most 19
    size_t count;     // digits
    int64_t exponent; // value = digits * 10^exponent
};

bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

uint64_t load_eight(const char *text)
{
    uint64_t word;

    std::memcpy(&word, text, sizeof word);
    return word;
}

// Eight bytes at once: the top bits of those that are no digit; exact up to the first one, beyond
// it there may be more.
uint64_t find_non_digits(uint64_t word)
{
    return ((word + 0x4646464646464646) | (word - 0x3030303030303030)) & 0x8080808080808080;
}

// The value of eight digits, the first one in the lowest byte; a byte 0 counts as '0'.
// (This and the above: Daniel Lemire, "Quickly parsing eight digits", 2022.)
uint64_t digits_value(uint64_t word)
{
    word = (word & 0x0F0F0F0F0F0F0F0F) * 2561 >> 8;
    word = (word & 0x00FF00FF00FF00FF) * 6553601 >> 16;
    return (word & 0x0000FFFF0000FFFF) * 42949672960001 >> 32;
}

inline const char *scan_digits(const char *at, const char *end, uint64_t *value)
{
    while (end - at >= 8) {
        const uint64_t word = load_eight(at);
        const uint64_t stop = find_non_digits(word);
        if (stop != 0) {
            const int count = __builtin_ctzll(stop) / 8;
            *value = *value * whole_powers[count] + digits_value(word << (56 - 8 * count) << 8);
            return at + count;
        }
        *value = *value * whole_powers[8] + digits_value(word);
        at += 8;
    }
    for (; at < end && is_digit(*at); at++)
        *value = *value * 10 + uint64_t(*at - '0');
    return at;
}

// RFC 8259: [ "-" ] ( "0" | 1-9 digits ) [ "." digits ] [ ( "e" | "E" ) [ "+" | "-" ] digits ].
// `digits` wraps around when there are more than 19; whoever wants it looks at `count` first.
inline Scan scan_number(const char *text, const char *end)
{
    const Scan none = {nullptr, 0, 0, 0};
    Scan scan = none;
    const char *at = text + (text < end && *text == '-');
    const char *first = at;

    if (at == end || !is_digit(*at))
        return none;
    if (*at == '0')
        at++;
    else
        at = scan_digits(at, end, &scan.digits);
    scan.count = size_t(at - first);
    if (at < end && *at == '.') {
        const char *fraction = ++at;
        at = scan_digits(at, end, &scan.digits);
        if (at == fraction)
            return none;
        scan.count += size_t(at - fraction);
        scan.exponent = -(at - fraction);
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        int64_t exponent = 0;
        at++;
        bool minus = at < end && *at == '-';
        at += at < end && (*at == '-' || *at == '+');
        if (at == end || !is_digit(*at))
            return none;
        for (; at < end && is_digit(*at); at++)
            if (exponent < 1000000000)
                exponent = exponent * 10 + (*at - '0');
        scan.exponent += minus ? -exponent : exponent;
    }
    scan.end = at;
    return scan;
}

constexpr double exact_powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                   1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                   1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

// Whether the correctly rounded double also rounds to the right Real. Rounding is monotonic, so
// going through double can only err when the double is the very middle of two floats; subnormal
// floats have their middles elsewhere and are left out.
bool rounds_again(double, double *)
{
    return true;
}

bool rounds_again(double value, float *)
{
    uint64_t bits;

    std::memcpy(&bits, &value, sizeof bits);
    return (bits & 0x1FFFFFFF) != 0x10000000 && (value >= 0x1p-126 || bits == 0);
}

template <class Real>
const char *read(const char *text, const char *end, Real *out)
{
    Scan scan = scan_number(text, end);

    if (scan.end == nullptr)
        return nullptr;
    if (scan.count <= 19 && scan.digits <= uint64_t(1) << 53 && scan.exponent >= -22 &&
        scan.exponent <= 22) {
        double value = double(scan.digits);
        if (scan.exponent < 0)
            value /= exact_powers[-scan.exponent];
        else
            value *= exact_powers[scan.exponent];
        if (rounds_again(value, out)) {
            *out = Real(*text == '-' ? -value : value);
            return scan.end;
        }
    }
    fast_float::from_chars(text, scan.end, *out);
    return scan.end;
}

// --- writing ---

struct Decimal {
    uint64_t digits;
    int exponent; // value = digits * 10^exponent
};

template <class Real>
struct Format;
template <>
struct Format<float> {
    using Bits = uint32_t;
    static constexpr int significand_bits = 23, exponent_bias = 127 + 23;
};
template <>
struct Format<double> {
    using Bits = uint64_t;
    static constexpr int significand_bits = 52, exponent_bias = 1023 + 52;
};

__extension__ typedef unsigned __int128 Wide;

// The product with a power of ten, scaled, with the sticky bit of what was cut off in its lowest
// bit.
uint32_t round_to_odd(const PowerOfTen &power, uint32_t factor)
{
    Wide product = Wide(power.high + 1) * factor;

    return uint32_t(product >> 64) | (uint32_t(product >> 32) > 1);
}

uint64_t round_to_odd(const PowerOfTen &power, uint64_t factor)
{
    Wide low = Wide(power.low) * factor;
    Wide product = Wide(power.high) * factor + uint64_t(low >> 64);

    return uint64_t(product >> 64) | (uint64_t(product) > 1);
}

// The shortest decimal in the rounding interval of significand * 2^exponent, of these the closest
// one.
template <class Bits>
Decimal shortest(Bits significand, int exponent, bool narrow_below)
{
    const Bits odd = significand & 1; // an odd significand does not own the ends of its interval
    const int k =
        (exponent * 1262611 - (narrow_below ? 524031 : 0)) >> 22; // floor(log10(2^e or 3/4 2^e))
    const int shift = exponent + ((-k * 1741647) >> 19) + 1;      // floor(log2(10^-k))
    const PowerOfTen &power = power_of_ten(-k);
    const Bits middle = round_to_odd(power, Bits(4 * significand << shift));
    const Bits lower =
        round_to_odd(power, Bits((4 * significand - 2 + narrow_below) << shift)) + odd;
    const Bits upper = round_to_odd(power, Bits((4 * significand + 2) << shift)) - odd;
    const Bits floor = middle / 4;

    // Either kind of neighbours: those of one digit less, when exactly one lies in the interval,
    // else those of all digits. Everything is computed and then selected: which case it is cannot
    // be predicted.
    const Bits tens = floor / 10;
    const bool ten_below = lower <= 40 * tens, ten_above = 40 * tens + 40 <= upper;
    const bool one_below = lower <= 4 * floor, one_above = 4 * floor + 4 <= upper;
    const Bits half = 4 * floor + 2;
    const bool closer_above = middle > half || (middle == half && floor % 2 == 1);
    const Bits full = floor + (one_below != one_above ? one_above : closer_above);
    const bool fewer = ten_below != ten_above && floor >= 10;
    return {uint64_t(fewer ? tens + ten_above : full), k + fewer};
}

int digit_count(uint64_t value) // 0 < value < 10^18
{
    const int guess = (64 - __builtin_clzll(value)) * 1233 >> 12; // floor(log10) or one more

    return guess + (value >= whole_powers[guess]);
}

// Eight digits, leading zeros included, a byte each, the first one lowest; the inverse of
// digits_value.
uint64_t eight_digits(uint64_t value)
{
    const uint64_t fours = (value / 10000) | (value % 10000) << 32;
    const uint64_t hundreds = (fours * 10486 >> 20) & 0x0000007F0000007F;
    const uint64_t twos = ((fours - 100 * hundreds) << 16) + hundreds;
    const uint64_t tens = (twos * 103 >> 10) & 0x000F000F000F000F;

    return ((twos - 10 * tens) << 8) + tens;
}

constexpr uint64_t eight = 100000000;

// Digits left-aligned, 1 + 8 + 8 of them; a float never needs more than 1 + 8.
struct Digits {
    uint64_t first, middle, last;
    int count; // without trailing zeros
};

Digits split_digits(uint64_t value, int count, float)
{
    const uint64_t aligned = value * whole_powers[9 - count];
    const uint64_t middle = eight_digits(aligned % eight);

    return {aligned / eight, middle, 0, middle != 0 ? 9 - __builtin_clzll(middle) / 8 : 1};
}

Digits split_digits(uint64_t value, int count, double)
{
    const uint64_t aligned = value * whole_powers[17 - count];
    const uint64_t middle = eight_digits(aligned / eight % eight);
    const uint64_t last = eight_digits(aligned % eight);

    return {aligned / (eight * eight), middle, last,
            last != 0     ? 17 - __builtin_clzll(last) / 8
            : middle != 0 ? 9 - __builtin_clzll(middle) / 8
                          : 1};
}

// All digits but the first. Always writes 16 characters: blocks of a fixed size leave nothing to
// mispredict, and the caller knows where they end.
void write_tail(char *out, const Digits &digits)
{
    const uint64_t middle = digits.middle | 0x3030303030303030;
    const uint64_t last = digits.last | 0x3030303030303030;

    std::memcpy(out, &middle, sizeof middle);
    std::memcpy(out + 8, &last, sizeof last);
}

char *write_exponent(char *out, int exponent)
{
    *out++ = 'e';
    if (exponent < 0) {
        *out++ = '-';
        exponent = -exponent;
    }
    if (exponent >= 100)
        *out++ = char('0' + exponent / 100);
    if (exponent >= 10)
        *out++ = char('0' + exponent / 10 % 10);
    *out++ = char('0' + exponent % 10);
    return out;
}

// As Python writes floats: plain from 0.0001 up to 16 digits before the point, else with an
// exponent.
template <class Real>
char *write_decimal(char *out, Decimal value)
{
    const int length = digit_count(value.digits);
    const int point = length + value.exponent; // digits before the point
    const Digits digits = split_digits(value.digits, length, Real());

    const char first = char('0' + digits.first);
    if (point <= 1 && point >= -3) { // the most frequent: 1.5, 0.15, 0.015 ... without a branch
        const int tail = point == 1 ? 2 : 3 - point;
        std::memcpy(out, "0.000", 5);
        out[point == 1 ? 0 : 2 - point] = first;
        write_tail(out + tail, digits);
        return out + (point == 1 && digits.count == 1 ? 1 : tail + digits.count - 1);
    }
    out[0] = first;
    if (point <= 0 || point > 16) {
        out[1] = '.';
        write_tail(out + 2, digits);
        return write_exponent(out + (digits.count == 1 ? 1 : digits.count + 1), point - 1);
    }
    write_tail(out + 1, digits);
    if (point >= digits.count)
        return out + point;
    std::memmove(out + point + 1, out + point, 17);
    out[point] = '.';
    return out + digits.count + 1;
}

template <class Real>
char *write(char *out, Real value)
{
    using F = Format<Real>;
    typename F::Bits bits;
    constexpr typename F::Bits hidden = typename F::Bits(1) << F::significand_bits;

    const char *begin = out;

    std::memcpy(&bits, &value, sizeof bits);
    *out = '-';
    out += bits >> (sizeof bits * 8 - 1);
    bits = typename F::Bits(bits << 1) >> 1;
    if (bits == 0) {
        *out = '0';
        if (out == begin)
            return out + 1;
        std::memcpy(out, "0.0", 3); // "-0" is an integer to some readers, and loses its sign
        return out + 3;
    }
    const typename F::Bits fraction = bits & (hidden - 1);
    const int biased = int(bits >> F::significand_bits);
    const typename F::Bits significand = biased == 0 ? fraction : hidden | fraction;
    const int exponent = (biased == 0 ? 1 : biased) - F::exponent_bias;
    if (exponent <= 0 && __builtin_ctzll(significand) >= -exponent)
        return write_decimal<Real>(out,
                                   {uint64_t(significand >> -exponent), 0}); // an integer: exact
    return write_decimal<Real>(out, shortest(significand, exponent, fraction == 0 && biased > 1));
}

} // namespace

extern "C" char *number_write_f32(char *out, float value)
{
    return write(out, value);
}

extern "C" char *number_write_f64(char *out, double value)
{
    return write(out, value);
}

extern "C" const char *number_read_f32(const char *text, const char *end, float *out)
{
    return read(text, end, out);
}

extern "C" const char *number_read_f64(const char *text, const char *end, double *out)
{
    return read(text, end, out);
}

extern "C" const char *number_end(const char *text, const char *end)
{
    return scan_number(text, end).end;
}
