"""A run as it is shipped: small, and with the slices that explorers open at once.

python -m tests.benchmarks.ship RUN FOLDER [--picture PNG] [--film WEBP]
"""

import argparse
import gzip
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from uvae_lib import plots
from uvae_lib.cubes import CubeSuite
from uvae_lib.files import write_atomically
from uvae_lib.generation.flows import flows_as_bytes, flows_of
from uvae_lib.generation.sample import complete_means, sample_slices
from uvae_lib.runs.encode import encode_cube, encode_slices, reconstruct, spread_slices
from uvae_lib.runs.run import FLOWS, Run, load_run, weights_as_bytes
from uvae_lib.runs.traverse import decode_universe, place_of
from uvae_lib.runs.universes import FILE, Universes, encode_universes

KEPT = ("run.json", "history.csv", "metrics.json", "posterior.safetensors")


def ship_run(folder: str | Path, to: str | Path, n_slices: int = 12, n_shown: int = 2) -> list[Path]:
    """Copy a run for others: its parameters in bfloat16, run.json, history and results; no checkpoints.

    n_slices, n_shown   slices of each of so many held-out cubes, and of the fiducial one, go with it

    With gzip 40 % of the bytes of float32; `load_run` reads them so. Returns the files, all in the folder `to`.
    """
    run, to, packed = load_run(folder), Path(to), "best.safetensors.gz"
    weights = weights_as_bytes(run.model, torch.bfloat16)
    write_atomically(to / packed, gzip.compress(weights, compresslevel=6, mtime=0))
    if flows := flows_of(run):
        write_atomically(to / FLOWS, flows_as_bytes(flows, torch.bfloat16))
    kept = [name for name in KEPT if (run.folder / name).exists()]
    for name in kept:
        write_atomically(to / name, (run.folder / name).read_bytes())
    save_universes(encode_universes(run, run.open_suite(), n_slices, n_shown), to / FILE)
    return [to / name for name in (packed, *([FLOWS] if flows_of(run) else []), *kept, FILE)]


def save_universes(universes: Universes, path: Path) -> None:
    """Write universes for others, slices in float16, as numpy's compressed archive."""
    arrays = {
        "slices": universes.slices[:, :, 0], "mu": universes.z.mu, "logvar": universes.z.logvar,
        "kl_z": universes.kl["z"], "kl_h": universes.kl["h"],
    }  # fmt: skip
    arrays = {name: values.numpy() for name, values in arrays.items()}
    arrays["slices"] = arrays["slices"].astype(np.float16)
    arrays |= {"params": universes.params.to_numpy(np.float32), "names": np.array(list(universes.params), dtype="U")}
    arrays |= {"grid": np.array([universes.box_size, universes.side])}
    for name, (values, slices) in universes.twins.items():
        arrays |= {f"values_{name}": values, f"twins_{name}": slices[:, 0].numpy().astype(np.float16)}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    write_atomically(path, file.getvalue())


def draw_slices(run: Run, seed: int = 0) -> plots.Figure:
    """The README's picture: slices of four test cubes, reconstructed, and new slices of those universes."""
    suite, generator, cubes = run.open_suite(), torch.Generator().manual_seed(seed), run.split["test"][:4]
    sets = [spread_slices(run, suite, cube, 8, seed) for cube in cubes]
    z = [encode_cube(run, slices) for slices in sets]
    rows = {
        "simulated": [slices[:1] for slices in sets],
        "reconstructed": [reconstruct(run, slices[:1], slices[1:]) for slices in sets],
        "the note's sample": [sample_slices(run, of, 1, generator, completed=False) for of in z],
        "completed": [sample_slices(run, of, 1, generator) for of in z],
    }
    images = run.to_log(torch.cat([image for row in rows.values() for image in row]))
    return plots.slice_grid(images, run.image_box, [suite_title(suite, cube) for cube in cubes], 4, list(rows))


def draw_film(run: Run, universes: Universes, n: int = 24) -> bytes:
    """The README's film, an animated WebP: sigma_8 moves, simulated twins of one place beside completed slices."""
    values, simulated = universes.twins["sigma_8"]
    asked = np.tile(universes.params.iloc[0].to_numpy(), (n, 1))
    column = list(universes.params).index("sigma_8")
    asked[:, column] = np.linspace(min(values), max(values), n)
    sheet, z = universes.sheet(asked), universes.drawn[0]
    path = z + sheet - universes.sheet(universes.params.iloc[[0]].to_numpy())
    home = place_of(run, z, encode_slices(run, universes.slices[0, :1], z).mu)
    white = torch.randn(universes.slices[0, :1].shape, generator=torch.Generator().manual_seed(0)).expand(n, -1, -1, -1)
    drawn = complete_means(run, decode_universe(run, path, home.expand(n, -1)), path, white)
    frames = []
    for row, image in zip(asked, drawn, strict=True):
        nearest = int(np.abs(np.asarray(values) - row[column]).argmin())
        titles = [rf"simulated, $\sigma_8$ = {values[nearest]:.2f}", rf"drawn, $\sigma_8$ = {row[column]:.2f}"]
        pair = run.to_log(torch.stack([simulated[nearest, 0], image[0]]))
        figure = plots.new_figure(plots.PAGE, 0.5)
        for ax, tile, title in zip(figure.subplots(1, 2), pair, titles, strict=True):
            ax.imshow(tile, origin="lower", cmap=plots.style.DENSITY_MAP, vmin=-3, vmax=3)
            ax.set(title=title, xticks=[], yticks=[])
        frames.append(Image.open(io.BytesIO(figure.finish().png())).convert("RGB").resize((900, 450)))
    film, file = frames + frames[-2:0:-1], io.BytesIO()  # there and back
    film[0].save(file, "WEBP", save_all=True, append_images=film[1:], duration=120, loop=0, quality=60)
    return file.getvalue()


def suite_title(suite: CubeSuite, cube: int) -> str:
    """Omega_m and sigma_8 of a cube, as a title."""
    omega_m, sigma_8 = suite.params.iloc[cube][["Omega_m", "sigma_8"]]
    return rf"$\Omega_m$ = {omega_m:.2f}, $\sigma_8$ = {sigma_8:.2f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a trained run")
    parser.add_argument("to", type=Path, help="folder to write to")
    parser.add_argument("--picture", type=Path, help="PNG to draw slices into")
    parser.add_argument("--film", type=Path, help="WebP to draw a film of sigma_8 into")
    asked = parser.parse_args()
    if asked.picture:
        write_atomically(asked.picture, draw_slices(load_run(asked.run)).png())
    if asked.film:
        run = load_run(asked.run)
        write_atomically(asked.film, draw_film(run, encode_universes(run, run.open_suite())))
    for path in ship_run(asked.run, asked.to):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
