import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file

from da3_core.model import PRESETS, CheckpointError, Nested, build_model, checkpoint, init_backbone_from_dinov2, load_model, save_model
from da3_core.model.checkpoint import checkpoint_name
from da3_core.model.presets import NestedConfig

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def saved(tmp_path, any_view_config):
    torch.manual_seed(0)
    model = build_model(any_view_config)
    save_model(model, tmp_path / "saved")
    return model, tmp_path / "saved"


def test_no_values_are_drawn_for_what_a_file_fills(saved, monkeypatch):
    model, folder = saved
    monkeypatch.setattr(torch.nn.init, "trunc_normal_", None)
    assert torch.equal(load_model(folder).backbone.cls_token, model.backbone.cls_token)


def rewrite(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("preset", [name for name in PRESETS if "nano" not in name])
def test_every_name_shape_and_count_is_the_published_one(shared, preset):
    published = json.loads(gzip.decompress((shared / "spec" / "checkpoint-keys.json.gz").read_bytes()))[preset]
    with torch.device("meta"):
        model = build_model(PRESETS[preset])
    assert {checkpoint_name(name): list(tensor.shape) for name, tensor in model.state_dict().items()} == published["tensors"]
    assert sum(p.numel() for p in model.parameters()) == published["n_params"]


def test_what_is_saved_is_loaded(saved, images):
    model, folder = saved
    again = load_model(folder)
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert {f.name for f in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert all(p.device.type == "cpu" and p.requires_grad for p in again.parameters())


def test_weights_are_stored_and_loaded_in_other_types(saved):
    model, folder = saved
    save_model(model, folder, dtype=torch.float16)
    assert {t.dtype for t in load_file(folder / "model.safetensors").values()} == {torch.float16}
    assert {p.dtype for p in load_model(folder).parameters()} == {torch.float32}
    assert {p.dtype for p in load_model(folder, dtype=torch.bfloat16).parameters()} == {torch.bfloat16}


def test_a_preset_is_saved_by_name_and_any_other_by_its_sizes(tmp_path, any_view_config, mono_config):
    nano = replace(PRESETS["da3-nano"], backbone=replace(PRESETS["da3-nano"].backbone, layer_scale_init=0.1))
    save_model(build_model(nano), tmp_path / "nano", dtype=torch.float16)
    assert json.loads((tmp_path / "nano" / "config.json").read_text()) == {"model_name": "da3-nano"}
    assert load_model(tmp_path / "nano").config == PRESETS["da3-nano"]
    with_gaussians = replace(any_view_config, gaussian_head=any_view_config.head)
    for config in (mono_config, with_gaussians, NestedConfig(any_view_config, mono_config)):
        save_model(build_model(config), tmp_path / "other")
        assert load_model(tmp_path / "other").config == config


@pytest.mark.parametrize("kept", ["0", "3", "0123"])
def test_the_shared_normalisation_may_come_under_one_name_or_all(saved, kept):
    model, folder = saved
    name = "model.head.scratch.output_conv2_aux.{}.2.{}"

    def rename(tensors):
        for part in ("weight", "bias"):
            tensor = tensors.pop(name.format(0, part)) + 1
            tensors |= {name.format(level, part): tensor.clone() for level in kept}

    rewrite(folder, rename)
    norms = [output.norm for output in load_model(folder).head.ray_outputs]
    assert all(norm.weight is norms[0].weight for norm in norms)
    assert torch.equal(norms[0].weight, model.head.ray_outputs[0].norm.weight + 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.cam_dec.fc_t.bias"), r"1 missing \(model\.cam_dec\.fc_t\.bias\)"),
        (lambda t: t.pop("model.head.scratch.output_conv2_aux.0.2.bias"), r"1 missing .*output_conv2_aux\.0\.2\.bias"),
        (lambda t: t.update({"model.more": torch.zeros(1)}), r"1 unknown \(model\.more\)"),
        (
            lambda t: t.update({"model.cam_dec.fc_t.bias": torch.zeros(4)}),
            r"1 of another shape \(model\.cam_dec\.fc_t\.bias \[4\] for \[3\]\)",
        ),
    ],
)
def test_tensors_at_fault_are_named(saved, change, message):
    _, folder = saved
    rewrite(folder, change)
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)


def test_the_first_of_many_faults_are_named(saved):
    _, folder = saved
    rewrite(folder, lambda t: [t.pop(name) for name in list(t) if "cam_enc" in name])
    with pytest.raises(CheckpointError, match=r"missing \(model\.cam_enc\.[^,]*, model[^,]*, model[^,]*, …\)"):
        load_model(folder)


def test_truncated_weights_are_refused(saved):
    _, folder = saved
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="cut short"):
        load_model(folder)
    file.write_bytes(b"")
    with pytest.raises(CheckpointError, match="cut short"):
        load_model(folder)


def test_what_is_not_there_is_named(saved, tmp_path, monkeypatch):
    _, folder = saved
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"there is no .*model\.safetensors"):
        load_model(folder)
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load_model(tmp_path)
    with pytest.raises(CheckpointError, match="give a folder"):
        load_model(folder / "config.json")
    with pytest.raises(CheckpointError, match="no folder, no repository on the Hub and no preset"):
        load_model("da3-tiny")
    monkeypatch.setattr(checkpoint, "BUILT_IN_WEIGHTS", tmp_path)
    with pytest.raises(CheckpointError, match="no published weights"):
        load_model("da3-nano")


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"model_name": "da3-tiny"}', "{}", '{"architecture": {"backbone": {}}}', '{"architecture": []}']
)
def test_a_config_that_names_no_network_is_refused(saved, content):
    _, folder = saved
    (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_model(folder)


def test_weights_that_came_with_the_package_are_taken_first(saved, tmp_path, monkeypatch):
    model, folder = saved
    folder.rename(tmp_path / "da3-small")
    monkeypatch.setattr(checkpoint, "BUILT_IN_WEIGHTS", tmp_path)
    assert load_model("da3-small").config == model.config


def test_random_weights_need_no_file(saved):
    model, folder = saved
    torch.manual_seed(1)
    random = load_model(folder, weights=None)
    assert random.config == model.config
    assert not torch.equal(random.backbone.cls_token, model.backbone.cls_token)
    with torch.device("meta"):
        assert load_model("depth-anything/DA3-SMALL", weights=None, device="meta").config == PRESETS["da3-small"]
    with pytest.raises(CheckpointError, match="one of da3-nano, da3-small"):
        load_model("da3-tiny", weights=None)


def test_a_backbone_starts_from_dinov2(tmp_path, any_view_config):
    torch.manual_seed(0)
    donor, model = build_model(any_view_config), build_model(any_view_config)
    ours_alone = {n for n, _ in model.backbone.named_parameters() if "camera_token" in n or "_norm" in n}
    dinov2 = {n.replace("patch_embed.", "patch_embed.proj."): p for n, p in donor.backbone.state_dict().items() if n not in ours_alone}
    before = {n: p.clone() for n, p in model.state_dict().items()}
    save_file(dinov2 | {"mask_token": torch.zeros(1, 32)}, tmp_path / "dinov2.safetensors")
    init_backbone_from_dinov2(model, tmp_path / "dinov2.safetensors")

    for name, p in model.backbone.named_parameters():
        truth = before["backbone." + name] if name in ours_alone else donor.backbone.get_parameter(name)
        assert torch.equal(p, truth), name
    assert torch.equal(model.head.norm.weight, before["head.norm.weight"])

    save_file(dinov2 | {"register_tokens": torch.zeros(1, 4, 32)}, tmp_path / "dinov2.safetensors")
    with pytest.raises(CheckpointError, match="register_tokens"):
        init_backbone_from_dinov2(model, tmp_path / "dinov2.safetensors")


HUB_REVISIONS = {"main": "a" * 40, "v2": "b" * 40}


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as a download needs: folders of files by revision, and its error codes."""

    folders: ClassVar[dict[str, Path]] = {}

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body):
        match = re.fullmatch(r"/someone/some-model/resolve/([^/]+)/([^/?]+)", self.path)
        revision = {c: r for r, c in HUB_REVISIONS.items()}.get(match[1], match[1]) if match else None
        file = self.folders[revision] / match[2] if revision in self.folders else None
        if file is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "RevisionNotFound" if match else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = file.read_bytes()
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", HUB_REVISIONS[revision])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(saved, tmp_path):
    _, folder = saved
    shutil.copytree(folder, tmp_path / "v2")
    rewrite(tmp_path / "v2", lambda tensors: tensors["model.cam_dec.fc_t.bias"].fill_(7))
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("ThisHub", (Hub,), {"folders": {"main": folder, "v2": tmp_path / "v2"}}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_the_hub_gives_revisions_a_progress_bar_and_a_cache(hub, tmp_path):
    code = f"""
        import huggingface_hub
        from da3_core.model import CheckpointError, load_model

        def bias(source, revision=None, cache_dir={str(tmp_path / "cache")!r}):
            try:
                return load_model(source, revision=revision, cache_dir=cache_dir).camera_decoder.translation.bias[0].item()
            except CheckpointError as error:
                return error

        print(bias("someone/some-model"))
        print(bias("someone/some-model", "v2"))
        print(bias("someone/some-model", "v3"))
        print(bias("someone/another"))
        huggingface_hub.constants.HF_HUB_OFFLINE = True
        print(bias("someone/some-model", "v2"))
        print(bias("someone/some-model", cache_dir={str(tmp_path / "empty")!r}))
    """
    settings = {"HF_ENDPOINT": hub, "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(REPOSITORY), "TQDM_POSITION": "-1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=os.environ | settings, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "model.safetensors" in done.stderr  # the progress bar
    main, v2, v3, another, cached, offline = done.stdout.splitlines()
    assert (float(main), float(v2), float(cached)) == (0, 7, 7)
    assert v3.startswith("cannot get someone/some-model")
    assert another.startswith("cannot get someone/another")
    assert "hf download someone/some-model --local-dir FOLDER" in offline


def test_a_nested_network_is_joined_from_two(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("da3_core.model.checkpoint.BUILT_IN_WEIGHTS", tmp_path)
    for part in ("da3-nano", "da3metric-nano"):
        save_model(load_model(part, weights=None), tmp_path / part)
    nested = load_model("da3nested-nano")
    assert isinstance(nested, Nested)
    images = torch.randn(1, 2, 3, 28, 42)
    expected = load_model("da3-nano")(images, want={"depth"}).depth
    prediction = nested(images)
    torch.testing.assert_close(prediction.depth, expected * prediction.scale_factor)
