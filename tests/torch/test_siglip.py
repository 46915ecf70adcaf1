"""SigLIP's tower against transformers itself; counted dropout and gradient checkpointing on the PyTorch twin."""
import copy
from dataclasses import replace

import pytest

pytest.register_assert_rewrite("tower")

import numpy as np  # noqa: E402
import tokenizers  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from tower import PIXELS, TINY, TowerFacts, random_tower, tower, tower_shapes  # noqa: E402  (assertions are rewritten on import)

from jittwin.errors import UserError  # noqa: E402
from jittwin.models.siglip import PRESETS, RESAMPLES, preprocess, read_tower  # noqa: E402
from torch_models.backbones.siglip import SiglipVisionModel  # noqa: E402


class TestTorch(TowerFacts):
    def test_checkpointing_keeps_less(self, backend):
        sizes = []
        for option in (False, True):
            module, kept = self.built(backend, gradient_checkpointing=option), {}
            backend.train_mode(module, True)
            known = {value.data_ptr() for value in module.state_dict().values()}

            def note(tensor):
                if tensor.data_ptr() not in known:
                    kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
                module(backend.asarray(PIXELS))
            sizes.append(sum(kept.values()))
        assert sizes[1] < 0.5 * sizes[0]

    def test_float64_is_exact(self, backend):
        """The truth of the parity tests: no step of the tower is left in float32."""
        module = self.built(backend).double()
        with torch.no_grad():
            hidden = module(torch.from_numpy(PIXELS).double())
            pooled = module.pool(hidden)
        for found, expected in zip((hidden, pooled), tower(random_tower(TINY), TINY, PIXELS)):
            np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
    return transformers.SiglipModel(transformers.SiglipConfig(
        text_config=dict(sizes, vocab_size=50, max_position_embeddings=8, projection_size=32),
        vision_config=dict(sizes, patch_size=8, image_size=32))).eval()


def save_processor(folder, generation):
    """As transformers 4 writes it, or within a processor as transformers 5 does: of SigLIP, bicubic."""
    images = transformers.models.siglip.image_processing_pil_siglip.SiglipImageProcessorPil(
        size={"height": 32, "width": 32}, resample=3)
    if generation == 4:
        return images.save_pretrained(folder)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[UNK]")
    transformers.SiglipProcessor(images, tokenizer).save_pretrained(folder)


@pytest.mark.parametrize("part, generation, options", [
    ("whole", 4, {}), ("whole", 5, {}), ("tower", 4, {}), ("whole", 4, {"max_shard_size": "60KB"})])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_folders_that_transformers_wrote(backend, theirs, tmp_path, part, generation, options, dtype):
    model = copy.deepcopy(theirs).to(dtype)
    (model if part == "whole" else model.vision_model).save_pretrained(tmp_path, **options)
    assert (tmp_path / "model.safetensors.index.json").exists() == bool(options)
    with pytest.raises(UserError, match="holds neither preprocessor_config.json nor processor_config.json"):
        read_tower(tmp_path)
    save_processor(tmp_path, generation)
    assert (tmp_path / "preprocessor_config.json").exists() == (generation == 4)
    read = read_tower(tmp_path, head=True)
    assert read.config == replace(TINY, resample="bicubic") and read.arrays.shapes.keys() == tower_shapes(TINY).keys()
    module = backend.build("siglip", read.config)
    backend.load_numpy(module, read.arrays)
    backend.train_mode(module, False)
    with torch.no_grad():
        expected, hidden = model.float().vision_model(torch.from_numpy(PIXELS)), module(torch.from_numpy(PIXELS))
        torch.testing.assert_close(hidden, expected.last_hidden_state, rtol=0, atol=1e-6)
        torch.testing.assert_close(module.pool(hidden), expected.pooler_output, rtol=0, atol=1e-6)


@pytest.mark.parametrize("head, parameters", [(True, 428_772_800), (False, 413_534_448)])
def test_the_published_size(head, parameters):
    config = replace(PRESETS["so400m-patch16-512"], head=head)
    with torch.device("meta"):
        ours = SiglipVisionModel(config)
        theirs = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(
            hidden_size=1152, num_hidden_layers=27, num_attention_heads=16, intermediate_size=4304, patch_size=16,
            image_size=512, vision_use_head=head))
    shapes = {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in ours.state_dict().items()} == shapes == tower_shapes(config)
    assert sum(p.numel() for p in ours.parameters()) == parameters
    assert sum(int(np.prod(shape)) for shape in tower_shapes(config).values()) == parameters


@pytest.mark.parametrize("number, name", RESAMPLES.items())
def test_pictures_are_prepared_as_the_hubs_processor_does(number, name):
    image = np.random.default_rng(1).integers(0, 256, (60, 90, 3)).astype(np.uint8)
    processor = transformers.models.siglip.image_processing_pil_siglip.SiglipImageProcessorPil(
        size={"height": 32, "width": 32}, resample=number, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    expected = processor(image, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(preprocess(replace(TINY, resample=name))(image), expected, rtol=0, atol=2e-6)
