"""The words that tables and figures show for stored names of models, where the two differ."""

DISPLAYED = {
    "small": "shipped",
    "taught": "phantom-trained",
}
"""By stored name; `results/full/README.md` lists the stored names of everything else, too."""


def displayed(name: str) -> str:
    """Return what people read for the stored name of a model: itself, unless `DISPLAYED` has it."""
    return DISPLAYED.get(name, name)
