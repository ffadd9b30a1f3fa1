"""The planes of a JPEG as libjpeg has them, to the bit, with NumPy alone.

FFmpeg rounds otherwise, so that one value in thirty is off by one, and of that an encoder makes
another video. Numbers of sections are those of the standard, ITU-T T.81.
"""

import re

import numpy as np

_ZIGZAG = np.array([
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
])  # fmt: skip

# What the first four pixels of a line have of its even and of its odd frequencies, in 1/8192:
# cosines, rounded as libjpeg's accurate integer transform (Loeffler and others, 1989) rounds them.
_EVEN = np.array([
    [8192, 10703, 8192, 4433], [8192, 4433, -8192, -10704],
    [8192, -4433, -8192, 10704], [8192, -10703, 8192, -4433],
])  # fmt: skip
_ODD = np.array([
    [11363, 9633, 6437, 2260], [9633, -2259, -11362, -6436],
    [6437, -11362, 2261, 9633], [2260, -6436, 9633, -11363],
])  # fmt: skip


def read(data):
    """Planes (rows, columns) of a JPEG's bytes: grey, or Y, Cb and Cr, each as large as it is.

    None for those that are not read here: RGB and CMYK, and what is arithmetically coded.
    """
    tables, codes, restart, parts, at = {}, {}, 0, [], 2
    while data[at] == 0xFF and data[at + 1] != 0xD9:
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4])
        body, at = data[at + 4 : end], end
        if marker == 0xDB:  # quantisation (B.2.4.1)
            while body:
                size = 65 + 64 * (body[0] >> 4)
                table = np.frombuffer(body[1:size], ">u2" if size > 65 else np.uint8)
                tables[body[0] & 15], body = table.astype(int), body[size:]
        elif marker == 0xC4:  # Huffman codes (B.2.4.2)
            while body:
                size = 17 + sum(body[1:17])
                codes[body[0]], body = _lookup(body[1:17], body[17:size]), body[size:]
        elif marker in (0xC0, 0xC1, 0xC2):  # the picture (B.2.2)
            size = [int.from_bytes(body[i : i + 2]) for i in (1, 3)]
            parts = [_Part(*body[i : i + 3], size) for i in range(6, len(body), 3)]
            if len(parts) not in (1, 3):
                return None
            for part in parts:
                part.fit(parts)
        elif marker in (0xC9, 0xCA) or (marker == 0xEE and body[:5] == b"Adobe" and not body[11]):
            return None
        elif marker == 0xDD:
            restart = int.from_bytes(body)
        elif marker == 0xDA:  # a scan (B.2.3)
            coded = data[at : at + re.search(rb"\xff[^\0\xd0-\xd7]", data[at:]).start()]
            at += len(coded)
            pieces = re.split(rb"\xff[\xd0-\xd7]", coded)
            _scan(
                [piece.replace(b"\xff\0", b"\xff") for piece in pieces], body, parts, codes, restart
            )
    return [part.plane(tables[part.table]) for part in parts]


class _Part:
    """One of the colours: what is known of it."""

    def __init__(self, name, sampling, table, size):
        self.name, self.table, self.size = name, table, size
        self.sampling = sampling & 15, sampling >> 4  # down, across

    def fit(self, parts):
        """Makes room: blocks fill whole units, though the picture may end before."""
        size, sampling = np.array(self.size), np.array(self.sampling)
        most = np.max([part.sampling for part in parts], axis=0)
        self.shape = (-(-size * sampling // most)).tolist()
        self.units = (-(-size // (8 * most))).tolist()
        self.blocks = (self.units * sampling).tolist()
        self.coefficients = [0] * (64 * self.blocks[0] * self.blocks[1])

    def plane(self, table):
        """(rows, columns): dequantised, and transformed as libjpeg does, columns first."""
        lines = np.zeros((8, 8), int)
        lines[:4, ::2], lines[:4, 1::2] = _EVEN, _ODD
        lines[7:3:-1, ::2], lines[7:3:-1, 1::2] = _EVEN, -_ODD
        block = np.zeros((self.blocks[0] * self.blocks[1], 64), int)
        block[:, _ZIGZAG] = np.reshape(self.coefficients, (-1, 64)) * table
        columns = (lines @ block.reshape(-1, 8, 8) + 1024) >> 11
        pixels = np.clip(((columns @ lines.T + (1 << 17)) >> 18) + 128, 0, 255)
        plane = pixels.reshape(*self.blocks, 8, 8).swapaxes(1, 2)
        return plane.reshape(8 * self.blocks[0], -1)[: self.shape[0], : self.shape[1]]


class _Bits:
    """Coded data, read bit by bit."""

    def __init__(self, data):
        b = np.frombuffer(data + bytes(64), np.uint8).astype(int)
        self.words = (b[:-3] << 24 | b[1:-2] << 16 | b[2:-1] << 8 | b[3:]).tolist()
        self.at = 0
        self.ended = 0  # blocks to come that have no more in this scan

    def take(self, count):
        """A number of so many bits."""
        word = self.words[self.at >> 3] >> (32 - count - (self.at & 7))
        self.at += count
        return word & ((1 << count) - 1)

    def symbol(self, codes):
        """What the next code stands for."""
        found = codes[self.words[self.at >> 3] >> (16 - (self.at & 7)) & 0xFFFF]
        self.at += found >> 8
        return found & 255

    def signed(self, count):
        """A number whose first bit tells that it is positive (F.2.2.1)."""
        number = self.take(count)
        return number if not count or number >> (count - 1) else number - (1 << count) + 1


def _lookup(counts, symbols):
    """For any 16 bits: the length of the code that they begin with, times 256, and its symbol."""
    table = []
    lengths = [length for length, count in enumerate(counts, 1) for _ in range(count)]
    for length, symbol in zip(lengths, symbols, strict=True):
        table += [256 * length + symbol] * (1 << (16 - length))
    return table + [256 * 16] * ((1 << 16) - len(table))


def _scan(pieces, header, parts, codes, restart):
    """Reads coefficients, or in a progressive picture some of them or some of their bits."""
    found = dict(zip(header[1:-3:2], header[2:-3:2], strict=True))
    seen = [part for part in parts if part.name in found]
    use = [(codes.get(found[p.name] >> 4), codes.get(16 + (found[p.name] & 15))) for p in seen]
    first, last, high, low = *header[-3:-1], header[-1] >> 4, header[-1] & 15
    # A scan of one part has its blocks in rows; one of several has units of all of them (A.2).
    alone = len(seen) == 1
    rows, columns = [-(-n // 8) for n in seen[0].shape] if alone else seen[0].units
    count = restart or rows * columns
    for number, piece in enumerate(pieces):
        bits, before = _Bits(piece), [0] * len(seen)
        for unit in range(number * count, min((number + 1) * count, rows * columns)):
            row, column = divmod(unit, columns)
            for i, part in enumerate(seen):
                down, across = (1, 1) if alone else part.sampling
                for y in range(row * down, (row + 1) * down):
                    for x in range(column * across, (column + 1) * across):
                        place = 64 * (y * part.blocks[1] + x)
                        if high:
                            _refine(bits, part.coefficients, place, first, last, low, use[i][1])
                        else:
                            before[i] = _begin(
                                bits, part.coefficients, place, first, last, low, use[i], before[i]
                            )


def _begin(bits, block, place, first, last, low, codes, before):
    """What is first told of a block (F.2.2, G.1.2.1, G.1.2.2); returns its mean, for the next."""
    if first == 0:
        before += bits.signed(bits.symbol(codes[0]))
        block[place] = before << low
        first = 1
    if bits.ended and first <= last:
        bits.ended -= 1
        return before
    k = first
    while k <= last:
        zeros, size = divmod(bits.symbol(codes[1]), 16)
        if not size and zeros < 15:
            bits.ended = (1 << zeros) + bits.take(zeros) - 1
            break
        k += zeros
        if size:
            block[place + k] = bits.signed(size) << low
        k += 1
    return before


def _refine(bits, block, place, first, last, low, codes):
    """One more bit of a block (G.1.2.3)."""
    if first == 0:
        block[place] |= bits.take(1) << low
        return
    k = first
    while k <= last:
        new, zeros = 0, 64
        if not bits.ended:
            zeros, size = divmod(bits.symbol(codes), 16)
            if size:
                new = (2 * bits.take(1) - 1) << low
            elif zeros < 15:
                bits.ended, zeros = (1 << zeros) + bits.take(zeros), 64
        # Past as many zeros; of what is not zero on the way there is another bit.
        while k <= last:
            value = block[place + k]
            if value:
                block[place + k] += (bits.take(1) << low) * (1 if value > 0 else -1)
            elif zeros:
                zeros -= 1
            else:
                block[place + k] = new
                break
            k += 1
        k += 1
    if bits.ended:
        bits.ended -= 1
