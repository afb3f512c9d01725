"""The `.pt` files were written by torch 2.13: its zip format and its older one."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from imas_jax import errors, files
from imas_jax.models import torch_files

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = [GOLDEN / "torch_zip.pt", GOLDEN / "torch_stream.pt"]
by_format = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@by_format
def test_tensors_written_by_torch_are_read_with_values_types_and_strides(path):
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    expected = {
        "module.a.weight": base.transpose(2, 0, 1),
        "module.a.part": base[1],
        "module.b.weight": base[0] * 0.5,
        "module.half": (base[0] * 0.25).astype(np.float16),
        "module.bfloat": base[0] * 2,
        "module.double": base[0].astype(np.float64) / 8,
        "module.num_batches_tracked": np.array(7),
        "module.flag": np.array([True, False]),
        "module.empty": np.zeros((0, 3), np.float32),
    }
    got = torch_files.read_checkpoint(path)
    assert list(got) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value)
        assert got[name].dtype == value.dtype
        assert got[name].flags.c_contiguous


def test_the_published_raft_file_is_read_whole(shared):
    tensors = torch_files.read_checkpoint(shared / "weights" / "raft-small.pth")
    assert len(tensors) == 106
    assert sum(tensor.size for tensor in tensors.values()) == 990_162
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_npz_and_safetensors_are_read_whatever_their_name(tmp_path, suffix):
    tensors = {"conv1.weight": np.arange(6.0).reshape(2, 3).astype(np.float32)}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".npz":
        np.savez(path, **tensors)
    else:
        safetensors.numpy.save_file(tensors, path)
    path = path.rename(tmp_path / "renamed.pth")
    got = torch_files.read_checkpoint(path)
    np.testing.assert_array_equal(got["conv1.weight"], tensors["conv1.weight"])


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, path):
        self.function, self.path = function, path

    def __reduce__(self):
        return self.function, (str(self.path),)


def with_call(path, call):
    """Write a file that makes a call while its own dictionary is built; drops it."""
    head, tail = (GOLDEN / "torch_stream.pt").read_bytes().split(b"}q\x00", 1)
    payload = pickle.dumps(call, protocol=2)[2:-1]
    path.write_bytes(head + payload + b"0}q\x00" + tail)
    return payload + b"."


def test_a_pickle_that_calls_a_function_calls_nothing(tmp_path):
    planted, path = tmp_path / "planted", tmp_path / "odd.pth"
    payload = with_call(path, Call(zipfile.PyZipFile, planted))
    tensors = torch_files.read_checkpoint(path)
    assert "module.a.weight" in tensors
    assert not planted.exists()
    with pytest.raises(FileNotFoundError):
        pickle.loads(payload)  # the payload itself is able to act


@pytest.mark.parametrize(
    ("function", "named"), [(os.mkdir, "posix.mkdir"), (eval, "eval"), (open, "open")]
)
def test_a_pickle_that_would_run_a_program_is_refused_by_what_it_names(
    function, named, tmp_path
):
    planted, path = tmp_path / "planted", tmp_path / "evil.pth"
    payload = with_call(path, Call(function, planted))
    with pytest.raises(errors.UserError, match=f"evil.pth would run .*{named}"):
        torch_files.read_checkpoint(path)
    assert not planted.exists()
    if function is os.mkdir:
        pickle.loads(payload)
        assert planted.exists(), "the payload itself must be able to act"


@by_format
def test_every_truncation_is_one_clear_refusal(path, tmp_path):
    data = path.read_bytes()
    cut = tmp_path / "cut.pth"
    for length in range(0, len(data) - 1, 97):
        cut.write_bytes(data[:length])
        with pytest.raises(errors.UserError, match=r"cut\.pth"):
            torch_files.read_checkpoint(cut)


@by_format
def test_flipped_bytes_never_end_in_another_exception(path, tmp_path):
    data = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = data.copy()
        damaged[rng.integers(0, len(data), 3)] = rng.integers(0, 256, 3)
        (tmp_path / "damaged.pth").write_bytes(damaged.tobytes())
        try:
            torch_files.read_checkpoint(tmp_path / "damaged.pth")
        except errors.UserError:
            refused += 1
    assert refused > 20


def test_a_file_without_tensors_says_what_it_holds(tmp_path):
    np.savez(tmp_path / "empty.npz")
    with pytest.raises(errors.UserError):
        torch_files.read_checkpoint(tmp_path / "empty.npz")
    (tmp_path / "image.pth").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(errors.UserError, match="unknown format"):
        torch_files.read_checkpoint(tmp_path / "image.pth")
    with pytest.raises(errors.UserError, match="no file"):
        torch_files.read_checkpoint(tmp_path / "missing.pth")


def stream(content, keys=()):
    """Write PyTorch's older format around a pickle, each storage with four floats."""
    before = [pickle.dumps(x, protocol=2) for x in (1001, {})]
    data = np.int64(4).tobytes() + np.arange(4, dtype=np.float32).tobytes()
    parts = [*before, content, pickle.dumps(list(keys), protocol=2)]
    return torch_files.STREAM_MAGIC + b"".join(parts) + len(keys) * data


def tensor(shape, strides):
    """Pickle {"w": a view of a storage}, as torch does."""

    def plain(value):
        return pickle.dumps(value, protocol=2)[2:-1]

    storage = b"(%sctorch\nFloatStorage\n%s%s%stQ" % tuple(
        map(plain, ("storage", "0", "cpu", 4))
    )
    view = plain(0) + plain(shape) + plain(strides)
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + view + b"tR"
    return b"\x80\x02}" + plain("w") + call + b"s."


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path):
    path = tmp_path / "wide.pth"
    path.write_bytes(stream(tensor((2, 2), (2, 1)), "0"))
    read = torch_files.read_checkpoint(path)
    np.testing.assert_array_equal(read["w"], [[0, 1], [2, 3]])
    path.write_bytes(stream(tensor((10**6, 10**6), (0, 0)), "0"))
    assert path.stat().st_size < 600
    with pytest.raises(errors.UserError, match="storage of 4"):
        torch_files.read_checkpoint(path)


def test_a_dictionary_that_holds_itself_comes_to_an_end(tmp_path):
    ring = {}
    ring["state_dict"] = {"model": ring}
    (tmp_path / "ring.pth").write_bytes(stream(pickle.dumps(ring, protocol=2)))
    with pytest.raises(errors.UserError, match="no named tensors"):
        torch_files.read_checkpoint(tmp_path / "ring.pth")


def deflated(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def test_an_archive_that_unpacks_to_far_more_than_itself_is_refused(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(files, "HARMLESS", 1 << 20)
    body = tensor((2**19,), (1,)).replace(b"K\x04tQ", b"J\x00\x00\x08\x00tQ")
    bomb = {"a/data.pkl": body, "a/data/0": bytes(1 << 21)}
    deflated(tmp_path / "bomb.pth", bomb)
    np.savez_compressed(tmp_path / "bomb.npz", **{"w": np.zeros(1 << 21, np.uint8)})
    for name in ("bomb.pth", "bomb.npz"):
        assert (tmp_path / name).stat().st_size < 3000
        with pytest.raises(errors.UserError, match="unpacks to 2 MB"):
            torch_files.read_checkpoint(tmp_path / name)


def test_one_storage_under_many_names_is_refused_where_it_adds_up(
    tmp_path, monkeypatch
):
    view = tensor((4,), (1,))[3:-1]  # "w": tensor, set into the dictionary
    named = [view.replace(b"w", f"{n}".encode(), 1) for n in range(9)]
    (tmp_path / "few.pth").write_bytes(
        stream(b"\x80\x02}" + b"".join(named) + b".", "0")
    )
    assert len(torch_files.read_checkpoint(tmp_path / "few.pth")) == 9
    monkeypatch.setattr(files, "HARMLESS", 100)
    monkeypatch.setattr(files, "PACKED", 0)
    with pytest.raises(errors.UserError, match="unpacks to"):
        torch_files.read_checkpoint(tmp_path / "few.pth")


def test_a_name_that_is_nested_without_end_is_one_refusal(tmp_path):
    nested = b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"K\x01s."
    (tmp_path / "deep.pth").write_bytes(stream(nested))
    with pytest.raises(errors.UserError, match=r"deep\.pth"):
        torch_files.read_checkpoint(tmp_path / "deep.pth")
