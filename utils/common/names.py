"""Names as results store them, and the words that the field has for them.

Files, keys, columns, candidates and transforms keep the name under which a result was first
written, so that no committed number changes. The code and the text say the other word.
"""

DISPLAYED = {
    "small": "shipped",
    "lite0_96_reference": "strong geometry",
    "reference_rotation": "strong rotation",
    "reference_shift": "strong shift",
    "reference_zoom": "strong zoom",
    "screening": "cross-validation",
    "views": "augmented copies",
    "vgg19_views": "augmented copies of VGG19",
    "views_cost": "cost of few augmented copies",
    "cues": "shortcut features",
    "places": "domain shift",
    "mean_over_places": "mean over positions",
    "taught": "trained on phantoms",
    "called": "predicted",
    "healthy_id": "image without pneumonia",
    "none": "no network",
    "centre": "center",
    "randomisation": "randomization of weights",
    "novelty": "out-of-distribution detector",
}
"""The displayed words by the stored name; `results/full/README.md` shows the same table."""
