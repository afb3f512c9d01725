"""All that is to be known of a new accelerator, in one call of at most nine minutes.

    python benchmarks/accelerator.py --data=DAVIS-240p            # on the machine
    python benchmarks/accelerator.py --miniature                  # does it run at all?

Each part is a process of its own (`accelerator_parts.py`), so that one that fails, runs
out of memory or hangs loses no other; it has a share of the time, after which it is
ended, and what it had found by then stays. Training has all that is left. Results are
written after every part. Nothing is fetched: data are given by path, weights are random
but for what training learns, and what is missing (torch, data, a device) is said and
left out.

    steps    a training step, ResNet-50, 384x384, float32, TF32 and bfloat16, 8 to 64
             pairs; share of the peak (MFU); ten operations that take longest
    twin     the same in PyTorch, eager and by torch.compile
    raft     RAFT-small and RAFT, flow both ways at 854x480
    crf      dense CRF
    predict  masks of 854x480 frames
    train    `--recipe` on `--data` for the time that is left, and its J

Writes benchmarks/results/accelerator.json (`--out`) and prints a table.
"""

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).parent
MINUTES = 9.0
GRACE = 5.0  # seconds from the end of a part's time to its end
LAST = 10.0  # seconds that are kept for the end


@dataclasses.dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        name: Of the function in `accelerator_parts.py`.
        seconds: It may take of nine minutes; None is all that is left.
        least: With less it is not begun.
    """

    name: str
    seconds: float | None
    least: float


# What is asked first comes first; steps compile for half a minute each on a GPU.
PARTS = (
    Part("steps", 170, 40),
    Part("twin", 75, 20),
    Part("raft", 60, 20),
    Part("crf", 20, 5),
    Part("predict", 40, 15),
    Part("train", None, 60),
)
Launch = Callable[[Part, float, Path], str]


def main(argv: Sequence[str] | None = None) -> dict:
    given = arguments().parse_args(argv)
    names, longer = given.parts.split(","), given.minutes / MINUTES
    wanted = [
        dataclasses.replace(part, seconds=part.seconds and longer * part.seconds)
        for part in PARTS
        if part.name in names
    ]
    return run(
        wanted, 60 * given.minutes, Path(given.out), launcher(given), vars(given)
    )


def arguments() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all of it")
    parser.add_argument("--parts", default=",".join(part.name for part in PARTS))
    parser.add_argument("--data", default="", help="a DAVIS folder to train on")
    parser.add_argument(
        "--recipe", default="davis:runlocal", help="to train; its steps fill the time"
    )
    parser.add_argument("--miniature", action="store_true", help="smallest sizes")
    parser.add_argument("--out", default=str(HERE / "results" / "accelerator.json"))
    return parser


def run(
    parts: Sequence[Part],
    seconds: float,
    out: Path,
    launch: Launch,
    asked: dict | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> dict:
    """Run parts one after the other; write the report after each.

    Args:
        parts: In order.
        seconds: For all of them.
        out: JSON file.
        launch: Runs one for so many seconds, its rows going to a file of JSON lines;
            returns how it ended.
        asked: Said in the report.
        clock: In seconds.
    """
    report: dict = {"asked": asked or {}, "parts": {}}
    deadline = clock() + seconds - LAST
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            left = deadline - clock()
            share = left if part.seconds is None else min(part.seconds, left)
            rows = Path(folder) / f"{part.name}.jsonl"
            start = clock()
            if share < part.least:
                ended = f"not begun: {left:.0f} s left, {part.least:.0f} wanted"
            else:
                print(f"== {part.name}, at most {share:.0f} s", flush=True)
                ended = launch(part, share, rows)
            report["parts"][part.name] = {
                "ended": ended,
                "seconds": round(clock() - start, 1),
                "rows": read(rows),
            }
            print(f"== {part.name}: {ended}", flush=True)
            out.write_text(json.dumps(report, indent=1) + "\n")
    report["summary"] = summary(report["parts"])
    out.write_text(json.dumps(report, indent=1) + "\n")
    print("\n".join(["", *report["summary"], f"all of it: {out}"]), flush=True)
    return report


def read(path: Path) -> list[dict]:
    """Read what a part has found; the last line may be half written."""
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def launcher(given: argparse.Namespace) -> Launch:
    """Return what runs a part as a process, and ends it and its children in time."""

    def launch(part: Part, seconds: float, rows: Path) -> str:
        command = [
            *(sys.executable, str(HERE / "accelerator_parts.py"), part.name),
            *(f"--seconds={seconds:.1f}", f"--rows={rows}", f"--data={given.data}"),
            *(f"--recipe={given.recipe}", *["--miniature"] * given.miniature),
        ]
        places = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
        path = os.pathsep.join(place for place in places if place)
        child = subprocess.Popen(
            command, start_new_session=True, env=os.environ | {"PYTHONPATH": path}
        )
        try:
            code = child.wait(seconds + GRACE)
        except subprocess.TimeoutExpired:
            return "its time was over"
        finally:
            try:
                os.killpg(child.pid, signal.SIGKILL)  # children of its own, too
            except ProcessLookupError:
                pass
            child.wait()
        return "whole" if code == 0 else f"failed with exit code {code}"

    return launch


def summary(parts: dict) -> list[str]:
    """Say in lines what was found, ours beside the twin's."""
    found = {
        (row["engine"], row["precision"], row["pairs"]): row
        for name in ("steps", "twin")
        for row in parts.get(name, {}).get("rows", [])
        if "seconds" in row and "pairs" in row
    }
    lines = ["engine         precision  pairs   s/step  pairs/s  of peak  to ours"]
    for (engine, precision, pairs), row in found.items():
        ours = found.get(("imas_jax", precision, pairs))
        share = row.get("share_of_peak")
        ratio = row["seconds"] / ours["seconds"] if ours else None
        lines.append(
            f"{engine:14s} {precision:9s} {pairs:6d} {row['seconds']:8.4f} "
            f"{pairs / row['seconds']:8.1f} "
            + (f"{100 * share:6.1f} %" if share else "        ")
            + (f"{ratio:9.2f}" if ratio else "")
        )
    for name, part in parts.items():
        for row in part["rows"]:
            if name not in ("steps", "twin") or "seconds" not in row:
                lines.append(f"{name}: " + said(row))
        if part["ended"] != "whole":
            lines.append(f"{name}: {part['ended']}")
    return lines


def said(row: dict) -> str:
    """Say a row in words."""
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in row.items()
    )


if __name__ == "__main__":
    main()
