import pytest

from utils.selection.candidates import CANDIDATES, displayed_candidate


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (
            "lite0_96_mild_histogram_transfer",
            "EfficientNet-Lite0, 96 px, mild + histogram transfer",
        ),
        ("small_cnn_64_robust", "small CNN, 64 px, robust"),
        ("lite0_96_from_block6", "EfficientNet-Lite0, 96 px, from block 6"),
        ("ensemble", "ensemble"),
    ],
)
def test_figures_show_words_for_names(name, shown):
    assert displayed_candidate(name) == shown


def test_every_candidate_has_words_of_its_own():
    shown = [displayed_candidate(candidate.name) for candidate in CANDIDATES]
    assert len(set(shown)) == len(shown) and not any("_" in name for name in shown)
    assert displayed_candidate("lite0_128_long", short=True) == "128 px, twice the epochs"
