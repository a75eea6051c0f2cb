"""What happens to a broken file? Valid files are mutated and loaded; only our errors may come.

    python -m bench.fuzz_onnx --zoo DIR --files 10000 --jobs 2 --out fuzz.md

A mutation flips bytes, cuts or splices the file, or sets a random field of the parsed message to
an unlikely value. Each file is read, lifted and, where that works, run once, by a worker process
that is watched: a dead worker is a crash, no answer in ten seconds a hang, an exception outside
our own family is foreign. Mutations follow from `--seed` and the file's number alone.
"""

import math
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import onnx
import torch
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from audit.errors import AuditError, ModelError
from audit.models.onnx import lift, read_model
from bench.table import Table, bench_parser, publish

LIMIT = 10.0  # seconds per file
MEMORY = 6 * 2**30  # bytes of address space per worker
LARGEST = 400_000  # bytes of a source file: the graph matters, not its weights

WHOLE = (0, 1, -1, 2, 3, 7, 16, 255, 2**15, 2**31 - 1, -(2**31), 2**40, 2**63 - 1, -(2**63))
REAL = (0.0, -1.0, 1e-30, 1e30, float("inf"), float("-inf"), float("nan"))
TEXT = (
    "",
    "x",
    "output",
    "Relu",
    "Conv",
    "If",
    "Loop",
    "Constant",
    "ai.onnx.ml",
    "é\u0000",
    "a" * 999,
)


def flip(data: bytearray, rng: random.Random) -> None:
    """Change one to eight bytes."""
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] = rng.randrange(256)


def flip_early(data: bytearray, rng: random.Random) -> None:
    """Change a few bytes among the nodes, which come before the weights."""
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(min(len(data), 4000))] ^= 1 << rng.randrange(8)


def cut(data: bytearray, rng: random.Random) -> None:
    """Keep the beginning."""
    del data[rng.randrange(len(data)) :]


def splice(data: bytearray, rng: random.Random) -> None:
    """Copy a piece of the file over or into another place, or take it out."""
    start, place = rng.randrange(len(data)), rng.randrange(len(data))
    piece = data[start : start + rng.randint(1, 200)]
    end = rng.choice([place, place + len(piece)])
    data[place:end] = rng.choice([piece, b"", piece])


def fields(data: bytearray, rng: random.Random) -> None:
    """Set one to three fields of the message to something unlikely."""
    model = onnx.ModelProto.FromString(bytes(data))
    for _ in range(rng.randint(1, 3)):
        messages = [*_messages(model.graph), model]
        _mutate(rng.choice(messages), rng)
    data[:] = model.SerializeToString()


def nodes(data: bytearray, rng: random.Random) -> None:
    """The same, but only nodes, their attributes and small tensors."""
    model = onnx.ModelProto.FromString(bytes(data))
    for _ in range(rng.randint(1, 3)):
        if not model.graph.node:
            break
        node = rng.choice(model.graph.node)
        small = [proto for proto in model.graph.initializer if len(proto.raw_data) <= 64]
        _mutate(rng.choice([node, *node.attribute, *small]), rng)
        if rng.random() < 0.3:
            _rewire(model.graph, rng)
    data[:] = model.SerializeToString()


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for descriptor, value in message.ListFields():
        if descriptor.type == FieldDescriptor.TYPE_MESSAGE:
            for item in value if descriptor.is_repeated else [value]:
                yield from _messages(item)


def _rewire(graph: onnx.GraphProto, rng: random.Random) -> None:
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    node = rng.choice(graph.node)
    if node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)


def _mutate(message: Message, rng: random.Random) -> None:
    """Set, clear, shorten or repeat one field."""
    present = [descriptor for descriptor, _ in message.ListFields()]
    # Mostly fields that are there; the others open doors nobody looks at.
    every = list(message.DESCRIPTOR.fields)
    descriptor = rng.choice(present if present and rng.random() < 0.8 else every)
    if descriptor.is_repeated:
        _mutate_list(getattr(message, descriptor.name), descriptor, rng)
    elif descriptor.type == FieldDescriptor.TYPE_MESSAGE or rng.random() < 0.15:
        message.ClearField(descriptor.name)
    else:
        _set(lambda value: setattr(message, descriptor.name, value), descriptor, rng)


def _mutate_list(items: Any, descriptor: FieldDescriptor, rng: random.Random) -> None:
    place = rng.randrange(len(items)) if items else 0
    what = rng.randrange(4)
    if items and what == 0:
        del items[place]
    elif items and what == 1:
        items.append(items[place])
    elif descriptor.type == FieldDescriptor.TYPE_MESSAGE:
        if len(items) > 1:
            other = rng.randrange(len(items))
            items[place].CopyFrom(items[other])
    elif items:
        _set(lambda value: items.__setitem__(place, value), descriptor, rng)
    else:
        _set(items.append, descriptor, rng)


def _set(put: Callable[[Any], None], descriptor: FieldDescriptor, rng: random.Random) -> None:
    kinds: dict[int, Sequence[Any]] = {
        FieldDescriptor.TYPE_STRING: TEXT,
        FieldDescriptor.TYPE_BYTES: [text.encode() for text in TEXT] + [b"\xff\xfe", bytes(64)],
        FieldDescriptor.TYPE_FLOAT: REAL,
        FieldDescriptor.TYPE_DOUBLE: REAL,
        FieldDescriptor.TYPE_BOOL: (True, False),
        FieldDescriptor.TYPE_ENUM: range(8),
    }
    value = rng.choice(kinds.get(descriptor.type, WHOLE))
    try:
        put(value)
    except (ValueError, TypeError, OverflowError):  # a narrower integer
        put(rng.choice((1, 2)))


MUTATIONS = {
    mutation.__name__: mutation for mutation in (flip, flip_early, cut, splice, fields, nodes)
}


def mutated(sources: Sequence[Path], seed: int, number: int) -> tuple[str, bytes]:
    """The mutation's name and the file's bytes."""
    rng = random.Random(seed * 1_000_003 + number)
    name = rng.choice(list(MUTATIONS))
    data = bytearray(rng.choice(sources).read_bytes())
    try:
        MUTATIONS[name](data, rng)
    except (ValueError, RecursionError):  # the message allows less than we try
        name = "unchanged"
    return name, bytes(data)


def load(file: Path) -> str:
    """Read, lift and run once: how far it came, or the foreign error."""
    stage = "read"
    try:
        model = read_model(file)
        stage = "lift"
        module = lift(model).eval().requires_grad_(False)
        stage = "run"
        shape = [size or 2 for size in module.input_shape]
        if math.prod(shape) > 10**7:
            return "refused on run: input larger than any data"
        x = torch.zeros(shape).uniform_(0, 1).to(module.input_dtype)
        with torch.no_grad():
            module(x)
    except (ModelError, AuditError) as error:
        return f"refused on {stage}: {error}"
    except BaseException as error:  # what is foreign is what we look for
        frames = traceback.extract_tb(error.__traceback__)
        where = next((f for f in reversed(frames) if "audit" in f.filename), frames[-1])
        place = f"{where.filename}:{where.lineno}"
        return f"foreign on {stage}: {type(error).__name__} {error!s:.100} ({place})"
    return "loaded and run"


def work(connection: Connection, sources: Sequence[Path], seed: int) -> None:
    """A worker: receives a file's number, answers with what happened."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mutated.onnx"
        while True:
            number = connection.recv()
            name, data = mutated(sources, seed, number)
            file.write_bytes(data)
            connection.send("ready")
            connection.send((name, load(file)))


@dataclass
class Watched:
    """A worker that is replaced when it dies or does not answer."""

    sources: Sequence[Path]
    seed: int
    process: Any = None
    connection: Any = None

    def ask(self, number: int) -> tuple[str, str]:
        """What happened to this file."""
        if self.process is None:
            self._start()
        self.connection.send(number)
        try:
            self.connection.recv()  # imports and the mutation itself do not count
            if self.connection.poll(LIMIT):
                return self.connection.recv()  # type: ignore[no-any-return]
            outcome = "hang"
        except (EOFError, ConnectionError):
            outcome = "crash"
        self.stop()
        return mutated(self.sources, self.seed, number)[0], outcome

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=work, args=(theirs, self.sources, self.seed), daemon=True
        )
        self.process.start()
        theirs.close()

    def stop(self) -> None:
        """End the worker, whatever it does."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None


@dataclass
class Tally:
    """What happened to all files, by mutation."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    def add(self, number: int, name: str, outcome: str) -> None:
        """Count one file; what is not ours is kept with its number."""
        kind = outcome.split(":")[0]
        self.outcomes[name, kind] += 1
        if not kind.startswith(("refused", "loaded")):
            self.bad.append(f"{number} ({name}): {outcome}")
            print(self.bad[-1], file=sys.stderr, flush=True)

    def table(self, seconds: float) -> Table:
        """Return a row per mutation and a column per outcome."""
        kinds = ("refused on read", "refused on lift", "refused on run", "loaded and run")
        kinds += ("hang", "crash", "foreign")
        table = Table(
            ("mutation", *kinds),
            f"{sum(self.outcomes.values())} mutated files, {LIMIT:g} s limit each, {seconds:.0f} s "
            "in all; 'foreign' is an exception outside the tool's own family, which a user would "
            "see as a traceback.",
        )
        for name in [*MUTATIONS, "unchanged", "all"]:
            table.add(name, *(self._count(name, kind) for kind in kinds), show=False)
        return table

    def _count(self, name: str, kind: str) -> int:
        return sum(
            count
            for (mutation, outcome), count in self.outcomes.items()
            if outcome.startswith(kind) and name in (mutation, "all")
        )


def fuzz(sources: Sequence[Path], *, seed: int, numbers: Sequence[int], jobs: int) -> Tally:
    """Load all mutated files, `jobs` at a time."""
    tally, lock = Tally(), threading.Lock()
    queue: Queue[int] = Queue()
    for number in numbers:
        queue.put(number)

    def drain() -> None:
        worker = Watched(sources, seed)
        while True:
            try:
                number = queue.get_nowait()
            except Empty:
                break
            name, outcome = worker.ask(number)
            with lock:
                tally.add(number, name, outcome)
        worker.stop()

    threads = [threading.Thread(target=drain) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally


def main() -> None:
    """Print the table, and write it if a file is named."""
    parser = bench_parser(__doc__, shared=False)
    parser.add_argument("--zoo", type=Path, required=True, help="folder of valid .onnx files")
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutated file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--save", type=Path, help="write the mutated file --first here, and stop")
    options = parser.parse_args()
    sources = sorted(f for f in options.zoo.glob("*.onnx") if f.stat().st_size <= LARGEST)
    if options.save:
        options.save.write_bytes(mutated(sources, options.seed, options.first)[1])
        return
    started = time.perf_counter()
    numbers = range(options.first, options.first + options.files)
    tally = fuzz(sources, seed=options.seed, numbers=numbers, jobs=options.jobs)
    problems = "\n".join(f"- {line}" for line in tally.bad)
    publish(options.out, tally.table(time.perf_counter() - started), problems)


if __name__ == "__main__":
    main()
