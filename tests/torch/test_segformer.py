"""SegFormer against transformers itself: names, sizes, values, files both ways; enlarged labels against PyTorch."""
import numpy as np
import pytest
import torch
import transformers

from jittwin.metrics.mask_accuracy import PREPROCESS, enlarged_argmax
from jittwin.models.segformer import SegFormerConfig, infer_preset, preset
from jittwin.weights import read_weights, write_weights
from torch_models.backbones.segformer import SegFormer

TINY = SegFormerConfig(depths=(1, 2, 1, 1), hidden_sizes=(8, 16, 24, 32), num_attention_heads=(1, 2, 3, 4),
                       decoder_hidden_size=16, num_labels=7)


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    config = transformers.SegformerConfig(depths=TINY.depths, hidden_sizes=TINY.hidden_sizes, num_labels=7,
                                          num_attention_heads=TINY.num_attention_heads, decoder_hidden_size=16)
    network = transformers.SegformerForSemanticSegmentation(config).eval()
    for value in network.state_dict().values():
        if value.dtype == torch.float32:
            value.add_(0.1 * torch.rand_like(value))
    return network


@pytest.fixture(scope="module")
def x():
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def logits(network, x):
    with torch.no_grad():
        found = network(x)
    return found if torch.is_tensor(found) else found.logits


def test_a_file_that_transformers_wrote(backend, theirs, x, tmp_path):
    theirs.save_pretrained(tmp_path)
    ours = backend.build("segformer", TINY)
    backend.load_numpy(ours, read_weights(tmp_path / "model.safetensors"), allow_unexpected=("*.num_batches_tracked",))
    backend.train_mode(ours, False)
    torch.testing.assert_close(logits(ours, x), logits(theirs, x), rtol=0, atol=0)


def test_transformers_reads_our_file(backend, theirs, x, tmp_path):
    torch.manual_seed(2)
    ours = SegFormer(TINY).eval()
    theirs.config.save_pretrained(tmp_path)
    write_weights(tmp_path / "model.safetensors", backend.state_numpy(ours), {"format": "pt"})
    network, report = transformers.SegformerForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert set(report["missing_keys"]) <= {"decode_head.batch_norm.num_batches_tracked"} and not report["unexpected_keys"]
    torch.testing.assert_close(logits(network.eval(), x), logits(ours, x), rtol=0, atol=0)


def test_names_are_the_hubs_everywhere(backend):
    network = SegFormer(TINY)
    state = network.state_dict()
    for name, shape in {
            "segformer.encoder.patch_embeddings.0.proj.weight": (8, 3, 7, 7),
            "segformer.encoder.block.1.1.attention.self.sr.weight": (16, 16, 4, 4),
            "segformer.encoder.block.0.0.attention.self.layer_norm.bias": (8,),
            "segformer.encoder.block.3.0.attention.self.query.weight": (32, 32),
            "segformer.encoder.block.2.0.attention.output.dense.bias": (24,),
            "segformer.encoder.block.2.0.mlp.dwconv.dwconv.weight": (96, 1, 3, 3),
            "segformer.encoder.block.2.0.mlp.dense2.weight": (24, 96),
            "segformer.encoder.block.1.0.layer_norm_2.weight": (16,), "segformer.encoder.layer_norm.3.bias": (32,),
            "decode_head.linear_c.2.proj.weight": (16, 24), "decode_head.linear_fuse.weight": (16, 64, 1, 1),
            "decode_head.batch_norm.running_var": (16,), "decode_head.classifier.weight": (7, 16, 1, 1)}.items():
        assert tuple(state[name].shape) == shape
    named = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    assert set(named) == set(state) and all(named[name].data_ptr() == state[name].data_ptr() for name in state)
    paths = dict(network.named_modules())
    assert all(name.rpartition(".")[0] in paths for name in state) and len({*map(id, paths.values())}) == len(paths)


def test_a_state_dict_can_be_loaded_again():
    torch.manual_seed(3)
    source, target = SegFormer(TINY), SegFormer(TINY)
    target.load_state_dict(dict(source.state_dict()))
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in target.state_dict().items())
    with pytest.raises(RuntimeError, match="decode_head.classifier.bias"):
        target.load_state_dict({n: v for n, v in source.state_dict().items() if n != "decode_head.classifier.bias"})


@pytest.mark.parametrize("name, classes, parameters", [
    ("B0", 150, 3_752_694), ("B2", 29, 27_368_925), ("B5", 150, 84_708_694), ("B5", 29, 84_615_645)])
def test_published_numbers_of_parameters(name, classes, parameters):
    with torch.device("meta"):
        network = SegFormer(preset(name, classes))
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert infer_preset({n: tuple(p.shape) for n, p in network.state_dict().items()}) == (name, classes)


@pytest.mark.parametrize("size", [(97, 130), (40, 50), (33, 200)])
def test_labels_are_enlarged_as_pytorch_does(size):
    maps = np.random.default_rng(0).standard_normal((29, 40, 50)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(maps)[None].double(), size, mode="bilinear")[0]
    found = torch.from_numpy(enlarged_argmax(maps, size))
    # Where the best two are equal to the last digit, either is right.
    assert torch.gather(expected, 0, found[None])[0].sub(expected.amax(0)).abs().max() < 1e-5
    assert (found == expected.argmax(0)).float().mean() > 0.999


def test_pictures_are_prepared_as_the_hubs_processor_does():
    image = np.random.default_rng(1).integers(0, 256, (384, 512, 3)).astype(np.uint8)
    size = {"height": 640, "width": 640}
    processor = transformers.models.segformer.image_processing_pil_segformer.SegformerImageProcessorPil(size=size)
    expected = processor(image, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(PREPROCESS(image), expected, atol=2e-6)
