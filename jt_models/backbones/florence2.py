"""Florence-2 without its decoder (Xiao et al. 2023, arXiv 2311.06242): tokens of a picture, read together with a text.

Keys are those of florence-community/Florence-2-* on the Hugging Face hub, without the prefix "model.".
"""
from jt_models.backbones.bart import BartEncoder
from jt_models.backbones.davit import DaViT, to_tokens
from jt_models.nn import ops
from jt_models.nn.layers import Embedding, LayerNorm, Linear, Module, checkpoint, name_dropouts


class Positions(Module):
    """Embeddings (height width, C) of the places of a map: the column in the first half, the row in the second."""

    def __init__(self, config):
        super().__init__()
        width = config.embed_dim[-1]
        self.row_embeddings = Embedding(config.max_position_embeddings, width // 2)
        self.column_embeddings = Embedding(config.max_position_embeddings, width - width // 2)

    def execute(self, height: int, width: int):
        rows, columns = self.row_embeddings.weight[:height], self.column_embeddings.weight[:width]
        if (rows.shape[0], columns.shape[0]) != (height, width):
            raise ValueError(f"a picture of {height} x {width} tokens, and there are {rows.shape[0]} x "
                             f"{columns.shape[0]} places")
        rows = ops.zeros((height, width, rows.shape[1])) + rows.reshape(height, 1, -1)
        columns = ops.zeros((height, width, columns.shape[1])) + columns.reshape(1, width, -1)
        return ops.concat([columns, rows], 2).reshape(height * width, -1)


class Times(Module):
    """The constant embedding (1, C) of the time of a single picture."""

    def __init__(self, config):
        super().__init__()
        self.register_buffer("pos_idx_to_embed", ops.zeros((config.max_temporal_embeddings, config.embed_dim[-1])))

    def execute(self):
        return self.pos_idx_to_embed[:1]


class Projector(Module):
    """A map (B, C, h, w) to tokens (B, 1 + h w, D): their mean, then each."""

    def __init__(self, vision, width: int):
        super().__init__()
        self.image_projection = Linear(vision.embed_dim[-1], width, bias=False)
        self.image_proj_norm = LayerNorm(width)
        self.image_position_embed = Positions(vision)
        self.visual_temporal_embed = Times(vision)

    def execute(self, x):
        tokens = to_tokens(x) + self.image_position_embed(*x.shape[2:]) + self.visual_temporal_embed()
        tokens = ops.concat([ops.mean_dims(tokens, (1,)), tokens], 1)
        return self.image_proj_norm(self.image_projection(tokens))


class LanguageModel(Module):
    """The table of tokens, whose padding gets no gradient, and the encoder."""

    def __init__(self, config):
        super().__init__()
        self.shared = Embedding(config.vocab_size, config.d_model, padding_idx=config.pad_token_id)
        self.encoder = BartEncoder(config)


class Florence2(Module):
    """Pictures (B, 3, H, W) and a text for each to tokens of the pictures, and of pictures and texts together.

    config: a jittwin.models.florence2.Florence2Config. gradient_checkpointing: compute each block and layer again for
    its gradient instead of keeping its inner results. The weights must be loaded.
    """

    def __init__(self, config, gradient_checkpointing: bool = False):
        super().__init__()
        self.vision_tower = DaViT(config.vision)
        self.multi_modal_projector = Projector(config.vision, config.text.d_model)
        self.language_model = LanguageModel(config.text)
        self.call = checkpoint if gradient_checkpointing else None
        name_dropouts(self)

    def execute(self, pixels, ids, keep=None):
        """(tokens of the pictures (B, M, D) before they are read, tokens (B, M + N, D) of pictures and texts, read).

        M = 1 + H W / 32^2; the first token is the mean of the others. ids: of the tokens of the texts (B, N). keep:
        (B, N), 1 for tokens and 0 for padding, which is then not attended to; None attends to all.
        """
        image = self.look(pixels)
        return image, self.read(image, ids, keep)

    def look(self, pixels):
        """Tokens (B, M, D) of pictures."""
        with ops.autocast():
            return ops.full_precision(self.multi_modal_projector(self.vision_tower(pixels, self.call)))

    def read(self, image, ids, keep=None):
        """Tokens (B, M + N, D) of pictures, as `look` gives them, and texts, read together."""
        mask = None
        if keep is not None:
            mask = ops.detach(ops.padding_mask(ops.concat([ops.zeros(image.shape[:2]) + 1, keep * 1.0], 1)))
        with ops.autocast():
            x = ops.concat([image, self.language_model.shared(ids)], 1)
            return ops.full_precision(self.language_model.encoder(x, mask, self.call))
