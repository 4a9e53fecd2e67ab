"""`python -m tests.simulation SEED [--trace]` for one seed, `--seeds 10000 [--from 0] [--jobs 2]` for many."""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.world import Lived, World, live


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", help="one seed")
    parser.add_argument("--trace", action="store_true", help="its last steps, too")
    parser.add_argument("--seeds", type=int, default=200, help="how many, if none is named")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first of them")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes that share them")
    asked = parser.parse_args()
    if asked.seed is not None:
        return one(asked.seed, is_traced=asked.trace)
    return many(range(asked.first, asked.first + asked.seeds), asked.jobs)


def one(seed: int, *, is_traced: bool) -> int:
    world = World(seed)
    lived = live(world)
    if is_traced:
        print("\n".join(world.trace))
    print(lived.broken or f"seed {seed}: {lived.steps} steps, hash {lived.digest}")
    print(f"lives ended by {world.kills}, answers {dict(sorted(world.clients.statuses.items()))}")
    return 0 if lived.broken is None else 1


def many(seeds: range, jobs: int) -> int:
    began_s, everything = time.monotonic(), hashlib.blake2b(digest_size=8)
    sums, broken = [0, 0, 0, 0], list[int]()
    with ProcessPoolExecutor(jobs) as pool:
        for seed, lived in zip(seeds, pool.map(_live, seeds, chunksize=20), strict=True):
            if lived.broken is not None:
                broken.append(seed)
                print(lived.broken, flush=True)
            everything.update(lived.digest.encode())
            sums = [a + b for a, b in zip(sums, (lived.steps, lived.crashes, lived.given, lived.runs), strict=True)]
    steps, crashes, given, runs = sums
    print(
        f"{len(seeds)} seeds, {len(broken)} broken {broken[:20]}: {steps} steps, {crashes} crashes, {given} ids given, "
        f"{runs} activations run, {time.monotonic() - began_s:.1f} s, hash {everything.hexdigest()}"
    )
    return 1 if broken else 0


def _live(seed: int) -> Lived:
    return live(World(seed))


if __name__ == "__main__":
    raise SystemExit(main())
