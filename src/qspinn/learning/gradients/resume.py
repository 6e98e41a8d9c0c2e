"""The file that training leaves after every epoch, and going on from it: a killed run loses the running epoch only.

One safetensors file holds the module's state, the optimizer's, and the position of every random generator; the key in
it says of which training it is. It is renamed into place, so what is there is whole. It does not depend on the device:
a training on one goes on on another, to the bit only on the same.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from qspinn.data.events.event_set import EventSet
from qspinn.errors import ArtifactError, RunError
from qspinn.files import entry_of, write_atomic
from qspinn.learning.gradients.quantized import QuantNet
from qspinn.learning.gradients.settings import Supervision
from qspinn.learning.gradients.surrogate import SurrogateNet
from qspinn.records.record import canonical_json

MODULE, OPTIMIZER, GENERATOR = "module.", "optimizer.", "generator"


class Training(NamedTuple):
    """State of a training: everything that changes while training; seen: measurements of the epochs done."""

    net: Any
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    rng: np.random.Generator
    seen: list[dict[str, Any]]


def key_of(
    net: SurrogateNet | QuantNet,
    data: EventSet,
    training: Supervision,
    seed: int,
    per_step: int,
    teacher: SurrogateNet | None = None,
) -> str:
    """sha256 (hex) of what a training starts from: the module's kind, declaration and state, data, settings, seed, and
    the same of a teacher."""
    sha = hashlib.sha256(canonical_json([type(net).__name__, training, seed, per_step]))
    for module in (net, teacher):
        if module is None:
            continue
        sha.update(canonical_json(_declared(module)))
        learned = {name for name, p in module.named_parameters() if p.requires_grad}
        for name, tensor in module.state_dict().items():
            sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {name in learned}".encode() + _bytes(tensor))
    data.feed(sha)
    return sha.hexdigest()


def _declared(net: SurrogateNet | QuantNet) -> list[Any]:
    """What a module was made of besides its arrays: equal arrays under another declaration train to something else."""
    parts: list[Any] = [net.network, net.kind, net.width]
    if isinstance(net, QuantNet):
        grids = {name: [grid.step.tolist(), grid.shifts.tolist()] for name, grid in net.grids.items()}
        parts += [net.plan, grids, net.ranges.v, net.ranges.i, net.ranges.theta, net.seed, net.estimator]
    return parts


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().numpy().tobytes()


def store(path: Path, key: str, n_done: int, state: Training) -> None:
    """Writes the state after n_done epochs.

    Raises:
        ArtifactError: the place is full or not writable.
    """
    optimizer = state.optimizer.state_dict()
    tensors = {MODULE + name: t for name, t in state.net.state_dict().items()}
    tensors |= {f"{OPTIMIZER}{i}.{name}": t for i, moments in optimizer["state"].items() for name, t in moments.items()}
    tensors[GENERATOR] = torch.get_rng_state()
    rest = {
        "key": key,
        "n_done": n_done,
        "groups": optimizer["param_groups"],
        "schedule": state.schedule.state_dict(),
        "rng": state.rng.bit_generator.state,
        "seen": state.seen,
    }
    copies = {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}  # no shared memory
    write_atomic(path, safetensors.torch.save(copies, metadata={"qspinn_training": json.dumps(rest)}))


def restore(path: Path, key: str, state: Training) -> int:
    """The number of epochs done: as stored, everything put back; 0 where there is no file.

    Raises:
        RunError: the file is of another training.
        ArtifactError: the file is damaged.
    """
    if not path.exists():
        return 0
    try:
        tensors, rest = _read(path)
        if rest["key"] != key:
            raise of_another(path)
        _put_back(tensors, rest, state)
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArtifactError(
            str(path),
            "cannot be read as an interrupted training",
            got=str(error)[:120],
            fix="delete it to train from the start",
        ) from None
    return int(rest["n_done"])


def of_another(path: Path) -> RunError:
    """The error for a file of another training, which going on would replace."""
    return RunError(
        str(path),
        "is of another training, which was interrupted",
        fix="choose another place, or delete it to train from the start",
    )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    data = path.read_bytes()
    return safetensors.torch.load(data), entry_of(data, "qspinn_training")


def _put_back(tensors: dict[str, Tensor], rest: dict[str, Any], state: Training) -> None:
    state.net.load_state_dict({k.removeprefix(MODULE): t for k, t in tensors.items() if k.startswith(MODULE)})
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(OPTIMIZER):
            i, _, kind = name.removeprefix(OPTIMIZER).partition(".")
            states.setdefault(int(i), {})[kind] = tensor
    state.optimizer.load_state_dict({"state": states, "param_groups": rest["groups"]})
    state.schedule.load_state_dict(rest["schedule"])
    state.rng.bit_generator.state = rest["rng"]
    state.seen[:] = rest["seen"]
    torch.set_rng_state(tensors[GENERATOR])
