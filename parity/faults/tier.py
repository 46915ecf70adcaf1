"""Faults of TIER: how features of texts and pictures are averaged, joined and judged."""
from parity.faults.fault import Fault

T = "assess/tier.py"

FAULTS = (
    Fault("text_after_picture", "", T,
          "ops.concat([text, image], 1) if self.reads", "ops.concat([image, text], 1) if self.reads",
          "the regressor gets the picture's features first"),
    Fault("padding_averaged", "", T,
          "(hidden * keep).sum(1) / keep.sum(1)", "hidden.sum(1) / hidden.shape[1]",
          "the mean over a text counts its padding"),
    Fault("first_token_for_the_mean", "", T,
          "return (hidden * keep).sum(1) / keep.sum(1)", "return hidden[:, 0]",
          "the text's feature is that of its first token"),
    Fault("prompt_before_picture", "", T,
          "ops.concat([first, second], 1) if", "ops.concat([second, first], 1) if",
          "the image prompt's features come before the picture's"),
    Fault("absent_prompt_counted", "", T,
          "self.join(features[:count], rows(features, second))",
          "self.join(features[:count], rows(features, second) * (second[:, None] >= count).astype(np.float32))",
          "an image prompt that is not there halves the features"),
    Fault("zeros_in_the_batch", "", T,
          "np.arange(count) if self.legacy_pr_batch else np.flatnonzero(there)", "np.arange(count)",
          "pictures of zeros change the statistics of a batch although nobody asked for them"),
    Fault("one_prompt_for_all", "", T,
          "count + np.searchsorted(given, np.flatnonzero(there))", "count",
          "every picture is judged with the first image prompt of the batch"),
    Fault("regressor_is_linear", "", T,
          "self.fc2(ops.relu(self.fc1(x)))", "self.fc2(self.fc1(x))", "the regressor has no activation"),
    Fault("half_the_loss", "", T,
          "ops.mean(gap * gap)", "ops.mean(gap * gap) / 2", "the loss is half the mean square, as some write it"),
    Fault("masks_of_the_text_encoder_alone", "", T,
          "        name_dropouts(self)\n", "", "dropout is keyed by the paths inside BERT, not inside TIER"),
)
