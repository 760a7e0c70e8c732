#!/usr/bin/env python3
"""Times networks with unnoise, PyTorch and OpenVINO, in turns, on the same weights, threads and machine.

    python3 benches/peers/speed.py [--unnoise target/release/unnoise] [--rounds 7] [--threads 2] [--compile] [--only TASK ...]

Networks: `cifar`, the architecture of google/ddpm-cifar10-32 (35.7 M parameters, random weights), and `digits`, the one of models/digits.
In every round each program gets its turn, `unnoise bench` as a process of its own; PyTorch in NCHW and channels_last (and compiled, with
--compile, which takes minutes), OpenVINO for forward passes. A turn is the median of a few runs; the ratio is that of the medians over
the rounds, of the fastest peer to unnoise. Peak memory is that of separate processes. Markdown on stdout.

Needs torch, diffusers and openvino (made with 2.15.0, 0.42.1 and 2026.4.1), and `cargo build --release`.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[2]
# name: network, mode, batch
TASKS = {
    "forward, 16 images": ("cifar", "forward", 16),
    "forward, 1 image": ("cifar", "forward", 1),
    "forward + input gradient, 1 image": ("cifar", "guided", 1),
    "training step, 16 images": ("cifar", "train", 16),
    "digits: training step, 64 images": ("digits", "train", 64),
    "digits: forward, 19 images": ("digits", "forward", 19),
}


def network(name, folder):
    import diffusers
    import torch

    if name == "digits":
        return diffusers.UNet2DModel.from_pretrained(ROOT / "models" / "digits", low_cpu_mem_usage=False).float()
    if not (folder / "config.json").exists():
        torch.manual_seed(0)
        down, up = "DownBlock2D AttnDownBlock2D DownBlock2D DownBlock2D", "UpBlock2D UpBlock2D AttnUpBlock2D UpBlock2D"
        model = diffusers.UNet2DModel(
            sample_size=32, block_out_channels=(128, 256, 256, 256), down_block_types=down.split(), up_block_types=up.split(),
            layers_per_block=2, attention_head_dim=None, norm_num_groups=32, norm_eps=1e-6, downsample_padding=0,
            flip_sin_to_cos=False, freq_shift=1)
        model.save_pretrained(folder)
        diffusers.DDPMScheduler().save_pretrained(folder)
    return diffusers.UNet2DModel.from_pretrained(folder, low_cpu_mem_usage=False)


def torch_run(model, mode, batch, channels_last):
    """One run of PyTorch, as a function."""
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    shape = (batch, model.config.in_channels, 32, 32)
    x = torch.randn(shape).to(memory_format=layout)
    model = model.to(memory_format=layout)
    t = torch.full((batch,), 500)
    if mode == "train":
        model.train().requires_grad_(True)
        # The fastest form that runs on a CPU; the moving average in one call over all parameters, too.
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        average = [p.detach().clone() for p in model.parameters()]

        def run():
            loss = torch.nn.functional.mse_loss(model(x, t).sample, x)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 1e-3)
        return run
    model.eval().requires_grad_(False)
    if mode == "guided":
        def run():
            leaf = x.detach().requires_grad_(True)
            torch.autograd.grad(model(leaf, t).sample, leaf, x)
        return run

    def run():
        with torch.inference_mode():
            model(x, t)
    return run


def openvino_run(model, batch, threads):
    import openvino
    import torch

    x, t = torch.randn(batch, model.config.in_channels, 32, 32), torch.full((batch,), 500)

    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x, t):
            return self.model(x, t, return_dict=False)[0]

    with torch.no_grad():
        converted = openvino.convert_model(Plain().eval(), example_input=(x, t))
    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(converted, "CPU", options).create_infer_request()
    inputs = [x.numpy(), t.numpy()]
    return lambda: request.infer(inputs)


def median_ms(run, runs):
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def peak_mib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def torch_memory(name, mode, batch, folder, threads):
    """The peak memory of three runs in a process of its own."""
    arguments = [sys.executable, __file__, "--memory-of", name, mode, str(batch), str(folder), "--threads", str(threads)]
    return float(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.split()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unnoise", default=str(ROOT / "target" / "release" / "unnoise"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--only", nargs="*", choices=TASKS, default=list(TASKS), metavar="TASK")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "unnoise-peers")
    parser.add_argument("--memory-of", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()

    import torch

    torch.set_num_threads(args.threads)
    if args.memory_of:
        name, mode, batch, folder = args.memory_of
        run = torch_run(network(name, pathlib.Path(folder)), mode, int(batch), False)
        for _ in range(3):
            run()
        print(peak_mib())
        return
    args.work.mkdir(parents=True, exist_ok=True)

    def ours(name, mode, batch, runs):
        model = ["--model", str(args.work / "cifar")] if name == "cifar" else []
        words = ["bench", *model, "--mode", mode, "--batch", str(batch), "--threads", str(args.threads), "--runs", str(runs), "--json"]
        done = subprocess.run([args.unnoise, *words], check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    print(f"torch {torch.__version__}, {args.threads} threads, {args.rounds} rounds, {os.cpu_count()} cores\n")
    print("| | unnoise, ms | NCHW | channels_last | compiled | OpenVINO | ratio | unnoise, MiB | PyTorch, MiB |\n" + "|---" * 9 + "|")
    for task in args.only:
        name, mode, batch = TASKS[task]
        folder = args.work / "cifar"
        peers = {"NCHW": torch_run(network(name, folder), mode, batch, False)}
        peers["channels_last"] = torch_run(network(name, folder), mode, batch, True)
        if args.compile:
            peers["compiled"] = torch_run(torch.compile(network(name, folder)), mode, batch, False)
        if mode == "forward":
            peers["OpenVINO"] = openvino_run(network(name, folder), batch, args.threads)
        for run in peers.values():
            run()
            run()
        runs = 5 if batch == 1 else 3
        times = {peer: [] for peer in ["unnoise", *peers]}
        for _ in range(args.rounds):
            report = ours(name, mode, batch, runs)
            times["unnoise"].append(report["median_ms"])
            for peer, run in peers.items():
                times[peer].append(median_ms(run, runs))
            time.sleep(0.3)
        medians = {peer: statistics.median(values) for peer, values in times.items()}
        ratio = min(medians[peer] for peer in peers) / medians["unnoise"]
        cells = [f"{medians[p]:.1f}" if p in medians else "" for p in ["unnoise", "NCHW", "channels_last", "compiled", "OpenVINO"]]
        memory = [f"{report['peak_rss_mib']:.0f}", f"{torch_memory(name, mode, batch, folder, args.threads):.0f}"]
        print(f"| {task} | " + " | ".join([*cells, f"{ratio:.2f}", *memory]) + " |", flush=True)


if __name__ == "__main__":
    main()
