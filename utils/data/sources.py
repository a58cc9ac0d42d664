"""Public data sets: addresses, counts, hashes and licenses; the datasheets in data/ cite them."""

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

NIH_REPOSITORY = "muhammedtalo/COVID-19"
NIH_COMMIT = "ee3e2cffc0824711bed675275506b26f19be7198"
NIH_ADDRESS = f"https://github.com/{NIH_REPOSITORY}/tree/{NIH_COMMIT}"
NIH_FILES_URL = f"https://raw.githubusercontent.com/{NIH_REPOSITORY}/{NIH_COMMIT}"
"""Below it lie the files that `data/nih_adults.csv` lists."""
NIH_LICENSE = "use not restricted, attribution asked for: Wang et al. 2017, NIH Clinical Center"
NIH_CONTENT_SHA256 = "fd798ad66b925c98a468f03dcc57cd113af2155aa1559449ce0f69839b399a66"
"""Of the names and pixels of the 295 images of 224 pixels that the study was scored on."""
