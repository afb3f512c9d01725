import dataclasses
import itertools

import clip_writer
import numpy as np
import pytest
from clip_writer import texture

from imas_jax import errors
from imas_jax.data import clips, shots


def write(root, frames, **data):
    for t, frame in enumerate(frames):
        clip_writer.save(root / "film" / f"{t:05d}.png", frame)
    config = clip_writer.config(root, **data)
    return config, clips.find_clips(config.data)


def scene(seed, count, pan=0):
    """A textured scene of one brightness, panned over."""
    wide = texture((64, 96 + pan * count), seed) // 2 + np.uint8(30 * (seed % 4))
    return [wide[:, pan * t : pan * t + 96] for t in range(count)]


def test_cuts_are_found_and_fast_pans_are_none():
    frames = scene(1, 8, pan=20) + scene(3, 7, pan=20) + scene(4, 6)
    assert shots.find_cuts(frames) == (8, 15)
    assert shots.find_cuts(scene(1, 20, pan=20)) == ()
    assert shots.find_cuts(frames[:1]) == ()


def test_light_that_changes_slowly_is_no_cut():
    still = scene(1, 1)[0].astype(float)
    frames = [(still * (0.3 + 0.03 * t)).astype(np.uint8) for t in range(20)]
    assert shots.find_cuts(frames) == ()


@pytest.mark.data
def test_no_cut_is_found_in_sequences_without_any(shared):
    config = clip_writer.config(shared / "data/DAVIS-240p", "davis", split="")
    config.data.sequences = ("drift-turn", "soccerball")  # the fastest, the stillest
    found = clips.find_clips(config.data)
    assert [shots.cuts_of(clip) for clip in found] == [(), ()]
    both = [clip.read(t) for clip in found for t in range(len(clip.frames))]
    assert shots.find_cuts(both[50:80]) == (len(found[0].frames) - 50,)


def test_no_pair_reaches_across_a_cut(tmp_path):
    config, found = write(tmp_path, scene(1, 4) + scene(3, 1) + scene(5, 5))
    assert shots.for_training(found, config) == found  # off by default
    config.data.cuts = "find"
    (clip,) = shots.for_training(found, config)
    assert clip.cuts == (4, 5)
    assert clip.frames == found[0].frames
    firsts = {g: [p.first for p in clips.pairs((clip,), g)] for g in (1, 2)}
    assert firsts == {1: [0, 1, 2, 5, 6, 7, 8], 2: [0, 1, 5, 6, 7]}


def test_a_frame_takes_the_nearest_pair_of_its_own_shot(tmp_path):
    _, (clip,) = write(tmp_path, scene(1, 10))
    clip = dataclasses.replace(clip, cuts=(4, 5))
    pairs = [clips.pair_of_frame(clip, t, 2) for t in range(10)]
    firsts = [pair.first if pair else None for pair in pairs]
    assert firsts == [0, 1, 0, 1, None, 5, 6, 7, 6, 7]


def test_a_long_clip_is_thinned_to_runs_that_are_evenly_spread(tmp_path):
    _, (clip,) = write(tmp_path, scene(1, 4))
    frames = tuple(clips.Frame(f"{t:05d}", None, t) for t in range(1000))
    clip = dataclasses.replace(clip, frames=frames, cuts=(3, 500))
    thinned = shots.thin(clip, 95, 1)
    kept = [frame.index for frame in thinned.frames]
    assert len(kept) == 90
    assert kept[:9] == list(range(9))
    assert kept[-9:] == list(range(991, 1000))
    broken = [0, *thinned.cuts, len(kept)]
    for start, end in itertools.pairwise(broken):
        assert kept[end - 1] - kept[start] == end - 1 - start
    assert 3 in thinned.cuts
    assert len(clips.pairs((thinned,))) == len(kept) - len(broken) + 1
    # Wider pairs want longer runs, and as many pairs of each.
    assert len(clips.pairs((shots.thin(clip, 95, 4),), 4)) >= 8 * 6
    assert shots.thin(clip, 0, 1) is clip
    assert shots.thin(clip, 1000, 1) is clip


def test_a_thinned_clip_reads_the_frames_it_names(tmp_path):
    config, (clip,) = write(tmp_path, scene(1, 40, pan=3))
    config.data.frames = 20
    (thinned,) = shots.for_training((clip,), config)
    assert len(thinned.frames) == 18
    for place in (0, 9, 17):
        at = thinned.frames[place].index
        assert (thinned.read(place) == clip.read(at)).all()
        assert thinned.fingerprint(place) == clip.fingerprint(at)


def test_imported_flow_keeps_its_clips_and_unknown_words_are_refused(tmp_path):
    config, found = write(tmp_path, scene(1, 30) + scene(3, 30))
    config.data.update({"cuts": "find", "frames": 20})
    config.flow.estimator = "import"
    assert shots.for_training(found, config) == found
    config.data.cuts = "yes"
    with pytest.raises(errors.UserError, match="off or find"):
        shots.for_training(found, config)
