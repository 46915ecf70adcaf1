"""Faults of Florence-2's trunk and of the detector of structural distortion."""
from parity.faults.fault import Fault

H = "assess/distortion.py"
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
    Fault("edges_of_maps_in_place", "F7", H,
          "align_corners=True", "align_corners=False", "maps are doubled with their edges in place, not their corners"),
    Fault("read_tokens_first", "", H,
          "ops.concat([image, hidden[:, :count]], 2)", "ops.concat([hidden[:, :count], image], 2)",
          "the mask head gets the tokens after they were read before those that were not"),
    Fault("score_of_the_unread_picture", "", H,
          "            seen = hidden[:, 0]", "            seen = image[:, 0]",
          "the score is that of the picture's token before it was read with the text"),
)
