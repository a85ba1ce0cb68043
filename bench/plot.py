"""Line charts as SVG: enough for the figures in docs/, and nothing else."""

import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 40, 48
COLOURS = ("#1b6ca8", "#d1495b", "#2e8540", "#8e6c00", "#6a4c93")


def ticks(low, high, logarithmic):
    if logarithmic:
        return [10.0 ** power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    step = 10.0 ** math.floor(math.log10(max(high, 1e-9)))
    while high / step < 4:
        step /= 2
    return [step * number for number in range(int(high / step) + 2)]


def label(value):
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def chart(title, x_title, y_title, series, logarithmic=(False, False)):
    """series: {name: [(x, y), ...]}; an axis that is logarithmic has positive values only."""
    points = [point for line in series.values() for point in line]
    axes = []
    for axis in (0, 1):
        values = [point[axis] for point in points]
        marks = ticks(min(values), max(values), logarithmic[axis])
        axes.append((marks, marks[0], max(marks[-1], marks[0] + 1e-9)))

    def place(axis, value):
        _, low, high = axes[axis]
        share = ((math.log10(value) - math.log10(low)) / (math.log10(high) - math.log10(low))
                 if logarithmic[axis] else (value - low) / (high - low))
        return (LEFT + share * (WIDTH - LEFT - RIGHT) if axis == 0
                else HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM))

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
           ' font-size="11">', '<rect width="100%" height="100%" fill="white"/>',
           f'<text x="{LEFT}" y="22" font-size="14">{escape(title)}</text>']
    for mark in axes[0][0]:
        x = place(0, mark)
        out.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}" stroke="#e4e4e4"/>'
                   f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{label(mark)}</text>')
    for mark in axes[1][0]:
        y = place(1, mark)
        out.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#e4e4e4"/>'
                   f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label(mark)}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">{escape(x_title)}</text>'
               f'<text x="16" y="{(TOP + HEIGHT - BOTTOM) / 2}" text-anchor="middle"'
               f' transform="rotate(-90 16 {(TOP + HEIGHT - BOTTOM) / 2})">{escape(y_title)}</text>')
    for number, (name, line) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{place(0, x):.1f},{place(1, y):.1f}" for x, y in line)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        if len(line) <= 12:
            out += [f'<circle cx="{place(0, x):.1f}" cy="{place(1, y):.1f}" r="3" fill="{colour}"/>' for x, y in line]
        y = TOP + 8 + 18 * number
        out.append(f'<rect x="{WIDTH - RIGHT + 12}" y="{y - 8}" width="10" height="10" fill="{colour}"/>'
                   f'<text x="{WIDTH - RIGHT + 27}" y="{y + 1}">{escape(name)}</text>')
    return "\n".join(out + ["</svg>", ""])
