"""The CPU's renderer: every view of a scan in compiled code, all its planes in the cache.

It does what `render.py` does with torch on a GPU, which it is tested against. A view is a row of
`numbers`; what is done to it in one call is a sum of `steps`. Each step writes its result, so that
views come out the same to the bit in however many calls they are made.
"""

from __future__ import annotations

import math

import numpy as np

from scanlearn.compiling import compiled, part

# The columns of `numbers`.
(
    TOP, LEFT, BOTTOM, RIGHT, VALID_TOP, VALID_LEFT, VALID_BOTTOM, VALID_RIGHT,
    WAY, FLIP, VFLIP, TURNS, LOW, HIGH,
    JITTER, BRIGHTNESS, CONTRAST, SATURATION, HUE, ORDER, _1, _2, _3, GRAY,
    SHIFT, _4, _5, BLUR_PX, SOLARIZE, BITS, SOFT_PX,
    XX, XY, YX, YY, X, Y, REACH, SAMPLES, FIELD, REFLECTS, NUM_COLUMNS,
) = range(42)  # fmt: skip
# How a view is resampled: a crop inside its scan, one that reaches beyond it, or by a grid.
INSIDE, BEYOND, WARPED = range(3)
# The steps, in the order in which a call does them: that of the table of operations.
STEPS = (
    "geometry", "jitter", "gray", "histogram_shift", "blur", "solarize", "posterise", "soft",
    "finish",
)  # fmt: skip
BIT = {name: 1 << place for place, name in enumerate(STEPS)}
(
    _GEOMETRY, _JITTER, _GRAY, _HISTOGRAM, _BLUR, _SOLARIZE, _POSTERISE, _SOFT, _FINISH
) = BIT.values()  # fmt: skip
# Which array holds the scans.
EIGHT_BITS, SIXTEEN_BITS, FLOATS = range(3)

_RED, _GREEN, _BLUE = np.float32(0.2989), np.float32(0.587), np.float32(0.114)
_ZERO, _ONE = np.float32(0), np.float32(1)
_LEAST_COVERAGE = np.float32(1 / 512)
_LEAST_SUM = np.float32(1e-6)
_HALF = np.float32(0.5)
_BLUR_REACH = 4.0
_LEAST_BLUR_PX = 0.12
_CONTRAST_OP = 1


@part
def _clamped(value, low, high):  # A value that is not a number stays so.
    value = low if value < low else value
    return high if value > high else value


@part
def _taps(low, high, size, first, last, reverse, start, count, weight):
    """The pixels from `first` to `last` that each output is made of; see `resample.crop_taps`."""
    step = (high - low) / size
    reach = max(step, 1.0)
    most = 1
    for place in range(size):
        centre = low + ((size - 1 - place if reverse else place) + 0.5) * step
        # Pixels beyond the crop have no share.
        begin = max(math.floor(centre - reach - 0.5) + 1, math.floor(low))
        end = min(math.ceil(centre + reach - 0.5), math.ceil(high))
        since, until = max(begin, first), min(end, last)
        line = weight[place]
        line[:] = 0
        # Single precision, from the first tap on: a crop far from the edge has the same weights.
        middle, width = np.float32(centre - begin), np.float32(reach)
        opens, closes = np.float32(low - begin), np.float32(high - begin)
        total = _ZERO
        for position in range(begin, end):
            tap = np.float32(position - begin)
            share = max(_ONE - abs(tap + _HALF - middle) / width, _ZERO)
            seen = min(tap + _ONE, closes) - max(tap, opens)
            share *= min(max(seen, _ZERO), _ONE)
            total += share
            if since <= position < until:
                line[position - since] = share
        number = max(until - since, 0)
        for tap in range(number):
            line[tap] /= total
        start[place] = since if number else first
        count[place] = number
        most = max(most, number)
    return most


@part
def _weighed(lines, first, left, number, weight, sums):
    """Weighted sum of `number` lines from the first on; weights are 0 beyond."""
    width = len(sums)
    if number == 0:
        sums[:] = 0
    for tap in range(0, number, 3):
        one = lines[first + tap, left : left + width]
        two = lines[first + min(tap + 1, number - 1), left : left + width]
        three = lines[first + min(tap + 2, number - 1), left : left + width]
        a, b, c = weight[tap], weight[tap + 1], weight[tap + 2]
        if tap == 0:
            for x in range(width):
                sums[x] = a * np.float32(one[x]) + b * np.float32(two[x]) + c * np.float32(three[x])
        else:
            for x in range(width):
                sums[x] += (
                    a * np.float32(one[x]) + b * np.float32(two[x]) + c * np.float32(three[x])
                )


@part
def _across(line, start, most, weight, step, out):
    """Weighted sums along a line, whose pixels are `step` apart."""
    size = len(out)
    if most <= 3:
        for x in range(size):
            at = np.uint64(start[x])
            out[x] = (
                weight[x, 0] * line[at]
                + weight[x, 1] * line[at + np.uint64(step)]
                + weight[x, 2] * line[at + np.uint64(2 * step)]
            )
        return
    for x in range(size):
        at = np.uint64(start[x])
        total = _ZERO
        for tap in range(most):
            total += weight[x, tap] * line[at]
            at += np.uint64(step)
        out[x] = total


@part
def _loaded(lines, mask, has_mask, interleaved, top, left, edge, out):
    """A part of a scan as floats, 0 outside the field of view; the last plane is 1 inside.

    With an edge one pixel before and two after stay as they are.
    """
    planes, rows, columns = len(out) - 1, out.shape[1] - 3 * edge, out.shape[2] - 3 * edge
    height = len(mask)
    step = planes if interleaved else 1
    for y in range(rows):
        inside = out[planes, y + edge, edge:]
        for x in range(columns):
            inside[x] = np.float32(mask[y + top, x + left]) if has_mask else _ONE
        for plane in range(planes):
            line = lines[y + top if interleaved else plane * height + y + top]
            first = left * step + (plane if interleaved else 0)
            target = out[plane, y + edge, edge:]
            for x in range(columns):
                value = np.float32(line[first + x * step])
                target[x] = value if inside[x] != 0 else _ZERO


@part
def _resampled(lines, height, step, top, left, right, rows, columns, sums, out, coverage):
    """A crop of each plane: whole lines summed to one, then along that.

    Lines are those of the planes one after the other, `height` for each, or with a `step` above 1
    of pixels that hold all planes. The lines begin at the row `top`; the plane that `out` does not
    have is the coverage.
    """
    row_start, row_count, row_weight = rows
    column_start, most, column_weight = columns
    planes = step if step > 1 else len(lines) // height
    line = sums[: (right - left) * step]
    for y in range(out.shape[1]):
        first = row_start[y] - top
        for plane in range(planes):
            if step == 1 or plane == 0:
                start = plane * height + first
                _weighed(lines, start, left * step, row_count[y], row_weight[y], line)
            target = out[plane, y] if plane < len(out) else coverage[y]
            _across(
                sums[plane if step > 1 else 0 :], column_start, most, column_weight, step, target
            )


@part
def _folded(place, low, high):
    """Where a mirror at both edges brings a place to; half a pixel in from the edge."""
    if low + 0.5 <= place <= high - 0.5:
        return place
    span = high - low
    folded = (place - low) % (2 * span)
    inside = span - abs(folded - span)
    return low + min(max(inside, 0.5), span - 0.5)


@part
def _bilinear(plane, at, below, right, down, out):
    """Samples a flat plane at places between four pixels, of which `at` is the upper left one."""
    for place in range(len(out)):
        first, p = np.uint64(at[place]), right[place]
        upper = plane[first] + p * (plane[first + np.uint64(1)] - plane[first])
        first += below
        lower = plane[first] + p * (plane[first + np.uint64(1)] - plane[first])
        out[place] = upper + down[place] * (lower - upper)


@part
def _gathered(samples, share, factor, line):
    """Adds to each pixel of a line the weighted sum of its samples."""
    for sample in range(len(share)):
        weight, first = factor * share[sample], np.uint64(sample * len(line))
        for x in range(len(line)):
            line[x] += weight * samples[first + np.uint64(x)]


@part
def _placed(across, along, height, width, at, right, down):
    """Finds the pixels around each place; returns how many places lie beyond the middle ones.

    Pixels are counted with an edge of zeros, where what lies beyond is moved to.
    """
    last_x, last_y = np.float32(width), np.float32(height)
    num_beyond = 0
    for place in range(len(across)):
        x, y = across[place], along[place]
        num_beyond += int(not ((x >= _ONE) & (x <= last_x) & (y >= _ONE) & (y <= last_y)))
        # What is no number becomes 0, not a place outside of the memory.
        x, y = x if x > _ZERO else _ZERO, y if y > _ZERO else _ZERO
        x, y = min(x, last_x + _ONE), min(y, last_y + _ONE)
        column, row = np.int32(x), np.int32(y)
        right[place], down[place] = x - np.float32(column), y - np.float32(row)
        at[place] = np.uint32(row * np.int32(width + 3) + column)
    return num_beyond


@part
def _warped(content, has_mask, top, left, view, field, out, coverage):
    """Samples content through the view's grid; see `warp.warp`.

    A line of samples at a time, so that the compiler can do several at once; of each pixel the
    first ones, then the second ones. The content has an edge of zeros, one pixel before and two
    after.
    """
    planes, height, width = len(content), content.shape[1] - 3, content.shape[2] - 3
    size = out.shape[1]
    per_pixel = max(int(view[SAMPLES]), 1)
    offset, share = np.zeros(per_pixel), np.ones(per_pixel)
    if view[SAMPLES]:
        for sample in range(per_pixel):
            place = (sample + 0.5) * 2 / per_pixel - 1
            offset[sample] = view[REACH] * place
            share[sample] = 1 - abs(place)
        share /= share.sum()
    weight = share.astype(np.float32)
    count = size * per_pixel
    u, across, along, right, down, sampled, between = np.empty((7, count), np.float32)
    at = np.empty(count, np.uint32)
    before, after = np.empty((2, count), np.int64)
    bent = np.empty((2, size), np.float32)
    for place in range(count):
        x, sample = place % size, place // size
        u[place] = (x + 0.5 + offset[sample]) / size - 0.5
        column = max((x * per_pixel + sample + 0.5) / per_pixel - 0.5, 0.0)
        before[place], after[place] = int(column), min(int(column) + 1, size - 1)
        between[place] = column - int(column)
    flat = content.reshape((planes, -1))
    below = np.uint64(width + 3)
    xx, xy = np.float32(view[XX]), np.float32(view[XY])
    yx, yy = np.float32(view[YX]), np.float32(view[YY])
    for y in range(size):
        for plane in range(planes - 1):
            out[plane, y, :] = 0
        coverage[y, :] = 0
        for sample in range(per_pixel):
            v = (y + 0.5 + offset[sample]) / size - 0.5
            x0 = np.float32(view[XY] * v + view[X] + 0.5 - left)
            y0 = np.float32(view[YY] * v + view[Y] + 0.5 - top)
            for place in range(count):
                across[place] = xx * u[place] + x0
                along[place] = yx * u[place] + y0
            if len(field):
                line = max((y * per_pixel + sample + 0.5) / per_pixel - 0.5, 0.0)
                above, q = int(line), np.float32(line - int(line))
                one, two = field[:, above], field[:, min(above + 1, size - 1)]
                for axis in range(2):
                    for x in range(size):
                        bent[axis, x] = one[axis, x] + q * (two[axis, x] - one[axis, x])
                for place in range(count):
                    p, first, second = between[place], before[place], after[place]
                    du = bent[0, first] + p * (bent[0, second] - bent[0, first])
                    dv = bent[1, first] + p * (bent[1, second] - bent[1, first])
                    across[place] += xx * du + xy * dv
                    along[place] += yx * du + yy * dv
            if view[REFLECTS]:
                low, high = view[VALID_LEFT] - left + 0.5, view[VALID_RIGHT] - left + 0.5
                for place in range(count):
                    across[place] = _folded(across[place], low, high)
                low, high = view[VALID_TOP] - top + 0.5, view[VALID_BOTTOM] - top + 0.5
                for place in range(count):
                    along[place] = _folded(along[place], low, high)
            num_beyond = _placed(across, along, height, width, at, right, down)
            for plane in range(planes - 1):
                _bilinear(flat[plane], at, below, right, down, sampled)
                _gathered(sampled, weight, weight[sample], out[plane, y])
            # Inside a whole scan the coverage is known.
            if has_mask or num_beyond:
                _bilinear(flat[planes - 1], at, below, right, down, sampled)
                _gathered(sampled, weight, weight[sample], coverage[y])
            else:
                coverage[y] += weight[sample]


@part
def _turned(plane, turns, copy):
    """Turns a plane by quarters, counter-clockwise."""
    last = len(plane) - 1
    copy[:] = plane
    for y in range(last + 1):
        for x in range(last + 1):
            if turns == 1:
                plane[y, x] = copy[x, last - y]
            elif turns == 2:
                plane[y, x] = copy[last - y, last - x]
            else:
                plane[y, x] = copy[last - x, y]


@part
def _blended(red, green, blue, coverage, factor, gray_share, fixed):
    """Mixes a row with its gray self and with a gray value."""
    for x in range(len(red)):
        luma = (_RED * red[x] + _GREEN * green[x] + _BLUE * blue[x]) * gray_share
        target = luma + fixed * coverage[x]
        red[x] = _clamped(red[x] * factor + target, _ZERO, _ONE)
        green[x] = _clamped(green[x] * factor + target, _ZERO, _ONE)
        blue[x] = _clamped(blue[x] * factor + target, _ZERO, _ONE)


@part
def _brightened(line, coverage, factor, fixed):
    for x in range(len(line)):
        line[x] = _clamped(line[x] * factor + fixed * coverage[x], _ZERO, _ONE)


@part
def _hue_shifted(rows, shift):
    """Moves the hue of a row by a share of the colour circle; see `colour.shift_hue`."""
    sixths = 6 * shift
    whole = np.rint(sixths)
    is_odd = whole % 2 != 0
    backwards = sixths < whole
    ahead = int((whole - 3 * is_odd) // 2)
    share = np.float32(abs(sixths - whole))
    source = (rows[2], rows[1], rows[0]) if backwards else rows
    places = (2, 1, 0) if backwards else (0, 1, 2)
    to_0, to_1, to_2 = (
        rows[(places[0] + ahead) % 3], rows[(places[1] + ahead) % 3], rows[(places[2] + ahead) % 3]
    )  # fmt: skip
    from_0, from_1, from_2 = source
    turned, sign = (_ONE, -_ONE) if is_odd else (_ZERO, _ONE)
    for x in range(len(from_0)):
        one, two, three = from_0[x], from_1[x], from_2[x]
        largest = one if one > two else two
        largest = largest if largest > three else three
        smallest = one if one < two else two
        smallest = smallest if smallest < three else three
        low = (largest - smallest) * share
        high = largest - low
        low += smallest
        base = turned * (largest + smallest)
        first = _clamped(_clamped(two, low, high) - two + one, smallest, largest)
        second = _clamped(_clamped(three, low, high) - three + two, smallest, largest)
        third = _clamped(_clamped(one, low, high) - one + three, smallest, largest)
        to_0[x] = base + sign * first
        to_1[x] = base + sign * second
        to_2[x] = base + sign * third


@part
def _jitter_row(out, y, view, seen, first, last, mean):
    """Does the operations of the drawn order from the first up to the last on one row."""
    is_colour = len(out) == 3
    rows = (out[0, y], out[1 % len(out), y], out[2 % len(out), y])
    for place in range(first, last):
        operation = int(view[ORDER + place])
        if operation == 3:
            if is_colour and view[HUE] != 0:
                _hue_shifted(rows, view[HUE])
            continue
        factor = np.float32(view[BRIGHTNESS + operation])
        if factor == 1 or (operation == 2 and not is_colour):
            continue
        rest = np.float32(1 - view[BRIGHTNESS + operation])
        fixed = rest * mean if operation == _CONTRAST_OP else _ZERO
        if operation == 2:
            _blended(rows[0], rows[1], rows[2], seen, factor, rest, fixed)
        else:
            for plane in range(len(out)):
                _brightened(out[plane, y], seen, factor, fixed)


@part
def _jittered(out, coverage, has_coverage, view, ones):
    """Changes brightness, contrast, saturation and hue in the drawn order; see `colour.jitter`."""
    size = out.shape[1]
    turn = 4
    for place in range(4):
        if view[ORDER + place] == _CONTRAST_OP and np.float32(view[CONTRAST]) != 1:
            turn = place
    total, inside = 0.0, 0.0
    for y in range(size):
        seen = coverage[y] if has_coverage else ones
        _jitter_row(out, y, view, seen, 0, turn, _ZERO)
        if turn < 4:
            row = _ZERO
            if len(out) == 3:
                red, green, blue = out[0, y], out[1, y], out[2, y]
                for x in range(size):
                    row += _RED * red[x] + _GREEN * green[x] + _BLUE * blue[x]
            else:
                line = out[0, y]
                for x in range(size):
                    row += line[x]
            covered = _ZERO
            for x in range(size):
                covered += seen[x]
            total += row
            inside += covered
    if turn < 4:
        mean = np.float32(total / max(inside, 1e-6))
        for y in range(size):
            _jitter_row(out, y, view, coverage[y] if has_coverage else ones, turn, 4, mean)


@part
def _grayed(red, green, blue):
    for x in range(len(red)):
        luma = _RED * red[x] + _GREEN * green[x] + _BLUE * blue[x]
        red[x] = luma
        green[x] = luma
        blue[x] = luma


@part
def _content(value, share):
    """The content itself of a value that is the content times its coverage."""
    return _clamped(value / (share if share > _LEAST_COVERAGE else _LEAST_COVERAGE), _ZERO, _ONE)


@part
def _bent(line, seen, knots):
    """Bends gray values along a broken line; see `tone.shift_histogram`."""
    quarter, four = np.float32(0.25), np.float32(4)
    a, b = (knots[1] - knots[0]) * four, (knots[2] - knots[1]) * four
    c, d = (knots[3] - knots[2]) * four, (knots[4] - knots[3]) * four
    for x in range(len(line)):
        value = _content(line[x], seen[x])
        total = _clamped(value, _ZERO, quarter) * a
        total += _clamped(value - quarter, _ZERO, quarter) * b
        total += _clamped(value - _HALF, _ZERO, quarter) * c
        total += _clamped(value - np.float32(0.75), _ZERO, quarter) * d
        line[x] = total * seen[x]


@part
def _solarized(line, seen):
    for x in range(len(line)):
        value = _content(line[x], seen[x])
        line[x] = (_ONE - value if value >= _HALF else value) * seen[x]


@part
def _posterised(line, seen, bits):
    """Rounds gray values down to those of so many bits; see `tone.posterise`."""
    width = np.float32(2.0 ** (8 - bits))
    step = np.float32(width / 255)
    scale, hair = np.float32(255), np.float32(1e-3)
    for x in range(len(line)):
        value = _content(line[x], seen[x])
        line[x] = math.floor((value * scale + hair) / width) * step * seen[x]


@part
def _gaussian(sigma):
    """Half a blur's kernel, from the centre outwards; see `resample.blur_taps`."""
    radius = max(math.ceil(_BLUR_REACH * sigma - 0.5), 1)
    root = sigma * math.sqrt(2.0)
    kernel = np.empty(radius + 1, np.float32)
    total = 1 - math.erfc((0.5 + radius) / root)
    for away in range(radius + 1):
        held = 0.5 * (math.erfc((away - 0.5) / root) - math.erfc((away + 0.5) / root))
        kernel[away] = held / total
    return kernel


@part
def _added(sums, one, two, weight):
    for x in range(len(sums)):
        sums[x] += weight * (one[x] + two[x])


@part
def _mirrored(place, size):
    period = max(2 * (size - 1), 1)
    place %= period
    return min(place, period - place)


@part
def _blurred(plane, kernel, across, padded):
    """Blurs a plane, reflected at its edges."""
    size, radius = len(plane), len(kernel) - 1
    for y in range(size):
        for x in range(size):
            padded[radius + x] = plane[y, x]
        for x in range(1, radius + 1):
            padded[radius - x] = plane[y, _mirrored(-x, size)]
            padded[radius + size - 1 + x] = plane[y, _mirrored(size - 1 + x, size)]
        sums = across[y]
        for x in range(size):
            sums[x] = kernel[0] * padded[radius + x]
        for away in range(1, radius + 1):
            _added(
                sums,
                padded[radius - away : radius - away + size],
                padded[radius + away : radius + away + size],
                kernel[away],
            )
    for y in range(size):
        sums, line = plane[y], across[y]
        for x in range(size):
            sums[x] = kernel[0] * line[x]
        for away in range(1, radius + 1):
            _added(
                sums,
                across[_mirrored(y - away, size)],
                across[_mirrored(y + away, size)],
                kernel[away],
            )


@part
def _smoothed(out, coverage, has_coverage, sigma, copy):
    """Blurs a view; its coverage stays sharp; see `operation.smooth`."""
    if sigma <= _LEAST_BLUR_PX:
        return
    size = out.shape[1]
    kernel = _gaussian(sigma)
    padded = np.empty(size + 2 * len(kernel), np.float32)
    for plane in range(len(out)):
        _blurred(out[plane], kernel, copy, padded)
    if has_coverage:
        soft = coverage.copy()
        _blurred(soft, kernel, copy, padded)
        for plane in range(len(out)):
            for y in range(size):
                line, seen, reached = out[plane, y], coverage[y], soft[y]
                for x in range(size):
                    least = reached[x] if reached[x] > _LEAST_SUM else _LEAST_SUM
                    line[x] = line[x] * seen[x] / least


@part
def _to_unit(line, seen, low, high):
    span = high - low
    for x in range(len(line)):
        line[x] = _clamped((line[x] - low * seen[x]) / span, _ZERO, _ONE)


@part
def _finished(line, seen, factor, offset):
    for x in range(len(line)):
        line[x] = (line[x] if seen[x] != 0 else _ZERO) * factor
    # Rounded in between, as torch does it: with an operation of one's own no other view moves.
    for x in range(len(line)):
        line[x] += offset


@compiled(
    "void(u1[:,:,::1], u2[:,:,::1], f4[:,:,::1], i8, i8, b1, u1[:,:,::1], b1, i8[::1],"
    " f8[:,::1], f4[:,:,:,::1], i8, f4[::1], f4[::1], f4[:,:,:,::1], f4[:,:,::1])"
)
def render_rows(
    eight, sixteen, floats, kind, channels, interleaved, mask, has_mask, scans,
    numbers, fields, steps, factor, offset, out, coverage,
):  # fmt: skip
    """Renders views, or does further steps on rendered ones.

    Args:
        eight: ``[n lines width]`` scans of 8 bits; ``sixteen`` and ``floats`` likewise, of which
            those that ``kind`` does not name are empty. Lines are the rows of all channels one
            after the other or, ``interleaved``, rows of pixels of all channels.
        mask: ``[n h w]``, 1 inside the field of view; its values count with ``has_mask`` only.
        scans: ``[k]`` which scan each view is of.
        numbers: ``[k NUM_COLUMNS]`` what is done to each view.
        fields: ``[f 2 s s]`` elastic displacements, which the column FIELD counts.
        steps: Sum of the bits of what is done.
        factor: Per channel, what finished views are multiplied by; ``offset`` is then added.
        out: ``[k c s s]`` the views.
        coverage: ``[k s s]`` share of each pixel in the field of view; of no length without any.
    """
    size = out.shape[2]
    height, width = mask.shape[1], mask.shape[2]
    longest = 1.0
    for row in range(len(out)):
        view = numbers[row]
        longest = max(longest, view[BOTTOM] - view[TOP], view[RIGHT] - view[LEFT])
    most = int(2 * max(longest / size, 1.0)) + 6
    row_start, row_count = np.empty(size, np.int64), np.empty(size, np.int64)
    column_start, column_count = np.empty(size, np.int64), np.empty(size, np.int64)
    row_weight, column_weight = (
        np.empty((size, most), np.float32),
        np.empty((size, most), np.float32),
    )
    sums = np.zeros((width + most) * channels, np.float32)
    copy, ones = np.empty((size, size), np.float32), np.ones(size, np.float32)
    nothing = np.zeros((0, size, size), np.float32)
    knots = np.zeros(5, np.float32)
    for row in range(len(out)):
        view, views = numbers[row], out[row]
        scan = scans[row]
        has_coverage = has_mask or view[WAY] != INSIDE
        covered = coverage[row] if has_coverage else copy
        if steps & _GEOMETRY:
            here = mask[scan if has_mask else 0]
            is_loaded = has_mask or view[WAY] == WARPED
            top, left, bottom, right = 0, 0, height, width
            if view[WAY] != INSIDE:
                top, left = int(view[VALID_TOP]), int(view[VALID_LEFT])
                bottom, right = int(view[VALID_BOTTOM]), int(view[VALID_RIGHT])
            column_most = 1
            if view[WAY] != WARPED:
                _taps(
                    view[TOP],
                    view[BOTTOM],
                    size,
                    top,
                    bottom,
                    view[VFLIP] != 0,
                    row_start,
                    row_count,
                    row_weight,
                )
                column_most = _taps(
                    view[LEFT],
                    view[RIGHT],
                    size,
                    left,
                    right,
                    view[FLIP] != 0,
                    column_start,
                    column_count,
                    column_weight,
                )
                top, left = row_start.min(), column_start.min()
                bottom, right = (row_start + row_count).max(), (column_start + column_count).max()
            if is_loaded:
                edge = 1 if view[WAY] == WARPED else 0
                content = np.zeros(
                    (channels + 1, bottom - top + 3 * edge, right - left + 3 * edge), np.float32
                )
                if kind == EIGHT_BITS:
                    _loaded(eight[scan], here, has_mask, interleaved, top, left, edge, content)
                elif kind == SIXTEEN_BITS:
                    _loaded(sixteen[scan], here, has_mask, interleaved, top, left, edge, content)
                else:
                    _loaded(floats[scan], here, has_mask, interleaved, top, left, edge, content)
            else:
                content = nothing
            if view[WAY] == WARPED:
                bend = int(view[FIELD])
                field = fields[bend] if bend >= 0 else nothing
                _warped(content, has_mask, top, left, view, field, views, covered)
            else:
                step = channels if interleaved and not is_loaded else 1
                column_start -= left
                column_start *= step
                rows = (row_start, row_count, row_weight)
                columns = (column_start, column_most, column_weight)
                sums[:] = 0
                if is_loaded:
                    lines = content.reshape((-1, content.shape[2]))
                    _resampled(
                        lines,
                        bottom - top,
                        1,
                        top,
                        0,
                        right - left,
                        rows,
                        columns,
                        sums,
                        views,
                        covered,
                    )
                elif kind == EIGHT_BITS:
                    _resampled(
                        eight[scan],
                        height,
                        step,
                        0,
                        left,
                        right,
                        rows,
                        columns,
                        sums,
                        views,
                        covered,
                    )
                elif kind == SIXTEEN_BITS:
                    _resampled(
                        sixteen[scan],
                        height,
                        step,
                        0,
                        left,
                        right,
                        rows,
                        columns,
                        sums,
                        views,
                        covered,
                    )
                else:
                    _resampled(
                        floats[scan],
                        height,
                        step,
                        0,
                        left,
                        right,
                        rows,
                        columns,
                        sums,
                        views,
                        covered,
                    )
                if has_coverage and not is_loaded:
                    for y in range(size):
                        share = row_weight[y].sum()
                        for x in range(size):
                            covered[y, x] = share * column_weight[x].sum()
                turns = int(view[TURNS]) % 4
                if turns:
                    for plane in range(channels):
                        _turned(views[plane], turns, copy)
                    if has_coverage:
                        _turned(covered, turns, copy)
            low, high = np.float32(view[LOW]), np.float32(view[HIGH])
            for plane in range(channels):
                for y in range(size):
                    _to_unit(views[plane, y], covered[y] if has_coverage else ones, low, high)
        if steps & _JITTER and view[JITTER]:
            _jittered(views, covered, has_coverage, view, ones)
        if steps & _GRAY and view[GRAY] and channels == 3:
            for y in range(size):
                _grayed(views[0, y], views[1, y], views[2, y])
        if steps & _HISTOGRAM and (view[SHIFT] or view[SHIFT + 1] or view[SHIFT + 2]):
            knots[4] = 1
            for knot in range(1, 4):
                height_there = _clamped(knot * 0.25 + view[SHIFT + knot - 1], 0.0, 1.0)
                knots[knot] = max(np.float32(height_there), knots[knot - 1])
            for plane in range(channels):
                for y in range(size):
                    _bent(views[plane, y], covered[y] if has_coverage else ones, knots)
        if steps & _BLUR:
            _smoothed(views, covered, has_coverage, view[BLUR_PX], copy)
        if steps & _SOLARIZE and view[SOLARIZE]:
            for plane in range(channels):
                for y in range(size):
                    _solarized(views[plane, y], covered[y] if has_coverage else ones)
        if steps & _POSTERISE and view[BITS] != 8:
            for plane in range(channels):
                for y in range(size):
                    _posterised(views[plane, y], covered[y] if has_coverage else ones, view[BITS])
        if steps & _SOFT:
            _smoothed(views, covered, has_coverage, view[SOFT_PX], copy)
        if steps & _FINISH:
            for plane in range(channels):
                for y in range(size):
                    seen = covered[y] if has_coverage else ones
                    _finished(views[plane, y], seen, factor[plane], offset[plane])
