"""Command-line options generated from the configuration dataclasses, and errors of one line."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Collection, Sequence
from dataclasses import MISSING, field, fields, make_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro

from ncflow.errors import BadInput

PROTOCOL_HELP = {
    "dataset": "digits (embedded), mnist, fashion_mnist or cifar10",
    "architecture": "mlp, residual_mlp or resnet20",
    "subset": "train on this many images, the same number of each class",
    "scaling": "standardised, tripled (3 times that) or unit (pixels in [0, 1])",
    "data_seed": "seed of the subset",
    "image_size": "height and width to pad (MNIST: 32) or to average pixels to (MNIST: 14)",
    "channels": "3 to repeat a grey image (resnet20)",
    "depth": "hidden layers; of residual_mlp, how often the stream is written to",
    "width": "units of each hidden layer, at least the number of classes; of resnet20, channels of the first stage",
    "activation": "of the hidden layers: relu, gelu, tanh, ...",
    "activation_scale": "a of a phi(x/a), the knob from ReLU to linear; nothing to homogeneous phi",
    "biases": "whether layers have biases",
    "normalization": "batch or none (residual networks)",
    "skip": "whether residual networks have their shortcuts",
    "shortcut": "where the size changes (resnet20): A, zeros for new channels, or B, projections",
    "seeds": "seeds of initialisation and mini-batch order, one lane each",
    "decays": "weight decays, one lane each",
    "decay_biases": "whether decay acts on all parameters, or on the weights of the layers alone",
    "batch_size": "images in a mini-batch",
    "lr": "learning rate at the start of each phase, several for one lane each",
    "optimiser": "adam or sgd (coupled decay), or adamw",
    "momentum": "of sgd",
    "nesterov": "whether the momentum is Nesterov's",
    "schedule": "cosine over each phase, cosine_run over both, multistep, or constant",
    "milestones_ce": "epochs of phase 1 at which a multistep rate falls",
    "milestones_mse": "the same of phase 2, counted from its start",
    "lr_factor": "by which it falls",
    "epochs_ce": "length of phase 1, cross-entropy",
    "epochs_mse": "length of phase 2, mean squared error",
    "second_loss": "of phase 2: mse, or cross_entropy to continue with that",
    "alphas": "factors on a layer at the start of phase 2 (the paper's intervention), one lane each",
    "rescaled_layer": "index of that layer, from the head: -2 is the last hidden one, the paper's; others for mlp",
    "stop": "when a lane ends: end (of the run), or t_nc, as soon as it has collapsed",
    "settle": "add a third stage that brings the networks to rest, for fn_inf",
    "settle_epochs": "the most that it may take; default four times those before",
    "measure_every": "epochs between measurements",
    "layerwise": "measure NC1 after every hidden layer, too",
    "threshold": "NC1 below which a network counts as collapsed",
    "nc1": "definition of NC1",
    "diverged_after": "epoch after which NC1 > 0.5 counts as diverged; default phase 1 and a third of phase 2",
}


#: Fields whose absence is a setting, not a question to the data set.
OPTIONAL = ("image_size", "channels", "milestones_ce", "milestones_mse")

COMMON: dict[str, tuple[Any, Any, str]] = {
    "out": (str, "runs", "folder for results"),
    "data": (str | None, None, "folder of the data sets; default the environment's NCFLOW_DATA, else the user's cache"),
    "device": (str, "cpu", "cpu or cuda"),
    "seed": (int, 0, "seed of the simulation's random start"),
    "json": (bool, False, "print one JSON object on stdout and nothing else there"),
}


def options_of(config: type, help: dict[str, str], name: str, doc: str, *, only: Collection[str] | None = None,
               own: dict[str, tuple[Any, Any, str]] | None = None, preset: bool = False) -> type:
    """A dataclass of command-line options: the fields of `config`, whose default is what `config` decides, and `COMMON`.

    Args:
        only: the fields to offer; None for all.
        own: further options of the command, as in `COMMON`, whose entries they replace.
        preset: a preset may decide what is left out, so nothing but a switch has a default here.
    """
    hints = get_type_hints(config)
    made = []
    for f in fields(config):
        if only is not None and f.name not in only:
            continue
        default = None if f.default is MISSING else f.default
        plain, default = default, default if isinstance(default, bool) or not preset else None
        kind: Any = hints[f.name] if default is not None else hints[f.name] | None
        shown = ("all" if f.name == "subset" else "none" if plain in ((), None) and f.name in OPTIONAL else "by data set"
                 if plain is None else _shown(plain)) if default is None else None
        hint: dict[str, Any] = {"help_behavior_hint": f"(default: {shown})"} if shown else {}
        arg = tyro.conf.arg(help=help[f.name], metavar=_metavar(hints[f.name]), **hint)
        made.append((f.name, Annotated[kind, arg], field(default=default)))
    for key, (kind, default, text) in {**COMMON, **(own or {})}.items():
        made.append((key, Annotated[kind, tyro.conf.arg(help=text)], field(default=default)))
    options = make_dataclass(name, made, frozen=True, kw_only=True)
    options.__doc__ = doc
    return options


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _metavar(kind: Any) -> str | None:
    """What a value looks like in --help; None leaves it to tyro."""
    members = [k for k in get_args(kind) if k is not NoneType] if isinstance(kind, UnionType) else [kind]
    single = get_args(members[0])[0] if get_origin(members[0]) is tuple else members[0]
    if single is bool:
        return None
    return single.__name__.upper() + (" ..." if single is not members[0] else "")


def build(config: type, options: Any) -> Any:
    """`config` from the options that have a value."""
    return config(**given(config, options))


def given(config: type, options: Any) -> dict[str, Any]:
    """The fields of `config` for which `options` has a value."""
    values = {f.name: getattr(options, f.name, None) for f in fields(config)}
    return {name: value for name, value in values.items() if value is not None}


class UsageError(BadInput):
    """A command line that cannot be read, in one line."""

    def __init__(self, message: str):
        ValueError.__init__(self, message)


def parse(options: type, name: str, args: Sequence[str]) -> Any:
    """An instance of the dataclass `options` from the command line of the command `name`.

    Raises:
        UsageError: what tyro says of a bad command line, without its frame.
        SystemExit: with code 0 after --help.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(options, prog=name, args=list(args))
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(_one_line(printed.getvalue())) from None


def _one_line(text: str) -> str:
    """The first paragraph of tyro's framed message, from its title on."""
    lines = []
    for line in text.splitlines():
        bare = line.strip("│╭╮╰╯ ")
        if set(bare) <= {"─"}:
            if lines:
                break
            continue
        title = re.fullmatch(r"─+ (.*?) ─+", bare)
        if not title:
            lines.append(bare)
    text = re.sub(r"\s+", " ", " ".join(lines)).strip()
    wrong = re.fullmatch(r"Error parsing (--\S+): no type matching (.*) could be instantiated from \['(.*)'\]\.?", text)
    if wrong:
        kind = re.sub(r"[{}\[\]]|None|\|", "", wrong[2]).split()[0]
        return f"{wrong[1]} = {wrong[3]!r}: {kind} is accepted"
    return text
