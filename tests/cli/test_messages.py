"""What the command line answers: exit codes, and messages that say what is wrong, where, and what to do about it."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from graphprune.allocate import ALLOCATORS
from graphprune.cli import main
from graphprune.cli.app import COMMANDS

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = str(ROOT / "examples" / "super_resolution.onnx")


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str], list[str]]:
    """Exit code, lines of stdout, lines of stderr."""
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "pruen a.onnx b.onnx",
            [
                "GP106 'pruen' is neither a command nor a file",
                "  fix did you mean 'prune'? "
                "commands: apply, audit, bench, build, clean, criteria, explain, finetune, formats, inspect, ops, "
                "passes, plan, prune, recoveries, run, sensitivity, sparsify, sweep, targets, verify",
            ],
        ),
        (
            "prune a.onnx b.onnx --mac 0.6",
            [
                "GP106 there is no option --mac",
                "  at  graphprune prune",
                "  fix did you mean '--macs'? see graphprune prune --help",
            ],
        ),
        (
            "a.onnx b.onnx --marcs 0.6",
            [
                "GP106 there is no option --marcs",
                "  at  graphprune prune",
                "  fix did you mean '--macs'? see graphprune prune --help",
            ],
        ),
        (
            "a.onnx b.onnx --macs 60",
            ["GP107 '60' is not a share above 0 and at most 1", "  at  option --macs", "  fix write 60% or 0.6"],
        ),
        (
            "a.onnx b.onnx --macs nan",
            ["GP107 'nan' is not a share above 0 and at most 1", "  at  option --macs", "  fix write 0.6 or 60%"],
        ),
        (
            "a.onnx b.onnx --params half",
            ["GP107 'half' is not a number", "  at  option --params", "  fix write 0.6 or 60%"],
        ),
        (
            "a.onnx b.onnx --ratio 1",
            ["GP107 '1' is not a share from 0 to below 1", "  at  option --ratio", "  fix write 0.6 or 60%"],
        ),
        (
            "a.onnx b.onnx --macs 0.6 --align eight",
            [
                "GP107 'eight' is not a width to align to",
                "  at  option --align",
                "  fix write a whole number such as 8, or auto",
            ],
        ),
        (
            "a.onnx b.onnx",
            [
                "GP107 it was not said how far to prune",
                "  fix add --macs 0.6 to keep 60 % of the multiplications, or --params, --bytes, --latency or --ratio",
            ],
        ),
        (
            "no.onnx b.onnx --macs 0.6",
            [
                "GP101 there is no such file",
                "  at  no.onnx",
                "  fix check the path and its permissions; keep the files of a model with external data together",
            ],
        ),
        (
            f"{EXAMPLE} small --macs 0.6",
            ["GP107 the output 'small' is not called .onnx", "  at  argument OUT", "  fix write 'small.onnx'"],
        ),
        (
            f"{EXAMPLE} missing/small.onnx --macs 0.6",
            [
                "GP105 cannot write: its folder does not exist",
                "  at  missing/small.onnx",
                "  fix create {folder}/missing first",
            ],
        ),
        (
            f"{EXAMPLE} {EXAMPLE} --macs 0.6",
            [
                "GP104 the output is the input model",
                f"  at  {EXAMPLE}",
                "  fix choose another output path, or allow it with --in-place",
            ],
        ),
        (
            "prune",
            ["GP107 missing argument 'IN'", "  at  graphprune prune", "  fix see graphprune prune --help"],
        ),
        (
            "bench a.onnx b.onnx --size batch",
            [
                "GP107 'batch' is not a name and a size",
                "  at  option --size",
                "  fix write name=number, such as batch=1",
            ],
        ),
        (
            "explain hello",
            [
                "GP107 'hello' is not a code, and no name was given",
                "  at  graphprune explain",
                "  fix write graphprune explain GP204, or graphprune explain MODEL NAME",
            ],
        ),
    ],
)
def test_a_mistake_is_answered_in_three_lines(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    expected: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = answer(capsys, *line.split(" "))
    assert code == 2
    assert out == []
    assert err == [each.replace("{folder}", str(tmp_path)) for each in expected]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "line",
    [
        "inspect {model}",
        "plan {model} --macs 0.9",
        "prune {model} {out} --macs 0.9",
        "clean {model} {out}",
        "sparsify {model} {out} --format 2:4",
        "verify {model} {model}",
        "bench {model} {model}",
        "sensitivity {model} --calibration noise",
        "sweep {model} --macs 0.9 --calibration noise",
    ],
)
def test_a_size_of_no_axis_is_a_mistake(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It was taken, and changed nothing."""
    given = line.format(model=EXAMPLE, out=tmp_path / "out.onnx").split()
    code, _, err = answer(capsys, *given, "--size", "bach_size=4")
    assert code == 2
    assert err[-3:] == [
        "GP106 no axis has the dynamic size 'bach_size'",
        "  at  sizes",
        "  fix did you mean 'batch_size'? known: batch_size",
    ]


@pytest.mark.parametrize(
    ("options", "what", "fix"),
    [
        ("--validation held.npz", "--validation is about a drop of a metric", "--max-drop 0.5%"),
        ("--metric accurracy", "--metric is about a drop of a metric", "--max-drop 0.5%"),
        ("--probes probes.json", "--probes is about a drop of a metric", "--max-drop 0.5%"),
        ("--resume", "--resume is about a drop of a metric", "--max-drop 0.5%"),
        ("--depth-by angular", "--depth-by is about residual blocks to leave out", "--depth 2"),
        ("--depth-unit 2", "--depth-unit is about residual blocks to leave out", "--depth 2"),
        ("--samples 8", "--samples is about calibration data", "--calibration SOURCE"),
    ],
)
def test_an_option_that_nothing_would_read_is_a_mistake(
    options: str, what: str, fix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = answer(capsys, "prune", EXAMPLE, str(tmp_path / "o.onnx"), "--macs", "0.9", *options.split())
    assert (code, err) == (2, [f"GP107 {what}, and there is none", f"  fix add {fix}"])


def test_an_error_is_data_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = answer(capsys, "inspect", "no.onnx", "--json")
    assert code == 2
    assert json.loads("\n".join(out))["error"]["code"] == "GP101"
    assert err[0] == "GP101 there is no such file"


def test_a_file_of_rows_is_no_wish_for_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = answer(capsys, "sweep", EXAMPLE, "--macs", "0.5", "--json", str(tmp_path / "rows.json"))
    assert (code, out, err[0][:5]) == (2, [], "GP704")


def test_a_defect_is_three_lines_and_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError("of course")

    monkeypatch.setattr("graphprune.api.load", fail)
    monkeypatch.delenv("GRAPHPRUNE_DEBUG", raising=False)
    code, out, err = answer(capsys, "inspect", EXAMPLE)
    assert (code, out) == (3, [])
    assert err[0] == "GP901 internal error: ZeroDivisionError: of course"
    assert "please report it" in err[2]
    monkeypatch.setenv("GRAPHPRUNE_DEBUG", "1")
    code, _, err = answer(capsys, "inspect", EXAMPLE)
    assert code == 3
    assert err[0] == "Traceback (most recent call last):"


def test_an_interrupt(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("graphprune.api.load", interrupt)
    assert answer(capsys, "inspect", EXAMPLE) == (130, [], ["interrupted: nothing was written"])


@pytest.mark.parametrize("code", ["GP204", "gp204"])
def test_explain_a_code(capsys: pytest.CaptureFixture[str], code: str) -> None:
    status, out, err = answer(capsys, "explain", code)
    assert (status, err) == (0, [])
    assert out[0] == "GP204 the operator needs this axis whole (why a dimension is not pruned)"
    assert out[-1].startswith("fix none is needed")


def test_explain_an_unknown_code(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = answer(capsys, "explain", "GP999")
    assert status == 2
    assert err[0] == "GP106 there is no code 'GP999'"


def test_explain_an_axis(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = answer(capsys, "explain", EXAMPLE, "conv1.weight:0")
    assert status == 0
    assert out[0] == "conv1.weight:0  size 64"
    assert "    reduced by conv2.weight:1" in out
    assert "    through Relu 10: 9:1, 10:1" in out


def test_explain_an_axis_that_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = answer(capsys, "explain", EXAMPLE, "conv1.weight:1")
    assert status == 0
    assert out == ["conv1.weight:1  size 1", *out[1:]]
    status, out, _ = answer(capsys, "explain", EXAMPLE, "conv1.weight:2")
    assert "  size 5 is kept: GP214 a fixed factor" in out
    assert any(line.startswith("    because ") for line in out)
    assert any(line.startswith("    at  Conv") for line in out)


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("conv1.wieght:0", "GP106 the model has no tensor or group 'conv1.wieght:0'", "did you mean 'conv1.weight'?"),
        ("conv1.weight:7", "GP106 'conv1.weight' has 4 axes, there is no axis 7", "axes are counted from 0"),
    ],
)
def test_explain_a_name_that_is_not_there(capsys: pytest.CaptureFixture[str], name: str, first: str, last: str) -> None:
    status, out, err = answer(capsys, "explain", EXAMPLE, name)
    assert (status, out, err[0]) == (2, [], first)
    assert err[-1].startswith(f"  fix {last}")


def test_operators_are_listed_with_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = answer(capsys, "ops")
    assert status == 0
    assert any(line.split() == ["Conv", "rule"] for line in out)
    assert any(line.startswith(" NonZero ") and "kept whole" in line for line in out)
    status, out, _ = answer(capsys, "ops", "--json")
    assert {"operator": "Conv", "pinned": None} in json.loads("\n".join(out))


def test_passes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = answer(capsys, "passes", "--json")
    assert status == 0
    assert {"clean", "width"} <= {entry["name"] for entry in json.loads("\n".join(out))}


def test_allocators_are_listed_and_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = answer(capsys, "plan", EXAMPLE, "--macs", "0.5", "--allocate", "gredy")
    assert (status, err[0]) == (2, "GP106 no 'gredy' in graphprune.allocators")
    assert "did you mean 'greedy'? known: erk, global" in err[1]
    status, out, _ = answer(capsys, "plan", "--help")
    shown = " ".join(" ".join(out).replace("│", " ").split())
    assert status == 0 and ", ".join(sorted(ALLOCATORS.builtin)) in shown


@pytest.mark.parametrize("allocate", sorted(ALLOCATORS.builtin))
def test_a_plan_is_all_that_is_printed(allocate: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = answer(capsys, "plan", EXAMPLE, "--macs", "0.5", "--allocate", allocate)
    assert (status, err) == (0, [])
    assert json.loads("\n".join(out))["options"]["allocate"] == allocate


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    from graphprune import __version__

    assert answer(capsys, "--version") == (0, [f"graphprune {__version__}"], [])
    status, out, _ = answer(capsys, "--help")
    assert status == 0
    assert any("graphprune IN OUT --macs 0.6" in line for line in out)
    assert answer(capsys)[0] == 2


@pytest.mark.parametrize("command", ["prune", "plan", "sweep", "finetune", "build"])
def test_examples_of_help_can_be_copied(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each on a line of its own, however long it is."""
    assert main([command, "--help"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    written = [line.strip() for line in (COMMANDS[command][0].__doc__ or "").splitlines()]
    examples = [line for line in written if line.startswith("graphprune ")]
    assert examples and set(examples) <= set(lines)
    assert all(line.startswith("--") == before.endswith("\\") for before, line in itertools.pairwise(written))


def graphprune(
    *arguments: str, folder: Path, stdout: IO[str] | int = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "graphprune", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def test_exit_codes_reach_the_shell(tmp_path: Path) -> None:
    assert graphprune("explain", "GP204", folder=tmp_path).returncode == 0
    done = graphprune("inspect", "no.onnx", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("GP101 there is no such file\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", [["ops"], ["plan", EXAMPLE, "--macs", "0.6"], ["--help"]])
def test_a_result_that_finds_no_room_is_told(tmp_path: Path, command: list[str], unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        done = graphprune(*command, folder=tmp_path, stdout=full, PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 2
    assert done.stderr.splitlines()[:2] == ["GP105 cannot write: no space left on device", "  at  standard output"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough_is_no_mistake(tmp_path: Path, unbuffered: str) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with open(theirs, "w") as nobody:
        done = graphprune("ops", folder=tmp_path, stdout=nobody, PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closed", ["2>&-", "0<&- 1>&- 2>&-"])
def test_a_caller_without_standard_streams(tmp_path: Path, closed: str) -> None:
    """As a service manager starts programs: stderr was asked whether it is a terminal, and was not there."""
    line = f'exec "$0" -m graphprune plan "$1" --macs 0.9 -o "$2" {closed}'
    out = tmp_path / "plan.json"
    assert subprocess.run(["sh", "-c", line, sys.executable, EXAMPLE, out], cwd=ROOT, check=False).returncode == 0
    assert json.loads(out.read_text())["schema"] == "graphprune.plan"


def test_help_is_fast_and_loads_no_framework(tmp_path: Path) -> None:
    code = "import sys; from graphprune.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert loaded.isdisjoint({"numpy", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "networkx", "torch"})
