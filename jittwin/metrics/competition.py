"""The score of the second Jittor AI challenge, track 1: landscapes from label maps.

Mask accuracy multiplies everything: a picture that does not show its labels earns nothing.
"""


def a_board(mask_accuracy: float, aesthetic: float, fid: float) -> float:
    """Automatic score, 0..1, of mask accuracy (0..1), mean aesthetic score (1..10) and FID, which counts up to 100."""
    return mask_accuracy * (aesthetic / 10 * 0.5 + fid_share(fid) * 0.5)


def b_board(mask_accuracy: float, aesthetic: float, fid: float, public: float, expert: float, defence: float) -> float:
    """Final score, 0..1, with the votes of the public and of experts and the mark of the defence, each 0..1."""
    automatic = mask_accuracy * (aesthetic / 10 * 0.25 + fid_share(fid) * 0.25)
    return automatic + 0.15 * public + 0.15 * expert + 0.2 * defence


def fid_share(fid: float) -> float:
    """1 for a FID of 0, 0 from 100 on."""
    return (100 - min(fid, 100)) / 100
