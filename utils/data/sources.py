"""Public data sets: addresses, counts, hashes and the license; `data/README.md` cites them."""

LICENSE = "CC BY 4.0"

KAGGLE_HANDLE = "paultimothymooney/chest-xray-pneumonia"
KAGGLE_ADDRESS = f"https://www.kaggle.com/datasets/{KAGGLE_HANDLE}"
KAGGLE_COUNTS = {
    "train": {"NORMAL": 1341, "PNEUMONIA": 3875},
    "val": {"NORMAL": 8, "PNEUMONIA": 8},
    "test": {"NORMAL": 234, "PNEUMONIA": 390},
}
"""Images by folder and class."""

MEDMNIST_URL = "https://zenodo.org/records/10519652/files/pneumoniamnist_224.npz"
MEDMNIST_MD5 = "d6a3c71de1b945ea11211b03746c1fe1"
