"""A Ray cluster: connected to or started here, and how many actors it has room for. The only file that imports ray."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ser_batch.errors import EngineError, InputError
from ser_batch.pipeline.ray.actor import Opened, Plan, TaskScorer, probe

OBJECT_STORE = 256 * 2**20
"""Bytes of the object store of a Ray started here: it holds names and rows, never samples."""
CPUS = 4
"""CPUs of an actor without a GPU unless told otherwise: enough to decode beside the engine, few enough to share."""

CONNECT_TIMEOUT = 10.0
"""Seconds for a cluster to answer."""
GRACE = 10.0
"""Seconds that Ray Data's threads get to end."""
ENDLESS = ("Prefetcher", "data-usage-metrics-poller")
"""Ray Data's names for threads of its own that never end."""


@dataclass(frozen=True)
class Placement:
    """Where a run goes and what each of its actors gets."""

    address: str | None = None
    """Of the cluster; None: what RAY_ADDRESS says, else a Ray of its own on this machine."""
    actors: int | None = None
    """At most; None: as many as the cluster has room for."""
    cpus: int | None = None
    """Of an actor: decode processes and threads of the runtime; None: see `Room`."""
    gpus: float = 0.0
    """Of an actor; a part of one is shared."""

    def __post_init__(self) -> None:
        if min(1 if n is None else n for n in (self.actors, self.cpus)) < 1 or self.gpus < 0:
            raise InputError("a run on Ray needs actors with CPUs", got=self)


@dataclass(frozen=True)
class Room:
    """What a run gets of a cluster."""

    actors: int
    cpus: int
    gpus: float

    @classmethod
    def of(cls, nodes: Sequence[dict[str, float]], placement: Placement) -> Room:
        """Divide up the nodes' resources ("CPU", "GPU").

        An actor with GPUs has its share of the node's CPUs; one without, `CPUS`, or what the smallest node has.

        Raises:
            EngineError: no node has what an actor needs.
        """
        able = [node for node in nodes if node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= placement.gpus]
        shares = [int(node["CPU"] * placement.gpus / node["GPU"]) if placement.gpus else CPUS for node in able]
        fitting = [max(1, min(share, int(node["CPU"]))) for share, node in zip(shares, able, strict=True)]
        cpus = placement.cpus or min(fitting, default=1)
        actors = sum(_fits(node, cpus, placement.gpus) for node in able)
        if not actors:
            raise EngineError(
                "no machine of the Ray cluster has room for an actor",
                got=", ".join(f"{n.get('CPU', 0):g} CPUs and {n.get('GPU', 0):g} GPUs" for n in nodes) or "no machines",
                expected=f"{cpus} CPUs and {placement.gpus:g} GPUs",
                remedy="See --ray-cpus and --ray-gpus.",
            )
        return cls(min(actors, placement.actors or actors), cpus, placement.gpus)


def _fits(node: dict[str, float], cpus: int, gpus: float) -> int:
    by_cpu = int(node["CPU"] // cpus)
    return min(by_cpu, int(node["GPU"] // gpus)) if gpus else by_cpu


@contextmanager
def cluster(placement: Placement) -> Iterator[Room]:
    """Connect to Ray, or start one here that ends with the block; a connection that is open already is used.

    Raises:
        EngineError: ray is not installed, nothing answers, or there is no room.
    """
    if importlib.util.find_spec("ray") is None:
        raise EngineError("ray is not installed", remedy="Install it with pip install 'ser-batch[ray]'.")
    ray: Any = importlib.import_module("ray")
    ours = not ray.is_initialized()
    # Ray tells of lost processes on stdout, to the last moment; stdout is for the summary.
    with redirect_stdout(sys.stderr):
        if ours:
            _connect(ray, placement.address or os.environ.get("RAY_ADDRESS") or None)
        try:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            yield Room.of(nodes, placement)
        finally:
            if ours:
                ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    _check_answers(address)
    own: dict[str, Any] = {"object_store_memory": OBJECT_STORE, "include_dashboard": False}
    # Ray takes SIGTERM for itself; the command line has plans for it.
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if in_main else None
    try:
        # "local" never joins a cluster that somebody else has started here.
        ray.init(
            address=address or "local", logging_level=logging.ERROR, log_to_driver=False, **({} if address else own)
        )
    except Exception as error:
        # Ray raises what comes to hand, a bare Exception where its own processes are slow to start.
        raise EngineError(
            "no Ray cluster answers", got=f"{address or 'this machine'}: {error}", expected="auto, or HOST:PORT"
        ) from error
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _check_answers(address: str | None) -> None:
    """Ask before Ray does, which would wait for an address that is wrong for ten minutes and more."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT).close()
    except (OSError, OverflowError) as error:
        raise EngineError("no Ray cluster answers", got=f"{address}: {error}", expected="auto, or HOST:PORT") from error


def probe_engine(room: Room, *arguments: Any) -> Opened:
    """Run `probe` with an actor's resources."""
    ray: Any = importlib.import_module("ray")
    remote = ray.remote(num_cpus=room.cpus, num_gpus=room.gpus)(probe)
    try:
        opened: Opened = ray.get(remote.remote(*arguments))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    return opened


def score_tasks(tasks: Sequence[pa.Table], plan: Plan, room: Room) -> Generator[pa.Table]:
    """Score tasks on the actors of a Ray Data pipeline; results come as they are ready.

    A task whose process or machine is lost is tried again on another, up to `actor.TRIES` times.

    Raises:
        EngineError: the cluster failed.
    """
    ray: Any = importlib.import_module("ray")
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actors = min(room.actors, len(tasks))
    attempts = ray.remote(num_cpus=0, scheduling_strategy=here)(_Attempts).remote()
    dataset = ray.data.from_arrow(list(tasks))
    context = dataset.context
    # A result stays in one piece, so that the rows of a recording do.
    context.target_max_block_size = None
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    scored = dataset.map_batches(
        TaskScorer,
        fn_constructor_kwargs={"plan": plan, "attempt": lambda task: ray.get(attempts.begin.remote(task))},
        batch_size=None,
        batch_format="pyarrow",
        # Down to one when there is nothing to do, so that those of a lost machine find room elsewhere.
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors),
        num_cpus=room.cpus,
        num_gpus=room.gpus,
    )
    before = _at_work()
    # Nothing ahead: Ray's prefetching thread is one that may outlive an interrupted run.
    results: Any = iter(scored.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
    try:
        with closing(results):
            yield from results
    except ray.exceptions.RayError as error:
        raise EngineError("the Ray cluster failed", got=error, remedy="--resume goes on.") from error
    finally:
        _wait_for(_at_work() - before)


def _at_work() -> set[threading.Thread]:
    """The threads of this process, less those that wait for ever."""
    return {thread for thread in threading.enumerate() if thread.name not in ENDLESS}


def _wait_for(threads: set[threading.Thread]) -> None:
    """Let Ray Data's threads end: one that asks for anything after `ray.shutdown` takes the whole process with it."""
    deadline = time.monotonic() + GRACE
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


class _Attempts:
    """How often each task was begun; an actor beside the driver, so that no lost machine forgets it."""

    def __init__(self) -> None:
        self._count: Counter[int] = Counter()

    def begin(self, task: int) -> int:
        """Count one more."""
        self._count[task] += 1
        return self._count[task]
