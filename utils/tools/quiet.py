"""Run one of the study's commands without what TensorFlow logs on the way.

`python -m utils.tools.quiet MODULE ARGUMENTS` does what `python -m MODULE ARGUMENTS` does. Python's
own messages and progress reach the terminal as they are. What C++ writes to file descriptor 2, in
this process and those that it starts, passes a filter first, which drops the few lines of
`HARMLESS` and no others. `VERBOSE=1` makes the Makefile leave this module out.
"""

import os
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HARMLESS = [
    # Information, above all on the processor's instructions; no level of the log turns it off.
    rb"WARNING: All log messages before absl::InitializeLog\(\) is called",
    rb"I\d{4} ",
    rb"To enable the following instructions: ",
    # Passes that would make a graph faster give up on a node, and it runs as it was built.
    rb"E\d{4} .*\btfg_optimizer_hook\.cc:\d+\] tfg_optimizer\{.*\} failed: INVALID_ARGUMENT: ",
    rb"E\d{4} .*\bmeta_optimizer\.cc:\d+\] remapper failed: NOT_FOUND: Op type not registered ''",
    rb"W\d{4} .*\bgraph_view\.cc:\d+\] No registered '' OpKernel for CPU devices",
    rb"W\d{4} .*\] Ignoring multi-device function optimization failure: INVALID_ARGUMENT: Node '",
    # The released model's weights are in half precision; without AVX-512 other code computes it.
    rb"E\d{4} .*\butil\.cc:\d+\] oneDNN supports DT_HALF only on platforms with AVX-512",
    # A kernel that has done its work is interrupted before it is told to end.
    rb"\[IPKernelApp\] ERROR \| KeyboardInterrupt caught in kernel",
]
"""Beginnings of messages that no reader can act on; further lines of theirs begin with a tab."""
NO_DRIVER = rb"E\d{4} .*\bcuda_platform\.cc:\d+\] failed call to cuInit: .*UNKNOWN ERROR \(303\)"
"""No library of a GPU's driver was found: of weight only where there is such a GPU."""
GPU_DEVICE = Path("/dev/nvidiactl")
FILTER = "--filter"
SECONDS_TO_END = 5.0


def harmless_lines() -> re.Pattern[bytes]:
    """Return the pattern of the lines that are dropped on this machine."""
    return re.compile(b"|".join(HARMLESS if GPU_DEVICE.exists() else [*HARMLESS, NO_DRIVER]))


def pass_on(source: int, target: int) -> None:
    """Copy lines from one open file to another until the first ends, all but harmless ones."""
    harmless = harmless_lines()
    # A line that is let through takes the place of a progress bar that stands there.
    clear = b"\r\x1b[K" if os.isatty(target) else b""
    rest, dropped = b"", False
    while chunk := os.read(source, 65536):
        # A progress bar returns to the beginning of its line instead of ending it.
        *lines, rest = re.split(rb"(?<=[\r\n])", rest + chunk)
        for line in lines:
            further = dropped and line[:1] in (b"\t", b"\n")
            dropped = further or bool(harmless.match(line))
            if not dropped:
                os.write(target, clear + line)
    if rest and not harmless.match(rest):
        os.write(target, clear + rest)


@contextmanager
def filtered_log() -> Iterator[None]:
    """Let what is written to file descriptor 2 pass the filter, but not what Python writes."""
    # A process of its own: it passes on the last words of one that is killed or aborts.
    command = [sys.executable, "-I", "-S", __file__, FILTER]
    log = subprocess.Popen(command, stdin=subprocess.PIPE)
    terminal, python_stderr = os.dup(2), sys.stderr
    sys.stderr = open(terminal, "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    os.dup2(log.stdin.fileno(), 2)
    log.stdin.close()
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        sys.stderr = python_stderr
        try:
            log.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            pass  # a kernel that is still ending holds it open; the filter ends with the kernel


def main(arguments: Sequence[str]) -> None:
    """Run the module that the arguments name, with those that follow; its exit is ours."""
    if arguments == [FILTER]:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends it through the command
        pass_on(0, 2)
        return
    with filtered_log():
        sys.argv = list(arguments)
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
