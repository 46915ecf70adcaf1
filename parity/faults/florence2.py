"""Faults of Florence-2's trunk and of the detector of structural distortion."""
from parity.faults.fault import Fault

V, T, F = (f"backbones/{name}.py" for name in ("davit", "bart", "florence2"))
TRUNK = ("florence2",)

FAULTS = (
    Fault("channels_scaled_by_width", "", V,
          "ops.attention(q, k, v, self.groups).reshape",
          "ops.attention(q * (tokens / each) ** 0.5, k, v, self.groups).reshape",
          "products of channels are divided by the root of the group's width, as between tokens", TRUNK),
    Fault("windows_filled_before", "", V,
          "ops.concat([x, ops.zeros(shape)], dim)", "ops.concat([ops.zeros(shape), x], dim)",
          "windows that do not tile the map are filled above and to the left", TRUNK),
    Fault("rows_before_columns", "", F,
          "ops.concat([columns, rows], 2)", "ops.concat([rows, columns], 2)",
          "the row's embedding is in the half of the column's, which has the same length", TRUNK),
    Fault("mean_after_the_tokens", "", F,
          "ops.concat([ops.mean_dims(tokens, (1,)), tokens], 1)",
          "ops.concat([tokens, ops.mean_dims(tokens, (1,))], 1)",
          "the token of the whole picture is the last of the picture", TRUNK),
    Fault("positions_without_offset", "", T,
          "self.embed_positions.weight[OFFSET:OFFSET + x.shape[1]]", "self.embed_positions.weight[:x.shape[1]]",
          "the first position takes the first row of the table", TRUNK),
    Fault("normalised_before_attention", "", T,
          "self.self_attn_layer_norm(x + self.attention_dropout(self.self_attn(x, mask)))",
          "x + self.attention_dropout(self.self_attn(self.self_attn_layer_norm(x), mask))",
          "a layer normalises what it reads instead of its sum", TRUNK),
)
