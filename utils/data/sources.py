"""Public data sets: addresses, counts, hashes, licences and citations."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetFacts:
    """Address, size, licence and citation of a public data set."""

    title: str
    address: str
    licence: str
    citation: str
    image_counts: dict[str, tuple[int, int]]
    """Images by folder of the archive, as (NORMAL, PNEUMONIA)."""


KAGGLE_HANDLE = "paultimothymooney/chest-xray-pneumonia"
CHEST_XRAY = DatasetFacts(
    title="Chest X-Ray Images (Pneumonia)",
    address=f"https://www.kaggle.com/datasets/{KAGGLE_HANDLE}",
    licence="CC BY 4.0",
    citation=(
        "Kermany D, Zhang K, Goldbaum M (2018). Labeled Optical Coherence Tomography (OCT) and "
        "Chest X-Ray Images for Classification. Mendeley Data. "
        "Paper: Kermany et al., Cell 172, 2018."
    ),
    image_counts={"train": (1341, 3875), "val": (8, 8), "test": (234, 390)},
)

MEDMNIST_URL = "https://zenodo.org/records/10519652/files/pneumoniamnist_224.npz"
MEDMNIST_MD5 = "d6a3c71de1b945ea11211b03746c1fe1"
