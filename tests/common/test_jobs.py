"""Pieces run anywhere with the same result, and nothing hangs, is done twice or stays behind."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.common import pieces
from utils.common import jobs
from utils.common.jobs import JobsError, run_pieces
from utils.common.paths import ROOT
from utils.common.provenance import THREADS, count_threads

SECONDS = 30
"""Within which a process starts or ends."""


@pytest.fixture(autouse=True)
def own_settings(tmp_path, monkeypatch):
    """Run every test with folders of its own, and leave no worker to the next."""
    for name in ("WORKERS", "SCHEDULER", "ACTIVATION_CACHE_DIR", "WEIGHTS_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("DATA_DIR", "RESULTS_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield
    jobs.disconnect()


def wait_until(condition, seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def who_did(folder: Path) -> dict[str, list[str]]:
    """Return the process of each time that a piece was done, by the name of the piece."""
    return {file.name: file.read_text().split() for file in folder.glob("piece*")}


# ---- in this process


@pytest.mark.slow
def test_pieces_run_here_and_without_dask_by_default(tmp_path):
    command = [sys.executable, "-m", "tests.common.pieces", "note", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[0, 1, 2, 3]\nno dask\n"
    (process,) = {each for times in who_did(tmp_path).values() for each in times}
    assert int(process) != os.getpid()
    assert run_pieces(pieces.note, [(tmp_path, 7)], "one") == [7]
    assert who_did(tmp_path)["piece7"] == [str(os.getpid())]


def test_what_a_piece_raises_is_raised():
    with pytest.raises(ValueError, match="bad piece"):
        run_pieces(pieces.raise_error, [(ValueError("bad piece"),)], "pieces")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"WORKERS": "all"}, "number of processes, such as 4, not 'all'"),
        ({"WORKERS": "-1"}, "not '-1'"),
        ({"WORKERS": "2", "SCHEDULER": "tcp://127.0.0.1:1"}, "set one of them"),
    ],
)
def test_settings_without_sense_are_refused(monkeypatch, tmp_path, settings, message):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(JobsError, match=message):
        run_pieces(pieces.note, [(tmp_path, 0)], "one")
    assert who_did(tmp_path) == {}


@pytest.mark.slow
def test_a_scheduler_that_is_not_there_is_named(monkeypatch, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
    monkeypatch.setenv("SCHEDULER", address)
    monkeypatch.setattr(jobs, "CONNECT_SECONDS", 0.5)
    with pytest.raises(JobsError, match=f"no scheduler answers at SCHEDULER={address}.*unset"):
        run_pieces(pieces.note, [(tmp_path, 0)], "one")


def test_the_number_of_threads_is_that_of_tensorflow(monkeypatch):
    monkeypatch.delenv(THREADS, raising=False)
    assert count_threads() >= 1
    monkeypatch.setenv(THREADS, "3")
    assert count_threads() == 3
    assert jobs.describe_process()[THREADS] == "3"


# ---- in processes of this machine


def listening_addresses() -> set[str]:
    """Return the addresses, in Linux' hexadecimal form, at which this process listens."""
    own = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            own.add(os.readlink(entry))
        except FileNotFoundError:  # of the listing itself
            pass
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            (
                _,
                local,
                _,
                state,
                *_,
            ) = line.split()
            if state == "0A" and f"socket:[{line.split()[9]}]" in own:
                addresses.add(local.split(":")[0])
    return addresses


@pytest.mark.slow
def test_a_killed_worker_costs_its_piece_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKERS", "2")
    numbers = range(10)
    todo = [(tmp_path, number) for number in numbers]
    assert run_pieces(pieces.die_once, todo, "pieces") == list(numbers)
    times = who_did(tmp_path)
    assert (tmp_path / "died").exists() and len(times) == 10
    assert all(len(each) == 1 for each in times.values()), "what was finished is not done again"
    processes = {each for (each,) in times.values()}
    assert len(processes) >= 2 and str(os.getpid()) not in processes
    if Path("/proc/self/net/tcp").exists():
        assert listening_addresses() == {"0100007F"}, "other machines can reach it"

    # The workers stay for the next pieces; pieces of pieces stay in their process.
    assert run_pieces(pieces.run_more, [(tmp_path, 1), (tmp_path, 2)], "more") == [
        [10, 11],
        [20, 21],
    ]


@pytest.mark.slow
@pytest.mark.parametrize("error", [ValueError("bad piece"), OSError("full"), TimeoutError("slow")])
def test_what_a_piece_raises_in_a_worker_is_raised(monkeypatch, error):
    monkeypatch.setenv("WORKERS", "1")
    with pytest.raises(type(error), match=str(error)):
        run_pieces(pieces.raise_error, [(error,)] * 3, "pieces")


@pytest.mark.slow
def test_dask_does_not_draw_from_the_generator_of_the_pieces(monkeypatch):
    monkeypatch.setenv("WORKERS", "2")
    expected = [pieces.draw(0)]
    assert run_pieces(pieces.draw, [(2.0,)] * 2, "draws") == 2 * expected
    assert [pieces.draw(2.0)] == expected, "the command's own, while its workers wait"


@pytest.mark.slow
def test_a_piece_that_kills_its_workers_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKERS", "1")
    with pytest.raises(JobsError, match="given up after 4 workers died over it.*fewer WORKERS"):
        run_pieces(pieces.die, [(tmp_path, 0)], "pieces")
    assert len(list(tmp_path.glob("0-*"))) == 1 + jobs.DEATHS


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_command_leaves_no_process(tmp_path, monkeypatch, sent):
    monkeypatch.setenv("WORKERS", "2")
    command = [sys.executable, "-m", "tests.common.pieces", "wait_for_ever", str(tmp_path)]
    process = subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: len(who_did(tmp_path)) == 2)
    if sent == signal.SIGINT:  # as a terminal does it: all processes get it
        os.killpg(process.pid, sent)
    else:
        process.send_signal(sent)
    process.communicate(timeout=SECONDS)
    assert process.returncode != 0

    def is_empty() -> bool:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    wait_until(is_empty)


# ---- on a scheduler that was started apart


class Cluster:
    """A scheduler, to which workers are added."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.processes = folder, []
        self.file = folder / "scheduler.json"
        self.scheduler = self.start(
            "dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
            "--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(self.file),
        )  # fmt: skip
        # The file is there before its text is.
        wait_until(lambda: self.file.exists() and '"address": "' in self.file.read_text())
        text = self.file.read_text()
        self.address = text.split('"address": "')[1].split('"')[0]

    def start(self, module: str, *arguments: str, **environment: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{module}", *arguments],
            cwd=self.folder, env=os.environ | environment, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def add_worker(self, *arguments: str, **environment: str) -> subprocess.Popen:
        return self.start(
            "dask_worker", self.address, "--host", "127.0.0.1", "--no-dashboard",
            *(arguments or ("--nthreads", "1")), **environment,
        )  # fmt: skip

    def end(self, processes: list[subprocess.Popen]) -> None:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait(SECONDS)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    cluster = Cluster(tmp_path)
    monkeypatch.setenv("SCHEDULER", cluster.address)
    yield cluster
    jobs.disconnect()
    cluster.end(cluster.processes[::-1])


@pytest.mark.slow
def test_a_scheduler_started_apart_is_used_and_missed(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "PATIENCE", 1.0)
    with pytest.raises(JobsError, match="for 1 seconds .* has had no worker"):
        run_pieces(pieces.note, [(tmp_path, 0)], "pieces")
    worker = cluster.add_worker()
    monkeypatch.setattr(jobs, "PATIENCE", 300.0)
    command = [sys.executable, "-m", "tests.common.pieces", "note", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "[0, 1, 2, 3]\ndask imported\n", done.stderr
    assert "INFO" not in done.stderr and "WARN" not in done.stderr
    assert worker.poll() is None, "the command leaves the workers of a cluster alone"
    assert run_pieces(os.getenv, [(THREADS,), ("SCHEDULER",)], "settings") == [
        str(count_threads()), None,
    ], "a worker has the command's threads, and no workers of its own"  # fmt: skip
    jobs.disconnect()
    cluster.end([cluster.scheduler])
    monkeypatch.setattr(jobs, "CONNECT_SECONDS", 0.5)
    with pytest.raises(JobsError, match="no scheduler answers"):
        run_pieces(pieces.note, [(tmp_path, 0)], "pieces")


@pytest.mark.slow
def test_a_scheduler_that_dies_is_missed(cluster, tmp_path):
    cluster.add_worker()
    command = [sys.executable, "-m", "tests.common.pieces", "wait_for_ever", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: who_did(tmp_path) != {})
    cluster.scheduler.kill()
    _, error = process.communicate(timeout=2 * SECONDS)
    assert process.returncode == 1 and "the scheduler is gone" in error, error


def write_other_version(folder: Path) -> Path:
    """Write what lets a worker see another version of Keras than is there."""
    info = folder / "other" / "keras-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: keras\nVersion: 0.1\n")
    return info.parent


def write_other_commit(folder: Path) -> Path:
    """Write the same code as another commit."""
    copy = folder / "copy"
    for name in ("utils", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    git = ["git", "-c", "user.name=A", "-c", "user.email=a@b.c"]
    for arguments in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "another"]):
        subprocess.run([*git, *arguments], cwd=copy, check=True)
    return copy


def refusal(folder: Path) -> str:
    with pytest.raises(JobsError, match=r"the worker at tcp://127.* is refused: .*Start the older"):
        try:
            run_pieces(pieces.note, [(folder, 0)], "pieces")
        except JobsError as error:
            message = str(error)
            raise
    assert who_did(folder) == {}
    return message


@pytest.mark.slow
def test_a_worker_of_other_versions_folders_and_threads_is_refused(cluster, tmp_path):
    other = write_other_version(tmp_path)
    cluster.add_worker(
        "--nthreads", "2", PYTHONPATH=f"{other}{os.pathsep}{ROOT}",
        DATA_DIR=str(tmp_path / "elsewhere"), WEIGHTS_DIR=str(tmp_path), **{THREADS: "77"},
    )  # fmt: skip
    found = refusal(tmp_path)
    for expected in (
        r"keras is 0\.1 there, 3\.",
        r"DATA_DIR is \S+/elsewhere there, \S+/DATA_DIR \(\w+\) here",
        r"WEIGHTS_DIR is \S+ there, not set here",
        r"pieces at once is 2 there, 1 here",
        rf"{THREADS} is 77 there, {count_threads()} here",
    ):
        assert re.search(expected, found), found
    assert "numpy" not in found and "RESULTS_DIR" not in found, "only what differs is named"


@pytest.mark.slow
def test_a_worker_of_another_commit_is_refused(cluster, tmp_path):
    cluster.add_worker(PYTHONPATH=str(write_other_commit(tmp_path)))
    assert re.search(r"commit is [0-9a-f]{40} there, ", refusal(tmp_path))


def test_folders_of_one_name_that_are_not_shared_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("SCHEDULER", "tcp://host:8786")
    here = jobs.describe_process(create=True)
    assert jobs.describe_process() == here
    (tmp_path / "DATA_DIR" / jobs.FOLDER_ID).write_text("of another machine")
    there = jobs.describe_process()
    assert {name for name in here if here[name] != there[name]} == {"DATA_DIR"}
