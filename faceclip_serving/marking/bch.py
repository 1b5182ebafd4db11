"""BCH (127, 92): a word with 35 check bits, by which up to five bits that came wrong are put right. TrustMark's code `BCH_5`.

Knows bits; nothing of pictures. Words are polynomials over GF(2), kept as whole numbers; the field is GF(2^7) by x^7 + x^3 + 1.
A shorter word counts as one that begins with zeros.
"""

from __future__ import annotations

LENGTH, CHECK_BITS, CORRECTS = 127, 35, 5
_FIELD = 0b10001001


def _tables() -> tuple[list[int], list[int]]:
    powers, logarithms, value = [], [0] * (LENGTH + 1), 1
    for i in range(LENGTH):
        powers.append(value)
        logarithms[value] = i
        value <<= 1
        if value > LENGTH:
            value ^= _FIELD
    return powers, logarithms


_POWERS, _LOGARITHMS = _tables()


def _times(one: int, other: int) -> int:
    return _POWERS[(_LOGARITHMS[one] + _LOGARITHMS[other]) % LENGTH] if one and other else 0


def _power(base: int, exponent: int) -> int:
    return _POWERS[_LOGARITHMS[base] * exponent % LENGTH] if base else 0


def _generator() -> int:
    """The product of the least polynomials of a^1, a^3, ... a^9."""
    found = 1
    for odd in range(1, 2 * CORRECTS, 2):
        roots = {odd * 2**i % LENGTH for i in range(7)}
        least = [1]
        for root in roots:  # times (x + a^root)
            least = [above ^ _times(here, _POWERS[root]) for above, here in zip([0, *least], [*least, 0], strict=True)]
        found = _product(found, sum(bit << i for i, bit in enumerate(least)))
    return found


def _product(one: int, other: int) -> int:
    found = 0
    while other:
        found ^= one if other & 1 else 0
        one, other = one << 1, other >> 1
    return found


_GENERATOR = _generator()


def check(word: int) -> int:
    """The check bits of a word of at most `LENGTH` - `CHECK_BITS` bits. Raises ValueError for a longer one."""
    if not 0 <= word < 1 << (LENGTH - CHECK_BITS):
        raise ValueError(f"word: expected at most {LENGTH - CHECK_BITS} bits, got {word.bit_length()}")
    rest = word << CHECK_BITS
    while (over := rest.bit_length() - CHECK_BITS) > 0:
        rest ^= _GENERATOR << (over - 1)
    return rest


def corrected(word: int, check_bits: int, bits: int) -> tuple[int, int] | None:
    """The word of `bits` bits that was sent, and how many bits had come wrong; None where they are more than `CORRECTS`."""
    received = word << CHECK_BITS | check_bits
    places = [i for i in range(bits + CHECK_BITS) if received >> i & 1]
    syndromes = []
    for j in range(1, 2 * CORRECTS + 1):
        value = 0
        for place in places:
            value ^= _POWERS[place * j % LENGTH]
        syndromes.append(value)
    if not any(syndromes):
        return word, 0
    locator = _locator(syndromes)
    wrong = [place for place in range(bits + CHECK_BITS) if _at(locator, _POWERS[-place % LENGTH]) == 0]
    if len(wrong) != len(locator) - 1 or len(wrong) > CORRECTS:
        return None
    for place in wrong:
        received ^= 1 << place
    return received >> CHECK_BITS, len(wrong)


def _at(polynomial: list[int], x: int) -> int:
    value = 0
    for i, factor in enumerate(polynomial):
        value ^= _times(factor, _power(x, i))
    return value


def _locator(syndromes: list[int]) -> list[int]:
    """The polynomial whose roots tell which bits are wrong, its lowest factor first (Berlekamp and Massey)."""
    locator, before, length, shift, discrepancy_before = [1], [1], 0, 1, 1
    for i, syndrome in enumerate(syndromes):
        discrepancy = syndrome
        for j in range(1, length + 1):
            if j < len(locator):
                discrepancy ^= _times(locator[j], syndromes[i - j])
        if discrepancy == 0:
            shift += 1
            continue
        factor = _times(discrepancy, _power(discrepancy_before, LENGTH - 1))
        step = [0] * shift + [_times(factor, each) for each in before]
        width = max(len(locator), len(step))
        added = [(locator[j] if j < len(locator) else 0) ^ (step[j] if j < len(step) else 0) for j in range(width)]
        if 2 * length <= i:
            before, discrepancy_before, length, shift = locator, discrepancy, i + 1 - length, 1
        else:
            shift += 1
        locator = added
    while len(locator) > 1 and locator[-1] == 0:
        locator.pop()
    return locator
