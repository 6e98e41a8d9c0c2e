"""Assembly of a lowered network's parts into a checked program, for networks of all families."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from qspinn.errors import LoweringError
from qspinn.networks.competing import Network
from qspinn.networks.layered import LayeredNetwork
from qspinn.program import CodeTensor, Note, Program, check
from qspinn.program.ops import Op


class Parts(msgspec.Struct):
    """Tensors, operations and notes of a program that is being assembled, in the order in which they run.

    Attributes:
        tensors: codes with their format, by path.
        ops: operations; each reads signals that are inputs or results of earlier ones.
        notes: values of tensors that lowering could not keep.
    """

    tensors: dict[str, CodeTensor]
    ops: list[Op]
    notes: list[Note]

    @classmethod
    def beginning(cls, encoder: Op) -> Parts:
        """Parts of a program whose input is encoded by this operation."""
        return cls(tensors={}, ops=[encoder], notes=[])

    def add(self, tensors: dict[str, CodeTensor], ops: Sequence[Op]) -> None:
        """Adds operations and the tensors that they read."""
        self.tensors |= tensors
        self.ops += ops

    def add_clipped(self, path: str, count: int, total: int) -> None:
        """Notes how many of a tensor's values the largest code cuts off, if any."""
        self.add_note(path, "clipped", count, total)

    def add_note(self, path: str, problem: str, count: int, total: int) -> None:
        """Notes what happened to how many of a tensor's values, if to any."""
        if count:
            self.notes.append(Note(path=path, problem=problem, count=count, total=total))

    def program(
        self,
        network: Network | LayeredNetwork,
        *,
        seed: int,
        labels: tuple[str, ...],
        provenance: dict[str, Any] | None,
    ) -> Program:
        """The checked program of a network.

        Args:
            seed: of everything random in a run.
            labels: name of each class; () where classes have none.
            provenance: what the program was made from; None for nothing.

        Raises:
            LoweringError: the parts are no valid program.
        """
        program = Program(
            name=network.name,
            n_inputs=network.input.n,
            n_steps=network.n_steps,
            seed=seed,
            ops=tuple(self.ops),
            tensors=self.tensors,
            labels=labels,
            provenance={} if provenance is None else provenance,
            notes=tuple(self.notes),
        )
        check(program, network.name, error=LoweringError)
        return program
