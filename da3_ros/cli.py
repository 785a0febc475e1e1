"""The command `da3`. What a command needs is imported when it is called, so that help comes at once."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .from_msg import StampedTransform


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits with its code: 0 done, 1 failed, 2 wrong usage, 3 a damaged input done in part, 128 + signal stopped."""
    parser = argparse.ArgumentParser(
        prog="da3",
        description="Depth Anything 3 for robots.",
        epilog="\n".join(f"  {name:8}{text}" for name, (_, text) in COMMANDS.items()) + "\n\nda3 COMMAND --help says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="tell everything, and show tracebacks")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    _log_to_terminal(parsed.debug)
    command, text = COMMANDS[parsed.command]
    try:
        sys.exit(command(argparse.ArgumentParser(prog=f"da3 {parsed.command}", description=text), parsed.rest))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if parsed.debug or not isinstance(error, (ValueError, OSError, ImportError)):
            raise
        print(f"da3 {parsed.command}: {_with_remedy(error)}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 1))


def _bag(parser: argparse.ArgumentParser, rest: Sequence[str]) -> int:
    from .bag.job import BagJob, run_bag
    from .bag.plan import SourceOptions
    from .flags import OfflineConfig, add_settings, load_engine, read_settings

    parser.add_argument("input", type=Path, help="ROS 2 bag (directory, .mcap or .db3) or ROS 1 bag")
    parser.add_argument("output", type=Path, help="new bag: a directory, or one file when it ends in .mcap")
    parser.add_argument("--camera", action="append", default=[], metavar="[NAME=]TOPIC[,INFO_TOPIC]", help="a camera to process; repeat it")
    parser.add_argument("--odometry", default="", metavar="TOPIC|tf|none", help="where poses come from")
    parser.add_argument("--world-frame", default="", metavar="FRAME", help="frame of poses")
    parser.add_argument(
        "--static-transform",
        action="append",
        default=[],
        nargs=9,
        metavar=("PARENT", "CHILD", "X", "Y", "Z", "QX", "QY", "QZ", "QW"),
        help="a link that TF lacks; repeat it",
    )
    parser.add_argument("--copy", action="store_true", help="carry the input's messages over")
    parser.add_argument("--force", action="store_true", help="replace an existing output")
    parser.add_argument("--trajectory", type=Path, metavar="FILE", help="also write the poses in TUM format")
    parser.add_argument("--rerun", type=Path, metavar="FILE.rrd", help="also write a rerun recording")
    parser.add_argument("--export-dataset", type=Path, metavar="DIR", help="also write images, depth and poses in the TUM RGB-D layout")
    parser.add_argument(
        "--export-depth",
        default="",
        metavar="TOPIC",
        help="measured depth for that, registered to the anchor camera's images as recorded; else the network's",
    )
    _add_untrained(parser)
    add_settings(parser, OfflineConfig())
    given = parser.parse_args(rest)
    if given.export_depth and given.export_dataset is None:
        parser.error("--export-depth goes with --export-dataset")
    config = read_settings(given, OfflineConfig())
    job = BagJob(
        input=given.input,
        output=given.output,
        source=SourceOptions(tuple(given.camera), given.odometry, given.world_frame),
        static_transforms=tuple(_static_transform(words) for words in given.static_transform),
        copy=given.copy,
        force=given.force,
        trajectory=given.trajectory,
        rerun=given.rerun,
        dataset=given.export_dataset,
        depth_topic=given.export_depth,
        model=config.model,
    )
    job.refuse_places()  # before the network is loaded
    summary = run_bag(job, load_engine(config, given.untrained), config.stream, config.output)
    print(summary.line())
    return summary.exit_code


def _images(parser: argparse.ArgumentParser, rest: Sequence[str]) -> int:
    from .flags import OfflineConfig, add_settings, load_engine, read_settings
    from .images import ImageJob, run_images

    defaults = OfflineConfig().with_setting("scale.unknown", "relative")
    parser.add_argument("inputs", nargs="+", type=Path, help="directories of pictures, pictures, videos")
    parser.add_argument("output", type=Path, help="new directory")
    parser.add_argument("--every", type=_positive, default=1, metavar="N", help="take every N-th picture")
    parser.add_argument("--fov", type=_fov_deg, default=0.0, metavar="DEG", help="horizontal field of view, if known and undistorted")
    parser.add_argument("--max-points", type=_positive, default=1_000_000, metavar="N", help="most points of the cloud")
    parser.add_argument("--force", action="store_true", help="replace an existing output")
    _add_untrained(parser)
    add_settings(parser, defaults)
    given = parser.parse_args(rest)
    config = read_settings(given, defaults)
    job = ImageJob(tuple(given.inputs), given.output, given.every, given.fov, given.max_points, given.force)
    job.refuse_place()  # before the network is loaded
    written = run_images(job, load_engine(config, given.untrained), config.stream)
    print(written.line())
    return written.exit_code


def _demo(parser: argparse.ArgumentParser, rest: Sequence[str]) -> int:
    from .demo import DEFAULTS, run_demo
    from .flags import add_settings, read_settings

    parser.add_argument("folder", nargs="?", type=Path, default=Path("da3_demo"), help="new directory (default: da3_demo)")
    parser.add_argument("--seconds", type=_positive, default=12, metavar="S", help="length of the drive")
    parser.add_argument("--force", action="store_true", help="replace an existing directory")
    add_settings(parser, DEFAULTS)
    given = parser.parse_args(rest)
    return run_demo(given.folder, given.seconds, read_settings(given, DEFAULTS), given.force)


def _train(parser: argparse.ArgumentParser, rest: Sequence[str]) -> int:
    parser.add_argument("config", type=Path, help="YAML file of settings, see config/train")
    parser.add_argument("overrides", nargs="*", metavar="name=value", help="settings on top, like optimizer.lr=1e-4")
    given = parser.parse_args(rest)
    from da3_core import train

    outcome = train(given.config, given.overrides)
    print(outcome.line())
    return outcome.exit_code


def _eval(parser: argparse.ArgumentParser, rest: Sequence[str]) -> int:
    _eval_arguments(parser)
    given = parser.parse_intermixed_args(rest)
    if (given.what == "recordings") != bool(given.folders):
        parser.error("recordings wants a FOLDER or several, scenes none")
    if given.folders and given.worlds:
        parser.error("--worlds is of scenes: recordings have what was recorded")
    from da3_core import RecordedWindows, ValidationWorlds, draw_curves, evaluate, load_model

    worlds = tuple(given.worlds or ValidationWorlds.worlds)
    material = RecordedWindows(given.folders, given.scenes) if given.folders else ValidationWorlds(given.scenes, worlds)
    sizes = [(height, width) for height, width in given.size or ((168, 224), (252, 336))]
    model = load_model(given.model)
    report = evaluate(
        model,
        material,
        name=given.model,
        views=given.views,
        sizes=sizes,
        batch=given.batch,
        device=given.device,
        reference_view=given.reference_view,
        cameras_from_rays=given.cameras_from_rays,
        progress=True,
    )
    _print_table(report.to_markdown())
    if given.json is not None:
        given.json.write_text(report.to_json())
    if given.plot is not None:
        draw_curves(report, given.plot)
    return 0


def _eval_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", choices=("scenes", "recordings"), help="scenes: rendered worlds that no training has seen; recordings: those in FOLDER"
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="a recording with measured depth in the TUM RGB-D layout")
    parser.add_argument("--model", default="da3-nano", help="preset, Hub name or folder of a checkpoint (default: da3-nano)")
    parser.add_argument("--scenes", type=_positive, default=128, metavar="N", help="number of worlds or windows (default: 128)")
    parser.add_argument(
        "--worlds",
        nargs="+",
        metavar="KIND",
        help="kinds of worlds, each as often as named: room, corridor, outdoor, object, abstract (default: a mixture of the first four)",
    )
    parser.add_argument(
        "--views",
        type=_positive,
        nargs="+",
        default=(1, 2, 4, 8),
        metavar="N",
        help="window sizes; scenes have as many views as the largest, and are cut into the others (default: 1 2 4 8)",
    )
    parser.add_argument(
        "--size",
        type=_positive,
        nargs=2,
        action="append",
        metavar=("H", "W"),
        help="of the images; repeat it (default: 168 224 and 252 336)",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--batch", type=_positive, default=8, metavar="N", help="scenes at once (default: 8)")
    parser.add_argument(
        "--reference-view",
        default="saddle_balanced",
        metavar="NAME",
        help="which view's frame unposed cameras are given in: saddle_balanced, saddle_sim_range, middle, first (default: saddle_balanced)",
    )
    parser.add_argument("--cameras-from-rays", action="store_true", help="cameras from predicted ray maps, not from the camera decoder")
    parser.add_argument("--json", type=_new_file, metavar="FILE", help="also write the report")
    parser.add_argument("--plot", type=_new_picture, metavar="FILE.png", help="also draw the curves over the number of views")


def _print_table(table: str) -> None:
    """Drawn on a terminal, as Markdown elsewhere: what has no width would get one that cuts the columns."""
    if not sys.stdout.isatty():
        print(table, end="")
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(table))


def _engine(parser: argparse.ArgumentParser, rest: Sequence[str]) -> int:
    parser.add_argument("what", choices=("build", "export"), help="build: for this machine, kept on disk; export: ONNX files, for others")
    parser.add_argument("folder", nargs="?", type=Path, help="export: of the ONNX files (default: da3_engine)")
    parser.add_argument("--model", default="da3-nano", help="preset, Hub name or folder of a checkpoint (default: da3-nano)")
    parser.add_argument("--views", type=_positive, default=4, metavar="N", help="in a full window (default: 4)")
    parser.add_argument("--size", type=_size, default=(252, 336), metavar="HxW", help="of the network's images (default: 252x336)")
    parser.add_argument("--cameras", type=_positive, default=1, metavar="N", help="whose images come together (default: 1)")
    parser.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16 (default: auto, which for TensorRT is fp16)")
    parser.add_argument("--engine", help="build: what for (default: tensorrt)")
    parser.add_argument("--device", help="build: auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--force", action="store_true", help="anew, where there is one already")
    _add_untrained(parser)
    given = parser.parse_args(rest)
    if given.what == "export" and (given.engine or given.device):
        parser.error("--engine and --device are of build: what is exported is for TensorRT, on any device")
    if given.what == "build" and given.folder is not None:
        parser.error("FOLDER is of export: what is built is kept in $DA3_CACHE_DIR")
    from da3_core import Stream, StreamConfig, export_graphs, make_engine

    from .flags import load_network

    model, views = load_network(given.model, given.untrained), max(given.views, given.cameras)
    wanted = Stream.views_wanted("any_view", StreamConfig(), given.cameras)  # the engines of other networks take no notice of it
    if given.what == "export":
        precision = "fp16" if given.precision == "auto" else given.precision
        folder = given.folder or Path("da3_engine")
        folders = export_graphs(model, folder, views, given.size, wanted, precision, given.force, given.cameras)
        print("\n".join(f"{folder}/part.onnx" for folder in folders))
        return 0
    engine = make_engine(given.engine or "tensorrt", model, given.device or "auto", views, given.precision, rebuild=given.force)
    engine.prepare(given.size, wanted, given.cameras)
    print(engine.description)
    return 1 if engine.programs.refusals else 0


def _bench(parser: argparse.ArgumentParser, rest: Sequence[str]) -> int:
    parser.add_argument(
        "--model", nargs="+", default=("da3-nano",), metavar="PRESET", help="any-view presets, with random weights (default: da3-nano)"
    )
    parser.add_argument("--engine", nargs="+", default=("auto",), metavar="NAME", help="what runs the network (default: auto)")
    parser.add_argument("--views", type=_positive, nargs="+", default=(1, 4, 8), metavar="N", help="window sizes (default: 1 4 8)")
    parser.add_argument(
        "--size", type=_positive, nargs=2, action="append", metavar=("H", "W"), help="of the images; repeat it (default: 336 504)"
    )
    parser.add_argument("--posed", action="store_true", help="with given cameras")
    parser.add_argument("--frames", type=_positive, default=20, metavar="N", help="frames to take the median of (default: 20)")
    parser.add_argument("--cpu", action="store_true", help="on the CPU, even where there is a GPU")
    parser.add_argument("--json", type=_new_file, metavar="FILE", help="also write the figures")
    given = parser.parse_args(rest)
    from da3_core import bench_as_json, bench_presets, bench_table

    device, sizes = "cpu" if given.cpu else "auto", [(height, width) for height, width in given.size or ((336, 504),)]
    rows = bench_presets(given.model, given.engine, given.views, sizes, device=device, posed=given.posed, frames=given.frames)
    print(bench_table(rows))
    if given.json is not None:
        given.json.write_text(bench_as_json(rows))
    return 0


def _info(parser: argparse.ArgumentParser, rest: Sequence[str]) -> int:
    parser.parse_args(rest)
    from .info import print_info

    print_info()
    return 0


def _with_remedy(error: Exception) -> str:
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return str(error)
    package = error.name.partition(".")[0]
    if package in OURS:
        return f"{error.name} is missing, a part of da3: install da3 again"
    return f"{package} is not installed: pip install {DISTRIBUTIONS.get(package, package)}"


def _static_transform(words: Sequence[str]) -> StampedTransform:
    from .from_msg import StampedTransform
    from .poses import rigid_from_text

    parent, child, *numbers = words
    try:
        return StampedTransform(0, parent, child, rigid_from_text(" ".join(numbers)))
    except ValueError as error:
        raise ValueError(f"--static-transform {parent} {child}: {error}") from error


def _add_untrained(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--untrained", action="store_true", help="random weights, to try the plumbing without any")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def _fov_deg(text: str) -> float:
    degrees = float(text)
    if not 0 < degrees < 180:  # also refuses NaN
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 180")
    return degrees


def _new_file(text: str) -> Path:
    path = Path(text)
    if path.is_file():
        raise argparse.ArgumentTypeError(f"{path} exists: remove it, or take another name")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a directory: name a file in it")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path.parent} is no directory: make it, or take another")
    return path


def _new_picture(text: str) -> Path:
    from matplotlib.backend_bases import FigureCanvasBase  # what draws in the end is missed at the beginning

    path, known = _new_file(text), FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise argparse.ArgumentTypeError(f"{path} does not end in one of .{', .'.join(sorted(known))}")
    return path


def _size(text: str) -> tuple[int, int]:
    height, cross, width = text.partition("x")
    if not (cross and height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text} is no size: give height and width, like 280x504")
    return int(height), int(width)


def _log_to_terminal(debug: bool) -> None:
    level = logging.DEBUG if debug else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for name in ("da3_core", "da3_ros"):
        logging.getLogger(name).setLevel(level)


OURS = ("da3", "da3_core", "da3_ros")
DISTRIBUTIONS = {"rerun": "rerun-sdk", "cv2": "opencv-python-headless", "yaml": "pyyaml"}  # where it is not the module's name
COMMANDS: dict[str, tuple[Callable[[argparse.ArgumentParser, Sequence[str]], int], str]] = {
    "demo": (_demo, "a rendered robot drive, processed and compared with the truth"),
    "bag": (_bag, "depth, clouds and poses for a recorded bag"),
    "images": (_images, "depth and a cloud for pictures or a video"),
    "train": (_train, "run a training of the paper"),
    "eval": (_eval, "measure a model on rendered worlds or on recordings"),
    "engine": (_engine, "build what runs a network, before the first drive"),
    "bench": (_bench, "what a new frame costs here: a table of models, sizes, engines and window sizes"),
    "info": (_info, "models, devices, engines and versions"),
}
