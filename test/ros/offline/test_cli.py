"""The command line: settings from files and flags, exit codes, one line for what is wrong."""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from da3_core import PRESETS, Stream, TumRgbdWriter, load_model, save_model
from da3_core.engines import AnyViewEngine
from da3_core.engines.backend import ProgramError
from da3_core.scenes import KINDS
from da3_ros.cli import main
from da3_ros.flags import OfflineConfig, add_settings, read_settings
from da3_ros.images import Cloud

from . import bags
from .reading import read_mcap

ROOT = Path(__file__).resolve().parents[3]
TINY = ["--untrained", "--engine", "eager", "--preprocess.size", "70", "--window.views", "2"]


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return int(ended.value.code or 0)


def settings_of(*arguments: str) -> OfflineConfig:
    parser = argparse.ArgumentParser()
    add_settings(parser, OfflineConfig())
    return read_settings(parser.parse_args(arguments), OfflineConfig())


def test_every_setting_is_a_flag_with_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bag", "--help") == 0
    words = " ".join(capsys.readouterr().out.split())
    for name, (f, _) in OfflineConfig().flat().items():
        assert f"--{name}" in words
        assert " ".join(f.metadata["help"].split()[:3]) in words


def test_flags_go_before_the_file_and_the_file_before_defaults(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: da3-small\nwindow:\n  views: 7\n  keyframe_interval_s: 2\noutput: {cloud: dense}\n")
    found = settings_of("--config", str(file), "--window.views", "9", "--no-filter.drop_sky")
    assert found.model.model == "da3-small"
    assert (found.stream.window.views, found.stream.window.keyframe_interval_s) == (9, 2.0)
    assert found.output.cloud == "dense"
    assert not found.stream.filter.drop_sky
    assert found.stream.scale == OfflineConfig().stream.scale


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("window: {vews: 3}", "unknown setting 'vews'"),
        ("window: {views: 0}", "outside"),
        ("window: {views: many}", "takes a int"),
        ("output: {cloud: fluffy}", "organised, dense"),
        ("output: {child_suffix: ''}", r"^output\.child_suffix is empty"),
        ("window: {views: {x: 1}}", r"window\.views takes a int, and has no setting 'x'"),
        ("window: 3", r"window takes settings \(views, "),
        ("output: dense", r"output takes settings \(depth_encoding, "),
        ("engines: onnx", "unknown setting 'engines'; there are model, engine, device, precision, preprocess, .*, output$"),
        ("model: {engine: onnx}", "model takes a str, and has no setting 'engine'"),
        ("just words", "holds no settings"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_bad_file_names_what_is_wrong(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        settings_of("--config", str(file))


def test_bag_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = bags.write_ros2(tmp_path / "in", bags.robot(3))
    link = ("--static-transform", "base_link", "lidar", 0, 0, 1, 0, 0, 0, 1)
    out = tmp_path / "out"
    assert run("bag", bag, out, "--export-dataset", tmp_path / "tum", "--mode.mode", "posed", *link, *TINY) == 0
    assert "complete: 3 of 3 images processed (100% posed)" in capsys.readouterr().out
    found = read_mcap(out)
    assert len(found["/da3/front/points"]) == 3
    assert {t.child_frame_id for t in found["/tf_static"][0][1].transforms} == {"front_optical", "lidar"}
    assert (tmp_path / "tum" / "rgb.txt").is_file()
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["settings"]["model"], summary["settings"]["window.views"]) == ("da3-nano", 2)
    assert "eager" in summary["engine"]
    assert run("bag", bag, out, *TINY) == 1
    assert "--force replaces it" in capsys.readouterr().err
    assert run("bag", bag, tmp_path / "other", "--export-depth", "/depth", *TINY) == 2
    assert "goes with --export-dataset" in capsys.readouterr().err


def test_a_damaged_bag_exits_with_three(tmp_path: Path) -> None:
    bag = bags.write_ros2(tmp_path / "in", bags.camera(3))
    path = next(bag.glob("*.mcap"))
    path.write_bytes(path.read_bytes()[:-20])
    assert run("bag", path, tmp_path / "out", *TINY) == 3


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--static-transform", "a", "b", 0, 0, 0, 0, 0, 0, 0), "--static-transform a b"),
        (("--static-transform", "a", "b", "x", 0, 0, 0, 0, 0, 1), "quaternion of length 1"),
        (("--window.views", 0), "outside"),
        (("--model", "da3-pico"), "da3-pico"),
    ],
)
def test_bad_arguments_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[Any, ...], complaint: str) -> None:
    bag = bags.write_ros2(tmp_path / "in", bags.camera(1))
    assert run("bag", bag, tmp_path / "out", "--untrained", *arguments) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert complaint in line


def test_wrong_usage_exits_with_two() -> None:
    assert run("bag") == 2
    assert run("fly") == 2


def test_images_command(tmp_path: Path) -> None:
    import trimesh

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(3):
        cv2.imwrite(str(pictures / f"{i}.png"), bags.picture(i)[..., ::-1])
    (pictures / "1_broken.png").write_bytes(b"not a picture")
    out = tmp_path / "out"
    assert run("images", pictures, out, "--fov", "60", *TINY) == 0
    assert sorted(p.name for p in out.glob("*.npz")) == ["0.npz", "1.npz", "2.npz"]
    found = np.load(out / "1.npz")
    assert found["depth"].shape == found["confidence"].shape == (56, 70)
    assert found["T_world_cam"].shape == (4, 4)
    assert not found["is_metric"]
    assert found["K"][0, 0] == pytest.approx(35 / np.tan(np.radians(30)))
    assert (found["K"][0, 2], found["K"][1, 2]) == (34.5, 27.5)
    assert cv2.imread(str(out / "2_depth.png")).shape == (56, 70, 3)
    cloud = trimesh.load(out / "cloud.ply")
    known = sum(np.isfinite(np.load(out / f"{i}.npz")["depth"]).sum() for i in range(3))
    assert len(cloud.vertices) == known
    assert len(next(iter(trimesh.load(out / "cloud.glb").geometry.values())).vertices) == known


def test_only_arrays_are_given_to_what_older_numpys_take_for_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[set[str]] = []
    monkeypatch.setattr(np, "savez_compressed", lambda _, **arrays: saved.append(set(arrays)))
    assert run("images", write_pictures(tmp_path / "in", 1), tmp_path / "out", *TINY) == 0
    assert saved == [{"depth", "confidence", "K", "T_world_cam", "is_metric"}]


def test_images_of_a_video(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "drive.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (70, 56))
    for i in range(5):
        writer.write(bags.picture(i)[..., ::-1])
    writer.release()
    assert run("images", tmp_path / "drive.avi", tmp_path / "out", "--every", "2", *TINY) == 0
    assert [p.name for p in sorted((tmp_path / "out").glob("*.npz"))] == [f"drive_{i:06d}.npz" for i in (0, 2, 4)]


def live_video(path: Path, frames: int) -> Path:
    """As a browser records it: without its length."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"VP80"), 10, (70, 56))
    for i in range(frames):
        writer.write(bags.picture(i)[..., ::-1])
    writer.release()
    content = path.read_bytes()
    duration = content.index(b"\x44\x89\x88")  # the element's id and size; EC89 makes it one that is skipped
    path.write_bytes(content[:duration] + b"\xec\x89" + content[duration + 2 :])
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) < 1
    return path


@pytest.mark.parametrize("most", [1, 3000])
def test_a_video_that_does_not_know_its_length_keeps_as_many_points_as_are_wanted(tmp_path: Path, most: int) -> None:
    import trimesh

    video = live_video(tmp_path / "live.webm", 4)
    assert run("images", video, tmp_path / "out", "--max-points", most, *TINY) == 0
    assert len(list((tmp_path / "out").glob("*.npz"))) == 4
    assert len(trimesh.load(tmp_path / "out" / "cloud.ply").vertices) == most


def test_a_cloud_holds_the_same_share_of_all_pictures_however_many() -> None:
    cloud = Cloud(1000)
    for i in range(50):
        cloud.add(np.full((400 + 10 * i, 3), i, np.float32), np.full((400 + 10 * i, 3), i, np.uint8))
    points, colours = cloud.points()
    np.testing.assert_array_equal(points, colours)
    assert len(points) == 1000
    assert np.bincount(points[:, 0].astype(int), minlength=50) == pytest.approx((400 + 10 * np.arange(50)) / 32.25, abs=3)


def write_pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    for i in range(count):
        cv2.imwrite(str(folder / f"{i}.png"), bags.picture(i)[..., ::-1])
    return folder


def test_images_by_force_are_those_of_the_last_run_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run("images", write_pictures(tmp_path / "two", 2), out, *TINY) == 0
    assert f"2 pictures: depth in {out}/*.npz and *_depth.png, the cloud in {out}/cloud.glb and cloud.ply" in capsys.readouterr().out
    one = write_pictures(tmp_path / "one", 1)
    assert run("images", one, out, *TINY) == 1
    assert "--force replaces it" in capsys.readouterr().err
    assert run("images", one, out, "--force", "--scale.unknown", "drop", *TINY) == 0
    assert f"1 pictures: depth in {out}/*.npz and *_depth.png, no cloud" in capsys.readouterr().out
    assert {p.name for p in out.iterdir()} == {"0.npz", "0_depth.png"}
    (out / "notes_depth.png").write_text("mine")
    assert run("images", one, out, "--force", *TINY) == 1
    assert "no output of da3 images, it holds notes_depth.png" in capsys.readouterr().err
    assert (out / "notes_depth.png").read_text() == "mine"
    assert {p.name for p in tmp_path.iterdir()} == {"one", "two", "out"}


def run_images_failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: Callable[[Stream, Any], Any]) -> tuple[int, set[str]]:
    """The exit code, and what is in the output, of three pictures of which `fail` registers the second."""
    register, calls = Stream.register, itertools.count()
    monkeypatch.setattr(Stream, "register", lambda self, frames: (fail if next(calls) == 1 else register)(self, frames))
    out = tmp_path / "out"
    code = run("images", write_pictures(tmp_path / "in", 3), out, *TINY)
    return code, {p.name for p in tmp_path.rglob("*") if "in" not in p.relative_to(tmp_path).parts} - {"out"}


def test_images_that_are_stopped_keep_what_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    register = Stream.register

    def stopped(stream: Stream, frames: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return register(stream, frames)

    code, names = run_images_failing(tmp_path, monkeypatch, stopped)
    assert code == 128 + signal.SIGTERM
    assert names == {"0.npz", "0_depth.png", "1.npz", "1_depth.png", "cloud.glb", "cloud.ply"}
    assert "stopped by SIGTERM, after 2 pictures: depth in" in capsys.readouterr().out


def test_images_of_a_failing_network_keep_what_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(stream: Stream, frames: Any) -> Any:
        raise RuntimeError("out of memory")

    code, names = run_images_failing(tmp_path, monkeypatch, failing)
    assert code == 1
    assert names == {"0.npz", "0_depth.png", "cloud.glb", "cloud.ply"}
    assert "the network failed at 1: RuntimeError: out of memory, after 1 pictures" in capsys.readouterr().out


def test_images_that_cannot_be_written_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imwrite", lambda *_: False)
    (tmp_path / "drive").mkdir()
    (tmp_path / "drive" / "a.ppm").write_bytes(b"P6 70 56 255\n" + bytes(70 * 56 * 3))
    assert run("images", tmp_path / "drive", tmp_path / "out", *TINY) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["drive"]


@pytest.mark.parametrize("degrees", ["0", "-60", "180", "200", "nan"])
def test_a_field_of_view_that_no_pinhole_has_is_wrong_usage(degrees: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("images", "a.png", "out", f"--fov={degrees}") == 2
    assert f"--fov: {degrees} is not between 0 and 180" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "complaint"), [("none", "does not exist"), ("a.txt", "neither a picture"), ("empty", "no pictures")])
def test_images_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, complaint: str) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "empty").mkdir()
    assert run("images", tmp_path / name, tmp_path / "out", *TINY) == 1
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "arguments", "remedy"),
    [("rerun", ("bag", "IN", "OUT", "--rerun", "OUT.rrd"), "rerun-sdk"), ("trimesh", ("images", "a.png", "OUT"), "trimesh")],
)
def test_a_missing_library_is_said_at_once_and_with_its_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, module: str, arguments: Any, remedy: str
) -> None:
    monkeypatch.chdir(bags.write_ros2(tmp_path / "IN", bags.robot(1)).parent)
    cv2.imwrite("a.png", bags.picture(0))
    monkeypatch.setitem(sys.modules, module, None)
    assert run(*arguments, *TINY) == 1
    assert f"{module} is not installed: pip install {remedy}" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["IN", "a.png"]


def test_a_missing_part_of_da3_is_not_sought_on_pypi(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "da3_ros.bag.job", None)
    assert run("bag", "IN", "OUT") == 1
    error = capsys.readouterr().err
    assert "da3_ros.bag.job is missing, a part of da3: install da3 again" in error and "pip" not in error


def test_bench_prints_a_table_and_writes_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "bench.json"
    assert run("bench", "--cpu", "--engine", "eager", "--views", 1, 2, "--size", 28, 42, "--frames", 2, "--json", figures) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    rows = json.loads(figures.read_text())
    assert "ms/frame" in head and len(lines) == 2 and all("28x42" in line and "eager" in line for line in lines)
    assert [row["views"] for row in rows] == [1, 2]
    assert all(row["frame_ms"] > 0 and row["depth_error"] < 1e-4 for row in rows)
    assert rows[0]["gflop"] < rows[1]["gflop"] < 2 * rows[0]["gflop"]  # the older view is not encoded again


def test_bench_makes_one_table_of_sizes_engines_and_views(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # then auto is eager, which needs no building, and says why
    figures, sizes = tmp_path / "bench.json", ("--size", 28, 42, "--size", 42, 28)
    with caplog.at_level("INFO", "da3_core.engines.bench"):
        code = run("bench", "--cpu", "--engine", "auto", "eager", *sizes, "--views", 1, 2, "--frames", 1, "--json", figures)
    assert code == 0
    head, *lines = capsys.readouterr().out.splitlines()
    rows = json.loads(figures.read_text())
    expected = list(itertools.product(["28x42", "42x28"], ["auto", "eager"], ["1", "2"]))
    assert head.split()[:4] == ["model", "views", "wanted", "size"]
    assert [line.split()[:4] for line in lines] == [["da3-nano", views, "1", size] for size, _, views in expected]
    assert [("{}x{}".format(*row["size"]), str(row["views"])) for row in rows] == [(size, views) for size, _, views in expected]
    assert ["asked for" in row["description"] for row in rows] == [engine == "eager" for _, engine, _ in expected]
    assert [m for m in caplog.messages if " of 4: " in m] == [
        "1 of 4: da3-nano, 28x42, auto",
        "2 of 4: da3-nano, 28x42, eager",
        "3 of 4: da3-nano, 42x28, auto",
        "4 of 4: da3-nano, 42x28, eager",
    ]


@pytest.mark.parametrize("command", [("bench",), ("eval", "scenes")])
def test_figures_are_not_written_over_others(command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"
    figures.write_text("others")
    assert run(*command, "--json", figures) == 2
    assert "exists: remove it" in capsys.readouterr().err and figures.read_text() == "others"


@pytest.mark.parametrize(
    ("option", "name", "complaint"),
    [
        ("--json", "folder", "folder is a directory: name a file in it"),
        ("--json", "none/figures.json", "none is no directory: make it"),
        ("--json", "file/figures.json", "file is no directory: make it"),
        ("--plot", "none/curves.png", "none is no directory: make it"),
        ("--plot", "curves", "curves does not end in one of ."),
        ("--plot", "curves.txt", "curves.txt does not end in one of ."),
    ],
)
def test_figures_that_cannot_be_written_are_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, name: str, complaint: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for command in (("eval", "scenes"), ("bench",)) if option == "--json" else (("eval", "scenes"),):
        assert run(*command, option, tmp_path / name) == 2
        assert complaint in capsys.readouterr().err


def test_bench_takes_a_list_of_models(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["da3-nano", "da3-small"]
    assert run("bench", "--cpu", "--model", *names, "--engine", "eager", "--size", 28, 42, "--views", 1, "--frames", 1) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == names


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--model", "da3-nano", "da3mono-large"), "take one of da3-nano"),
        (("--size", 28, 42, "--size", 30, 42), "multiples of 14"),
        (("--engine", "eager", "tensorrt"), "runs on a GPU"),
        (("--engine", "eager", "fastest"), "there is no engine 'fastest'"),
    ],
)
def test_bench_of_what_cannot_be_is_one_line_before_anything_is_measured(
    arguments: tuple[Any, ...], complaint: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert run("bench", "--cpu", *arguments) == 1
    assert not caplog.messages  # an engine that is made says so
    error = capsys.readouterr().err
    assert complaint in error and len(error.splitlines()) == 1


def test_info_names_presets_and_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info") == 0
    out = capsys.readouterr().out
    assert "onnxruntime" in out
    weights = {name: next(line for line in out.splitlines() if f" {name} " in line) for name in PRESETS}
    assert all("in this package" in weights[name] for name in ("da3-nano", "da3metric-nano", "da3nested-nano"))
    assert "none: to be trained" in weights["da3mono-nano"]
    assert "depth-anything/DA3-SMALL" in weights["da3-small"]


def test_eval_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(load_model("da3-nano", weights=None), tmp_path / "model")
    report = tmp_path / "report.json"
    wanted = ("--scenes", 1, "--views", 1, "--size", 28, 42, "--json", report, "--plot", tmp_path / "curves.png")
    assert run("eval", "scenes", "--model", tmp_path / "model", *wanted) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].startswith("| mode | alignment | views |") and table[0].endswith("| AUC30 | sky IoU |")
    assert table[2].startswith("| posed | baselines (median in 1) | 1 | 28×42 | all | 1 |")
    assert cv2.imread(str(tmp_path / "curves.png")) is not None
    assert {row["mode"] for row in json.loads(report.read_text())["rows"]} == {"posed", "unposed"}
    assert run("eval", "scenes", "--model", tmp_path / "none") == 1


def test_eval_takes_a_reference_view(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(load_model("da3-nano", weights=None), tmp_path / "model")
    report, wanted = tmp_path / "report.json", ("--model", tmp_path / "model", "--scenes", 1, "--views", 3, "--size", 28, 42)
    assert run("eval", "scenes", "--reference-view", "middle", *wanted, "--json", report) == 0
    assert json.loads(report.read_text())["settings"]["reference_view"] == "middle"
    assert run("eval", "scenes", "--reference-view", "left", *wanted) == 1
    assert "one of saddle_balanced" in capsys.readouterr().err


def test_eval_takes_kinds_of_worlds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(load_model("da3-nano", weights=None), tmp_path / "model")
    report, wanted = tmp_path / "report.json", ("--model", tmp_path / "model", "--scenes", 1, "--views", 1, "--size", 28, 42)
    assert run("eval", "scenes", "--worlds", "abstract", "room", *wanted, "--json", report) == 0
    assert json.loads(report.read_text())["settings"]["worlds"] == ["abstract", "room"]
    capsys.readouterr()
    assert run("eval", "scenes", "--worlds", "attic", *wanted) == 1
    assert f"name some of {', '.join(KINDS)}" in capsys.readouterr().err
    assert run("eval", "recordings", tmp_path, "--worlds", "room", *wanted) == 2
    assert "--worlds is of scenes" in capsys.readouterr().err
    assert run("eval", "--help") == 0
    assert ", ".join(KINDS) in " ".join(capsys.readouterr().out.split())


def test_eval_takes_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(load_model("da3-nano", weights=None), tmp_path / "model")
    K = np.array([[40.0, 0, 20.5], [0, 40.0, 13.5], [0, 0, 1]])
    with TumRgbdWriter(tmp_path / "recording") as writer:
        for i in range(2):
            writer.write(i * 10**8, np.full((28, 42, 3), 100 * i, np.uint8), np.ones((28, 42), np.float32), K, np.eye(4))
    wanted = ("--model", tmp_path / "model", "--scenes", 1, "--views", 2, "--size", 28, 42)
    assert run("eval", "recordings", tmp_path / "recording", *wanted) == 0
    assert run("eval", "recordings", *wanted[2:4], tmp_path / "recording", *wanted[:2], *wanted[4:]) == 0
    assert "AbsRel" in capsys.readouterr().out
    assert run("eval", "recordings", *wanted) == 2
    assert run("eval", "scenes", tmp_path / "recording", *wanted) == 2
    assert "recordings wants a FOLDER" in capsys.readouterr().err
    assert run("eval", "recordings", tmp_path, *wanted) == 1
    assert "calibration.txt" in capsys.readouterr().err


def test_train_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", tmp_path / "none.yaml") == 1
    assert "none.yaml" in capsys.readouterr().err


def test_help_comes_at_once() -> None:
    """Nothing heavy is imported for it; generous, for a busy machine."""
    started = time.perf_counter()
    out = subprocess.run([sys.executable, "-m", "da3_ros", "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert time.perf_counter() - started < 2.0
    assert all(command in out for command in ("bag", "images", "demo", "train", "eval", "info"))


ENGINE = ["--untrained", "--size", "28x42", "--views", "2"]


def test_an_engine_is_built_and_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("engine", "build", "--engine", "eager", *ENGINE) == 0
    assert capsys.readouterr().out == "asked for; all by eager\n"


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["build", "--device", "cpu", *ENGINE], 1, "the tensorrt engine runs on a GPU"),
        (["build", "--engine", "eager", *ENGINE, "--size", "100x100"], 1, "multiples of 14"),
        (["build", "--size", "280"], 2, "280 is no size: give height and width, like 280x504"),
        (["build", "folder", *ENGINE], 2, "FOLDER is of export"),
        (["export", "--engine", "onnx", *ENGINE], 2, "--engine and --device are of build"),
        (["export", "--device", "cpu", *ENGINE], 2, "--engine and --device are of build"),
    ],
)
def test_an_engine_that_cannot_be_is_refused_with_the_reason(
    arguments: list[str], code: int, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("engine", *arguments) == code
    assert complaint in capsys.readouterr().err


def test_an_engine_is_built_for_what_a_stream_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(AnyViewEngine, "prepare", lambda self, *wanted: asked.append((self.views, *wanted)))
    assert run("engine", "build", "--engine", "eager", *ENGINE, "--cameras", 3) == 0
    assert asked == [(3, (28, 42), (4,), 3)]


def test_exported_parts_that_are_there_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = tmp_path / "EncodeViews-float16-1x3x28x42" / "part.onnx"
    there.parent.mkdir()
    there.write_bytes(b"mine")
    assert run("engine", "export", tmp_path, *ENGINE) == 1
    assert there.read_bytes() == b"mine" and "is there already: --force replaces it" in capsys.readouterr().err


def test_an_export_that_writes_not_all_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object) -> None:
        raise ProgramError("no ONNX")

    monkeypatch.setattr("da3_core.engines.graphs.write_strongly_typed", fail)
    assert run("engine", "export", tmp_path, *ENGINE) == 1
    assert "not all parts could be written: onnx files cannot run EncodeViews: no ONNX" in capsys.readouterr().err
