"""Settings of the command line: a YAML file, and flags on top, both derived from the config dataclasses.

Dotted names are those of the node's parameters: `window.views` is `--window.views 8` and, in a file, `window: {views: 8}`.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from da3_core import Engine, Model, ModelConfig, StreamConfig, load_model, make_engine, replace_setting, settings

from .to_msg import OutputConfig

UNTRAINED = "UNTRAINED NETWORK: the weights are random, and so is all that comes out. This only tries the plumbing."


@dataclass(frozen=True)
class OfflineConfig:
    """All settings of the offline commands."""

    model: ModelConfig = field(default_factory=ModelConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    output: OutputConfig = field(default_factory=OutputConfig)

    def flat(self) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
        """Dotted name -> (field, value)."""
        return settings(self.model) | settings(self.stream) | settings(self.output, "output.")

    def with_setting(self, name: str, value: Any) -> OfflineConfig:
        """A copy with one setting changed; raises ValueError naming what is wrong with it."""
        head, heads = name.partition(".")[0], dict.fromkeys(each.partition(".")[0] for each in self.flat())
        if head not in heads:
            raise ValueError(f"unknown setting {head!r}; there are {', '.join(heads)}")
        if head == "output":
            changed: OfflineConfig = replace_setting(self, name, value)
            return changed
        part = "model" if head in settings(self.model) else "stream"
        return dataclasses.replace(self, **{part: replace_setting(getattr(self, part), name, value)})


def add_settings(parser: argparse.ArgumentParser, defaults: OfflineConfig) -> None:
    """--config, and a flag for every setting; a flag that is not given leaves no trace in the namespace."""
    parser.add_argument("--config", type=Path, metavar="YAML", help="file of settings; flags go before it")
    group = parser.add_argument_group("settings")
    for name, (f, value) in defaults.flat().items():
        kind: dict[str, Any] = {"action": argparse.BooleanOptionalAction} if isinstance(value, bool) else {"type": type(value)}
        if not isinstance(value, bool):
            kind |= {"metavar": "|".join(f.metadata["choices"]) if "choices" in f.metadata else type(value).__name__.upper()}
        text = f"{f.metadata['help']} (default: {value})".replace("%", "%%")
        group.add_argument(f"--{name}", dest=name, default=argparse.SUPPRESS, help=text, **kind)


def read_settings(arguments: argparse.Namespace, defaults: OfflineConfig) -> OfflineConfig:
    """The defaults, changed by the file, changed by the flags; raises ValueError naming the setting at fault."""
    config = defaults
    if arguments.config is not None:
        for name, value in _flat_file(arguments.config).items():
            config = config.with_setting(name, value)
    for name in defaults.flat():
        if name in arguments:
            config = config.with_setting(name, getattr(arguments, name))
    return config


def load_network(name: str, untrained: bool = False) -> Model:
    """The network; untrained: with random weights, the same every time. Raises ValueError saying what is missing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load_model(name, weights=None if untrained else "auto")


def load_engine(config: OfflineConfig, untrained: bool = False) -> Engine:
    """The network and what runs it, see `load_network`."""
    what = config.model
    return make_engine(what.engine, load_network(what.model, untrained), what.device, config.stream.window.views, what.precision)


def _flat_file(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"--config {path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"--config {path} holds no settings: write lines like `window: {{views: 8}}`")
    return _flat(content)


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
