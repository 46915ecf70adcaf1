"""Our .pth reader and writer against PyTorch itself."""
import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from jittwin.weights import WeightsError, content_hash, read_weights, write_weights

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
          torch.int8, torch.uint8, torch.bool)
NEW_DTYPES = (torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2)


def awkward() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    state = {
        "base": base, "columns": base[:, ::2], "column": base[:, 1], "transposed": base.T, "tail": base[2:],
        "expanded": torch.randn(3, 1).expand(3, 5), "scalar": base[1, 2], "empty": torch.zeros(0, 3),
        "empty_view": base[4:], "parameter": torch.nn.Parameter(torch.randn(2, 2)),
        "frozen": torch.nn.Parameter(base[:2], requires_grad=False),
        "channels_last": torch.randn(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
    }
    state |= {str(dtype): (torch.randn(3, 4) * 3).to(dtype)[:, 1:3] for dtype in DTYPES}
    return state


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same(state, arrays) -> None:
    assert list(state) == list(arrays)
    for key, tensor in state.items():
        assert f"torch.{arrays[key].dtype}" == str(tensor.dtype) and arrays[key].shape == tensor.shape, key
        assert arrays[key].tobytes() == bits(tensor), key


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4},
                                     {"_use_new_zipfile_serialization": False, "pickle_protocol": 3}])
@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"epoch": 3, "state_dict": state}])
def test_reads_what_torch_saves(tmp_path, options, wrap):
    state = awkward()
    torch.save(wrap(state), tmp_path / "w.pth", **options)
    same(state, read_weights(tmp_path / "w.pth"))


def test_reads_newer_types(tmp_path):
    state = {str(dtype): torch.arange(8).to(dtype)[2:] for dtype in NEW_DTYPES}
    torch.save(state, tmp_path / "w.pth")
    same(state, read_weights(tmp_path / "w.pth"))


def test_reads_a_module_with_metadata(tmp_path):
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    torch.save(module.state_dict(), tmp_path / "w.pth")
    same(module.state_dict(), read_weights(tmp_path / "w.pth"))


def test_views_do_not_share_memory(tmp_path):
    state = awkward()
    torch.save(state, tmp_path / "w.pth")
    arrays = read_weights(tmp_path / "w.pth")
    arrays["columns"][:] = 0
    assert arrays["base"].tobytes() == bits(state["base"])


def test_refuses_whole_modules_and_sparse_tensors(tmp_path):
    for content, words in (
            (torch.nn.Linear(2, 2), r"a whole network \(torch.nn.modules.linear.Linear\), .*torch.save\(model.state_dict"),
            ({"w": torch.eye(2).to_sparse()}, "'w' holds torch._utils._rebuild_sparse_tensor, no array of numbers")):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match=words):
            read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_reads_what_we_write(tmp_path, mmap):
    rng = np.random.default_rng(0)
    arrays = {str(dtype)[6:]: np.array(rng.integers(0, 2, (3, 5)), dtype=getattr(np, str(dtype)[6:], None)
                                       or getattr(ml_dtypes, str(dtype)[6:]))
              for dtype in (*DTYPES, *NEW_DTYPES) if dtype is not torch.bool}
    arrays |= {"bool": np.array([True, False]), "scalar": np.array(2.5), "π": np.ones(1),
               "empty": np.zeros((0, 3), np.float32), "transposed": np.arange(6.0).reshape(2, 3).T,
               "odd size": np.ones(3, np.uint8)}
    write_weights(tmp_path / "w.pth", arrays)
    state = torch.load(tmp_path / "w.pth", weights_only=True, mmap=mmap)
    same(state, {key: np.array(array, order="C") for key, array in arrays.items()})
    assert all(tensor.is_contiguous() for tensor in state.values())


def test_module_takes_our_file(tmp_path):
    """From torch's file through ours back into a module, strictly."""
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    torch.save(module.state_dict(), tmp_path / "a.pth")
    write_weights(tmp_path / "b.pth", read_weights(tmp_path / "a.pth"))
    twin = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    twin.load_state_dict(torch.load(tmp_path / "b.pth", weights_only=True))
    assert all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), twin.state_dict().values()))
    assert content_hash(read_weights(tmp_path / "a.pth")) == content_hash(read_weights(tmp_path / "b.pth"))


def test_bfloat16_safetensors_against_the_library(tmp_path):
    state = {"h": torch.randn(5).bfloat16(), "w": torch.randn(2, 3), "flags": torch.tensor([True]),
             "scalar": torch.tensor(3)}
    save_file(state, tmp_path / "a.safetensors")
    arrays = read_weights(tmp_path / "a.safetensors")
    same(state, {key: arrays[key] for key in state})
    write_weights(tmp_path / "b.safetensors", arrays)
    found = load_file(tmp_path / "b.safetensors")
    same({key: found[key] for key in arrays}, arrays)
