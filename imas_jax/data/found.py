"""Clips of a run, found once: every stage works on the same ones."""

import dataclasses
import json

from ml_collections import ConfigDict

from imas_jax.data import clips as clips_lib
from imas_jax.data import layouts, shots

# Fields by which clips are found; `data.size` only resizes what they return.
_FIELDS = ("root", "layout", "resolution", "sequences", "partial")


class Clips:
    """Remembers what was found, by where it was looked for."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[clips_lib.Clip, ...]] = {}
        self._trained: dict[str, tuple[clips_lib.Clip, ...]] = {}

    def find(self, data: ConfigDict) -> tuple[clips_lib.Clip, ...]:
        """Return the clips of `data.split` as files have them, checked.

        Args:
            data: `config.data`.

        Raises:
            UserError: One report of everything wrong, by file.
        """
        split = layouts.image_set(data, data.split)
        key = json.dumps([split, *(data[field] for field in _FIELDS)])
        if key not in self._found:
            self._found[key] = clips_lib.find_clips(data, split)
        return tuple(
            dataclasses.replace(
                clip, size=clips_lib.working_size(data, clip.native_size)
            )
            for clip in self._found[key]
        )

    def for_training(self, config: ConfigDict) -> tuple[clips_lib.Clip, ...]:
        """Return the clips as flow and training see them: with cuts, not too long.

        Args:
            config: Its `data`, `flow.gaps` and `flow.estimator` matter.

        Raises:
            UserError: As `find`.
        """
        data, flow = config.data, config.flow
        fields = [data[field] for field in (*_FIELDS, "split", "size")]
        key = json.dumps([*fields, data.cuts, data.frames, flow.gaps, flow.estimator])
        if key not in self._trained:
            self._trained[key] = shots.for_training(self.find(data), config)
        return self._trained[key]
