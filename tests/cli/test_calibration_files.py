import io
import sys

import numpy as np
import pytest
from PIL import Image

from tfptq.cli.calibration_files import load_calibration_data
from tfptq.cli.command_line import UsageError
from tfptq.data.checks import InputSpec

IMAGE = (InputSpec("image", (6, 4, 3), "float32"),)
VECTOR = (InputSpec("x", (3,), "float32"),)
X = np.arange(60, dtype=np.float32).reshape(20, 3)


def test_npy_is_mapped_not_read(tmp_path):
    np.save(tmp_path / "x.npy", X)
    loaded = load_calibration_data(tmp_path / "x.npy", VECTOR, 0, 0)
    assert isinstance(loaded, np.memmap)
    np.testing.assert_array_equal(loaded, X)


def test_choice_is_random_seeded_and_without_repeats(tmp_path):
    np.save(tmp_path / "x.npy", X)
    first, again, other = (load_calibration_data(tmp_path / "x.npy", VECTOR, 7, seed) for seed in (0, 0, 1))
    assert len(np.unique(first[:, 0])) == 7 and set(first[:, 0]) <= set(X[:, 0])
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other) and not np.array_equal(first, X[:7])


def test_npz_keeps_samples_of_all_inputs_together(tmp_path):
    np.savez(tmp_path / "named.npz", a=X, b=X * 2)
    loaded = load_calibration_data(tmp_path / "named.npz", VECTOR, 5, 0)
    assert sorted(loaded) == ["a", "b"] and len(loaded["a"]) == 5
    np.testing.assert_array_equal(loaded["a"] * 2, loaded["b"])


def test_npz_without_names_is_in_order(tmp_path):
    np.savez(tmp_path / "unnamed.npz", X, -X)
    loaded = load_calibration_data(tmp_path / "unnamed.npz", VECTOR, 0, 0)
    np.testing.assert_array_equal(loaded[1], -X)


def _archive(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize(
    "name, content",
    [
        ("x.npy", b"not numpy"),
        ("x.npz", b"PK not zip"),
        ("x.npy", b""),
        ("x.npz", _archive(x=X)[:-30]),
        ("x.npz", _archive(x=X).replace(_archive(x=X)[80:100], bytes(20))),
    ],
)
def test_damaged_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"cannot read calibration data .*{name}"):
        load_calibration_data(tmp_path / name, VECTOR, 0, 0)


@pytest.mark.parametrize("name, save", [("x.npy", np.save), ("x.npz", np.savez)])
def test_pickled_objects_are_not_loaded(tmp_path, name, save):
    save(tmp_path / name, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    message = f"cannot read calibration data .*{name}: .*Python objects.*; write arrays of numbers with numpy.save"
    with pytest.raises(ValueError, match=message):
        load_calibration_data(tmp_path / name, VECTOR, 0, 0)


def test_another_file_under_the_name_of_one_of_numpy(tmp_path):
    (tmp_path / "x.npy").write_text("1, 2, 3")
    with pytest.raises(ValueError, match="x.npy: it is no file of numpy, .*; write arrays of numbers with numpy.save"):
        load_calibration_data(tmp_path / "x.npy", VECTOR, 0, 0)


def test_one_array_for_several_inputs(tmp_path):
    np.save(tmp_path / "x.npy", X)
    message = r"x.npy is one array, and the model has the inputs x, image; .*numpy.savez\(path, x=..., image=...\)"
    with pytest.raises(ValueError, match=message):
        load_calibration_data(tmp_path / "x.npy", VECTOR + IMAGE, 0, 0)


def test_what_a_file_holds_decides_not_its_name(tmp_path):
    np.savez(tmp_path / "x.npz", x=X)
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    np.testing.assert_array_equal(load_calibration_data(tmp_path / "x.npy", VECTOR, 0, 0)["x"], X)


def test_unknown_kind(tmp_path):
    with pytest.raises(ValueError, match="neither a .npy or .npz file nor an existing folder"):
        load_calibration_data(tmp_path / "x.csv", VECTOR, 0, 0)
    with pytest.raises(FileNotFoundError):
        load_calibration_data(tmp_path / "x.npy", VECTOR, 0, 0)


@pytest.fixture
def folder(tmp_path):
    """Images in one colour each, of another size than the model's, in folders by class."""
    for index in range(5):
        path = tmp_path / f"class_{index % 2}" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 12), (51 * index, 0, 255)).save(path)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


@pytest.mark.parametrize(
    "preprocessing, red_and_blue",
    [
        ("raw", (51.0, 255.0)),
        ("unit", (0.2, 1.0)),
        ("tf", (-0.6, 1.0)),
        ("torch", ((51 - 123.675) / 58.395, (255 - 103.53) / 57.375)),
    ],
)
def test_images(folder, preprocessing, red_and_blue):
    generate = load_calibration_data(folder, IMAGE, 0, 0, preprocessing)
    images = list(generate())
    assert len(images) == len(list(generate())) == 5
    assert all(image.shape == (1, 6, 4, 3) and image.dtype == np.float32 for image in images)
    second = next(image for image in images if np.isclose(image[0, 0, 0, 0], red_and_blue[0], atol=1e-5))
    np.testing.assert_allclose(second[..., 2], red_and_blue[1], atol=1e-5)


@pytest.mark.parametrize("mode", ["tf", "torch", "caffe"])
def test_modes_of_keras_applications(tmp_path, mode):
    from keras.applications.imagenet_utils import preprocess_input

    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (image,) = load_calibration_data(tmp_path, IMAGE, 0, 0, mode)()
    expected = preprocess_input(pixels[None].astype(np.float32), data_format="channels_last", mode=mode)
    np.testing.assert_allclose(image, expected, atol=1e-4)


def test_images_are_chosen_over_all_classes(folder):
    reds = [image[0, 0, 0, 0] for image in load_calibration_data(folder, IMAGE, 3, 0, "raw")()]
    assert len(set(reds)) == 3


def test_gray_and_centre_crop(tmp_path):
    pixels = np.zeros((8, 16), np.uint8)
    pixels[:, 4:12] = 200
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "a.png")
    (image,) = load_calibration_data(tmp_path, (InputSpec("x", (4, 4, 1), "float32"),), 0, 0, "raw")()
    np.testing.assert_allclose(image[0, :, 1:3, 0], 200)


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_values_of_16_bits_are_not_clipped(tmp_path, channels):
    pixels = np.linspace(0, 65535, 16).reshape(4, 4).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (image,) = load_calibration_data(tmp_path, (InputSpec("x", (4, 4, channels), "float32"),), 0, 0, "raw")()
    np.testing.assert_array_equal(image[0], np.repeat(pixels[:, :, None] // 257, channels, axis=2))


def test_images_without_preprocessing(folder):
    with pytest.raises(UsageError, match="images need --preprocessing, .*: raw, unit, tf, torch, caffe"):
        load_calibration_data(folder, IMAGE, 0, 0)


@pytest.mark.parametrize(
    "inputs, preprocessing, message",
    [
        (VECTOR, "raw", "input 'x' is float32 of shape .*use a .npy file"),
        ((InputSpec("x", (None, None, 3), "float32"),), "raw", "of fixed size"),
        ((*IMAGE, *VECTOR), "raw", "this one has 2: use a .npz file"),
        ((InputSpec("x", (4, 4, 1), "float32"),), "torch", "is for 3 channels; the model takes 1"),
    ],
)
def test_models_that_take_no_images(folder, inputs, preprocessing, message):
    with pytest.raises(ValueError, match=message):
        load_calibration_data(folder, inputs, 0, 0, preprocessing)


def test_folder_without_images_and_damaged_image(tmp_path):
    with pytest.raises(ValueError, match="holds no images"):
        load_calibration_data(tmp_path, IMAGE, 0, 0, "raw")
    (tmp_path / "a.png").write_bytes(b"no png")
    with pytest.raises(ValueError, match="cannot read the image .*a.png"):
        list(load_calibration_data(tmp_path, IMAGE, 0, 0, "raw")())


def test_missing_pillow(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ValueError, match="pip install pillow"):
        load_calibration_data(folder, IMAGE, 0, 0, "raw")
