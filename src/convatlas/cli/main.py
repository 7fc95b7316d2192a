"""The command `convatlas`: parse, call, render. What needs torch is imported when called, so that help and lists are quick."""

import atexit
import gc
import os
import signal
import sys
import time
from types import FrameType
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from convatlas.cli import (
    atlas,
    calculating,
    calculating_stacks,
    checking,
    comparing,
    converting,
    differing,
    drawing,
    finetuning,
    flowing,
    looking,
    lr,
    memory,
    previewing,
    recipes,
    scaling,
    schedules,
    sharing,
    showing,
    studies,
    training,
    weights,
)
from convatlas.cli.console import say
from convatlas.errors import UserError

# Typer carries its own click. BadParameter is the public name through which the base of all its parse errors is reached.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

SECONDS_FOR_THE_FIRST = 10
MANY_OBJECTS = 1_000_000
"""What a command imports, and which stays, is fewer. Collections while it is made took a seventh of a short training."""


class Commands(TyperGroup):
    """All commands. Typer ends silently after Ctrl-C; people want to read that it was heard."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """What the command returns. Ctrl-C is an Abort, of which `main` says a word."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Abort from None


app = typer.Typer(
    name="convatlas",
    cls=Commands,
    help="Understand, train and compare the landmark convolutional networks, LeNet-5 (1998) to ConvNeXt (2022).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("compare")(comparing.compare)
app.command("train")(training.train)
app.command("finetune")(finetuning.finetune)
app.command("eval")(training.evaluate)
app.command("predict")(training.predict)
app.command("push")(sharing.push)
app.command("report")(comparing.report)
app.command("list")(atlas.list_models)
app.command("show")(showing.show)
app.command("look")(looking.look)
app.command("gradients")(flowing.gradients)
app.command("diff")(differing.diff)
app.command("draw")(drawing.draw)
app.command("data", cls=previewing.DataCommand)(atlas.data)
app.command("check")(checking.check)
app.command("recipes")(recipes.recipes)
app.command("weights")(weights.weights)
app.command("convert")(converting.convert)
app.command("lr")(lr.lr)
app.command("memory")(memory.memory)
app.command("schedule")(schedules.schedule)
app.command("scale")(scaling.scale)
app.add_typer(calculating.app)
app.add_typer(studies.app)
calculating.app.command("stack")(calculating_stacks.stack)
calculating.app.command("rf")(calculating_stacks.rf)


class Terminated(BaseException):
    """SIGTERM came where nobody finishes a step first."""


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def main() -> None:
    """Run the command line and exit: 0 done, 2 something the user can mend, 130 stopped by Ctrl-C, 143 by SIGTERM."""
    signal.signal(signal.SIGTERM, _terminated)
    _collect_late()
    try:
        _check_processes(sys.argv[1:])
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
        if sys.stdout is not None:  # closed by whoever started us
            sys.stdout.flush()
    except UserError as error:
        _let_the_first_speak()
        say(f"error: {error}")
        code = 2
    except UsageError as error:
        _let_the_first_speak()
        say(f"error: {_one_line(error)}")
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        _say_stopped()
        code = 128 + signal.SIGINT
    except Terminated:
        _say_stopped()
        code = 128 + signal.SIGTERM
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        say(f"error: {error.strerror or error}: {error.filename or 'standard output'}. Check that it can be read or written.")
        code = 2
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    _leave(code or 0)


def _say_stopped() -> None:
    """Once, of however many processes."""
    if os.environ.get("RANK", "0") == "0":
        say("stopped")


def _collect_late() -> None:
    """Collect garbage only once there are many objects, then as ever, but for what was left by then; and none at the very end."""
    usual = gc.get_threshold()

    def collected(phase: str, info: dict[str, int]) -> None:
        if phase == "stop":
            gc.callbacks.remove(collected)
            gc.freeze()
            gc.set_threshold(*usual)

    gc.callbacks.append(collected)
    gc.set_threshold(MANY_OBJECTS, *usual[1:])
    atexit.register(gc.disable)


def _check_processes(words: list[str]) -> None:
    """Of several processes that torchrun started only `train` makes one; any other command would be done by each."""
    several = "LOCAL_RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"
    known = {command.name for command in app.registered_commands} - {"train"}
    if several and words and (words[0] in known or (words[0] == "study" and words[1:2] != ["work"])):
        what = f"`convatlas {words[0]}` is the work of one process, and torchrun started {os.environ['WORLD_SIZE']}"
        raise UserError(what, fix="Leave torchrun out; only `convatlas train` runs in several processes.")


def _leave(code: int) -> None:
    """End this process with `code`."""
    if "LOCAL_RANK" in os.environ:
        # One of torchrun's processes has done all it had to; threads of gloo's that are still there sometimes abort at exit.
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _let_the_first_speak() -> None:
    """Of torchrun's processes the first says what all of them find wrong with the command; torchrun then ends the others."""
    if "LOCAL_RANK" in os.environ and os.environ.get("RANK", "0") != "0":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(SECONDS_FOR_THE_FIRST)


def _one_line(error: Any) -> str:
    """What is wrong with an option or a command, and where the right ones stand."""
    text = " ".join(error.format_message().split()).rstrip(".?")
    context = error.ctx
    command = context.command_path if context is not None else "convatlas"
    return f"{text}. See `{command} --help`."
