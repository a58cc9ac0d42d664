"""Show, fill and clear the cache of activations from the command line.

`python -m utils.training.activation_cache list` shows what is kept and what may go; `clean` removes
it, `clean --unused` only what may go; `fill --study full` computes what a study needs, in as many
processes as `WORKERS` or `SCHEDULER` say.
"""

import argparse
import logging
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.common.constants import SCORED_SPLITS
from utils.common.files import read_json
from utils.common.jobs import JobsError
from utils.common.paths import activation_cache_dir
from utils.common.study import Study, load_study
from utils.data.index import open_study_index
from utils.models.catalogue import BACKBONES
from utils.models.pretrained import WeightsError
from utils.models.weights import resolve_study_weights
from utils.training.activations import (
    BLOCK_PATTERN,
    CODE_VERSION,
    STORE_FILE,
    CacheSpaceError,
    training_copies,
)
from utils.training.head import prepare_head_data
from utils.training.precision import choose_precision

logger = logging.getLogger(__name__)

ABANDONED_HOURS = 6.0
"""Age from which a temporary file is taken for what a killed process left."""


@dataclass(frozen=True)
class StoreSummary:
    """One store as `make cache` shows it."""

    folder: Path
    description: str
    entries: int
    gigabytes: float
    age_hours: float
    """Hours since something was last written."""
    remark: str
    """Why the whole store may go; empty where it may not."""
    leftovers: tuple[Path, ...]
    """Files of killed processes."""


def list_stores(cache: Path) -> list[StoreSummary]:
    """Summarize every store of a cache folder, by name."""
    return [_summarize(folder) for folder in sorted(cache.glob("*")) if folder.is_dir()]


def _summarize(folder: Path) -> StoreSummary:
    files = [file for file in folder.iterdir() if file.is_file()]
    about = read_json(folder / STORE_FILE) if (folder / STORE_FILE).is_file() else {}
    if not about:
        remark = "written by an older version of this study"
    elif about["code_version"] != CODE_VERSION:
        remark = f"of version {about['code_version']}, this is {CODE_VERSION}"
    else:
        remark = ""
    records = sorted(folder.glob(f"{BLOCK_PATTERN}.json"))
    entries = {key for file in records for key in read_json(file)["keys"]}
    now = time.time()
    ages = {file: (now - file.stat().st_mtime) / 3600 for file in files}
    whole = {f"{file.stem}.npy" for file in records}
    leftovers = [
        file
        for file, hours in ages.items()
        if hours > ABANDONED_HOURS
        and (file.name.startswith(".") or (file.suffix == ".npy" and file.name not in whole))
    ]
    return StoreSummary(
        folder=folder,
        description=(
            f"{about['backbone']} up to {about['cut']}, computed in {about['precision']}, kept in "
            f"{about['dtype']}" if about else folder.name
        ),
        entries=len(entries),
        gigabytes=sum(file.stat().st_size for file in files) / 1e9,
        age_hours=min(ages.values(), default=0.0),
        remark=remark,
        leftovers=tuple(sorted(leftovers)),
    )  # fmt: skip


def describe_stores(stores: Sequence[StoreSummary], cache: Path) -> str:
    """Return the listing of a cache as text: size, age, and what can be deleted."""
    if not stores:
        return f"no activations are cached in {cache}"
    lines = [f"activations in {cache}"]
    for store in stores:
        lines.append(f"  {store.folder.name}: {store.description}")
        lines.append(
            f"    {store.entries:,} images and augmented copies, {store.gigabytes:.2f} GB, "
            f"last written {_age(store.age_hours)} ago"
        )
        if store.remark:
            lines.append(f"    can be deleted: {store.remark}")
        if store.leftovers:
            lines.append(f"    can be deleted: {len(store.leftovers)} files of killed processes")
    total = sum(store.gigabytes for store in stores)
    free = shutil.disk_usage(cache).free / 1e9
    lines.append(f"{total:.2f} GB in all, {free:,.1f} GB free on that disk")
    return "\n".join(lines)


def _age(hours: float) -> str:
    return f"{hours / 24:.0f} days" if hours >= 48 else f"{hours:.1f} hours"


def clean_cache(cache: Path, unused_only: bool = False) -> float:
    """Remove the stores of a cache, or only what may go, and return the gigabytes freed."""
    freed = 0.0
    for store in list_stores(cache):
        if store.remark or not unused_only:
            freed += store.gigabytes
            shutil.rmtree(store.folder)
        else:
            for file in store.leftovers:
                freed += file.stat().st_size / 1e9
                file.unlink()
    return freed


def fill_cache(study: Study, backbone: str) -> None:
    """Compute what notebook 03 or 04 of a study needs and the cache lacks.

    Args:
        study: The study.
        backbone: A key of `catalogue.BACKBONES`.
    """
    root, index = open_study_index(study)
    images = {split: index[index.split == split] for split in ("train", *SCORED_SPLITS)}
    copies = training_copies(getattr(study, BACKBONES[backbone].copies_key), study.seed)
    prepare_head_data(
        root, resolve_study_weights(backbone, study), images.pop("train"), images, copies,
        choose_precision(),
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.training.activation_cache", description=__doc__
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="show what is cached and what can be deleted")
    clean = commands.add_parser("clean", help="remove the cached activations")
    clean.add_argument("--unused", action="store_true", help="remove only what can be deleted")
    fill = commands.add_parser("fill", help="compute what a study needs")
    fill.add_argument("--study", default="sample")
    fill.add_argument("--backbone", choices=sorted(BACKBONES), default="resnet50")
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stdout)
    cache = activation_cache_dir()
    try:
        if arguments.command == "list":
            logger.info("%s", describe_stores(list_stores(cache), cache))
        elif arguments.command == "clean":
            logger.info("%.2f GB removed", clean_cache(cache, arguments.unused))
        else:
            fill_cache(load_study(arguments.study), arguments.backbone)
            logger.info("%s: the cache holds all that the study needs", arguments.backbone)
    except (CacheSpaceError, JobsError, WeightsError, ValueError) as error:
        # Errors of data set, study and hardware are all ValueErrors.
        logger.error("%s", error)
        return 1
    except KeyboardInterrupt:
        logger.error("interrupted; whole blocks are kept, the same command goes on from there")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
