"""CLIP: features of pictures and texts that can be compared (Radford et al. 2021, arXiv 2103.00020).

Keys are those of the Hugging Face hub. The blocks are those of SigLIP, which has CLIP's shape.
"""
from jittwin.models.clip import LARGEST_ID
from jt_models.backbones.siglip import Encoder
from jt_models.boot import jt
from jt_models.nn import ops
from jt_models.nn.layers import Conv2d, Embedding, LayerNorm, Linear, Module, parameter


class TextEmbeddings(Module):
    """Token ids (B, N) to (B, N, C), each token plus its place."""

    def __init__(self, config):
        super().__init__()
        self.token_embedding = Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = Embedding(config.max_position_embeddings, config.hidden_size)

    def execute(self, ids):
        return self.token_embedding(ids) + self.position_embedding(jt.arange(ids.shape[1]).reshape(1, -1))


class TextModel(Module):
    """Token ids (B, N) to tokens (B, N, C), each of which sees those before it, and to texts (B, C)."""

    def __init__(self, config):
        super().__init__()
        self.embeddings = TextEmbeddings(config)
        self.encoder = Encoder(config)
        self.final_layer_norm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.end = config.eos_token_id

    def execute(self, ids):
        x = self.encoder(self.embeddings(ids), ops.causal_mask(ids.shape[1]))
        x = self.final_layer_norm(x)
        return x, ops.take_along_dim(x, self.first_end(ids).reshape(-1, 1, 1), 1)[:, 0]

    def first_end(self, ids):
        """The place (B,) of the first end of a text. Padding may have the same id."""
        end, length = ids.max(1, keepdims=True) if self.end == LARGEST_ID else self.end, ids.shape[1]
        return (jt.arange(length).reshape(1, -1) + length * (ids != end).int32()).min(1)


class VisionEmbeddings(Module):
    """Pictures (B, 3, S, S) to tokens (B, 1 + N, C): one for the whole picture, then the patches row by row."""

    def __init__(self, config):
        super().__init__()
        width = config.hidden_size
        self.class_embedding = parameter(width)
        self.patch_embedding = Conv2d(3, width, config.patch_size, stride=config.patch_size, bias=False)
        self.position_embedding = Embedding(config.tokens, width)

    def execute(self, pixels):
        x = self.patch_embedding(pixels)
        x = x.reshape(x.shape[0], x.shape[1], -1).transpose(0, 2, 1)
        first = ops.zeros((x.shape[0], 1, x.shape[2])) + self.class_embedding
        x = ops.concat([first, x], 1)
        return x + self.position_embedding(jt.arange(x.shape[1]).reshape(1, -1))


class VisionModel(Module):
    """Pictures (B, 3, S, S) to tokens (B, 1 + N, C) and to pictures (B, C). Only the latter are normalised."""

    def __init__(self, config):
        super().__init__()
        self.embeddings = VisionEmbeddings(config)
        self.pre_layrnorm = LayerNorm(config.hidden_size, config.layer_norm_eps)       # the hub's spelling
        self.encoder = Encoder(config)
        self.post_layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def execute(self, pixels):
        x = self.encoder(self.pre_layrnorm(self.embeddings(pixels)))
        return x, self.post_layernorm(x[:, 0])


class Clip(Module):
    """Pictures (B, 3, S, S), prepared as jittwin.models.clip says, and a text for each, to cosines (B,).

    config: a jittwin.models.clip.ClipConfig. ids: token ids (B, N); what follows the end of a text is not seen. The
    weights must be loaded.
    """

    def __init__(self, config):
        super().__init__()
        self.text_model = TextModel(config.text)
        self.vision_model = VisionModel(config.vision)
        self.visual_projection = Linear(config.vision.hidden_size, config.projection_dim, bias=False)
        self.text_projection = Linear(config.text.hidden_size, config.projection_dim, bias=False)
        self.register_scalar("logit_scale")

    def execute(self, pixels, ids):
        return (self.image_features(pixels) * self.text_features(ids)).sum(1)

    def image_features(self, pixels):
        """Pictures to vectors (B, D) of length 1."""
        with ops.autocast():
            return unit(ops.full_precision(self.visual_projection(self.vision_model(pixels)[1])))

    def text_features(self, ids):
        """Texts to vectors (B, D) of length 1."""
        with ops.autocast():
            return unit(ops.full_precision(self.text_projection(self.text_model(ids)[1])))

    def scale(self):
        """What cosines are multiplied by for a softmax over pictures or texts: a scalar."""
        return self.logit_scale.exp()


def unit(x):
    """Rows of x (B, D) divided by their lengths; a row of zeros stays."""
    return x / jt.maximum((x * x).sum(1).sqrt(), 1e-12).reshape(-1, 1)
