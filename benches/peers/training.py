#!/usr/bin/env python3
"""Trains one small network with PyTorch and with unnoise, on the same batches, and compares the smoothed losses.

    python3 benches/peers/training.py [--steps 1000] [--images data/digits/train.npz] [--work target/peer-training]

Both start from the same weights and see the same images, levels and noise; rounding makes the runs drift apart, so that only
means over the last 100 steps are compared. Needs torch and diffusers (made with 2.15.0 and 0.42.1).
"""

import argparse
import os
import subprocess
import sys
import time

import numpy as np

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(ROOT, "tools", "fixtures"))
import training  # noqa: E402

WINDOW, TOLERANCE = 100, 0.03


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--images", help="an .npz of digits instead of synthetic spots")
    parser.add_argument("--work", default=os.path.join(ROOT, "target", "peer-training"))
    parser.add_argument("--binary", help="the built example train_on_arrays, instead of cargo run")
    args = parser.parse_args()
    work = os.path.abspath(args.work)
    start = time.time()
    theirs = np.array(training.export(work, "small", args.steps, args.images))
    torch_seconds = time.time() - start
    cargo = ["cargo", "run", "--release", "-p", "unnoise-nn", "--example", "train_on_arrays", "--"]
    start = time.time()
    subprocess.run([args.binary, work] if args.binary else cargo + [work], cwd=ROOT, check=True)
    ours = np.load(os.path.join(work, "unnoise_losses.npy"))
    print(f"torch {torch_seconds:.0f} s, unnoise {time.time() - start:.0f} s (with its build, if there was one)")
    print("steps        torch    unnoise  ratio - 1")
    for end in range(WINDOW, args.steps + 1, WINDOW):
        a, b = theirs[end - WINDOW : end].mean(), ours[end - WINDOW : end].mean()
        print(f"{end - WINDOW + 1:4}-{end:4}  {a:9.6f}  {b:9.6f}  {b / a - 1:+9.5f}")
    if abs(b / a - 1) > TOLERANCE:
        sys.exit(f"the smoothed losses differ by more than {TOLERANCE:.0%}")


if __name__ == "__main__":
    main()
