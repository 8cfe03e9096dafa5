"""Several processes that learn, or predict, as one: torchrun starts them, torch.distributed joins them.

Each process takes its rows of the same batch, so that what a run learns does not depend on how many there are. The
process of rank 0 leads: it alone looks at the clock and the stop file, and writes into the run's folder.

Two backends work side by side: gloo carries what the processors tell each other, NCCL what lies on GPUs, so that
agreeing on a step never waits for a GPU.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

from gaze_capture.errors import UserError
from segmentation.job import ProcessGone

T = TypeVar("T")

PATIENCE = datetime.timedelta(minutes=30)
"""How long a process waits for one that lives but says nothing; one that died is noticed at once."""

_sharing = False


@dataclass(frozen=True)
class Processes:
    """One process among those that work together; without torchrun it is the only one."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    """Rank among those of this machine, and the number of its GPU."""
    local_count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this one decides and writes for all."""
        return self.rank == 0

    def rows(self, batch_size: int) -> slice:
        """Return which images of a step are this process's own.

        Raises
        ------
        UserError
            If the images cannot be shared out evenly, in pairs, for CutMix pastes from one into the other.
        """
        if self.count > 1 and batch_size % (2 * self.count):
            raise UserError(
                f"The run's batch_size is {batch_size}, which {self.count} processes cannot share in pairs of images; "
                f"start {_fitting(batch_size)} processes, or a new run with a batch_size that is a multiple of "
                f"{2 * self.count}."
            )
        own = batch_size // self.count
        return slice(self.rank * own, (self.rank + 1) * own)

    def device(self, wish: str) -> str:
        """Return which device this process should ask for: of GPUs, each has its own."""
        if self.count == 1 or wish.partition(":")[0] not in ("auto", "cuda") or not torch.cuda.is_available():
            return wish
        if torch.cuda.device_count() < self.local_count:
            raise UserError(
                f"{self.local_count} processes were started on a machine with {torch.cuda.device_count()} GPUs; start "
                "one for each: torchrun --nproc-per-node gpu"
            )
        return f"cuda:{self.local_rank}"

    def told(self, value: T) -> T:
        """Return the leader's value: text, numbers, or tuples of these."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def gathered(self, value: T) -> list[T]:
        """Return the values of all processes, by rank."""
        if self.count == 1:
            return [value]
        values: list[T] = [value] * self.count
        distributed.all_gather_object(values, value)
        return values

    def agreed(self, progress: float, stopping: bool) -> tuple[float, bool]:
        """Return the leader's progress of the run and whether it has seen a request to stop; no GPU is waited for."""
        if self.count == 1:
            return progress, stopping
        said = torch.tensor([progress, float(stopping)], dtype=torch.float64)
        distributed.broadcast(said, src=0)
        return float(said[0]), bool(said[1])

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            self.gathered(None)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors that lie on one device by their means over all processes, in one exchange."""
        if self.count > 1 and tensors:
            flat = _flat(tensors)
            distributed.all_reduce(flat)
            _spread(flat / self.count, tensors)

    def align(self, network: nn.Module) -> None:
        """Give a network the leader's weights and statistics."""
        tensors = [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
        if self.count > 1 and tensors:
            flat = _flat(tensors)
            distributed.broadcast(flat, src=0)
            _spread(flat, tensors)

    @property
    def shares(self) -> bool:
        """Whether `sharing` is on, among several."""
        return _sharing

    @contextlib.contextmanager
    def sharing(self) -> Iterator[None]:
        """Let `per_process` count over all processes; each must then compute the same losses in the same order."""
        global _sharing
        before, _sharing = _sharing, self.count > 1
        try:
            yield
        finally:
            _sharing = before


ALONE = Processes()


def launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextlib.contextmanager
def joined(patience: datetime.timedelta = PATIENCE) -> Iterator[Processes]:
    """Join the processes that torchrun started with this one, for as long as the context lasts.

    Raises
    ------
    ProcessGone
        If another one cannot be reached any more.
    """
    if not launched():
        yield ALONE
        return
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    processes = Processes(*(int(os.environ[name]) for name in names))
    nccl = torch.cuda.is_available() and distributed.is_nccl_available()
    if torch.cuda.is_available():
        # NCCL's communicators belong to the current device; too few of them are told of later, in one sentence.
        torch.cuda.set_device(processes.local_rank % torch.cuda.device_count())
    try:
        distributed.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo", timeout=patience)
        yield processes
    except RuntimeError as error:
        if _is_loss(error):
            traceback.print_exception(error)
            raise ProcessGone from error
        raise
    distributed.destroy_process_group()


def per_process(count: Tensor) -> Tensor:
    """Return what a sum over pixels or images is to be divided by, given how many of them count here: that, or 1.

    Where several processes learn from one batch, it is the mean of their counts: the mean of the quotients is then the
    quotient of all, although one process may see more labels than another.
    """
    if not _sharing:
        return count.clamp(min=1)
    total = count.clone()
    distributed.all_reduce(total)
    return total.clamp(min=1) / distributed.get_world_size()


def share_out(
    processes: Processes,
    emit: Callable[..., None],
    work: Callable[[Callable[..., None]], bool],
) -> bool:
    """Let each process do its share of a job that ends with `done`, and tell one `done` of them all.

    Parameters
    ----------
    work
        Does this process's share, telling the function it is given; False if it was stopped. Its `done` has
        ``predicted``, ``skipped`` and ``failed``.

    Raises
    ------
    UserError
        If the share of any process raised it.
    """
    ending: dict[str, object] = {}

    def tell(kind: str, step: int, total: int, **values: object) -> None:
        if kind == "done":
            ending.update(values)
        elif processes.leads:
            emit(kind, step, total, **values)

    try:
        finished = work(tell)
    except UserError as error:
        ending["error"], finished = str(error), False
    endings = processes.gathered({**ending, "finished": finished})
    for one in endings:
        if processes.leads and "error" in one:
            raise UserError(str(one["error"]))
    if not all(one["finished"] for one in endings):
        return False
    if processes.leads:
        counts = {name: sum(int(str(one[name])) for one in endings) for name in ("predicted", "skipped")}
        failed = [item for one in endings for item in list(one["failed"])]  # type: ignore[call-overload]
        if failed and not counts["predicted"]:
            raise UserError(str(failed[0]["reason"]))
        done = counts["predicted"] + len({item["image"] for item in failed})
        emit("done", done, done, **counts, failed=failed)
    return True


def _fitting(batch_size: int) -> str:
    """Name the numbers of processes that can share a batch."""
    numbers = [count for count in range(1, batch_size // 2 + 1) if batch_size % (2 * count) == 0]
    return " or ".join(map(str, numbers or [1]))


def _is_loss(error: RuntimeError) -> bool:
    """Whether an error of torch says that another process cannot be reached any more."""
    if isinstance(error, distributed.DistError):
        return True
    text = str(error)
    return any(sign in text for sign in ("Connection closed by peer", "Connection reset", "gloo"))


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


@torch.no_grad()
def _spread(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    parts = torch.split(flat, [one.numel() for one in tensors])
    for part, tensor in zip(parts, tensors, strict=True):
        tensor.copy_(part.view(tensor.shape))
