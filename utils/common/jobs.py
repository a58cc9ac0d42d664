"""Run independent pieces of work: in this process, in processes of this machine, on a cluster.

By default the pieces run one after the other in this process, and Dask is not even imported.
`WORKERS=4` starts four processes here, which this machine alone can reach, `SCHEDULER=tcp://...`
uses the workers of a Dask cluster; docs/scaling.md shows both.

A piece is a function and the names that it is called with. It reads files, writes its result
whole under its final name unless it is there, and returns nothing of size: a worker that dies costs
the piece that it was at. Images and networks are kept with `functools`, once in a process.
All processes compute the same bits, with as many threads as the command; a worker of other code,
versions or folders is refused.
"""

import atexit
import functools
import hashlib
import importlib
import logging
import os
import pickle
import platform
import random
import signal
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from utils.common.files import write_atomically
from utils.common.paths import ROOT, activation_cache_dir, data_dir, local_weights_dir, results_dir
from utils.common.progress import progress_bar, track
from utils.common.provenance import PACKAGES, THREADS, count_threads, find_commit

COMPARED_PACKAGES = (
    *PACKAGES, "dask", "distributed", "pillow", "scikit-image", "tf-keras-vis",
)  # fmt: skip
ARITHMETIC = ("ONEDNN_MAX_CPU_ISA", "TF_ENABLE_ONEDNN_OPTS")
"""Environment variables that change the last digits."""
DEATHS = 3
"""Workers that a piece may lose, one after the other; with the next one it fails."""
PATIENCE = 300.0
"""Seconds without any worker after which the command gives up."""
CONNECT_SECONDS = 10
FOLDER_ID = ".folder-id"
"""Name of the file by which workers elsewhere see that a folder is the command's own."""

_client: Any = None


class JobsError(RuntimeError):
    """Pieces that cannot be run; the message names the remedy."""


def run_pieces(
    function: Callable[..., Any], pieces: Sequence[tuple], description: str
) -> list[Any]:
    """Call a function once for each piece, here or in workers; return what it returned, in order.

    Args:
        function: Of a module, no closure.
        pieces: Arguments of each call: names and small values, which are sent to workers.
        description: Of the progress bar.

    Raises:
        JobsError: if `WORKERS` or `SCHEDULER` cannot be used, a worker is refused, or workers
            die. What a piece raises is raised too, and the rest is given up.
    """
    if not pieces:
        return []
    if not uses_workers():
        return [_call(function, piece) for piece in track(pieces, description, len(pieces))]
    try:
        client, facts = _connect(), describe_process(create=True)
        futures = [
            client.submit(_work, facts, _pack(function, piece), pure=False) for piece in pieces
        ]
        return _collect(client, futures, description)
    except BaseException:
        # Workers of this machine end with what they are at; those of a cluster are left alone.
        disconnect()
        raise


def uses_workers() -> bool:
    """Say whether pieces run in other processes; refuse settings that make no sense."""
    return any(_settings())


def _settings() -> tuple[int, str]:
    """Read the number of processes and the address of the scheduler, 0 and empty unless set."""
    workers, scheduler = os.environ.get("WORKERS") or "0", os.environ.get("SCHEDULER", "")
    if not workers.isdecimal():
        raise JobsError(f"WORKERS is a number of processes, such as 4, not {workers!r}")
    if int(workers) and scheduler:
        raise JobsError(f"WORKERS={workers} or SCHEDULER={scheduler}: set one of them")
    return int(workers), scheduler


def _call(function: Callable[..., Any], piece: tuple) -> Any:
    """Do one piece, in here or in a worker, with the same threads also outside TensorFlow."""
    with threadpool_limits(count_threads()):
        return function(*piece)


# ---- the command's side


def _connect() -> Any:
    """Return the client of the workers, which are kept until the command ends."""
    global _client
    if _client is not None:
        return _client
    from distributed import Client, LocalCluster

    _leave_random_alone()
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is raised
    workers, scheduler = _settings()
    if scheduler:
        try:
            _client = Client(scheduler, timeout=CONNECT_SECONDS)
        except (OSError, ValueError, TypeError) as error:
            raise JobsError(
                f"no scheduler answers at SCHEDULER={scheduler} ({error}); start one with "
                "`dask scheduler`, or unset SCHEDULER to work in this process"
            ) from error
    else:
        cluster = LocalCluster(
            n_workers=workers, threads_per_worker=1, host="127.0.0.1", memory_limit=None,
            dashboard_address=None, silence_logs=logging.CRITICAL, preload=[__name__],
            scheduler_kwargs={
                "dashboard": False, "dashboard_address": "127.0.0.1:0", "allowed_failures": DEATHS,
            },
        )  # fmt: skip
        _client = Client(cluster)
    return _client


@atexit.register
def disconnect() -> None:
    """End the workers of this machine, or the connection to a cluster; do nothing without."""
    global _client
    client, _client = _client, None
    if client is not None:
        client.close()
        if client.cluster is not None:
            # Dask cannot join a worker that it is just starting again; that one ends with us.
            with suppress(AssertionError):
                client.cluster.close()


def _pack(function: Callable[..., Any], piece: tuple) -> bytes:
    """Return a call as bytes that hold names in place of code."""
    if function.__module__ == "__main__":  # of `python -m`: workers know it by its own name
        module = importlib.import_module(function.__globals__["__spec__"].name)
        function = getattr(module, function.__qualname__)
    return pickle.dumps((function, piece))


def _collect(client: Any, futures: Sequence[Any], description: str) -> list[Any]:
    """Return what all pieces returned, or raise what keeps one of them from being done."""
    from distributed import CancelledError, KilledWorker, wait

    gone = JobsError(
        f"{description}: the scheduler is gone; start it again and give the same command, which "
        "goes on from there"
    )
    numbers = {future: number for number, future in enumerate(futures)}
    results: list[Any] = [None] * len(numbers)
    alive = time.monotonic()
    with progress_bar(description, len(numbers)) as bar:
        while numbers:
            try:
                alive = time.monotonic() if client.nthreads() else alive
                done = wait([*numbers], 1, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                done = set()
            except (CancelledError, OSError) as error:
                raise gone from error
            for future in done:
                try:
                    results[numbers.pop(future)] = future.result()
                except CancelledError as error:
                    raise gone from error
                except KilledWorker as error:
                    raise JobsError(
                        f"{description}: a piece was given up after {DEATHS + 1} workers died over "
                        "it, perhaps for want of memory; take fewer WORKERS"
                    ) from error
                future.release()  # else it would be done again if its worker died later
                bar.update()
            if time.monotonic() - alive > PATIENCE:
                raise JobsError(
                    f"{description}: for {PATIENCE:.0f} seconds {client.scheduler.address} has had "
                    "no worker; start one with `dask worker`"
                )
    return results


def _leave_random_alone() -> None:
    """Keep Dask's threads from drawing of Python's generator, from which Keras draws its seeds."""
    for name, module in list(sys.modules.items()):
        of_dask = name.split(".")[0] in ("dask", "distributed", "tornado")
        if of_dask and getattr(module, "random", None) is random:
            module.random = random.Random()


# ---- the worker's side


def _work(facts: Mapping[str, str], packed: bytes) -> Any:
    """Do one piece in a worker, if the worker is what the command is."""
    from distributed import get_worker

    _become_worker(facts[THREADS])
    worker = get_worker()
    own = describe_process(worker.state.nthreads)
    if different := [
        f"{name} is {own[name] or 'not set'} there, {value or 'not set'} here"
        for name, value in facts.items()
        if own[name] != value
    ]:
        raise JobsError(
            f"the worker at {worker.address} is refused: {'; '.join(different)}. Start the older "
            "of the two anew, with the same commit, packages and folders, and --nthreads 1"
        )
    function, piece = pickle.loads(packed)
    return _call(function, piece)


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the command, which ends its workers; Dask calls this where one starts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@functools.cache
def _become_worker(threads: str) -> None:
    """Compute with the command's number of threads, and work alone and without progress bars."""
    _leave_random_alone()
    os.environ.setdefault(THREADS, threads)  # TensorFlow reads it when it computes first
    os.environ["TQDM_DISABLE"] = "1"
    for name in ("WORKERS", "SCHEDULER"):
        os.environ.pop(name, None)


def describe_process(at_once: int = 1, create: bool = False) -> dict[str, str]:
    """Return what must be the same in the command and in a worker, as text.

    Args:
        at_once: Pieces that the process does at the same time.
        create: Whether to give the folders a name that a worker can compare; the command does.
    """
    return {
        **_describe_code(),
        **{name: os.environ.get(name, "") for name in ARITHMETIC},
        "DATA_DIR": _describe_folder(data_dir(), create),
        "RESULTS_DIR": _describe_folder(results_dir(""), create),
        "ACTIVATION_CACHE_DIR": _describe_folder(activation_cache_dir(), create),
        "WEIGHTS_DIR": str(local_weights_dir() or ""),
        "number of pieces at once": str(at_once),
        THREADS: str(count_threads()),
    }


@functools.cache
def _describe_code() -> dict[str, str]:
    """Describe commit, code and packages as they were when the process began to work."""
    code = hashlib.sha256()
    for file in sorted((ROOT / "utils").rglob("*.py")):
        code.update(file.read_bytes())
    return {
        "commit": find_commit(),
        "code of utils/": code.hexdigest()[:12],
        "Python": platform.python_version(),
    } | {package: version(package) for package in COMPARED_PACKAGES}  # fmt: skip


def _describe_folder(folder: Path, create: bool) -> str:
    """Name a folder, with a mark for those who have one of that name and may not share it."""
    mark = folder / FOLDER_ID
    if create and os.environ.get("SCHEDULER") and not mark.is_file():
        with write_atomically(mark) as temporary:
            temporary.write_text(uuid.uuid4().hex[:8])
    return f"{folder} ({mark.read_text()})" if mark.is_file() else str(folder)
