"""The attacks of other libraries: how they are installed, and how each is called on a torch model.

They live in an environment of their own, since their pins do not fit beside ours:

    python -m bench.peers install                 # makes bench/.peers
    bench/.peers/bin/python -m bench.autoattack

A peer is imported when it is called. Some import torchvision or visdom on the way, for features
that no attack here uses; stand-ins answer for those, since a torchvision that was not built for
the torch beside it cannot even be imported.

Every attack takes a frozen module in eval mode, samples in [0, 1] and labels. Where a peer has
options that matter, they are its own defaults unless the reason stands here.
"""

import argparse
import math
import subprocess
import sys
import venv
from collections.abc import Callable
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]

INSTALLED = (
    # onnxscript exports the network that `bench.overhead` trains.
    ("-c", "constraints.txt", "-e", ".[cpu]", "onnxscript"),
    ("-c", "constraints.txt", "foolbox==3.3.4", "adversarial-robustness-toolbox==1.20.1"),
    ("-c", "constraints.txt", "geomloss==0.3.1"),
    # These ask for torchvision and for a `requests` of 2021; what they need is there by now.
    ("--no-deps", "torchattacks==3.5.1", "adv_lib==0.2.8"),
)
"""What pip is asked for, in turn."""


def install(folder: Path) -> None:
    """Make a virtual environment with this project and the peers."""
    venv.create(folder, with_pip=True)
    for wanted in INSTALLED:
        command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *wanted]
        subprocess.run(command, check=True, cwd=ROOT)


class _StandIn(ModuleType):
    """A module that has every name; using one fails where it is used."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


def _stand_in(*names: str) -> None:
    for name in names:
        module = _StandIn(name)
        module.__spec__ = ModuleSpec(name, None)
        sys.modules.setdefault(name, module)


_stand_in("torchvision", "visdom")


NORMS = {"linf": math.inf, "l2": 2, "l1": 1}


def autoattack(
    model: nn.Module, x0: Tensor, labels: Tensor, radius: float, *, steps: int, seed: int
) -> Tensor:
    """AutoAttack, version standard, linf, as torchattacks implements it.

    Its parts (APGD-CE, targeted APGD-DLR, targeted FAB, Square) are those of the paper, but
    torchattacks runs the first three for 10 steps unless told otherwise; the paper and the
    reference implementation run 100 (Croce & Hein 2020).
    """
    from torchattacks import AutoAttack, Square

    attack = AutoAttack(model, norm="Linf", eps=radius, version="standard", seed=seed)
    for part in attack._autoattack.attacks:
        if not isinstance(part, Square):
            part.steps = steps
    # It enables gradients where it needs them; left on, it collects a graph of gigabytes beside.
    with torch.no_grad():
        return attack(x0, labels)


# Attacks at a fixed radius ------------------------------------------------------------------------

Fixed = Callable[[nn.Module, Tensor, Tensor, float, int], Tensor]
"""(model, x0, labels, radius, steps) -> attacked samples."""

STEP = 0.1
"""Step of the plain PGDs, in radii: strong for 40 steps in every library that was tried."""


def _torchattacks(
    name: str, model: nn.Module, x0: Tensor, y: Tensor, radius: float, steps: int
) -> Tensor:
    import torchattacks

    attack = getattr(torchattacks, name)
    return attack(model, eps=radius, alpha=STEP * radius, steps=steps)(x0, y)


def _torchattacks_apgd(
    norm: str, model: nn.Module, x0: Tensor, y: Tensor, radius: float, steps: int
) -> Tensor:
    from torchattacks import APGD

    return APGD(model, norm=norm, eps=radius, steps=steps)(x0, y)


def _foolbox(
    name: str, model: nn.Module, x0: Tensor, y: Tensor, radius: float, steps: int
) -> Tensor:
    import foolbox

    attack = getattr(foolbox.attacks, name)(rel_stepsize=STEP, steps=steps)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    return attack(wrapped, x0, y, epsilons=radius)[1]


def _art(norm: float, model: nn.Module, x0: Tensor, y: Tensor, radius: float, steps: int) -> Tensor:
    from art.attacks.evasion.projected_gradient_descent import (
        projected_gradient_descent_pytorch as art,
    )
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        model,
        nn.CrossEntropyLoss(),
        input_shape=tuple(x0.shape[1:]),
        nb_classes=10,
        clip_values=(0, 1),
        device_type="cpu",
    )
    attack = art.ProjectedGradientDescentPyTorch(
        classifier,
        norm=norm,
        eps=radius,
        eps_step=STEP * radius,
        max_iter=steps,
        num_random_init=1,
        batch_size=len(x0),
        verbose=False,
    )
    return torch.from_numpy(attack.generate(x0.numpy(), y.numpy()))


def _adv_lib_pgd(model: nn.Module, x0: Tensor, y: Tensor, radius: float, steps: int) -> Tensor:
    from adv_lib.attacks import pgd_linf

    return pgd_linf(model, x0, y, radius, steps=steps, relative_step_size=STEP)


def _adv_lib_apgd(
    norm: float, model: nn.Module, x0: Tensor, y: Tensor, radius: float, steps: int
) -> Tensor:
    from adv_lib.attacks import apgd

    return apgd(model, x0, y, radius, norm, n_iter=steps, loss_function="ce")


FIXED: dict[str, dict[str, Fixed]] = {
    "linf": {
        "torchattacks PGD": partial(_torchattacks, "PGD"),
        "torchattacks APGD": partial(_torchattacks_apgd, "Linf"),
        "Foolbox PGD": partial(_foolbox, "LinfPGD"),
        "ART PGD": partial(_art, math.inf),
        "adv_lib PGD": _adv_lib_pgd,
        "adv_lib APGD": partial(_adv_lib_apgd, math.inf),
    },
    "l2": {
        "torchattacks PGD": partial(_torchattacks, "PGDL2"),
        "torchattacks APGD": partial(_torchattacks_apgd, "L2"),
        "Foolbox PGD": partial(_foolbox, "L2PGD"),
        "ART PGD": partial(_art, 2),
        "adv_lib APGD": partial(_adv_lib_apgd, 2),
    },
    "l1": {
        "Foolbox PGD": partial(_foolbox, "L1PGD"),
        "ART PGD": partial(_art, 1),
        "adv_lib APGD": partial(_adv_lib_apgd, 1),
    },
}
"""Per metric, attacks at a fixed radius."""


# Attacks of least distance ------------------------------------------------------------------------

Minimal = Callable[[nn.Module, Tensor, Tensor, int], Tensor]
"""(model, x0, labels, gradients per sample) -> the nearest misclassified points found."""


def _ddn(model: nn.Module, x0: Tensor, y: Tensor, steps: int) -> Tensor:
    from adv_lib.attacks import ddn

    # By default it rounds to 256 levels, which the others do not.
    return ddn(model, x0, y, steps=steps, levels=None)


# FMN's default first step of 1 (in l2) suits neither the smallest distances nor linf.


def _fmn(norm: float, step: float, model: nn.Module, x0: Tensor, y: Tensor, steps: int) -> Tensor:
    from adv_lib.attacks import fmn

    return fmn(model, x0, y, norm, steps=steps, α_init=step)


def _foolbox_fmn(
    name: str, step: float, model: nn.Module, x0: Tensor, y: Tensor, steps: int
) -> Tensor:
    import foolbox

    attack = getattr(foolbox.attacks, name)(steps=steps, max_stepsize=step)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    return attack.run(wrapped, x0, foolbox.criteria.Misclassification(y))


def _alma(
    distance: str, start: float, model: nn.Module, x0: Tensor, y: Tensor, steps: int
) -> Tensor:
    from adv_lib.attacks import alma

    # The memory that its authors use for 100 steps and for 1,000.
    memory = 0.5 if steps <= 200 else 0.9
    return alma(model, x0, y, distance=distance, num_steps=steps, init_lr_distance=start, α=memory)


def _pdgd(model: nn.Module, x0: Tensor, y: Tensor, steps: int) -> Tensor:
    from adv_lib.attacks import pdgd

    return pdgd(model, x0, y, num_steps=steps)


def _pdpgd(norm: float, model: nn.Module, x0: Tensor, y: Tensor, steps: int) -> Tensor:
    from adv_lib.attacks import pdpgd

    return pdpgd(model, x0, y, norm, num_steps=steps)


def _minimal_apgd(
    norm: float, top: float, model: nn.Module, x0: Tensor, y: Tensor, steps: int
) -> Tensor:
    from adv_lib.attacks.auto_pgd import minimal_apgd

    # Its bisection starts at `top`; ten radii are known to a thousandth of that. A run of n steps
    # takes n + 1 gradients.
    searches = 10 if steps >= 200 else 5
    return minimal_apgd(
        model,
        x0,
        y,
        norm,
        max_eps=top,
        binary_search_steps=searches,
        n_iter=steps // searches - 1,
        use_large_reps=False,
    )


MINIMAL: dict[str, dict[str, Minimal]] = {
    "linf": {
        "adv_lib FMN": partial(_fmn, math.inf, 1.0),
        "adv_lib FMN, step 10": partial(_fmn, math.inf, 10.0),
        "adv_lib PDPGD": partial(_pdpgd, math.inf),
        "adv_lib APGD-min": partial(_minimal_apgd, math.inf, 0.25),
    },
    "l2": {
        "adv_lib DDN": _ddn,
        "adv_lib FMN, step 0.1": partial(_fmn, 2, 0.1),
        "Foolbox FMN": partial(_foolbox_fmn, "L2FMNAttack", 1.0),
        "Foolbox FMN, step 0.1": partial(_foolbox_fmn, "L2FMNAttack", 0.1),
        "adv_lib ALMA": partial(_alma, "l2", 0.1),
        "adv_lib PDGD": _pdgd,
        "adv_lib PDPGD": partial(_pdpgd, 2),
        "adv_lib APGD-min": partial(_minimal_apgd, 2, 2.0),
    },
    "l1": {
        "adv_lib FMN": partial(_fmn, 1, 1.0),
        "adv_lib FMN, step 0.1": partial(_fmn, 1, 0.1),
        "adv_lib ALMA": partial(_alma, "l1", 0.5),
        "adv_lib PDPGD": partial(_pdpgd, 1),
        "adv_lib APGD-min": partial(_minimal_apgd, 1, 15.0),
    },
}
"""Per metric, attacks that look for the nearest adversarial example, one gradient per step."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["install"])
    parser.add_argument("--folder", type=Path, default=ROOT / "bench" / ".peers")
    install(parser.parse_args().folder)


if __name__ == "__main__":
    main()
