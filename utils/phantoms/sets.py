"""Sets of phantoms with the names, folders, patients and oddities of the real data set."""

import os
import shutil
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from PIL import Image

from utils.common.constants import CLASS_NAMES, NORMAL, PNEUMONIA
from utils.common.files import read_json, write_json
from utils.common.progress import track
from utils.phantoms.rendering import render_phantom
from utils.phantoms.sites import SITE_OF_CLASS, SITES

PHANTOM_VERSION = 1
"""Raise it when the same seed gives other pixels or names."""
DEFAULT_SEED = 21
DEFAULT_IMAGES = 240
SMALLEST_DATASET = 24

TEST_SHARE = 0.25
CLASS_SHARES = {"normal": 0.38, "bacteria": 0.345, "virus": 0.275}
"""Shares of images in every split: about 62% pneumonia, bacterial to viral 5 to 4."""
IMAGES_PER_PATIENT = {1: 0.45, 2: 0.3, 3: 0.15, 4: 0.1}
SITE_SHARES = {"train": 0.85, "test": 0.5}
"""Of a data set from two sites, the share of films at their class's own, `sites.SITE_OF_CLASS`."""
JPEG_QUALITY = 95
CHILDREN_PER_SEED = 10_000
"""Children that one seed of `plan_site_films` has for itself."""


class PhantomError(ValueError):
    """A phantom data set that cannot be used or written; the message names the remedy."""


@dataclass(frozen=True)
class PlannedImage:
    """One image of a phantom data set, before it is rendered."""

    split: str
    stem: str
    """File name without its suffix, in the convention of the Kaggle data set."""
    etiology: str
    patient_seed: int
    view: int
    site: str | None = None
    """Key of `sites.SITES`; None where acquisition has habits of no room."""

    @property
    def film(self) -> tuple[int, str, int]:
        """What is the same in two images only if they are one film under two names."""
        return self.patient_seed, self.etiology, self.view

    @property
    def image_id(self) -> str:
        """Path below the root of the data set."""
        label = NORMAL if self.etiology == "normal" else PNEUMONIA
        return f"{self.split}/{CLASS_NAMES[label]}/{self.stem}.jpeg"


def plan_phantom_dataset(
    n_images: int = DEFAULT_IMAGES, seed: int = DEFAULT_SEED, *, sites: bool = False
) -> list[PlannedImage]:
    """Plan a data set: who is imaged how often, in which split, under which name.

    Patients have one to four images. Numbers of test patients lie below those of train patients.
    In train, one child has bacterial and viral images, and one patient of each class has an image
    stored twice under two names (if any has several).

    Args:
        n_images: Number of images, at least 24.
        seed: Seed of everything.
        sites: Whether each film is taken at a site, in the shares `SITE_SHARES` of each etiology;
            all else is the same.
    """
    if n_images < SMALLEST_DATASET:
        raise ValueError(f"n_images must be at least {SMALLEST_DATASET}, not {n_images}")
    random = np.random.default_rng([seed, n_images])
    test_images = round(n_images * TEST_SHARE)
    first_number = 1
    plan: list[PlannedImage] = []
    for split, count in (("test", test_images), ("train", n_images - test_images)):
        patients = _plan_patients(random, count)
        plan += _name_images(split, patients, first_number, random)
        first_number = (first_number + len(patients) + 99) // 100 * 100 + 1
    return _take_at_sites(plan, seed) if sites else plan


def _take_at_sites(plan: list[PlannedImage], seed: int) -> list[PlannedImage]:
    """Return the images, each film at one site, by a random stream that draws nothing else."""
    random = np.random.default_rng([seed, len(plan), len(SITES)])
    site_of: dict[tuple[int, str, int], str] = {}
    for split, share in SITE_SHARES.items():
        for etiology in CLASS_SHARES:
            own = (image for image in plan if (image.split, image.etiology) == (split, etiology))
            films = list(dict.fromkeys(image.film for image in own))
            sites = _share_sites(etiology, len(films), share)
            site_of |= zip(films, random.permutation(sites).tolist(), strict=True)
    return [replace(image, site=site_of[image.film]) for image in plan]


def _plan_patients(random: Generator, n_images: int) -> list[tuple[str, int]]:
    """Return (etiology, number of images) of the patients of one split, in random order."""
    patients = []
    for etiology, left in _count_etiologies(n_images).items():
        while left:
            wanted = random.choice(list(IMAGES_PER_PATIENT), p=list(IMAGES_PER_PATIENT.values()))
            patients.append((etiology, min(int(wanted), left)))
            left -= patients[-1][1]
    return [patients[place] for place in random.permutation(len(patients))]


def _name_images(
    split: str, patients: list[tuple[str, int]], first_number: int, random: Generator
) -> list[PlannedImage]:
    """Give patients their numbers and seeds, and images their names."""
    numbers = list(range(first_number, first_number + len(patients)))
    seeds = [int(value) for value in random.integers(2**31, size=len(patients))]
    views = [list(range(images)) for _, images in patients]
    if split == "train":
        _add_oddities([etiology for etiology, _ in patients], numbers, seeds, views)
    plan: list[PlannedImage] = []
    for (etiology, _), number, seed, own in zip(patients, numbers, seeds, views, strict=True):
        for place, view in enumerate(own):
            if etiology == "normal":
                family = "IM" if number % 2 else "NORMAL2-IM"
                stem = f"{family}-{number:04}-0001" + (f"-{place + 1:04}" if place else "")
            else:
                stem = f"person{number}_{etiology}_{first_number + len(plan)}"
            plan.append(PlannedImage(split, stem, etiology, seed, view))
    return plan


@dataclass(frozen=True)
class PlannedFilm:
    """One film of a child of its own, at a site."""

    patient_seed: int
    etiology: str
    site: str


def plan_site_films(seed: int, n_films: int, share: float) -> list[PlannedFilm]:
    """Plan films at two sites, in the classes' shares of the data set, in random order.

    Args:
        seed: Of everything; sets of different seeds have no child in common.
        n_films: Number of films and of children, up to 10,000.
        share: Of each etiology at the site that goes with its class, `sites.SITE_OF_CLASS`; the
            others are taken at the other site. 0.5 leaves class and site independent.
    """
    if not (0 <= share <= 1 and 0 < n_films <= CHILDREN_PER_SEED):
        raise ValueError(
            f"share must lie between 0 and 1 and n_films between 1 and {CHILDREN_PER_SEED}, not "
            f"{share} and {n_films}"
        )
    kinds = []
    for etiology, count in _count_etiologies(n_films).items():
        kinds += [(etiology, site) for site in _share_sites(etiology, count, share)]
    order = np.random.default_rng([seed, n_films]).permutation(n_films)
    first = CHILDREN_PER_SEED * seed
    return [PlannedFilm(first + n, *kinds[place]) for n, place in enumerate(order)]


def other_site(site: str) -> str:
    """Return the one of the two sites that is not `site`."""
    (other,) = SITES.keys() - {site}
    return other


def _share_sites(etiology: str, count: int, share: float) -> list[str]:
    """Return the sites of films of one etiology, those at its class's own site first."""
    own = SITE_OF_CLASS[NORMAL if etiology == "normal" else PNEUMONIA]
    here = round(share * count)
    return [own] * here + [other_site(own)] * (count - here)


def _count_etiologies(n_images: int) -> dict[str, int]:
    counts = {etiology: round(n_images * share) for etiology, share in CLASS_SHARES.items()}
    counts["normal"] += n_images - sum(counts.values())
    return counts


def _add_oddities(
    etiologies: list[str], numbers: list[int], seeds: list[int], views: list[list[int]]
) -> None:
    """Give the patients, in place, the quirks of the real data that an audit should find."""
    # One child under one number, with bacterial pneumonia and, on other films, viral.
    bacterial, viral = etiologies.index("bacteria"), etiologies.index("virus")
    numbers[viral], seeds[viral] = numbers[bacterial], seeds[bacterial]
    views[viral] = [view + max(IMAGES_PER_PATIENT) for view in views[viral]]
    # One patient a class whose last image is the first once more, where one has several.
    for normal in (True, False):
        for etiology, own in zip(etiologies, views, strict=True):
            if (etiology == "normal") == normal and len(own) > 1:
                own[-1] = own[0]
                break


def write_phantom_dataset(
    root: Path, n_images: int = DEFAULT_IMAGES, seed: int = DEFAULT_SEED, *, sites: bool = False
) -> Path:
    """Write a phantom data set in the layout of the Kaggle one, unless it is there already.

    `<root>/{train,test}/{NORMAL,PNEUMONIA}/*.jpeg` are gray JPEGs of 224 x 224 pixels,
    `<root>/masks/<same stem>.png` the masks, and `<root>/source.json` says what they are. All is
    rendered into a folder beside `root` and renamed, so that `root` is whole or absent, also where
    several processes do this at once.

    Args:
        root: Folder of the data set.
        n_images: Number of images, at least 24.
        seed: Seed of everything.
        sites: Whether the images are films of two sites; see `plan_phantom_dataset`.

    Returns:
        `root`.

    Raises:
        PhantomError: if `root` holds something else; it is left as it is.
    """
    plan = plan_phantom_dataset(n_images, seed, sites=sites)
    source = {
        "source": "phantoms", "seed": seed, "n_images": n_images, "version": PHANTOM_VERSION,
    }  # fmt: skip
    if sites:
        source["site_shares"] = SITE_SHARES
    if _is_complete(root, source, plan):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    unfinished = root.with_name(f".{root.name}-{uuid.uuid4().hex[:8]}")
    try:
        with ThreadPoolExecutor() as pool:
            written = pool.map(partial(_write_image, unfinished), plan)
            for _ in track(written, "rendering phantoms", len(plan)):
                pass
        write_json(unfinished / "source.json", source)
        try:
            os.replace(unfinished, root)
        except OSError:
            # Another process was faster; what it wrote must be the same.
            if not _is_complete(root, source, plan):
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return root


def _is_complete(root: Path, source: dict[str, Any], plan: list[PlannedImage]) -> bool:
    """Tell whether the data set is there (True) or has yet to be made (False).

    Raises:
        PhantomError: if something else is there.
    """
    remedy = f"delete the folder {root} and it will be rendered again"
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    record = root / "source.json"
    if not record.is_file():
        raise PhantomError(f"{root} holds files but no source.json, so no whole phantoms; {remedy}")
    found = read_json(record)
    if found != source:
        raise PhantomError(f"{root} holds {found}, but {source} is asked for; {remedy}")
    files = [root / image.image_id for image in plan]
    files += [_mask_file(root, image.image_id) for image in plan]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise PhantomError(f"{root} lacks {len(missing)} files, first {missing[0].name}; {remedy}")
    return True


def _write_image(root: Path, planned: PlannedImage) -> None:
    phantom = render_phantom(*planned.film, site=planned.site)
    image_file, mask_file = root / planned.image_id, _mask_file(root, planned.image_id)
    for file in (image_file, mask_file):
        file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(phantom.image).save(image_file, format="JPEG", quality=JPEG_QUALITY)
    Image.fromarray(phantom.opacity_mask.astype(np.uint8) * 255).save(mask_file)


def _mask_file(root: Path, image_id: str) -> Path:
    return root / "masks" / f"{Path(image_id).stem}.png"


def load_opacity_mask(root: Path, image_id: str) -> np.ndarray:
    """Read where the opacity of one phantom is, as (224, 224) bool; all False where there is none.

    Args:
        root: Root of a phantom data set.
        image_id: Path of the image below `root`, such as `train/NORMAL/IM-0115-0001.jpeg`.

    Raises:
        PhantomError: if there is no mask of that name: only phantoms have one.
    """
    file = _mask_file(root, image_id)
    if not file.is_file():
        raise PhantomError(
            f"{file} is not there: only phantoms have known opacities; check that {root} holds "
            f"phantoms and that {image_id!r} is one of them"
        )
    with Image.open(file) as mask:
        return np.asarray(mask.convert("L")) > 127


def load_opacity_masks(root: Path, image_ids: Sequence[str]) -> np.ndarray:
    """Read the opacities of several phantoms, (n, 224, 224) bool, in the order of `image_ids`."""
    return np.stack([load_opacity_mask(root, image_id) for image_id in image_ids])
