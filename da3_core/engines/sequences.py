"""Sequences of programs and plain operations, recorded where that makes them quicker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from da3_core.engines.backend import Key, Program, ProgramError, key_of

logger = logging.getLogger(__name__)


class Recorder(Protocol):
    """Makes what is called again and again quicker."""

    def record(self, run: Program, inputs: Sequence[Tensor]) -> Program:
        """What does on inputs of such shapes what `run` does on these; to find out it is run a few times. Raises ProgramError."""


class Sequences:
    """Runs sequences, and records those that come again."""

    def __init__(self, recorder: Recorder | None, plain: Callable[[Program, Sequence[Tensor]], Program]) -> None:
        """plain: has a sequence take its inputs from host or device. Without a recorder all run as they are."""
        self._recorder, self._plain = recorder, plain
        self._programs: dict[Key, Program | None] = {}  # None: has come once
        self.refusals: list[str] = []

    def run(self, sequence: Program, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What `sequence` gives. It changes no more than a second run with the same inputs would, and does whenever inputs have such shapes
        what it does now. The result may be gone once another sequence has run.

        A sequence is recorded when it comes a second time: windows that are filling come once.
        """
        if self._recorder is None:
            return sequence(*inputs)
        key = key_of(sequence, inputs)
        if key not in self._programs:
            self._programs[key] = None
            return self._plain(sequence, inputs)(*inputs)
        program = self._programs[key] or self._recorded(self._recorder, sequence, inputs)
        self._programs[key] = program
        return program(*inputs)

    def begin(self) -> None:
        """What came once in the last run has not come yet in the one that begins."""
        self._programs = {key: program for key, program in self._programs.items() if program is not None}

    def forget(self) -> None:
        """Sequences will do something else from now on."""
        self._programs.clear()
        self.refusals = []

    def _recorded(self, recorder: Recorder, sequence: Program, inputs: Sequence[Tensor]) -> Program:
        try:
            return recorder.record(sequence, inputs)
        except ProgramError as error:
            self.refusals.append(f"windows are not recorded as CUDA graphs: {error}")
            logger.warning("%s", self.refusals[-1])
            return self._plain(sequence, inputs)
