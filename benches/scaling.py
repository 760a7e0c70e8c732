#!/usr/bin/env python3
"""How the time of a network scales on this machine: with the batch, the threads, and the side of the images.

    python3 benches/scaling.py [--unnoise target/release/unnoise] [--model DIR] [--rounds 3]

Every figure is the median over rounds that go through all settings in turn, each setting a process of its own. Markdown on stdout. `--model`
is a diffusers directory (made by benches/peers/speed.py, or the built-in prior if it is not given). Nothing but Python and the binary is needed.
"""

import argparse
import json
import pathlib
import statistics
import subprocess

ROOT = pathlib.Path(__file__).parents[1]
BATCHES = [1, 2, 4, 8, 16, 32, 64]
SIDES = [(32, 16), (64, 4), (128, 1), (256, 1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unnoise", default=str(ROOT / "target" / "release" / "unnoise"))
    parser.add_argument("--model")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    def bench(*words):
        model = ["--model", args.model] if args.model else []
        words = [args.unnoise, "bench", "--json", "--runs", "3", *model, *map(str, words)]
        return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)

    def attention(report):
        return sum(o["ms"] for o in report["operations"] if o["operation"].startswith("attention"))

    settings = [("--batch", n, "--threads", t) for n in BATCHES for t in (1, 2)]
    settings += [("--batch", n, "--side", side, "--threads", 2) for side, n in SIDES]
    reports = {setting: [] for setting in settings}
    for _ in range(args.rounds):
        for setting in settings:
            reports[setting].append(bench(*setting))

    def median(setting, value):
        return statistics.median(value(report) for report in reports[setting])

    print("| images at once | images/s, 1 thread | 2 threads | efficiency |\n|---|---|---|---|")
    for n in BATCHES:
        one, two = (median(("--batch", n, "--threads", t), lambda r: r["images_per_s"]) for t in (1, 2))
        print(f"| {n} | {one:.3g} | {two:.3g} | {100 * two / one / 2:.0f} % |")
    print("\n| side | images at once | ns a pixel | without attention | of the smallest side's |\n|---|---|---|---|---|")
    first = None
    for side, n in SIDES:
        setting = ("--batch", n, "--side", side, "--threads", 2)
        pixels = n * side * side * 1e-6
        whole = median(setting, lambda r: r["median_ms"]) / pixels
        rest = median(setting, lambda r: r["median_ms"] - attention(r)) / pixels
        first = first or rest
        print(f"| {side} | {n} | {whole:.0f} | {rest:.0f} | {rest / first:.2f} |")


if __name__ == "__main__":
    main()
