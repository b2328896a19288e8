"""What the pictures of the larger examples share: colours, plain axes, small files."""

import io

INK, GREY, GRID = "#22272e", "#6e7781", "#d8dee4"
BLUE, ORANGE, GREEN = "#1f6feb", "#e36209", "#2da44e"


def pyplot():
    """matplotlib's, without a screen."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def plain(*all_axes):
    """Two axes, and lines to read heights by."""
    for axes in all_axes:
        axes.minorticks_off()
        axes.grid(axis="y", color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK)


def save(figure, path):
    """Writes a PNG of 128 colours: a third of the bytes, and nobody sees it."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    full = io.BytesIO()
    figure.savefig(full, format="png")
    image = Image.open(full).convert("RGB")
    image.quantize(128, dither=Image.Dither.NONE).save(path, format="PNG", optimize=True)
    pyplot().close(figure)
