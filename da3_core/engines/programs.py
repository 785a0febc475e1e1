"""Which program runs a part, and sequences of parts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor, nn

from da3_core.engines.backend import Backend, Eager, Key, Program, ProgramError, SlowToLoad, key_of
from da3_core.engines.sequences import Recorder, Sequences

logger = logging.getLogger(__name__)


class Programs:
    """Runs parts: with the best backend for the shapes it was prepared for, with the plain one for all others. And sequences of parts."""

    def __init__(
        self,
        backends: Sequence[Backend],
        plain: Eager,
        reason: str = "asked for",
        recorder: Recorder | None = None,
        later: SlowToLoad | None = None,
    ) -> None:
        """recorder: makes sequences quicker. later: one of the backends; what it has built runs plainly at first, and is loaded in another
        thread once something has run."""
        self._backends = backends
        self.reason = reason  # for the choice of the first backend
        self._plain = plain
        self._sequences = Sequences(recorder, plain.build)
        self._programs: dict[Key, Program] = {}
        self._runs: dict[str, str] = {}
        self._refusals: list[tuple[nn.Module, str]] = []
        self._later = later
        self._left: list[tuple[nn.Module, tuple[Tensor, ...]]] = []  # to be loaded
        self._loading: Future[dict[Key, Program]] | None = None
        self._has_run = False

    @property
    def runs(self) -> Mapping[str, str]:
        """Part -> backend, of the prepared ones."""
        return self._runs

    @property
    def refusals(self) -> list[str]:
        """What went wrong with the parts that there are, for the log and the diagnostics."""
        return [*(text for _, text in self._refusals), *self._sequences.refusals]

    @property
    def is_loading(self) -> bool:
        """Whether there are programs that were left for later."""
        return bool(self._left or self._loading)

    @property
    def description(self) -> str:
        """What runs what, for the log and the diagnostics."""
        fast = ", ".join(f"{part} by {backend}" for part, backend in self._runs.items())
        loading = ["the others are loading"] if self.is_loading else []
        return "; ".join([self.reason, fast or f"all by {self._plain.name}", *loading, *self.refusals])

    def prepare(self, part: nn.Module, *inputs: Tensor) -> None:
        """Builds a fast program for these shapes; a backend that cannot is reported and the next one taken."""
        inputs = tuple(x.contiguous() for x in inputs)  # compiled code has strides built in
        if self._later is not None and self._later.is_built(part, inputs):
            self._left.append((part, inputs))
            return
        tried = (self._try(backend, part, inputs) for backend in self._backends)
        self._programs[key_of(part, inputs)] = next(filter(None, tried), None) or self._plain.build(part, inputs)

    def report(self, part: nn.Module, lack: str) -> None:
        """Tells, once, of what a backend was to run and has no program for; where there is none, all is as asked for."""
        if self._backends and (part, lack) not in self._refusals:
            self._refuse(part, lack)

    def release(self, *parts: nn.Module) -> None:
        """These parts will not run again."""
        self._programs = {key: program for key, program in self._programs.items() if key[0] not in parts}
        self._left = [left for left in self._left if left[0] not in parts]
        self._refusals = [refusal for refusal in self._refusals if refusal[0] not in parts]

    def __call__(self, part: nn.Module, *inputs: Tensor) -> tuple[Tensor, ...]:
        inputs = tuple(x.contiguous() for x in inputs)
        key = key_of(part, inputs)
        return self._programs[key](*inputs) if key in self._programs else self._plain.build(part, inputs)(*inputs)

    def run(self, sequence: Program, *inputs: Tensor) -> tuple[Tensor, ...]:
        """See `Sequences.run`."""
        self._catch_up()
        self._has_run = True
        return self._sequences.run(sequence, *inputs)

    def forget(self) -> None:
        """Sequences will do something else from now on."""
        self._sequences.forget()

    def begin(self) -> None:
        """A new run begins, with windows that fill: see `Sequences.begin`."""
        self._sequences.begin()

    def _catch_up(self) -> None:
        """Has another thread load what was left for later, and takes it over when all of it is there.

        That thread only loads: tracing in it would change modules that this one runs. What does not load stays with the plain backend.
        """
        if self._loading is not None and self._loading.done():
            loading, self._loading = self._loading, None
            self._programs |= loading.result()
            self.forget()
            logger.info("%s", self.description)
        if self._left and self._has_run and self._loading is None and self._later is not None:
            left, self._left, later = self._left, [], self._later
            self._loading = ThreadPoolExecutor(1).submit(
                lambda: {key_of(*each): program for each in left if (program := self._try(later, *each)) is not None}
            )

    def _try(self, backend: Backend, part: nn.Module, inputs: Sequence[Tensor]) -> Program | None:
        name = type(part).__name__
        try:
            program = backend.build(part, inputs)
        except ProgramError as error:
            self._refuse(part, f"{backend.name} cannot run {name}: {error}")
            return None
        self._runs = {**self._runs, name: backend.name}  # another thread may be reading the old one
        return program

    def _refuse(self, part: nn.Module, refusal: str) -> None:
        self._refusals = [*self._refusals, (part, refusal)]
        logger.warning("%s", refusal)
