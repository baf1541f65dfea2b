"""The command line: `graphprune IN OUT --macs 0.6`, and a command for every step of it.

`main` is all that is loaded at first: it completes the short form, turns errors into three lines and an exit code (0
done, 1 a budget or check is not met, 2 bad input or usage, 3 a defect of graphprune), and leaves the rest to the
commands. stdout is for data, stderr for everything said on the way.
"""

import errno
import json
import os
import signal
import sys
from collections.abc import Sequence

from graphprune.errors import GraphPruneError, one_line

EXIT_NOT_MET = 1
EXIT_BAD_INPUT = 2
EXIT_DEFECT = 3
EXIT_INTERRUPTED = 130

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
_NOT_MET = frozenset({"GP301", "GP302", "GP304", "GP401", "GP402", "GP403"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: that of the process) and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given and given[0] != "sweep"  # where it names a file, for rows
    if arguments is None:
        signal.signal(signal.SIGTERM, _terminate)
        _open_streams()
    try:
        from graphprune.cli.app import run

        code = run(given)
        sys.stdout.flush()  # here, where a failure can still be told
        return code
    except GraphPruneError as error:
        return _refuse(error, as_json=as_json)
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return EXIT_INTERRUPTED
    except SystemExit as ended:  # typer makes one of a broken pipe
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
        return _stdout_failed(ended.__context__)
    except OSError as error:
        return _stdout_failed(error)
    except MemoryError:
        return _refuse(GraphPruneError("GP109", "the memory of this machine does not suffice"), as_json=as_json)
    except Exception as error:  # noqa: BLE001  # the one place that promises: no traceback, whatever happened
        return _report_defect(error)


def _open_streams() -> None:
    """Where the caller closed standard streams, what is written to them goes nowhere, and no file of a model, opened
    later, takes their number, which libraries write messages to."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  # for as long as the process lives
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def _terminate(*_: object) -> None:
    # As an exception, so that unfinished files are removed on the way out.
    raise KeyboardInterrupt


def _stdout_failed(error: OSError) -> int:
    """The exit code where stdout took no more; any other failure is a defect, for what reads and writes files says
    itself what went wrong."""
    if not isinstance(error, BrokenPipeError) and (error.errno not in _NO_ROOM or error.filename is not None):
        return _report_defect(error)
    # What is still buffered goes nowhere, instead of failing a second time when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return 0  # the reader of stdout, such as `head`, has seen enough
    return _refuse(GraphPruneError("GP105", f"cannot write: {str(error.strerror).lower()}", "standard output"))


def _refuse(error: GraphPruneError, *, as_json: bool = False) -> int:
    print(error, file=sys.stderr)
    if as_json:
        found = {"code": error.code, "what": error.what, "where": error.where, "remedy": error.remedy}
        print(json.dumps({"error": found}, indent=2))
    return EXIT_NOT_MET if error.code in _NOT_MET else error.exit_code


def _report_defect(error: Exception) -> int:
    if os.environ.get("GRAPHPRUNE_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    place = f"{os.path.basename(where.tb_frame.f_code.co_filename)}:{where.tb_lineno}" if where is not None else ""
    found = GraphPruneError(
        "GP901",
        f"internal error: {type(error).__name__}: {one_line(str(error))[:200]}",
        place,
        "please report it with the command and, if possible, the model; GRAPHPRUNE_DEBUG=1 shows where it happened",
    )
    print(found, file=sys.stderr)
    return EXIT_DEFECT
