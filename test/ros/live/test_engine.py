"""What the node's engine is built for."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: make ros-test")

from da3_ros import node
from da3_ros.settings import CameraConfig, Parameters


@pytest.mark.parametrize(
    ("kind", "chain", "views", "wanted"),
    [
        ("any_view", "always", 4, (4,)),
        ("any_view", "when_blind", 4, (3, 4)),
        ("metric", "always", 4, (3,)),
        ("any_view", "always", 2, (4,)),
    ],
)
def test_it_is_built_for_what_the_stream_asks_for(
    kind: str, chain: str, views: int, wanted: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    class Engine:
        def __init__(self, views: int) -> None:
            self.kind, self.views = kind, views

        def prepare(self, size: object, wanted: tuple[int, ...], new: int) -> None:
            asked.append((self.views, wanted, new))

    monkeypatch.setattr(node, "load_model", lambda name: None)
    monkeypatch.setattr(node, "make_engine", lambda name, model, device, views, *others, **switches: Engine(views))
    cameras = ("left", "middle", "right")
    parameters = Parameters(cameras={name: CameraConfig() for name in cameras})
    parameters = dataclasses.replace(parameters, node=dataclasses.replace(parameters.node, cameras=cameras))
    for name, value in {"image_width_px": 640, "image_height_px": 480, "scale.chain": chain, "window.views": views}.items():
        parameters = parameters.with_setting(name, value)
    node.load_engine(parameters)
    assert asked == [(max(3, views), wanted, 3)]
