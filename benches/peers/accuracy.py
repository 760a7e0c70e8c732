#!/usr/bin/env python3
"""Compares the built-in prior's arithmetic with PyTorch's, at the network and after a whole sampling run.

    python3 benches/peers/accuracy.py [--unnoise target/release/unnoise] [--n 16] [--steps 50]

The yardstick is PyTorch in f64 on the same weights. Three programs are held against it: PyTorch in f32, unnoise, and unnoise with
convolutions summed as they are defined (--exact). First the network's output at a few timesteps, then its gradients, then a DDIM run with
diffusers' defaults from the same starting noise. Markdown on stdout. Needs torch, diffusers and safetensors (made with 2.15.0, 0.42.1 and
0.8.0), and `cargo build --release --workspace --examples`.
"""

import argparse
import pathlib
import subprocess
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
MODEL = ROOT / "models" / "digits"
TIMESTEPS = (10, 200, 500, 900)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unnoise", default=str(ROOT / "target" / "release" / "unnoise"))
    parser.add_argument("--gradients", default=str(ROOT / "target" / "release" / "examples" / "network_gradients"))
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50)
    args = parser.parse_args()

    import diffusers
    import torch

    # PyTorch's threads wait for each other by spinning: on a busy machine one is faster than two.
    torch.set_num_threads(1)

    def model(dtype):
        return diffusers.UNet2DModel.from_pretrained(MODEL, low_cpu_mem_usage=False).to(dtype).eval()

    noise = np.random.default_rng(0).standard_normal((args.n, 1, 32, 32)).astype(np.float32)
    work = pathlib.Path(tempfile.mkdtemp())
    np.save(work / "x.npy", noise)

    def ours(*words):
        out = work / "out.npy"
        subprocess.run([args.unnoise, *words, "--model", str(MODEL), "--output", str(out), "--force"], check=True, capture_output=True)
        return np.load(out).astype(np.float64)

    def theirs(net, dtype, timestep):
        with torch.inference_mode():
            return net(torch.from_numpy(noise).to(dtype), timestep).sample.double().numpy()

    def run(net, dtype):
        scheduler = diffusers.DDIMScheduler.from_pretrained(MODEL)
        scheduler.set_timesteps(args.steps)
        x = torch.from_numpy(noise).to(dtype)
        with torch.inference_mode():
            for t in scheduler.timesteps:
                x = scheduler.step(net(x, t).sample, t, x).prev_sample
        return x.double().numpy()

    f32, f64 = model(torch.float32), model(torch.float64)
    print(f"Network output, {args.n} images of noise: rms error over rms, largest error over rms\n")
    print("| timestep | PyTorch f32 | unnoise | unnoise --exact |\n|---|---|---|---|")
    for timestep in TIMESTEPS:
        truth = theirs(f64, torch.float64, timestep)
        scale = np.sqrt((truth**2).mean())
        words = ["predict", "--input", str(work / "x.npy"), "--timestep", str(timestep)]
        outputs = [theirs(f32, torch.float32, timestep), ours(*words), ours(*words, "--exact")]
        errors = [(np.sqrt(((o - truth) ** 2).mean()) / scale, np.abs(o - truth).max() / scale) for o in outputs]
        print(f"| {timestep} | " + " | ".join(f"{rms:.1e}, {most:.1e}" for rms, most in errors) + " |")

    print("\nGradients of sum(v network(x)) for normal v by the images and by all parameters: rms error over rms\n")
    print("| timestep | images: PyTorch f32 | unnoise | parameters: PyTorch f32 | unnoise |\n|---|---|---|---|---|")
    v = np.random.default_rng(1).standard_normal(noise.shape).astype(np.float32)

    def gradients(net, dtype, timestep):
        net.zero_grad()
        image = torch.from_numpy(noise).to(dtype).requires_grad_()
        (net(image, timestep).sample * torch.from_numpy(v).to(dtype)).sum().backward()
        named = {name: p.grad.double().numpy() for name, p in net.named_parameters()}
        return {"the input": image.grad.double().numpy(), "all parameters": named}

    def error(got, want):
        if isinstance(want, dict):
            got, want = (np.concatenate([part[name].ravel() for name in sorted(want)]) for part in (got, want))
        return np.sqrt(((got - want) ** 2).mean() / (want**2).mean())

    folder = work / "gradients"
    folder.mkdir()
    np.save(folder / "x.npy", noise)
    np.save(folder / "v.npy", v)
    from safetensors.numpy import load_file

    for timestep in TIMESTEPS:
        subprocess.run([args.gradients, str(MODEL), str(timestep), str(folder)], check=True)
        named = {name: grad.astype(np.float64) for name, grad in load_file(folder / "gradients.safetensors").items()}
        ours_ = {"the input": np.load(folder / "dx.npy").astype(np.float64), "all parameters": named}
        want, theirs_ = gradients(f64, torch.float64, timestep), gradients(f32, torch.float32, timestep)
        errors = [f"{error(part[of], want[of]):.1e}" for of in want for part in (theirs_, ours_)]
        print(f"| {timestep} | {' | '.join(errors)} |")

    truth = run(f64, torch.float64)
    words = ["sample", "--sampler", "ddim", "--steps", str(args.steps), "--noise", str(work / "x.npy")]
    outputs = {"PyTorch f32": run(f32, torch.float32), "unnoise": ours(*words), "unnoise --exact": ours(*words, "--exact")}
    print(f"\nDDIM, {args.steps} steps, {args.n} images in [-1, 1], against PyTorch f64:\n")
    print("| | rms error | largest | within 1/255 of the range |\n|---|---|---|---|")
    for name, output in outputs.items():
        error = np.abs(output - truth)
        print(f"| {name} | {np.sqrt((error**2).mean()):.1e} | {error.max():.1e} | {100 * (error < 2 / 255).mean():.2f} % |")


if __name__ == "__main__":
    main()
