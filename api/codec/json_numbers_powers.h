// Powers of ten to 128 bits, worked out by the compiler: no table of magic numbers to trust.
#ifndef DESCENT_API_CODEC_JSON_NUMBERS_POWERS_H
#define DESCENT_API_CODEC_JSON_NUMBERS_POWERS_H

#include <cstdint>

// floor(10^k * 2^r) + 1 with the r that makes 2^127 <= it < 2^128. high + 1 is the same to 64 bits.
struct PowerOfTen {
    uint64_t high, low;
};

constexpr int power_first = -292, power_last = 324; // what f64 needs; f32 needs -31 .. 45

// A whole number of 1152 bits: holds 10^324, and 2^1151 / 10^292 with 181 bits left.
struct Whole {
    static constexpr int limbs = 36;
    uint32_t limb[limbs]; // lowest first

    constexpr void multiply_by_ten()
    {
        uint64_t carry = 0;
        for (int i = 0; i < limbs; i++) {
            carry += uint64_t(limb[i]) * 10;
            limb[i] = uint32_t(carry);
            carry >>= 32;
        }
    }

    constexpr void
    divide_by_ten() // floor; ten times ten times ... is the floor of the whole quotient
    {
        uint64_t rest = 0;
        for (int i = limbs - 1; i >= 0; i--) {
            rest = rest << 32 | limb[i];
            limb[i] = uint32_t(rest / 10);
            rest %= 10;
        }
    }

    constexpr PowerOfTen leading_128_bits() const
    {
        int top = limbs - 1;
        while (limb[top] == 0)
            top--;
        int shift = 0;
        while ((limb[top] << shift & 0x80000000) == 0)
            shift++;
        uint32_t word[4] = {};
        for (int i = 0; i < 4; i++) {
            const uint64_t upper = top >= i ? limb[top - i] : 0;
            const uint64_t lower = top > i ? limb[top - i - 1] : 0;
            word[i] = uint32_t((upper << 32 | lower) << shift >> 32);
        }
        return {uint64_t(word[0]) << 32 | word[1], uint64_t(word[2]) << 32 | word[3]};
    }
};

struct PowersOfTen {
    PowerOfTen power[power_last - power_first + 1];

    constexpr void put(int k, const Whole &whole)
    {
        PowerOfTen floor = whole.leading_128_bits();
        floor.low++; // never carries: see the assertion below
        power[k - power_first] = floor;
    }
};

constexpr PowersOfTen make_powers_of_ten()
{
    PowersOfTen powers = {};
    Whole up = {}, down = {};

    up.limb[0] = 1;
    for (int k = 0; k <= power_last; k++, up.multiply_by_ten())
        powers.put(k, up);
    down.limb[Whole::limbs - 1] = 0x80000000;
    for (int k = -1; k >= power_first; k--) {
        down.divide_by_ten();
        powers.put(k, down);
    }
    return powers;
}

inline constexpr PowersOfTen powers_of_ten = make_powers_of_ten();

constexpr bool low_never_carried()
{
    for (const PowerOfTen &power : powers_of_ten.power)
        if (power.low == 0)
            return false;
    return true;
}
static_assert(low_never_carried(), "low + 1 must not carry into high");

inline const PowerOfTen &power_of_ten(int k)
{
    return powers_of_ten.power[k - power_first];
}

#endif
