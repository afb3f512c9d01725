import clip_writer
import kitti_writer
import numpy as np
import pytest

from imas_jax import errors
from imas_jax.flow import formats


def field(h: int = 12, w: int = 20) -> np.ndarray:
    rng = np.random.default_rng(3)
    return (np.round(rng.normal(0, 8, (h, w, 2)) * 64) / 64).astype(np.float32)


def write(path, flow: np.ndarray):
    writers = {
        ".flo": formats.write_flo,
        ".png": kitti_writer.write,
        ".npy": np.save,
        ".npz": lambda p, f: np.savez(p, flow=f, other=f * 0),
    }
    writers[path.suffix](path, flow)
    return path


@pytest.mark.parametrize("suffix", formats.SUFFIXES)
def test_every_format_comes_back_as_written(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", field())
    back = formats.read(path)
    assert back.dtype == np.float32
    assert (back == field()).all()
    assert formats.size(path) == (12, 20)


@pytest.mark.parametrize("suffix", formats.SUFFIXES)
def test_a_truncated_file_is_named_in_every_format(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", field())
    path.write_bytes(path.read_bytes()[:-40])
    for reader in (formats.read, formats.size):
        with pytest.raises(errors.UserError, match="cannot be read as flow") as told:
            reader(path)
        assert str(path) in told.value.found


@pytest.mark.parametrize("suffix", formats.SUFFIXES)
def test_a_file_of_something_else_is_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"this is something else entirely" * 9)
    with pytest.raises(errors.UserError, match="cannot be read as flow"):
        formats.read(path)


@pytest.mark.parametrize("suffix", [".flo", ".png"])
def test_unknown_pixels_stay_unknown(tmp_path, suffix):
    flow = field()
    flow[3:5, 7] = np.nan
    back = formats.read(write(tmp_path / f"a{suffix}", flow))
    np.testing.assert_array_equal(back, flow)


def test_flo_bytes_are_middleburys(tmp_path):
    flow = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    data = write(tmp_path / "a.flo", flow).read_bytes()
    assert data[:4] == b"PIEH"
    assert data[4:12] == np.array([3, 2], "<i4").tobytes()  # width first
    assert data[12:] == flow.tobytes()


def test_arrays_may_be_channels_first_or_half_precision(tmp_path):
    np.save(tmp_path / "a.npy", np.moveaxis(field(), -1, 0))
    np.save(tmp_path / "b.npy", field()[None].astype(np.float16))
    np.savez(tmp_path / "c.npz", whatever=field())
    assert (formats.read(tmp_path / "a.npy") == field()).all()
    assert np.abs(formats.read(tmp_path / "b.npy") - field()).max() < 0.02
    assert (formats.read(tmp_path / "c.npz") == field()).all()
    assert formats.size(tmp_path / "a.npy") == (12, 20)


def test_an_array_of_another_shape_is_told_by_its_shape(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((12, 20, 3)))
    with pytest.raises(errors.UserError, match=r"shape \(12, 20, 3\)"):
        formats.read(tmp_path / "a.npy")
    np.savez(tmp_path / "b.npz", a=field(), b=field())
    with pytest.raises(errors.UserError, match="which is the flow"):
        formats.read(tmp_path / "b.npz")


def test_an_eight_bit_picture_is_no_kitti_flow(tmp_path):
    import clip_writer

    path = clip_writer.save(tmp_path / "a.png", clip_writer.texture((12, 20)))
    with pytest.raises(errors.UserError, match="16-bit"):
        formats.read(path)


def test_a_picture_that_claims_too_many_pixels_is_refused(tmp_path):
    data = clip_writer.claiming_png((60_000, 60_000), bits=16)
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(errors.UserError, match="cannot be read as flow"):
        formats.read(tmp_path / "a.png")


@pytest.mark.parametrize("kind", [bool, complex, "U1"])
def test_what_is_no_real_number_is_no_flow(tmp_path, kind):
    np.save(tmp_path / "a.npy", np.ones((4, 5, 2)).astype(kind))
    with pytest.raises(errors.UserError, match="no number of pixels"):
        formats.read(tmp_path / "a.npy")


def test_published_ground_truth_reads_with_its_published_figures(shared):
    root = shared / "data/flow_gt"
    figures = {
        "middlebury_rubberwhale/flow10.flo": ((388, 584), 1.256, 3622),
        "flyingchairs_samples/0flow.flo": ((384, 512), 2.992, 0),
        "flyingchairs_samples/1flow.flo": ((384, 512), 5.996, 0),
        "kitti_sample/flow_gt.png": ((375, 1242), 51.010, round(375 * 1242 * 0.838)),
    }
    for name, (size, magnitude, unknown) in figures.items():
        flow = formats.read(root / name)
        known = np.isfinite(flow).all(-1)
        assert flow.shape[:2] == size
        assert abs(np.linalg.norm(flow[known], axis=-1).mean() - magnitude) < 0.001
        assert abs((~known).sum() - unknown) <= 0.001 * known.size
