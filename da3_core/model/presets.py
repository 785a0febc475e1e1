"""Sizes of the networks: one dataclass per kind, one dictionary of presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

FourInts = tuple[int, int, int, int]


@dataclass(frozen=True)
class BackboneConfig:
    """A DINOv2 vision transformer; `None` means never."""

    embed_dim: int
    depth: int
    heads: int
    out_layers: FourInts
    alt_start: int | None = None  # from here on, odd blocks attend across views
    qknorm_start: int | None = None
    rope_start: int | None = None
    ffn: Literal["mlp", "swiglu"] = "mlp"
    mlp_ratio: int = 4
    patch_size: int = 14
    position_grid: int = 37  # side of the stored grid of absolute positions
    rope_base: float = 100.0
    # Of random weights, hence not part of what a network is. DINOv2 pretrains from 1e-5, which is too shy for a short training.
    # Kept files are named after a configuration's repr.
    layer_scale_init: float = field(default=1.0, compare=False, repr=False)

    @property
    def first_window_block(self) -> int:
        """Blocks before this one see one view at a time."""
        return self.depth if self.alt_start is None else self.alt_start

    @property
    def feature_dim(self) -> int:
        """Channels of a feature: alternating backbones give the view's own tokens beside those of the window."""
        return self.embed_dim if self.alt_start is None else 2 * self.embed_dim


@dataclass(frozen=True)
class DPTConfig:
    """A dense prediction head."""

    features: int  # width of the fused maps
    channels: FourInts  # width of the four pyramid levels, fine to coarse


@dataclass(frozen=True)
class AnyViewConfig:
    """Depth, rays and cameras from any number of views."""

    backbone: BackboneConfig
    head: DPTConfig
    camera_encoder_heads: int = 16
    camera_encoder_depth: int = 4
    gaussian_head: DPTConfig | None = None


@dataclass(frozen=True)
class MonoConfig:
    """Depth and sky from single views. Where `metric`, depth is in metres times 300 over the focal length."""

    backbone: BackboneConfig
    head: DPTConfig
    metric: bool = False


@dataclass(frozen=True)
class NestedConfig:
    """An any-view network, and a metric one that gives it its scale."""

    any_view: AnyViewConfig
    metric: MonoConfig


ModelConfig = AnyViewConfig | MonoConfig | NestedConfig


def _alternating(embed_dim: int, depth: int, heads: int, out_layers: FourInts, start: int, **more: Any) -> BackboneConfig:
    return BackboneConfig(embed_dim, depth, heads, out_layers, alt_start=start, qknorm_start=start, rope_start=start, **more)


_LARGE_HEAD = DPTConfig(256, (256, 512, 1024, 1024))
_NANO_HEAD = DPTConfig(48, (24, 48, 96, 192))
_GIANT = AnyViewConfig(
    _alternating(1536, 40, 24, (19, 27, 33, 39), 13, ffn="swiglu"),
    _LARGE_HEAD,
    gaussian_head=_LARGE_HEAD,
)
_MONO_LARGE = BackboneConfig(1024, 24, 16, (4, 11, 17, 23))

# Twice as many blocks before views meet as in the small network: those are done once a view, not once a window.
_NANO = AnyViewConfig(_alternating(192, 16, 3, (9, 11, 13, 15), 8), _NANO_HEAD, camera_encoder_heads=8)
_MONO_NANO = MonoConfig(BackboneConfig(192, 16, 3, (3, 7, 11, 15)), _NANO_HEAD)
_METRIC_NANO = replace(_MONO_NANO, metric=True)

PRESETS: Mapping[str, ModelConfig] = {
    "da3-nano": _NANO,
    "da3-small": AnyViewConfig(_alternating(384, 12, 6, (5, 7, 9, 11), 4), DPTConfig(64, (48, 96, 192, 384))),
    "da3-base": AnyViewConfig(_alternating(768, 12, 12, (5, 7, 9, 11), 4), DPTConfig(128, (96, 192, 384, 768))),
    "da3-large": AnyViewConfig(_alternating(1024, 24, 16, (11, 15, 19, 23), 8), _LARGE_HEAD),
    "da3-giant": _GIANT,
    "da3mono-nano": _MONO_NANO,
    "da3metric-nano": _METRIC_NANO,
    "da3nested-nano": NestedConfig(_NANO, _METRIC_NANO),
    "da3mono-large": MonoConfig(_MONO_LARGE, _LARGE_HEAD),
    "da3metric-large": MonoConfig(_MONO_LARGE, _LARGE_HEAD, metric=True),
    "da3nested-giant-large": NestedConfig(_GIANT, MonoConfig(_MONO_LARGE, _LARGE_HEAD, metric=True)),
}

# Presets without weights of their own: an any-view and a metric one, put together.
JOINED: Mapping[str, tuple[str, str]] = {"da3nested-nano": ("da3-nano", "da3metric-nano")}

HUB_REPOSITORIES: Mapping[str, str] = {
    "da3-small": "depth-anything/DA3-SMALL",
    "da3-base": "depth-anything/DA3-BASE",
    "da3-large": "depth-anything/DA3-LARGE-1.1",
    "da3-giant": "depth-anything/DA3-GIANT-1.1",
    "da3nested-giant-large": "depth-anything/DA3NESTED-GIANT-LARGE-1.1",
    "da3metric-large": "depth-anything/DA3METRIC-LARGE",
    "da3mono-large": "depth-anything/DA3MONO-LARGE",
}


def config_from_architecture(architecture: Mapping[str, Any]) -> ModelConfig:
    """The sizes that a `config.json` spells out under "architecture"; -1 means never."""
    if architecture.get("type") == "nested":
        any_view = config_from_architecture(architecture["da3"])
        metric = config_from_architecture(architecture["da3_metric"] | {"metric": True})
        if not (isinstance(any_view, AnyViewConfig) and isinstance(metric, MonoConfig)):
            raise ValueError('a nested architecture has an any-view "da3" and a mono "da3_metric"')
        return NestedConfig(any_view, metric)
    backbone, head = _backbone_from(architecture["backbone"]), _dpt_from(architecture["head"])
    if architecture["head"]["type"] == "dpt":
        return MonoConfig(backbone, head, metric=architecture.get("metric", False))
    camera, gaussians = architecture["cam_enc"], architecture.get("gs_head")
    return AnyViewConfig(backbone, head, camera["num_heads"], camera["trunk_depth"], _dpt_from(gaussians) if gaussians else None)


def architecture_from_config(config: ModelConfig) -> dict[str, Any]:
    """The inverse of `config_from_architecture`. How random weights are drawn is not part of an architecture."""
    if isinstance(config, NestedConfig):
        nested = {"da3": architecture_from_config(config.any_view), "da3_metric": architecture_from_config(config.metric)}
        return {"type": "nested", **nested}
    backbone = _backbone_to(config.backbone)
    if isinstance(config, MonoConfig):
        return {"backbone": backbone, "head": {"type": "dpt", **_dpt_to(config.head)}, "metric": config.metric}
    return {
        "backbone": backbone,
        "head": {"type": "dualdpt", **_dpt_to(config.head)},
        "cam_enc": {"num_heads": config.camera_encoder_heads, "trunk_depth": config.camera_encoder_depth},
        "gs_head": _dpt_to(config.gaussian_head) if config.gaussian_head else None,
    }


def _backbone_from(b: Mapping[str, Any]) -> BackboneConfig:
    return BackboneConfig(
        embed_dim=b["embed_dim"],
        depth=b["depth"],
        heads=b["num_heads"],
        out_layers=tuple(b["out_layers"]),
        alt_start=_start(b["alt_start"]),
        qknorm_start=_start(b["qknorm_start"]),
        rope_start=_start(b["rope_start"]),
        ffn="mlp" if b["ffn"] == "mlp" else "swiglu",
        mlp_ratio=b["mlp_ratio"],
        patch_size=b["patch_size"],
        position_grid=b["pos_embed_grid"],
        rope_base=float(b.get("rope_base", 100)),
    )


def _start(block: int) -> int | None:
    return None if block < 0 else block


def _backbone_to(b: BackboneConfig) -> dict[str, Any]:
    starts = {"alt_start": b.alt_start, "qknorm_start": b.qknorm_start, "rope_start": b.rope_start}
    return {
        "embed_dim": b.embed_dim,
        "depth": b.depth,
        "num_heads": b.heads,
        "out_layers": list(b.out_layers),
        **{name: -1 if block is None else block for name, block in starts.items()},
        "ffn": "mlp" if b.ffn == "mlp" else "swiglufused",
        "mlp_ratio": b.mlp_ratio,
        "patch_size": b.patch_size,
        "pos_embed_grid": b.position_grid,
        "rope_base": b.rope_base,
    }


def _dpt_from(d: Mapping[str, Any]) -> DPTConfig:
    return DPTConfig(d["features"], tuple(d["out_channels"]))


def _dpt_to(d: DPTConfig) -> dict[str, Any]:
    return {"features": d.features, "out_channels": list(d.channels)}
