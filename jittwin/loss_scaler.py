"""Scaling of the loss for training in float16 (Micikevicius et al. 2018, arXiv 1710.03740), which ends at 6e-8.

The loss is multiplied by a factor before its gradients are computed, and the gradients are divided by it before the
update. The rule by which the factor changes is that of torch.amp.GradScaler.
"""
from dataclasses import dataclass


@dataclass
class LossScaler:
    """scale: the factor. clean: updates since it last changed.

    A step whose gradients are not all finite makes no update and multiplies the factor by `backoff`; `interval` updates
    in a row multiply it by `growth`.
    """

    scale: float = 65536.0
    clean: int = 0
    growth: float = 2.0
    backoff: float = 0.5
    interval: int = 2000

    def after(self, finite: bool) -> None:
        """Change the factor after a step whose gradients were all finite, or were not."""
        self.clean = self.clean + 1 if finite else 0
        if not finite:
            self.scale *= self.backoff
        elif self.clean == self.interval:
            self.scale, self.clean = min(self.scale * self.growth, 2.0 ** 127), 0
