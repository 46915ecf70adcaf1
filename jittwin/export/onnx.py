"""SigLIP towers and the aesthetic scorer as ONNX graphs, built from arrays without either framework.

Opset 17. Input `pixel_values` float32 (batch, 3, S, S) as jittwin.models.siglip.preprocess makes it, any batch size.
The two graphs:
- aesthetic: output `logits` float32 (batch, 10); adapters are merged, and the tower's MAP head is excluded.
- vision: output `image_embeds` float32 (batch, C), the MAP head's result, of unit length.
Every file is compared with a twin before it appears under its name.
"""
import importlib
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from jittwin.atomic import sync_folder, temporary_folder
from jittwin.backend import Backend
from jittwin.draws import Draws
from jittwin.errors import UserError, choose_from
from jittwin.models.aesthetic import TOWER_PREFIX, AestheticConfig
from jittwin.models.lora import merged
from jittwin.models.siglip import SiglipVisionConfig, Tower
from jittwin.predictors.aesthetic import BATCH, PROVENANCE, Predictor, ScorerPredictor

OPSET, IR_VERSION = 17, 8
# Largest legal difference from the twin; that of float16 allows for the rounding to 11 bits in all layers.
LIMITS = {"float32": 1e-3, "float16": 5e-2}
Arrays = Mapping[str, np.ndarray]
Network = Callable[[np.ndarray], np.ndarray]
MOST_BYTES = (1 << 31) - (1 << 20)      # a protobuf file holds at most 2 GiB; 1 MiB is left for the graph


def required(package: str):
    """Import a package. UserError: not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"{package} cannot be imported ({error}): run pip install onnx onnxruntime") from error


class Graph:
    """Builds a graph: nodes in order, and constants. Every method adds nodes and returns the name of the result.

    arrays: weights by key. dtype: of weights and arithmetic, "float32" or "float16".
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], dtype: str = "float32"):
        if dtype not in LIMITS:
            raise UserError(f"ONNX in {dtype!r}{choose_from(dtype, LIMITS)}")
        self.onnx, self.arrays, self.dtype = required("onnx"), arrays, np.dtype(dtype)
        self.nodes, self.constants = [], {}

    def node(self, kind: str, *inputs: str, **attributes) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, array: np.ndarray) -> str:
        """Add a constant; a floating-point array is cast to the graph's dtype."""
        if name not in self.constants:
            array = np.asarray(array, self.dtype) if np.issubdtype(np.asarray(array).dtype, np.floating) else array
            self.constants[name] = self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def number(self, value: float) -> str:
        return self.constant(f"number_{value:.9g}", np.array(value, np.float64))

    def shape(self, *sizes: int) -> str:
        """A shape for Reshape: 0 keeps a size, -1 is computed from the others."""
        return self.constant("shape_" + "_".join(map(str, sizes)), np.array(sizes, np.int64))

    def linear(self, x: str, name: str) -> str:
        weight = self.constant(f"{name}.weight", self.arrays[f"{name}.weight"].T)
        bias = self.constant(f"{name}.bias", self.arrays[f"{name}.bias"])
        return self.node("Add", self.node("MatMul", x, weight), bias)

    def norm(self, x: str, name: str, epsilon: float) -> str:
        affine = (self.constant(f"{name}.{part}", self.arrays[f"{name}.{part}"]) for part in ("weight", "bias"))
        return self.node("LayerNormalization", x, *affine, axis=-1, epsilon=epsilon)

    def gelu(self, x: str) -> str:
        """GELU (Hendrycks and Gimpel 2016, arXiv 1606.08415), exact."""
        erf = self.node("Erf", self.node("Mul", x, self.number(math.sqrt(0.5))))
        return self.node("Mul", self.node("Mul", x, self.node("Add", erf, self.number(1))), self.number(0.5))

    def gelu_tanh(self, x: str) -> str:
        """GELU approximated by a hyperbolic tangent; differs from the exact one by up to 5e-4."""
        cube = self.node("Mul", self.node("Mul", x, x), x)
        inner = self.node("Add", x, self.node("Mul", cube, self.number(0.044715)))
        tanh = self.node("Tanh", self.node("Mul", inner, self.number(math.sqrt(2 / math.pi))))
        return self.node("Mul", self.node("Mul", x, self.node("Add", tanh, self.number(1))), self.number(0.5))

    def heads(self, x: str, count: int, width: int, order: tuple[int, ...]) -> str:
        """(B, N, count * width) split into (B, N, head, width), whose axes are then permuted to `order`."""
        return self.node("Transpose", self.node("Reshape", x, self.shape(0, -1, count, width)), perm=order)

    def attend(self, query: str, key: str, value: str, width: int) -> str:
        """query (…, h, M, width), key (B, h, width, N), value (B, h, N, width) to (B, M, h * width)."""
        scores = self.node("Mul", self.node("MatMul", query, key), self.number(width ** -0.5))
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), value)
        return self.node("Reshape", self.node("Transpose", mixed, perm=(0, 2, 1, 3)), self.shape(0, 0, -1))

    def model(self, output: str, result: str, config: SiglipVisionConfig, width: int, metadata: Mapping[str, str]):
        """The finished ModelProto; the node's result `output` becomes the model's output `result`, (batch, width)."""
        helper, kinds = self.onnx.helper, self.onnx.TensorProto
        self.nodes.append(helper.make_node("Cast", [output], [result], name=result, to=kinds.FLOAT))
        size = config.image_size
        given = helper.make_tensor_value_info("pixel_values", kinds.FLOAT, ["batch", 3, size, size])
        made = helper.make_tensor_value_info(result, kinds.FLOAT, ["batch", width])
        graph = helper.make_graph(self.nodes, "jittwin", [given], [made], list(self.constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
                                  producer_name="jittwin")
        prepared = {"size": [size, size], "resample": config.resample, "aspect": "squashed", "mean": 0.5, "std": 0.5}
        helper.set_model_props(model, {"preprocessing": json.dumps(prepared), **metadata})
        return model


def add_tower(graph: Graph, config: SiglipVisionConfig) -> str:
    """Add the tower, from `pixel_values` (B, 3, S, S) to last_hidden_state (B, N, C)."""
    arrays, heads = graph.arrays, config.num_attention_heads
    width = config.hidden_size // heads
    pixels = graph.node("Cast", "pixel_values", to=graph.onnx.helper.np_dtype_to_tensor_dtype(graph.dtype))
    embedding = [graph.constant(name, arrays[name]) for name in
                 ("embeddings.patch_embedding.weight", "embeddings.patch_embedding.bias")]
    patches = graph.node("Conv", pixels, *embedding, strides=[config.patch_size] * 2)
    x = graph.node("Transpose", graph.node("Reshape", patches, graph.shape(0, 0, -1)), perm=(0, 2, 1))
    name = "embeddings.position_embedding.weight"
    x = graph.node("Add", x, graph.constant(name, arrays[name]))
    for index in range(config.num_hidden_layers):
        layer = f"encoder.layers.{index}"
        y = graph.norm(x, f"{layer}.layer_norm1", config.layer_norm_eps)
        query, key, value = (
            graph.heads(graph.linear(y, f"{layer}.self_attn.{part}_proj"), heads, width, order)
            for part, order in (("q", (0, 2, 1, 3)), ("k", (0, 2, 3, 1)), ("v", (0, 2, 1, 3))))
        x = graph.node("Add", x, graph.linear(graph.attend(query, key, value, width), f"{layer}.self_attn.out_proj"))
        y = graph.linear(graph.norm(x, f"{layer}.layer_norm2", config.layer_norm_eps), f"{layer}.mlp.fc1")
        x = graph.node("Add", x, graph.linear(graph.gelu_tanh(y), f"{layer}.mlp.fc2"))
    return graph.norm(x, "post_layernorm", config.layer_norm_eps)


def add_map_head(graph: Graph, hidden: str, config: SiglipVisionConfig) -> str:
    """Add the MAP head, attention from one learned query and an MLP: (B, N, C) to pooler_output (B, C)."""
    arrays, heads = graph.arrays, config.num_attention_heads
    width = config.hidden_size // heads
    weights, biases = (np.split(arrays[f"head.attention.in_proj_{part}"], 3) for part in ("weight", "bias"))
    # The query is the same for every picture.
    query = (arrays["head.probe"][0] @ weights[0].T + biases[0]).reshape(1, heads, width).transpose(1, 0, 2)
    parts = []
    for part, index, order in (("k", 1, (0, 2, 3, 1)), ("v", 2, (0, 2, 1, 3))):
        mixed = graph.node("MatMul", hidden, graph.constant(f"head.{part}.weight", weights[index].T))
        mixed = graph.node("Add", mixed, graph.constant(f"head.{part}.bias", biases[index]))
        parts.append(graph.heads(mixed, heads, width, order))
    mixed = graph.attend(graph.constant("head.query", query), *parts, width)
    x = graph.linear(mixed, "head.attention.out_proj")
    y = graph.linear(graph.norm(x, "head.layernorm", config.layer_norm_eps), "head.mlp.fc1")
    x = graph.node("Add", x, graph.linear(graph.gelu_tanh(y), "head.mlp.fc2"))
    return graph.node("Reshape", x, graph.shape(0, -1))


def aesthetic_model(config: AestheticConfig, state: Arrays, dtype: str = "float32",
                    metadata: Mapping[str, str] = MappingProxyType({})):
    """The ModelProto of the aesthetic scorer, from prepared pictures to logits (B, 10).

    state: all arrays of the AestheticModel, adapters apart.
    """
    arrays = merged(state, config.lora)
    graph = Graph(arrays.renamed({key.removeprefix(TOWER_PREFIX): key for key in arrays}), dtype)
    x = graph.node("ReduceMean", add_tower(graph, config.tower), axes=[1], keepdims=0)
    for index in (0, 3):
        x = graph.gelu(graph.linear(x, f"aesthetic_head.mlp.{index}"))
    return graph.model(graph.linear(x, "aesthetic_head.mlp.6"), "logits", config.tower, config.num_classes, metadata)


def vision_model(config: SiglipVisionConfig, arrays: Arrays, dtype: str = "float32",
                 metadata: Mapping[str, str] = MappingProxyType({})):
    """The ModelProto of a tower with its MAP head, from prepared pictures to image_embeds (B, C)."""
    graph = Graph(arrays, dtype)
    pooled = add_map_head(graph, add_tower(graph, config), config)
    unit = graph.node("Div", pooled, graph.node("ReduceL2", pooled, axes=[1], keepdims=1))
    return graph.model(unit, "image_embeds", config, config.hidden_size, metadata)


def write_checked(path: str | os.PathLike, model, twin: Network, dtype: str = "float32") -> float:
    """Write the model; returns its largest difference from `twin` on random pixels.

    twin: a function from (B, 3, S, S) to (B, D). More than 2 GiB of weights go to a second file, PATH.data. UserError:
    the difference exceeds LIMITS[dtype], or there is no space; then nothing is written and a previous file stays.
    """
    onnx, final = required("onnx"), Path(os.path.realpath(path))
    external = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > MOST_BYTES
    try:
        with temporary_folder(final) as folder:
            draft = folder / final.name
            onnx.save_model(model, draft, save_as_external_data=external, location=f"{final.name}.data",
                            size_threshold=1024)
            onnx.checker.check_model(os.fspath(draft))
            difference = compare(OnnxNetwork(draft), twin)
            if not difference <= LIMITS[dtype]:
                raise UserError(f"{os.fspath(path)}: not written: ONNX in {dtype} differs from the twin by "
                                f"{difference:.3g}, the limit is {LIMITS[dtype]:g}"
                                + ("; use float32" if dtype == "float16" else ""))
            for file in sorted(folder.iterdir(), reverse=True):         # the .data file first
                with open(file, "rb") as stream:
                    os.fsync(stream.fileno())
                os.replace(file, final.with_name(file.name))
            if not external:
                final.with_name(f"{final.name}.data").unlink(missing_ok=True)       # that of a previous file
            sync_folder(final.parent)
    except OSError as error:
        raise UserError(f"{os.fspath(path)}: cannot be written: {error.strerror or error}; free space or choose "
                        "another place") from error
    return difference


class OnnxNetwork:
    """An ONNX file as a function from (B, 3, S, S) to its result, run by onnxruntime on the CPU.

    size: S. result: name of the output. metadata: properties in the file. UserError: not a file of such a model.
    """

    def __init__(self, path: str | os.PathLike, threads: int | None = None):
        runtime = required("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        if threads:
            options.intra_op_num_threads = options.inter_op_num_threads = threads
        try:
            self.session = runtime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
            (given,), (result,) = self.session.get_inputs(), self.session.get_outputs()
            self.given, self.size, self.result = given.name, int(given.shape[2]), result.name
        except Exception as error:      # onnxruntime's errors share no base class
            reason = " ".join(str(error).split())
            raise UserError(f"{os.fspath(path)}: not an ONNX model from pictures to one result ({reason})") from error
        self.metadata = self.session.get_modelmeta().custom_metadata_map

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        return self.session.run([self.result], {self.given: pixels})[0]


def compare(network: OnnxNetwork, twin: Network) -> float:
    """Largest difference between the two on random pixels, in batches of two and of one."""
    pixels = Draws(0).uniform("pixels", (2, 3, network.size, network.size)) * np.float32(2) - np.float32(1)
    expected = twin(pixels)
    found = np.concatenate([network(pixels), network(pixels[:1])])
    return float(np.abs(found - np.concatenate([expected, expected[:1]])).max())


class OnnxPredictor(Predictor):
    """Aesthetic scores from a file of export_aesthetic, without either framework. UserError: another file."""

    def __init__(self, path: str | os.PathLike, num_threads: int | None = None, batch: int = BATCH):
        self.logits = OnnxNetwork(path, num_threads)
        if self.logits.result != "logits":
            raise UserError(f"{os.fspath(path)}: gives {self.logits.result!r}, not the aesthetic scorer's logits")
        told = self.logits.metadata
        prepared = json.loads(told.get("preprocessing", "{}"))      # files of the original have no such entry
        super().__init__(self.logits.size, batch, prepared.get("resample", "bilinear"))
        self.random = told.get("random_weights") == "True"
        self.provenance = {key: told[key] for key in (*PROVENANCE, "dtype") if key in told} | {
            "random_weights": self.random, "backend": "onnxruntime", "device": "cpu"}


def export_aesthetic(path: str | os.PathLike, predictor: ScorerPredictor, dtype: str = "float32") -> float:
    """Write a scorer's graph; returns its largest difference from the predictor. UserError: see write_checked."""
    scorer = predictor.scorer
    told = {key: str(value) for key, value in scorer.provenance().items()} | {"dtype": dtype}
    model = aesthetic_model(scorer.config, scorer.state(), dtype, told)
    return write_checked(path, model, predictor.logits, dtype)


def export_vision(path: str | os.PathLike, backend: Backend, tower: Tower, dtype: str = "float32") -> float:
    """Write the graph of a tower with its MAP head; returns its largest difference from the twin on `backend`."""
    network = backend.build("siglip", tower.config)
    backend.load_numpy(network, tower.arrays)
    backend.train_mode(network, False)

    def twin(pixels: np.ndarray) -> np.ndarray:
        with backend.no_grad():
            pooled = backend.numpy(network.pool(network(backend.asarray(pixels))))
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)

    told = {"tower": tower.name, "tower_sha256": tower.sha256, "dtype": dtype}
    return write_checked(path, vision_model(tower.config, tower.arrays, dtype, told), twin, dtype)
