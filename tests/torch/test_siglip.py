"""SigLIP's tower against transformers itself; counted dropout and gradient checkpointing on the PyTorch twin."""
from dataclasses import replace

import pytest

pytest.register_assert_rewrite("tower")

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from tower import PIXELS, TINY, TowerFacts, tower  # noqa: E402  (assertions are rewritten on import)

from jittwin.models.siglip import (  # noqa: E402
    PRESETS, RESAMPLES, expected_keys, preprocess, random_tower, read_tower)
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

    def test_a_whole_siglip_that_transformers_wrote(self, backend, tmp_path):
        torch.manual_seed(0)
        sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
        theirs = transformers.SiglipModel(transformers.SiglipConfig(
            text_config=dict(sizes, vocab_size=50, max_position_embeddings=8),
            vision_config=dict(sizes, patch_size=8, image_size=32))).eval()
        theirs.save_pretrained(tmp_path)
        read = read_tower(tmp_path, head=True)
        assert read.config == TINY
        module = backend.build("siglip", read.config)
        backend.load_numpy(module, read.arrays)
        backend.train_mode(module, False)
        with torch.no_grad():
            expected, hidden = theirs.vision_model(torch.from_numpy(PIXELS)), module(torch.from_numpy(PIXELS))
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
    assert {name: tuple(value.shape) for name, value in ours.state_dict().items()} == shapes == expected_keys(config)
    assert sum(p.numel() for p in ours.parameters()) == parameters
    assert sum(int(np.prod(shape)) for shape in expected_keys(config).values()) == parameters


@pytest.mark.parametrize("number, name", RESAMPLES.items())
def test_pictures_are_prepared_as_the_hubs_processor_does(number, name):
    image = np.random.default_rng(1).integers(0, 256, (60, 90, 3)).astype(np.uint8)
    processor = transformers.models.siglip.image_processing_pil_siglip.SiglipImageProcessorPil(
        size={"height": 32, "width": 32}, resample=number, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    expected = processor(image, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(preprocess(replace(TINY, resample=name))(image), expected, rtol=0, atol=2e-6)
