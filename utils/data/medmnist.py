"""PneumoniaMNIST at 224 pixels: its download, and its arrays as PNG files."""

import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from utils.common.constants import CLASS_NAMES
from utils.common.folders import one_line
from utils.common.progress import track
from utils.data.archive import download_file
from utils.data.checks import FOLDERS, FetchError
from utils.data.sources import MEDMNIST_MD5, MEDMNIST_URL


def download_medmnist(folder: Path) -> Path:
    """Download PneumoniaMNIST and compare its MD5; a file that is already there is reused.

    Args:
        folder: Where the file goes, under the name that the address ends with.

    Raises:
        FetchError: if the server fails, breaks off, or sends something else.
    """
    url, name = MEDMNIST_URL, MEDMNIST_URL.rsplit("/", 1)[1]
    by_hand = f"download it with a browser and run make data SOURCE=medmnist ARCHIVE={name}"
    download_file(url, f"md5:{MEDMNIST_MD5}", folder / name, by_hand)
    return folder / name


def write_medmnist_images(file: Path, root: Path) -> None:
    """Write the arrays of a PneumoniaMNIST file as `<folder>/<class>/medmnist_<folder>_<n>.png`.

    Args:
        file: `.npz` with `{train,val,test}_images` ((n, height, width) uint8) and
            `{train,val,test}_labels` ((n, 1) or (n,), 1 = PNEUMONIA).
        root: Folder that receives `train`, `val` and `test`.

    Raises:
        FetchError: if an array is missing or is not what it should be.
    """
    try:
        with np.load(file) as arrays:
            for folder in FOLDERS:
                images, labels = arrays[f"{folder}_images"], arrays[f"{folder}_labels"].ravel()
                if images.dtype != np.uint8 or images.ndim != 3 or len(images) != len(labels):
                    raise FetchError(
                        f"{file}: {folder}_images is {images.dtype} {images.shape} for "
                        f"{len(labels)} labels, not (n, height, width) uint8; download it again"
                    )
                if unknown := set(labels.tolist()) - set(range(len(CLASS_NAMES))):
                    raise FetchError(f"{file}: labels must be 0 or 1, not {sorted(unknown)}")
                _write_pngs(images, labels, root / folder)
    except (KeyError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise FetchError(
            f"{file} is not PneumoniaMNIST ({one_line(error)}); download it again"
        ) from error


def _write_pngs(images: np.ndarray, labels: np.ndarray, folder: Path) -> None:
    for class_name in CLASS_NAMES:
        (folder / class_name).mkdir(parents=True)

    def write(number: int) -> None:
        name = f"medmnist_{folder.name}_{number:05}.png"
        Image.fromarray(images[number]).save(folder / CLASS_NAMES[labels[number]] / name)

    with ThreadPoolExecutor() as pool:
        for _ in track(pool.map(write, range(len(images))), f"writing {folder.name}", len(images)):
            pass
