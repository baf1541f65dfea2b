"""`graphprune run`: an artifact on inputs from files, or random ones; outputs into a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphprune.cli.options import Output, taking
from graphprune.errors import GraphPruneError, did_you_mean, one_line

if TYPE_CHECKING:
    from graphprune.runtime import Executable


Artifact = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="What graphprune build wrote.", show_default=False)]


@taking
def run(
    artifact: Artifact,
    output: Output,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help="An input: x=file.npy, or a .npz with all (repeatable).",
            metavar="NAME=FILE",
            show_default=False,
        ),
    ] = None,
    random: Annotated[bool, typer.Option("--random", help="Random numbers for inputs that are not given.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of random numbers.", min=0)] = 0,
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the outputs here (.npz).", show_default=False)
    ] = None,
    variant: Annotated[
        str | None, typer.Option("--variant", help="Take this variant, such as v3.", show_default=False)
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", help="Default: as it was built.", min=1, max=4096, show_default=False)
    ] = None,
) -> int:
    """Run an artifact once, and say what came out. Without --input and --random, say what it takes.

    graphprune run model.gp --input x=image.npy -o result.npz
    graphprune run model.gp --random
    """
    console = output.console
    if out is not None:
        check_output(out)
    with console.working("loading"):
        from graphprune.runtime import load, load_sizes
        from graphprune.runtime.sizes import is_several

        several = load_sizes(artifact, variant=variant, threads=threads) if is_several(artifact) else None
        network = load(artifact, variant=variant, threads=threads) if several is None else several.at(0)
    if not inputs and not random and network.inputs:
        console.show(*_signature(network))
        return 0
    given = read_inputs(network, inputs or [])
    if random:
        import numpy as np

        from graphprune.runtime.arrays import random_inputs

        given = {**random_inputs(network.inputs, np.random.Generator(np.random.PCG64(seed))), **given}
    call = several.run if several is not None else network.session().run
    start = time.perf_counter()
    found = call(given)
    seconds = time.perf_counter() - start
    if out is not None:
        write(out, found)
    rows = [_described(name, array) for name, array in found.items()]
    data = {"variant": network.variant, "seconds": seconds, "outputs": rows, "written": str(out) if out else None}
    texts = [one_line(f"{each['name']}: {each['dtype']}{each['shape']}  {each['numbers']}") for each in rows]
    texts.append(f"{seconds * 1e3:.3f} ms, the first run of variant {network.variant}")
    console.show("\n".join([*texts, *([f"wrote {out}"] if out else [])]), data)
    return 0


def check_output(out: Path) -> None:
    """Raises GraphPruneError: GP107 where it is not called .npz, GP105 where it cannot be written."""
    from graphprune.output import Outputs

    if out.suffix != ".npz":
        remedy = f"write {out.with_suffix('.npz').name!r}" if out.name else "name a file"
        raise GraphPruneError("GP107", f"the output {str(out)!r} is not called .npz", "option --output", remedy)
    with Outputs(out):
        pass  # makes and removes a folder: that the place can be written is worth knowing before the work


def read_inputs(network: Executable, texts: list[str]) -> dict[str, Any]:
    """Arrays by the names of inputs. Raises GraphPruneError: GP101 and GP107 for files, GP106 for names."""
    names = [each.name for each in network.inputs]
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, file = text.rpartition("=")
        content = _read(Path(file))
        if isinstance(content, dict):
            if equals:
                what, remedy = f"{text!r} names one input for a file of several", "give it without a name"
                raise GraphPruneError("GP107", what, "option --input", remedy)
            found.update(content)
        elif equals or len(names) == 1:
            found[name or names[0]] = content
        else:
            what = f"it is not said which of {len(names)} inputs {text!r} is"
            raise GraphPruneError("GP107", what, "option --input", f"write NAME={text}; names: {', '.join(names)}")
    for name in found:
        if name not in names:
            raise GraphPruneError("GP106", f"there is no input {name!r}", "option --input", did_you_mean(name, names))
    return found


def _read(path: Path) -> Any:
    """An array, or several by name. Nothing in a file is executed."""
    import zipfile

    import numpy as np

    if not path.is_file():
        raise GraphPruneError("GP101", "there is no such file", str(path), "check the path")
    try:
        content = np.load(path, allow_pickle=False)
        return {name: content[name] for name in content.files} if hasattr(content, "files") else content
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        first = str(error).strip().split("\n")[0]
        what = f"it is no .npy or .npz file: {first}"
        raise GraphPruneError("GP107", what, str(path), "write it with numpy.save") from None


def write(out: Path, arrays: dict[str, Any]) -> None:
    """All arrays into one .npz file, whole or not at all. Raises GraphPruneError GP105."""
    import zipfile

    import numpy as np

    from graphprune.output import Outputs

    with Outputs(out) as outputs:
        name = outputs.destination.name
        # As numpy.savez, but for any name: numpy takes them as arguments of a function that has some of its own.
        with zipfile.ZipFile(outputs.path(name), "w") as archive:
            for each, array in arrays.items():
                with archive.open(zipfile.ZipInfo(f"{each}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        outputs.commit([name])


def _described(name: str, array: Any) -> dict[str, Any]:
    import numpy as np

    numbers = ""
    if array.size and array.dtype.kind in "fiu":
        wrong = int(array.size - np.isfinite(array).sum())
        numbers = f"{array.min():.6g} to {array.max():.6g}, mean {array.mean(dtype=np.float64):.6g}"
        numbers += f", {wrong} not finite" if wrong else ""
    return {"name": name, "dtype": str(array.dtype), "shape": list(array.shape), "numbers": numbers}


def _signature(network: Executable) -> tuple[str, Any]:
    from dataclasses import asdict

    texts = [one_line(f"input   {each}") for each in network.inputs]
    texts += [one_line(f"output  {each}") for each in network.outputs]
    texts.append("add --random, or --input NAME=FILE for each")
    data = {"inputs": list(map(asdict, network.inputs)), "outputs": list(map(asdict, network.outputs))}
    return "\n".join(texts), {"variant": network.variant, **data}
