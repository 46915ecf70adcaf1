"""Seeded faults, which the checks of parity must be able to find."""
from jittwin.errors import UserError, did_you_mean
from parity.faults import (
    aesthetic,
    backbones,
    blip,
    clip,
    distortion,
    distortion_losses,
    florence2,
    layers,
    networks,
    operators,
    processes,
    tier,
    training,
)
from parity.faults.fault import Fault, broken_copy, source

__all__ = ["FAULTS", "Fault", "broken_copy", "find", "source"]

TABLES = (operators, layers, networks, backbones, training, aesthetic, tier, blip, clip, florence2,
          distortion, distortion_losses, processes)
FAULTS: dict[str, Fault] = {fault.name: fault for table in TABLES for fault in table.FAULTS}


def find(name: str) -> Fault:
    """The fault of that name. UserError, with the nearest name, for an unknown one."""
    if name not in FAULTS:
        raise UserError(f"no fault {name!r}{did_you_mean(name, FAULTS)}: python -m parity mutate --list shows all "
                        f"{len(FAULTS)}")
    return FAULTS[name]
