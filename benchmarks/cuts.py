"""Scene cuts: false ones within sequences that have none, found ones between them.

    python benchmarks/cuts.py --root=DAVIS-240p

Every sequence is searched whole; then the end of each is joined to the start of every
other, and the cut must be found there and nowhere else. Prints the counts and writes
benchmarks/results/cuts.json.
"""

import argparse
import json
import sys
from pathlib import Path

from imas_jax.configs import davis
from imas_jax.data import clips, shots

SIDE = 10  # frames on either side of a join


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True)
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/cuts.json")
    )
    known = parser.parse_args()
    data = davis.get_config().data
    data.update({"root": known.root, "split": "", "partial": True})
    false, ends = {}, {}
    for clip in clips.find_clips(data):
        frames = [clip.read(t) for t in range(len(clip.frames))]
        found = shots.find_cuts(frames)
        if found:
            false[clip.name] = found
        ends[clip.name] = frames[:SIDE], frames[-SIDE:]
    missed, wrong = [], []
    for before, (_, last) in ends.items():
        for after, (first, _) in ends.items():
            if before == after:
                continue
            found = shots.find_cuts([*last, *first])
            if SIDE not in found:
                missed.append(f"{before} to {after}")
            if set(found) - {SIDE}:
                wrong.append(f"{before} to {after}")
    joins = len(ends) * (len(ends) - 1)
    told = {
        "sequences": len(ends),
        "false": false,
        "joins": joins,
        "found": joins - len(missed),
        "missed": missed,
        "wrong": wrong,
    }
    known.out.parent.mkdir(parents=True, exist_ok=True)
    known.out.write_text(json.dumps(told, indent=1) + "\n")
    sys.stdout.write(
        f"{len(ends)} sequences: cuts found in {len(false)} of them\n"
        f"{joins} joins: {joins - len(missed)} found; elsewhere too in {len(wrong)}\n"
        + "".join(f"missed: {name}\n" for name in missed)
    )


if __name__ == "__main__":
    main()
