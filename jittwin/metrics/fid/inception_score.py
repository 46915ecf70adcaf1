"""Inception score: how sure the classifier is of each image, and how varied its answers are.

Salimans et al. 2016, arXiv 1606.03498.
"""
import numpy as np

SPLITS = 10


def inception_score(logits: np.ndarray, splits: int = SPLITS) -> tuple[float, float]:
    """(mean, standard deviation) over the splits of exp(E KL(p(y|x) || p(y))), from logits (n, classes).

    The splits are successive parts of the rows, of nearly equal length. ValueError: n < splits.
    """
    logits = np.asarray(logits, np.float64)
    if len(logits) < splits:
        raise ValueError(f"the inception score in {splits} splits needs as many images, got {len(logits)}")
    logits = logits - logits.max(1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    scores = []
    for part in np.array_split(log_p, splits):
        p = np.exp(part)
        # A class whose p underflows to 0 everywhere adds nothing; 1 avoids the logarithm of 0.
        log_mean = np.log(np.where(p.any(0), p.mean(0), 1))
        divergence = (p * (part - log_mean)).sum(1)
        scores.append(float(np.exp(divergence.mean())))
    return float(np.mean(scores)), float(np.std(scores))
