"""``docs/deeplab-v3.md`` says of each style what its row in `STYLES` says."""

from pathlib import Path

from deeplab_zoo.converters.styles import STYLES, Style

DOCUMENT = Path(__file__).parents[3] / "docs" / "deeplab-v3.md"


def table() -> dict[str, dict[str, str]]:
    """Return the first table, by column and row."""
    lines = DOCUMENT.read_text().partition("\n| |")[2].partition("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    styles = [name.strip("`") for name in rows[0]]
    return {
        style: {row[0]: row[at] for row in rows[2:]} for at, style in enumerate(styles, start=1)
    }


def stated(style: Style) -> dict[str, str]:
    nets = {True: "v3+", False: "v3", None: "v3, v3+"}
    return {
        "nets": nets[style.decoder],
        "rates of the pyramid": ", ".join(map(str, style.rates)),
        "channels of the head": str(style.channels),
        "the image's mean stands": "first" if style.pool_first else "last",
        "projection of the pyramid": f"{style.project}x{style.project}",
        "3x3 before the scores of v3": str(style.hidden),
        "3x3 of v3+ in two steps": "yes" if style.separable else "no",
        "dropout: pyramid, decoder, scores": ", ".join(f"{share:g}" for share in style.drop),
    }


def test_the_table_is_that_of_the_styles() -> None:
    found = table()
    assert set(found) == set(STYLES)
    for name, style in STYLES.items():
        stride = found[name].pop("output stride")
        assert stride.startswith(str(style.output_stride))
        assert found[name] == stated(style), name
