"""What both revisions are asked to do: command lines, run in a folder of their own."""

from dataclasses import dataclass

INTERRUPTED_STAGE = "linf: apgd"

DRIVER = f"""
import runpy, sys
from rich.progress import Progress

advance = Progress.advance

def interrupting(self, task, done=1):
    if self.tasks[0].description == {INTERRUPTED_STAGE!r}:
        raise KeyboardInterrupt
    advance(self, task, done)

Progress.advance = interrupting
sys.stderr.isatty = lambda: True
runpy.run_module("audit", run_name="__main__", alter_sys=True)
"""
"""Runs the program and interrupts it at the first tick of one stage of the progress bar.

The bar is that of `rich`, so that nothing inside of the program is relied on: only that it shows
its stages to a terminal.
"""


@dataclass(frozen=True)
class Step:
    """One command line after ``audit``, and the exit code that it has to end with."""

    line: str
    code: int = 0
    interrupted: bool = False

    @property
    def arguments(self) -> list[str]:
        """The arguments of the Python interpreter."""
        program = ["-c", DRIVER] if self.interrupted else ["-m", "audit"]
        return [*program, *self.line.replace("@", "../../inputs/").split()]


@dataclass(frozen=True)
class Case:
    """Command lines that build on each other; ``@`` stands for the folder of the inputs."""

    name: str
    steps: tuple[Step, ...]


QUICK = "--effort quick"
FEW = f"--samples 16 {QUICK}"
ORDERS = "--order inf,2,1"
WASSERSTEIN = "@tiny.onnx --data @tiny.npz -t wasserstein"

CASES = (
    Case("norms", (Step(f"scan @images.onnx --data @images.npz -t linf,l2,l1 {ORDERS} --out r"),)),
    Case(
        "wasserstein",
        (
            Step(f"scan {WASSERSTEIN} --delta 0.1,0.3 {ORDERS} --samples 8 --out r"),
            # Too few samples for the active test, which is most of the time above.
            Step(
                f"scan {WASSERSTEIN} --delta 0.1 --order 2 --samples 6 {QUICK} "
                "--attack transport,minimal,w-pgd --certify simplex --out simplex"
            ),
        ),
    ),
    Case(
        "attacks",
        (
            Step(
                f"scan @images.onnx --data @images.npz -t linf,l2 {ORDERS} --delta 0.05,0.2 {FEW} "
                "--attack fgsm,pgd,apgd,minimal,square,hopskipjump,random,w-pgd "
                "--certify crown-ibp --out r"
            ),
        ),
    ),
    Case(
        "smooth",
        (
            Step(
                "scan @images.onnx --data @images.npz --smooth 0.1 -t l2 --delta 0.1,0.3 "
                f"{ORDERS} {FEW} --out l2"
            ),
            Step(f"scan {WASSERSTEIN} --smooth 0.02 --delta 0.1,0.3 {FEW} --out wasserstein"),
        ),
    ),
    Case("scores", (Step(f"scan @trees.onnx --data @table.npz -t linf,l1 {FEW} --out r"),)),
    Case("labels", (Step(f"scan @labels.onnx --data @table.npz -t l2 {FEW} --out r"),)),
    # Without any gradient the search is weak evidence: a health check fails.
    Case("flat", (Step(f"scan @signs.onnx --data @table.npz -t linf {FEW} --out r", code=4),)),
    Case(
        "script",
        (Step(f"scan @script.pt --trust-model --data @images.npz -t linf,l2 {QUICK} --out r"),),
    ),
    Case("table", (Step(f"scan @table.onnx --data @table.parquet -t linf,l2 {ORDERS} --out r"),)),
    Case(
        "gates",
        (
            Step(f"scan @table.onnx --data @table.npz -t linf --delta 0.05,0.1 {QUICK} --out old"),
            Step(
                f"scan @table.onnx --data @table.npz -t linf --delta 0.05,0.1 {QUICK} --seed 1 "
                "--fail-under 0.1 --policy @gates.toml --baseline old/report.json --out new",
                code=1,
            ),
            Step("compare old/report.json new/report.json --format json --out compared.json"),
        ),
    ),
    Case(
        "interrupted",
        (
            Step(
                f"scan @images.onnx --data @images.npz -t linf,l2 {QUICK} --out r",
                code=130,
                interrupted=True,
            ),
        ),
    ),
    Case(
        "harden-pgd",
        (
            Step(
                "harden @table.onnx --data @table-train.npz --eval @table.npz --with pgd "
                f"--radius 0.05 --epochs 2 --batch-size 32 {QUICK} --out r"
            ),
        ),
    ),
    Case(
        "harden-wdro",
        (
            Step(
                "harden @images.onnx --data @images-train.npz --eval @images.npz --with wdro "
                f"--threat l2 --radius 0.2 --epochs 2 --batch-size 32 {QUICK} --out r"
            ),
        ),
    ),
    Case(
        "generator",
        (
            Step(
                "train-attacker @strokes.onnx --data @strokes-train.npz --radius 2 --epochs 1 "
                "--batch-size 32 --samples 100 --out generator.safetensors"
            ),
            Step(
                "scan @strokes.onnx --data @strokes.npz -t wasserstein --attack wagan "
                f"--generator generator.safetensors --delta 0.5,2 --certify none {FEW} --out r"
            ),
        ),
    ),
)
