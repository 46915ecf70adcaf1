"""`jittwin prepare landscape|ava|aigiqa4k|evalmuse`: check a data folder, or write one made here."""
import argparse
from pathlib import Path

from jittwin.classes import IGNORE
from jittwin.commands.options import add_pixel_limit, limit_pixels
from jittwin.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=list(KINDS), metavar="KIND", help=" or ".join(KINDS))
    parser.add_argument("folder", metavar="DIR", help="folder to check or to write; landscape: with imgs/ and labels/; "
                        "ava: with AVA.txt and images/; aigiqa4k: with annotation.xlsx, All/ and I2I/Image_prompt/; "
                        "evalmuse: with train/train_info.json and train/images/")
    parser.add_argument("--synthetic", type=int, metavar="N", help="write N procedural landscapes into DIR; the "
                        "others: write N damaged pictures with votes drawn to match")
    parser.add_argument("--photographs", nargs="+", metavar="PATH",
                        help="cut the N pictures from these files and folders instead of drawing them; "
                        "not for landscape")
    parser.add_argument("--distortions", choices=DISTORTIONS, help="evalmuse with --synthetic: what is planted; "
                        "glaring (the default): what a small network learns from nothing; conspicuous: what shows at "
                        "any size; all: six kinds, for networks that begin with Florence-2")
    parser.add_argument("--maps", choices=MAPS, help="evalmuse: also write train/maps.npz, the maps that the marked "
                        "regions give, of the pictures' sizes or as squares of 512 pixels")
    parser.add_argument("--ignore", metavar=IGNORE, help="landscape: what values of the label maps that are no class "
                        "are, such as 255=other; several are separated by commas")
    parser.add_argument("--size", type=size, default=(512, 384), metavar="WxH",
                        help="size of the written pictures in pixels (default: 512x384)")
    add_pixel_limit(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of the written pictures (default: 0)")


def size(text: str) -> tuple[int, int]:
    """(width, height) of "WxH"."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"'{text}' is not WIDTHxHEIGHT, for example 512x384")
    return int(width), int(height)


def run(args: argparse.Namespace) -> None:
    """Print what the folder holds. UserError: a file that training could not use; the message names the first one."""
    limit_pixels(args)
    if args.synthetic is not None and args.synthetic < 1:
        raise UserError(f"--synthetic {args.synthetic}: must be at least 1")
    if args.photographs and (args.kind == "landscape" or args.synthetic is None):
        raise UserError("--photographs: needs ava, aigiqa4k or evalmuse, and --synthetic N, the number of pictures to "
                        "cut from them")
    if args.maps and args.kind != "evalmuse":
        raise UserError(f"--maps {args.maps}: is for evalmuse; leave it out")
    if args.distortions and (args.kind != "evalmuse" or args.synthetic is None):
        raise UserError(f"--distortions {args.distortions}: is for evalmuse with --synthetic N; leave it out")
    if args.ignore is not None and args.kind != "landscape":
        raise UserError(f"--ignore {args.ignore}: is for landscape, which has label maps; leave it out")
    KINDS[args.kind](args)


def _landscape(args):
    from jittwin.data.landscape import LandscapeDataset
    from jittwin.data.synthetic.landscapes import write_folder

    if args.synthetic is not None:
        if any(Path(args.folder).glob("imgs/*")):
            raise UserError(f"{args.folder} already holds pictures: name a new folder")
        write_folder(args.folder, args.synthetic, *args.size, args.seed)
    dataset = LandscapeDataset(args.folder, ignore=args.ignore)
    dataset.decode_pictures()
    ready = f"{args.folder}: {len(dataset)} pairs of picture and label map, ready for training"
    print("\n".join([*dataset.notes, ready]))


def _ava(args):
    """Decode every picture and write DIR/bad_ids.txt, which training reads instead of decoding all of them again."""
    from jittwin.data.ava import BAD_IDS, AvaIndex, check_bad_fraction, scan, write_bad_ids
    from jittwin.data.synthetic.rated import write_mini_ava

    if args.synthetic is not None:
        write_mini_ava(args.folder, args.synthetic, *args.size, args.seed, args.photographs or ())
    index = AvaIndex(args.folder)
    print("\n".join(_contents(index)))
    bad = scan(index)
    print(f"{len(index.ids) - len(bad)} pictures can be decoded, {len(bad)} cannot: see {BAD_IDS}")
    write_bad_ids(index.folder / BAD_IDS, index, bad)
    check_bad_fraction(index, bad)
    print("\n".join(_splits(index, bad)))
    print(f"{args.folder}: ready for training")


def _contents(index):
    """Lines about AVA.txt and the folder of pictures."""
    import numpy as np

    from jittwin.data.ava import rating_fractions
    from jittwin.models.aesthetic import mean_score

    scores = index.scores
    votes = np.array(list(scores.values()))
    counts, means = votes.sum(axis=1), mean_score(rating_fractions(votes))
    yield (f"{scores.path}: {len(scores)} rated pictures, {counts.min():.0f} to {counts.max():.0f} votes each "
           f"(median {np.median(counts):.0f}), mean rating {means.mean():.3f}, deviation {means.std():.3f}")
    yield from index.left_out()


def _splits(index, bad):
    """A line for each mode of splitting: the sizes of the sets, or why this folder does not allow it."""
    from jittwin.data.ava_split import MODES, make_split

    for mode in MODES:
        try:
            split = make_split(index, mode).without(bad)
        except UserError as error:
            yield f"split {mode}: {str(error).removeprefix(f'split {mode}: ')}"
            continue
        choosing = "" if split.val_ids is split.test_ids else f"{len(split.val_ids)} to choose, "
        yield f"split {mode}: {len(split.train_ids)} to train, {choosing}{len(split.test_ids)} to test"


def _aigiqa4k(args):
    """Decodes every picture."""
    from jittwin.data.aigiqa4k import SPLITS, VOTES, Aigiqa4k, of_subset, prompt_groups
    from jittwin.data.landscape import each
    from jittwin.data.synthetic.prompted import write_mini_aigiqa4k

    if args.synthetic is not None:
        write_mini_aigiqa4k(args.folder, args.synthetic, *args.size, args.seed, args.photographs or ())
    data = Aigiqa4k(args.folder)
    print("\n".join([f"{data.table.path}: {len(data.rows)} pictures", *data.notes]))
    for name in VOTES:
        votes = [row.votes[name] for row in data.rows]
        print(f"{name}: mean {sum(votes) / len(votes):.3f}, {min(votes):.3f} to {max(votes):.3f}")
    failed = [line for line in each(_failure, data.readers(), "decoding pictures") if line]
    if failed:
        raise UserError(f"{failed[0]}; {len(failed)} of {len(data.readers())} pictures cannot be decoded")
    print(f"{len(data.rows)} pictures and {len(data.image_prompts)} image prompts decode")
    for subset in dict.fromkeys(("AIGIQA4K", *(row.subset for row in data.rows))):
        rows = of_subset(data.rows, subset)
        print(f"{subset}: {len(rows)} pictures, {len({row.prompt for row in rows})} texts, "
              f"{len(set(prompt_groups(rows)))} groups that share no text or image prompt")
        for mode in SPLITS:
            print(f"  split {mode}: {_parts(rows, mode)}")
    print(f"{args.folder}: ready for training")


def _failure(read) -> str:
    """Why a picture cannot be decoded, "" if it can."""
    try:
        read()
    except UserError as error:
        return str(error)
    return ""


def _parts(rows, mode) -> str:
    """What a split of rows leaves to train and to test on."""
    from jittwin.data.aigiqa4k import make_split

    try:
        train, test = make_split(rows, mode)
    except UserError as error:
        return str(error)
    known = {row.prompt for row in train}
    return (f"{len(train)} to train, {len(test)} to test, "
            f"{sum(row.prompt in known for row in test)} of them with a text that is trained on")


def _evalmuse(args):
    """Decodes every picture, draws every region, and writes DIR/problems.csv if something is unusual."""
    from jittwin.atomic import write_file
    from jittwin.data.evalmuse import PARTS
    from jittwin.data.synthetic.distorted import write_mini_evalmuse

    folder, problems = Path(args.folder), []
    if args.synthetic is not None:
        write_mini_evalmuse(folder, args.synthetic, *args.size, args.seed, args.photographs or (),
                            args.distortions or DISTORTIONS[0])
    parts = [part for part in PARTS if (folder / part).exists()] or ["train"]
    if args.maps and "train" not in parts:
        raise UserError(f"--maps {args.maps}: needs {folder / 'train'}, which is missing; leave it out")
    for part in parts:
        problems += [(part, problem) for problem in _evalmuse_part(folder, part, args.maps)]
    if problems:
        print(f"{len(problems)} things are unusual; the pictures are used as they are. The first ones:")
        print("\n".join(f"  {part}: {problem}" for part, problem in problems[:SHOWN]))
        write_file(folder / PROBLEMS, _csv([("part", "picture", "what"), *(
            (part, problem.name, problem.what) for part, problem in problems)]))
        print(f"all of them: {folder / PROBLEMS}")
    print(f"{folder}: ready {'for training' if 'train' in parts else 'to be predicted'}")


def _evalmuse_part(folder, part, kept):
    """Print what a part of EvalMuse holds and return its problems. kept: the maps to write, one of MAPS or None."""
    from jittwin.data.evalmuse import EvalMuse
    from jittwin.data.evalmuse_files import STORED_SIDE, maps, open_training, stored_maps, write_maps

    side, problems = STORED_SIDE if kept == "512" else None, []
    if part == "train" and stored_maps(folder):
        samples, _, notes = open_training(folder)
        print("\n".join(notes))
        if not kept:        # else they are looked at when they are written
            print(f"{folder / part}: {sum(1 for _ in maps(samples))} pictures, all decode, with maps")
    else:
        data = EvalMuse(folder, part)
        samples, problems = data.samples, data.problems + data.geometry()
        print("\n".join([*_marked(data), *data.notes]))
    if part == "train" and kept:
        print(f"{folder / part / 'maps.npz'}: {write_maps(folder / part / 'maps.npz', maps(samples, side))} maps")
    return problems


def _marked(data):
    """Lines about the pictures, votes and regions of a part of EvalMuse."""
    from jittwin.data.evalmuse import to_vote

    yield f"{data.path}: {len(data.samples)} pictures, all decode"
    votes = [to_vote(sample.score) for sample in data.samples if sample.score is not None]
    if votes:
        regions = [len(each) for marks in data.marks.values() for each in marks]
        clean = sum(not any(marks) for marks in data.marks.values())
        yield (f"votes: mean {sum(votes) / len(votes):.3f}, {min(votes):.3f} to {max(votes):.3f}; {sum(regions)} "
               f"regions by {len(regions)} annotations; {clean} pictures are not marked at all")


def _csv(rows) -> str:
    import csv
    import io

    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


SHOWN = 10                  # problems that are printed
PROBLEMS = "problems.csv"
MAPS = ("native", "512")
DISTORTIONS = ("glaring", "conspicuous", "all")    # the first is the default
KINDS = {"landscape": _landscape, "ava": _ava, "aigiqa4k": _aigiqa4k, "evalmuse": _evalmuse}
