"""The picture of the demo: the loss of every step, and the weights; without matplotlib an SVG."""

import numpy

TITLE = "Handwritten digits, trained through descent"
SPAN = 23  # steps in the moving average


def smooth(losses):
    """The moving average over SPAN steps, one value from step SPAN/2 on."""
    return numpy.convolve(losses, numpy.ones(SPAN) / SPAN, mode="valid")


def draw(path, losses, local_losses, weights):
    """Writes `path`, with the suffix .svg where matplotlib is not installed; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        import matplotlib

        matplotlib.use("Agg")
    except ImportError:
        path = path.with_suffix(".svg")
        path.write_text(svg(losses), encoding="utf-8")
        return path
    png(path, losses, local_losses, weights)
    return path


def png(path, losses, local_losses, weights):
    from matplotlib import pyplot

    ink, blue, orange = "#22272e", "#1f6feb", "#f0883e"
    figure = pyplot.figure(figsize=(9, 6.2), dpi=130)
    rows = figure.add_gridspec(
        2, 1, height_ratios=[3.4, 1], hspace=0.5, left=0.075, right=0.975, top=0.91, bottom=0.03
    )
    figure.text(0.075, 0.95, TITLE, fontsize=15, weight="bold", color=ink)

    axes = figure.add_subplot(rows[0])
    steps = numpy.arange(1, len(losses) + 1)
    middle = steps[SPAN // 2 : len(steps) - SPAN // 2]
    axes.plot(steps, losses, color=blue, alpha=0.22, linewidth=0.9, label="each batch")
    label = "descent, mean of %d batches" % SPAN
    axes.plot(middle, smooth(losses), color=blue, linewidth=3, label=label)
    dashes = {"color": orange, "linewidth": 1.4, "linestyle": (0, (5, 4))}
    axes.plot(middle, smooth(local_losses), label="numpy, the same", **dashes)
    axes.set_yscale("log")
    ticks = [tick for tick in (2, 1, 0.5, 0.2, 0.1, 0.05, 0.02) if min(losses) / 1.3 < tick < 3]
    axes.set_yticks(ticks, ["%g" % tick for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(0, len(losses))
    axes.set_xlabel("step", color=ink)
    axes.set_ylabel("cross-entropy (log scale)", color=ink)
    axes.grid(axis="y", color="#d8dee4", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper right")

    caption = "What each digit's weights look for: red speaks for it, blue against"
    figure.text(0.075, 0.228, caption, fontsize=10, color=ink)
    tiles = rows[1].subgridspec(1, 10, wspace=0.12)
    top = float(numpy.abs(weights).max())
    for digit in range(10):
        tile = figure.add_subplot(tiles[digit])
        tile.imshow(weights[:, digit].reshape(8, 8), cmap="RdBu_r", vmin=-top, vmax=top)
        tile.set_title(str(digit), fontsize=10, color=ink, pad=3)
        tile.set_xticks([])
        tile.set_yticks([])
        for side in tile.spines.values():
            side.set_color("#d8dee4")
    figure.savefig(path)
    pyplot.close(figure)


def svg(losses):
    """The loss curve alone, log scale, as an SVG document of 900 x 480 with a margin of 60."""
    low, high = numpy.log(min(losses)), numpy.log(max(losses))

    def line(first, values):
        x = 60 + 780 * (first + numpy.arange(len(values))) / len(losses)
        y = 60 + 360 * (high - numpy.log(values)) / (high - low)
        return " ".join("%.1f,%.1f" % point for point in zip(x, y))

    return """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 480"
 font-family="sans-serif">
<rect width="900" height="480" fill="white"/>
<text x="60" y="36" font-size="20" font-weight="bold">%s</text>
<path d="M60 60 V420 H840" fill="none" stroke="#888"/>
<g fill="none" stroke="#1f6feb">
<polyline stroke-opacity=".25" points="%s"/>
<polyline stroke-width="3" points="%s"/>
</g>
<g font-size="14">
<text x="8" y="65">%.3g</text><text x="8" y="420">%.3g</text>
<text x="60" y="444">step 1</text><text x="840" y="444" text-anchor="end">step %d</text>
<text x="840" y="65" text-anchor="end">cross-entropy, log scale: each batch, mean of %d</text>
</g>
</svg>
""" % (
        TITLE,
        line(0, losses),
        line(SPAN // 2, smooth(losses)),
        max(losses),
        min(losses),
        len(losses),
        SPAN,
    )
