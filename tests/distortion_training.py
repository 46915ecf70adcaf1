"""Training of the detector of distortion, as tests that either twin must pass."""
from jittwin.checkpoints.store import Checkpoints
from jittwin.training import train


def options() -> list[str]:
    """Eleven pictures to train on and four to validate with; two batches in the warm-up, then three of each epoch."""
    return ["preset=tiny", "synthetic_images=15", "val_split=4", "warmup_batch_size=6", "batch_size=4", "epochs=2",
            "save_epochs=1", "lr=1e-3", "workers=1", "sample_every=1000"]


def check_resumption(backend: str, folder) -> None:
    """A run that stops in the warm-up, and one that stops in the main stage, go on to the same bytes."""
    for name, given, stops in (("full", ["warmup_epochs=1", "ema=0.9"], (1, 4)),
                               ("lora", ["warmup_epochs=0", "lora_rank=2"], (2,)),
                               ("half", ["warmup_epochs=0", "precision=float16", "epochs=1"], (2,))):
        whole, parts = folder / f"{name}-whole", folder / f"{name}-parts"
        train("distortion", backend, out=str(whole), overrides=[*options(), *given])
        train("distortion", backend, out=str(parts), overrides=[*options(), *given, f"max_steps={stops[0]}"])
        for stop in (*stops[1:], "none"):
            train("distortion", backend, out=str(parts), resume=True, overrides=[f"max_steps={stop}"])
        last = Checkpoints(whole).latest()
        assert last == Checkpoints(parts).latest()
        stems = sorted(path.name for path in (Checkpoints(whole).folder / last).glob("*.safetensors"))
        assert stems == ["model.ema.safetensors", "model.safetensors", "optimizer.safetensors"][name != "full":]
        assert ("progress" in Checkpoints(whole).state(last)) == (name == "half")       # the factor of the loss
        for stem in stems:
            one, other = ((Checkpoints(run).folder / last / stem).read_bytes() for run in (whole, parts))
            assert one == other, stem
        assert (whole / "merged.safetensors").exists() == (name == "lora")
