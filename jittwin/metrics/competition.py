"""The score of the second Jittor AI challenge, track 1: landscapes from label maps.

Mask accuracy is a factor of the automatic score, so pictures that do not show their labels score 0.
"""


def a_board(mask_accuracy: float, aesthetic: float, fid: float) -> float:
    """Automatic score, 0..1. mask_accuracy: 0..1. aesthetic: mean score, 1..10. fid: values above 100 count as 100."""
    return mask_accuracy * (aesthetic / 10 * 0.5 + fid_quality(fid) * 0.5)


def b_board(mask_accuracy: float, aesthetic: float, fid: float, public: float, expert: float, defence: float) -> float:
    """Final score, 0..1. public, expert: votes. defence: mark of the oral defence. All three are 0..1."""
    automatic = mask_accuracy * (aesthetic / 10 * 0.25 + fid_quality(fid) * 0.25)
    return automatic + 0.15 * public + 0.15 * expert + 0.2 * defence


def fid_quality(fid: float) -> float:
    """Linear in FID: 1 for a FID of 0, 0 for 100 and more."""
    return (100 - min(fid, 100)) / 100
