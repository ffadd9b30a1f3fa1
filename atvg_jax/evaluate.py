"""``python -m atvg_jax.evaluate``: scores a model on a prepared split, or any system's videos.

It draws the paper's figures, too, and lays evaluations side by side.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from atvg_jax import command_line
from atvg_jax.errors import InputError

if TYPE_CHECKING:
    from atvg_jax.evaluation import judge, report
    from atvg_jax.evaluation.protocol import Problem

MOST_VIDEOS = 20
COLUMNS = 8


def parser() -> command_line.Parser:
    """The flags."""
    flags = command_line.Parser(
        "python -m atvg_jax.evaluate",
        "Scores talking faces: a model on a split of a prepared data set (--model, --data), or any "
        "system's videos against the real ones of the same names (--real, --generated). Ground "
        "truth and a static portrait stand beside every score. --figure draws one of the paper's "
        "figures instead, and --compare puts several evaluations into one table.",
        "python -m atvg_jax.evaluate --model=models/compact --data=datasets/lrw --split=test "
        "--out=scores\n  python -m atvg_jax.evaluate --real=videos/real --generated=videos/wav2lip "
        "--out=scores\n  python -m atvg_jax.evaluate --figure=5 --scores=scores --out=figure5.png",
    )
    add = flags.add_argument
    add(
        "--out",
        type=Path,
        required=True,
        metavar="PATH",
        help="folder for the report; with --figure a .png, .pdf or .svg, with --compare a .md",
    )
    add("--model", type=Path, metavar="DIR", help="model directory")
    add("--data", type=Path, metavar="DIR", help="prepared data set")
    add("--split", help="train, validation or test (default)")
    add(
        "--baseline_train",
        type=Path,
        metavar="DIR",
        help="data set to fit ridge regression on, as a second way from sound to landmarks",
    )
    add("--real", type=Path, metavar="DIR", help="folder of real videos")
    add("--generated", type=Path, metavar="DIR", help="folder of generated videos")
    add("--no_cpbd", action="store_true", help="leave sharpness out")
    add("--no_landmarks", action="store_true", help="find no landmarks in generated frames")
    add("--no_identity", action="store_true", help="leave identity similarity out")
    add(
        "--lpips", type=Path, metavar="FILE",
        help="weights of LPIPS 0.1 with AlexNet (.safetensors, .npz): score with it too",
    )  # fmt: skip
    add(
        "--fid", type=Path, metavar="FILE",
        help="weights of FID's Inception v3, pt_inception-2015-12-05: score with it too",
    )  # fmt: skip
    add(
        "--lse", type=Path, metavar="FILE",
        help="weights of SyncNet, syncnet_v2: score LSE-D and LSE-C with it too",
    )  # fmt: skip
    add("--limit", type=int, metavar="N", help="score at most N clips")
    add(
        "--videos",
        type=int,
        default=MOST_VIDEOS,
        metavar="N",
        help=f"show N clips side by side on the page (default {MOST_VIDEOS})",
    )
    add("--workers", type=int, metavar="N", help="processes (default: one for each core)")
    add(
        "--figure",
        type=int,
        choices=(2, 5, 6),
        help="2: sound, attention, motion and frames of one clip; 5: quality against landmark "
        "distance and pose; 6: one sentence, many faces",
    )
    add("--scores", type=Path, metavar="DIR", help="figure 5: an evaluation, its --out")
    add(
        "--image",
        action="extend",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="figures 2 and 6: portraits (default: the bundled ones)",
    )
    add(
        "--landmarks",
        action="extend",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="figures 2 and 6: 68 points for each image, for faces that no detector finds",
    )
    add("--audio", type=Path, metavar="FILE", help="figures 2 and 6: sound (default: bundled)")
    add("--columns", type=int, metavar="N", help="figures 2 and 6: moments to show (default 8)")
    add(
        "--compare",
        action="extend",
        nargs="+",
        metavar="NAME=DIR",
        help="evaluations (their --out) on the same clips, one line of the table for each",
    )
    return flags


SCORING = (
    "data", "split", "baseline_train", "real", "generated", "no_cpbd", "no_landmarks",
    "no_identity", "lpips", "fid", "lse", "limit", "workers",
)  # fmt: skip
DRAWING = ("image", "landmarks", "audio", "columns")


def check(arguments: argparse.Namespace) -> None:
    """Raises ``InputError`` for flags that do not go together."""
    given = {name for name, value in vars(arguments).items() if value not in (None, False)}
    for name, least in (("limit", 1), ("workers", 1), ("videos", 0), ("columns", 1)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise InputError(f"--{name}={value}: must be at least {least}")
    if arguments.figure == 5:
        _check_mode(given, "--figure=5", needed=("scores",), useless=(*SCORING, *DRAWING, "model"))
    elif arguments.figure:
        _check_mode(given, f"--figure={arguments.figure}", useless=(*SCORING, "scores"))
    elif arguments.compare:
        _check_mode(given, "--compare", useless=(*SCORING, *DRAWING, "model", "scores"))
    elif given & {"real", "generated"}:
        useless = (*DRAWING, "model", "data", "split", "baseline_train", "scores")
        _check_mode(given, "--real with --generated", ("real", "generated"), useless)
    else:
        _check_mode(given, "--model with --data", ("model", "data"), (*DRAWING, "scores"))
    if not arguments.figure and not arguments.compare and arguments.out.is_file():
        raise InputError(f"--out={arguments.out} is a file; give a folder")


def _check_mode(
    given: set[str], mode: str, needed: tuple[str, ...] = (), useless: tuple[str, ...] = ()
) -> None:
    missing = [f"--{name}" for name in needed if name not in given]
    if missing:
        raise InputError(
            f"{' and '.join(missing)} missing: give --model and --data, --real and --generated, "
            "--figure or --compare"
        )
    extra = [f"--{name}" for name in useless if name in given]
    if extra:
        raise InputError(f"{', '.join(extra)} cannot be used: this is {mode}")


def settings_of(arguments: argparse.Namespace) -> "judge.Settings":
    """What is to be measured; weights are looked at before anything else takes its time."""
    from atvg_jax.evaluation import judge

    if arguments.lpips is not None:
        from atvg_jax.evaluation.backbones.lpips import Lpips

        Lpips(arguments.lpips)
    if arguments.fid is not None:
        from atvg_jax.evaluation.backbones.inception import Inception

        Inception(arguments.fid)
    if arguments.lse is not None:
        from atvg_jax.evaluation.backbones.syncnet import SyncNet

        SyncNet(arguments.lse)
    return judge.Settings(
        cpbd=not arguments.no_cpbd,
        landmarks=not arguments.no_landmarks,
        identity=not arguments.no_identity,
        lpips=arguments.lpips,
        fid=arguments.fid,
        lse=arguments.lse,
    )


def named(measured: "judge.Settings") -> dict[str, Any]:
    """The settings as JSON can hold them."""
    values = dataclasses.asdict(measured)
    return {name: str(v) if isinstance(v, Path) else v for name, v in values.items()}


class Judged(NamedTuple):
    """What came of all clips.

    Attributes:
        tables: by name, the scores of every system and clip.
        fid: by system; empty without its weights.
        problems: clips that could not be scored.
    """

    tables: dict[str, list["judge.Scores"]]
    fid: dict[str, float]
    problems: list["Problem"]


def run_all(
    work: Callable[[Any], Any], todo: Iterable[Any], count: int, workers: int | None
) -> Judged:
    """Does all the work, with a progress bar; ``work`` gives scores by table, or a problem."""
    import tqdm

    from atvg_jax.evaluation import judge
    from atvg_jax.evaluation.backbones.inception import FrechetDistances
    from atvg_jax.evaluation.protocol import Problem, in_processes

    tables: dict[str, list[judge.Scores]] = {}
    problems: list[Problem] = []
    distances = FrechetDistances()
    with tqdm.tqdm(total=count, unit="clip", desc="judging") as bar:
        for result in in_processes(work, todo, workers):
            bar.update()
            if isinstance(result, Problem):
                problems.append(result)
                continue
            for table, scores in result.items():
                for one in scores:
                    if one.features is not None:
                        distances.add(one.system, one.features)
                    # Features of a large set do not fit into memory; their moments do.
                    tables.setdefault(table, []).append(dataclasses.replace(one, features=None))
    return Judged(tables, distances.from_system(judge.GROUND_TRUTH), problems)


def tables_of(judged: Judged) -> list["report.Table"]:
    """The report's tables, FID in that of frames."""
    from atvg_jax.evaluation import report

    fid = {system: {"fid": value} for system, value in judged.fid.items()}
    return [
        report.Table(name, name.capitalize(), scores, fid if name == "frames" else {})
        for name, scores in judged.tables.items()
    ]


def shown_clips(judged: Judged) -> list[str]:
    """Ids of the clips that were scored."""
    return list(dict.fromkeys(one.clip_id for one in judged.tables.get("frames", [])))


def evaluate_model(arguments: argparse.Namespace) -> "report.Report":
    """Scores a model on a split."""
    from atvg_jax import evaluate_model as join
    from atvg_jax.data import schema
    from atvg_jax.data.records import ClipRecords
    from atvg_jax.evaluation import report
    from atvg_jax.inference import model_directory
    from atvg_jax.inference.prepared import PreparedFace

    measured = settings_of(arguments)
    split = arguments.split or "test"
    records = ClipRecords(schema.data_files(arguments.data, split))
    face = PreparedFace(model_directory.read(arguments.model))
    ridge = None
    if arguments.baseline_train is not None:
        ridge = join.fit_ridge(arguments.baseline_train, face.basis)
    count = min(len(records), arguments.limit or len(records))
    if not count:
        raise InputError(f"{arguments.data}: its {split} split is empty")
    videos_folder = arguments.out / report.VIDEOS_FOLDER if arguments.videos else None
    todo = join.tasks(face, records, measured, ridge, videos_folder, arguments.videos, count)
    judged = run_all(join.judge_task, todo, count, arguments.workers)
    settings = {
        "model": str(arguments.model),
        "data": str(arguments.data),
        "split": split,
        "clips": count,
        "portrait": "each clip's first frame, which is not scored",
        "ridge_penalty": None if ridge is None else ridge.penalty,
        "measured": named(measured),
    }
    return report.Report(
        f"{arguments.model.name} on {arguments.data.name}, {split}",
        settings,
        tables_of(judged),
        judged.problems,
        report.videos_in(videos_folder, shown_clips(judged)),
    )


def evaluate_videos(arguments: argparse.Namespace) -> "report.Report":
    """Scores a folder of videos against another."""
    from atvg_jax.evaluation import folders, report

    measured = settings_of(arguments)
    videos_folder = arguments.out / report.VIDEOS_FOLDER if arguments.videos else None
    todo, unmatched = folders.pairs(
        arguments.real, arguments.generated, measured, videos_folder, arguments.videos
    )
    todo = todo[: arguments.limit]
    judged = run_all(folders.judge_pair, todo, len(todo), arguments.workers)
    settings = {
        "real": str(arguments.real),
        "generated": str(arguments.generated),
        "clips": len(todo),
        "frame_rate": 25,
        "portrait": "each real video's first frame with a face, which is not scored",
        "measured": named(measured),
    }
    return report.Report(
        f"{arguments.generated.resolve().name} against {arguments.real.resolve().name}",
        settings,
        tables_of(judged),
        unmatched + judged.problems,
        report.videos_in(videos_folder, shown_clips(judged)),
    )


def draw(arguments: argparse.Namespace) -> str:
    """Draws a figure; returns what was made."""
    from atvg_jax.evaluation import figures

    if arguments.out.suffix.lower() not in figures.SUFFIXES:
        raise InputError(f"--out={arguments.out}: a figure ends in {', '.join(figures.SUFFIXES)}")
    if arguments.figure == 5:
        table = figures.quality_against_distance(arguments.out, arguments.scores)
        return f"wrote {arguments.out}, its bins and counts in {table}"
    from atvg_jax import evaluate_figures

    images, points = arguments.image or [], arguments.landmarks or []
    columns = arguments.columns or COLUMNS
    sources = (arguments.out, arguments.model)
    if arguments.figure == 6:
        made = evaluate_figures.figure_6(*sources, images, arguments.audio, points, columns)
        return f"wrote {arguments.out}: of {made} frames"
    if max(len(images), len(points)) > 1:
        raise InputError("--figure=2 shows one portrait; --figure=6 shows several")
    one, its_points = (images or [None])[0], (points or [None])[0]
    made = evaluate_figures.figure_2(*sources, one, arguments.audio, its_points, columns)
    return f"wrote {arguments.out}: of {made} frames"


def compare(arguments: argparse.Namespace) -> str:
    """Puts evaluations into one table; returns what was made."""
    from atvg_jax.evaluation import comparison

    folders: dict[str, Path] = {}
    for text in arguments.compare:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise InputError(f"--compare {text}: give NAME=DIR, the name in the table and --out")
        if name in folders:
            raise InputError(f"--compare {text}: {name} is there already")
        folders[name] = Path(folder)
    if arguments.out.suffix.lower() != ".md":
        raise InputError(f"--out={arguments.out}: --compare writes Markdown, .md")
    tables = comparison.write(arguments.out, folders)
    return f"wrote {arguments.out}: {tables} tables of {len(folders)} evaluations"


def score(arguments: argparse.Namespace) -> str:
    """Scores a model or videos and writes the report; returns what was made."""
    from atvg_jax.evaluation import report

    made = evaluate_videos(arguments) if arguments.real else evaluate_model(arguments)
    if not made.tables:
        first = made.problems[0]
        raise InputError(
            f"none of {len(made.problems)} clips could be scored; the first: {first.message}"
        )
    summaries = report.write(arguments.out, made)
    for table in made.tables:
        lines = report.plain_table(report.rows(summaries[table.name], intervals=False))
        print(f"{table.title}:", *lines, "", sep="\n")
    own = next(iter(summaries["frames"].values()))
    failed = f", {len(made.problems)} not scored (see the report)" if made.problems else ""
    page = arguments.out / report.PAGE_FILE
    return f"wrote {page}: {own.clips} clips of {own.frames} frames scored{failed}"


def main() -> None:
    """Parses the flags, does what they ask for, says what was made."""
    started = time.monotonic()
    arguments = parser().parse_args()
    check(arguments)
    do = draw if arguments.figure else compare if arguments.compare else score
    made = do(arguments)
    print(f"{made}, in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    command_line.run(main)
