"""Whether heat maps can be trusted: the tables of notebook 12, made once and kept.

`python -m utils.explanation.run --study full` (`make explain`) explains one network, the
released one or the single model that the study chose, in seven ways, and writes a table for each to
`results/<study>/explanation/`:

- `truth.csv`: maps of phantoms against their opacities, and baseline maps;
- `other_images.csv`: maps of radiographs with pneumonia against those without, by one network;
- `randomisation.csv`: maps after the weights are randomized layer by layer from the output on;
- `random_labels.csv`: maps of a network that was trained on shuffled labels;
- `faithfulness.csv`: deletion and insertion, in the order of a map and of baseline maps;
- `stability.csv`: maps of images that were shifted or brightened and whose prediction stays;
- `attention.csv`: where the energy of maps lies, of the network and of round one's.

Each table is kept with what it was made from. An interrupted run goes on with the image, or the
table, that it was at.
"""

import argparse
import sys
from collections.abc import Callable, Iterable

import pandas as pd

from utils.common.jobs import JobsError
from utils.common.study import Study, load_study
from utils.explanation.faithfulness import measure_faithfulness, measure_stability
from utils.explanation.localization import measure_attention, measure_truth
from utils.explanation.sanity_checks import (
    measure_other_images,
    measure_random_labels,
    measure_randomization,
)

TABLES: dict[str, Callable[[Study], pd.DataFrame]] = {
    "truth": measure_truth,
    "other_images": measure_other_images,
    "randomisation": measure_randomization,
    "random_labels": measure_random_labels,
    "faithfulness": measure_faithfulness,
    "stability": measure_stability,
    "attention": measure_attention,
}
"""Every table by its name, and what makes it."""


def explain_study(study: Study, tables: Iterable[str] = TABLES) -> dict[str, pd.DataFrame]:
    """Make the tables that are not kept yet; return all that were asked for, by name.

    Args:
        study: The study; where its tables are kept, neither data nor network is needed.
        tables: Of `TABLES`.

    Raises:
        ValueError: if there is no such table.
    """
    if unknown := sorted(set(tables) - set(TABLES)):
        raise ValueError(f"there is no table {unknown[0]!r}; choose of {', '.join(TABLES)}")
    return {name: TABLES[name](study) for name in tables}


def main() -> None:
    """Make the tables from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="full")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    arguments = parser.parse_args()
    try:
        tables = explain_study(load_study(arguments.study), arguments.tables)
    except JobsError as error:
        sys.exit(str(error))
    for name, table in tables.items():
        sys.stdout.write(f"{name}: {len(table):,} rows\n")


if __name__ == "__main__":
    main()
