"""Faults of training in several processes."""
from parity.faults.fault import Fault
from parity.faults.where import AESTHETIC_TRAINING, DISTORTION_TRAINING, TIER_TRAINING, TRAINING

ONLY = ("processes",)
EXCHANGE, BACKEND, OPS, LAYERS = "nn/processes.py", "backend.py", "nn/ops.py", "nn/layers.py"
MODULATION = "nn/kernels/modulation.py"
SHARES, DRAWS, TRAINER = "jittwin/processes.py", "jittwin/draws.py", "jittwin/engine/trainer.py"


def fault(name: str, file: str, old: str, new: str, why: str, *cases: str) -> Fault:
    return Fault(name, "", file, old, new, why, cases, levels=ONLY)


FAULTS = (
    fault("gradients_not_exchanged", BACKEND,
          "if self.world_size > 1:\n            gradients", "if False:\n            gradients",
          "each process follows its own gradients", AESTHETIC_TRAINING),
    fault("gradients_summed", EXCHANGE,
          'tensor.mpi_all_reduce("mean")', 'tensor.mpi_all_reduce("add")',
          "the gradients of all processes are added instead of averaged", TIER_TRAINING),
    fault("statistics_of_own_rows", LAYERS,
          "share = processes.share() if joint else None", "share = None",
          "each process normalises by its own pictures", TIER_TRAINING),
    fault("gradient_of_statistics_not_exchanged", MODULATION,
          "processes.all_sum(sums)", "processes.share().processes * sums",
          "joint statistics are constants for the pictures of other processes", TRAINING),
    fault("count_of_own_rows", EXCHANGE,
          "weights = counts / count", "weights = jt.ones_like(counts) / now.processes",
          "processes with fewer rows than others count as much as these", TIER_TRAINING),
    fault("scores_of_own_rows", "assess/distortion_losses.py",
          "scores, votes = processes.whole(scores), processes.whole(votes)", "scores, votes = scores, votes",
          "the correlation is that of each process's pictures", DISTORTION_TRAINING),
    fault("same_dropout_in_all", OPS,
          "number + 0x9E3779B1 * processes.first_element(elements) & 0xFFFFFFFF", "number & 0xFFFFFFFF",
          "every process drops what the first one drops", AESTHETIC_TRAINING),
    fault("same_rows_in_all", SHARES,
          "for which in (rank, rank + 1)", "for which in (0, 1)",
          "every process trains on the rows of the first", AESTHETIC_TRAINING),
    fault("same_draws_in_all", DRAWS,
          "return drawn[self.share.taken]", "return drawn[:self.share.rows]",
          "every process augments as the first one does", TRAINING),
    fault("draws_by_rank", TRAINER,
          "self.backend.seed(draws.device_seed(), share)",
          "self.backend.seed(draws.device_seed() + share.first, share)",
          "each process has a seed of its own", AESTHETIC_TRAINING),
    fault("weights_of_rows_equal", TRAINER,
          "weight = share.weight if share else 1.0", "weight = 1.0",
          "in a batch that is not shared evenly, the pictures of some processes count more", TIER_TRAINING),
    fault("losses_of_one_process", TRAINER,
          "values = dict(zip(values, joint.tolist()))", "pass",
          "the log tells the losses of the first process alone", AESTHETIC_TRAINING),
)
