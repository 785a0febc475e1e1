"""The transform tree of a recording: static and moving edges, composed along the path between two frames."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import reduce

import numpy as np

from da3_core import Float64Array, PoseBuffer, PoseConfig, StaleStamp

from .from_msg import StampedTransform


class TransformError(LookupError):
    """The tree cannot answer; the text names the frames."""


@dataclass
class Edge:
    """`child` under `parent`: fixed, or moving as `poses` knows it."""

    parent: str
    child: str
    T_parent_child: Float64Array | None
    poses: PoseBuffer

    def at(self, stamp_ns: int) -> Float64Array:
        if self.T_parent_child is not None:
            return self.T_parent_child
        T = self.poses.at(stamp_ns)
        if T is None:
            raise TransformError(f"no transform from {self.child} to {self.parent} at {stamp_ns * 1e-9:.3f} s")
        return T


class TransformTree:
    """One parent per frame, as TF demands. A frame that was given two is remembered, and every question through it refused."""

    def __init__(self, poses: PoseConfig | None = None) -> None:
        self._config = poses
        self._edges: dict[str, Edge] = {}
        self._second_parents: dict[str, str] = {}

    def add_static(self, transform: StampedTransform) -> None:
        """A fixed edge; a later one of the same frames replaces it."""
        edge = self._edge(transform)
        edge.T_parent_child = transform.T_parent_child

    def declare(self, transform: StampedTransform) -> None:
        """A moving edge whose poses will come."""
        self._edge(transform)

    def add(self, transform: StampedTransform) -> None:
        """The pose of a moving edge at its stamp; one that is not newer than the last is left out, as tf2 does."""
        edge = self._edge(transform)
        if edge.parent == transform.parent:
            with suppress(StaleStamp):
                edge.poses.add(transform.stamp_ns, transform.T_parent_child)

    def forget_other_runs(self, stamp_ns: int) -> None:
        """Empties the moving edges whose poses lie far ahead of a clock that went back to `stamp_ns`; others are of the new run already."""
        for edge in self._edges.values():
            edge.poses.forget_other_runs(stamp_ns)

    def ancestors(self, frame: str) -> list[str]:
        """`frame`, its parent, ... up to the root; raises TransformError for frames of two parents and for loops."""
        chain = [frame]
        while chain[-1] in self._edges:
            if chain[-1] in self._second_parents:
                first, second = self._edges[chain[-1]].parent, self._second_parents[chain[-1]]
                raise TransformError(f"frame {chain[-1]} has two parents in TF, {first} and {second}")
            chain.append(self._edges[chain[-1]].parent)
            if chain[-1] in chain[:-1]:
                raise TransformError(f"TF has a loop: {' -> '.join(chain)}")
        return chain

    def is_fixed(self, target: str, source: str) -> bool:
        """Whether nothing on the path between the frames moves; raises TransformError when there is no path."""
        return all(edge.T_parent_child is not None for edge in self._path(target, source))

    def transform(self, target: str, source: str, stamp_ns: int) -> Float64Array:
        """T_target_source (4, 4) at the stamp, moving edges interpolated; raises TransformError naming what is missing."""
        common = self._common_ancestor(target, source)
        return np.asarray(np.linalg.inv(self._below(common, target, stamp_ns)) @ self._below(common, source, stamp_ns))

    def is_known(self, target: str, source: str, stamp_ns: int) -> bool:
        """Whether the path exists and each of its moving edges has a pose at the stamp or after it, so that nothing better can come."""
        try:
            moving = [edge.poses.newest_ns for edge in self._path(target, source) if edge.T_parent_child is None]
        except TransformError:
            return False
        return all(newest_ns is not None and newest_ns >= stamp_ns for newest_ns in moving)

    def _edge(self, transform: StampedTransform) -> Edge:
        parent, child = transform.parent, transform.child
        edge = self._edges.get(child)
        if edge is None:
            edge = self._edges[child] = Edge(parent, child, None, PoseBuffer(self._config))
        elif edge.parent != parent:
            self._second_parents[child] = parent
        return edge

    def _below(self, ancestor: str, frame: str, stamp_ns: int) -> Float64Array:
        edges = self._edges_up(frame, ancestor)
        return reduce(lambda T, edge: edge.at(stamp_ns) @ T, edges, np.eye(4))

    def _path(self, target: str, source: str) -> list[Edge]:
        common = self._common_ancestor(target, source)
        return [*self._edges_up(source, common), *self._edges_up(target, common)]

    def _edges_up(self, frame: str, ancestor: str) -> list[Edge]:
        chain = self.ancestors(frame)
        return [self._edges[child] for child in chain[: chain.index(ancestor)]]

    def _common_ancestor(self, target: str, source: str) -> str:
        above_target = self.ancestors(target)
        above_source = self.ancestors(source)
        common = next((frame for frame in above_source if frame in above_target), None)
        if common is None:
            raise TransformError(
                f"TF does not link {source} and {target}: {source} hangs below {above_source[-1]}, {target} below {above_target[-1]}"
            )
        return common
