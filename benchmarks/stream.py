"""genlab's stream beside other loaders and the bare loops that no loader can beat.

    python benchmarks/stream.py jpeg            # 256x256 JPEG, batch 16, decoded
    python benchmarks/stream.py jpeg-augment    # the same, resized to 286, cut to a random 256, mirrored at random
    python benchmarks/stream.py mnist           # 28x28 raw, batch 128
    python benchmarks/stream.py s3              # JPEG from an S3 server with 30 ms added to every request

Each contender runs in a process of its own, pinned to the same cores, on the same images. It makes a warm-up pass in
which the number, shapes, type and mean of its images are checked; then contenders take turns, one whole shuffled pass
each, round by round. Starting processes and opening data is not timed. Peers with workers first try each number of
them, two passes each, and go on with the fastest.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from contenders import CONTENDERS, Contender
from rig import CACHE, Process, alternate, command, figure, machine, ratio, say, spread, table, versions
from s3_case import compare
from samples import Samples

BATCH = {"jpeg": 16, "jpeg-augment": 16, "mnist": 128}
COUNT = {"jpeg": 4096, "jpeg-augment": 4096, "mnist": 468 * 128}
"""Whole batches; for MNIST as many as its training set has."""


def main() -> None:
    """Run one case and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=[*BATCH, "s3"])
    parser.add_argument("--threads", type=int, default=2, help="cores to pin contenders to, and threads of each")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peers", nargs="*", metavar="NAME", help=f"only these: {', '.join(CONTENDERS)}")
    parser.add_argument("--workers", type=int, help="every peer's workers, instead of trying each number")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the samples are kept")
    parser.add_argument("--server", help="s3: command that starts another server; see s3_case.py")
    options = parser.parse_args()
    if options.case == "s3":
        samples = Samples("jpeg", COUNT["jpeg"], options.cache)
        compare(samples, rounds=options.rounds, server=options.server)
        return
    if options.peers is not None and (unknown := set(options.peers) - set(CONTENDERS)):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}")
    samples = Samples("mnist" if options.case == "mnist" else "jpeg", COUNT[options.case], options.cache)
    print(f"`{command()}`\n")
    print(f"{machine(range(options.threads))}. {versions('torch', 'torchvision', 'numpy', 'pyarrow')}.")
    print(f"{samples.origin}; batch {BATCH[options.case]}; mean pixel {samples.mean():.2f}.\n", flush=True)
    case = _Case(options.case, samples, options.threads)
    entered = [
        one
        for one in CONTENDERS.values()
        if options.case in one.cases
        and (options.peers is None or one.floor or one.name == "genlab" or one.name in options.peers)
    ]
    case.run(entered, options.rounds, options.workers)


class _Case:
    """One case: its contenders and their turns."""

    def __init__(self, name: str, samples: Samples, threads: int) -> None:
        self.name = name
        self.samples = samples
        self.threads = threads
        self.cpu: dict[str, list[float]] = {}
        self.facts: dict[str, dict[str, object]] = {}

    def run(self, entered: Sequence[Contender], rounds: int, workers: int | None) -> None:
        """Sweep, alternate, print."""
        absent: list[str] = []
        turns: dict[str, Callable[[], float]] = {}
        best: dict[str, int] = {}
        processes: list[Process] = []
        for one in entered:
            try:
                best[one.name] = self._best(one, workers)
                if one.fresh:
                    turns[one.name] = self._fresh(one, best[one.name])
                else:
                    process = self._start(one, best[one.name])
                    processes.append(process)
                    turns[one.name] = self._turn(one, process)
            except RuntimeError as error:
                absent.append(f"{one.name}: {error}")
                say(f"{one.name} is left out: {error}")
        found = alternate(turns, rounds)
        for process in processes:
            process.close()
        floors = [one for one in entered if one.floor and one.name in found]
        floor = max(floors, key=lambda one: statistics.median(found[one.name])).name if floors else None
        rows = []
        for one in sorted(entered, key=lambda one: -statistics.median(found.get(one.name, [0.0]))):
            if one.name not in found:
                continue
            number = str(best[one.name]) if len(one.workers) > 1 else ""
            rows.append(
                [
                    f"**{one.name}**" if one.name == "genlab" else one.name,
                    str(self.facts[one.name].get("version", "")),
                    number,
                    spread(found[one.name]),
                    figure(1e6 * statistics.median(self.cpu[one.name])),
                    ratio(found["genlab"], found[one.name]) if "genlab" in found and one.name != "genlab" else "",
                ]
            )
        head = ["loader", "version", "workers", "images/s: median (min–max)", "CPU µs/image", "genlab is × as fast"]
        print(table(head, rows))
        peers = [one.name for one in entered if not one.floor and one.name in found and one.name != "genlab"]
        if "genlab" in found and peers and floor is not None:
            fastest = max(peers, key=lambda name: statistics.median(found[name]))
            print(
                f"\ngenlab: {ratio(found['genlab'], found[floor])} of the fastest floor ({floor}), "
                f"{ratio(found['genlab'], found[fastest])} × the fastest peer ({fastest}); {rounds} rounds."
            )
        for one in entered:
            if one.note and one.name in found:
                print(f"{one.name}: {one.note}.")
        for line in absent:
            print(f"Left out: {line}.")

    def _best(self, one: Contender, workers: int | None) -> int:
        """The number of workers with which it is fastest."""
        if len(one.workers) == 1:
            return one.workers[0]
        if workers is not None:
            return max(workers, min(one.workers))
        tried = {}
        for number in one.workers:
            try:
                process = self._start(one, number)
            except RuntimeError as error:
                if not tried:
                    raise
                say(f"{one.name}: not with {number} workers: {error}")  # ffcv takes no more than there are cores
                continue
            turn = self._turn(one, process)
            tried[number] = max(turn(), turn())
            process.close()
        self.cpu[one.name].clear()
        say(f"{one.name}: {', '.join(f'{number} workers {figure(rate)}/s' for number, rate in tried.items())}")
        return max(tried, key=lambda number: tried[number])

    def _start(self, one: Contender, workers: int) -> Process:
        # A pass of the fastest loaders takes milliseconds; several make a turn.
        passes = 20 if self.name == "mnist" and (one.floor or one.name in ("genlab", "ffcv")) else 1
        numbers = {
            "count": self.samples.count,
            "batch": BATCH[self.name],
            "threads": self.threads,
            "workers": workers,
            "passes": passes,
        }
        arguments = [f"--{name}={value}" for name, value in numbers.items()]
        log = self.samples.cache / "logs" / f"{self.name}-{one.name.replace('/', ' ')}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        words = ["contenders.py", one.name, self.name, *arguments, f"--cache={self.samples.cache}"]
        process = Process(words, range(self.threads), log)
        self.facts[one.name] = process.facts
        return process

    def _turn(self, one: Contender, process: Process) -> Callable[[], float]:
        def turn() -> float:
            answer = process.ask()
            self.cpu.setdefault(one.name, []).append(answer["cpu"])
            return float(answer["rate"])

        return turn

    def _fresh(self, one: Contender, workers: int) -> Callable[[], float]:
        def turn() -> float:
            process = self._start(one, workers)
            rate = self._turn(one, process)()
            process.close()
            return rate

        return turn


if __name__ == "__main__":
    main()
