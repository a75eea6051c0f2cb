"""Detection of the format of a model file by its bytes, never by its suffix."""

import stat
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Literal

from audit.errors import ModelError

FileFormat = Literal["onnx", "torchscript", "torch.export"]


def identify(path: Path) -> FileFormat:
    """Detect the format of a model file without running or unpickling anything in it.

    Raises:
        ModelError: the file does not exist, is empty, or is not an exported model.
    """
    try:
        mode, size = path.stat().st_mode, path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"There is no model file at {path}: check the path.") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): check the path.") from error
    if stat.S_ISDIR(mode):
        raise ModelError(
            f"{path} is a folder, but a model file is expected: give the path of the file inside "
            "it."
        )
    if not stat.S_ISREG(mode):
        raise ModelError(
            f"{path} is not a regular file: save the model to a file and give its path."
        )
    if size == 0:
        raise ModelError(f"{path} is empty (0 bytes): copy the file or export the model again.")
    try:
        return _identify_bytes(path)
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}): check its permissions."
        ) from error


def digest(path: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal."""
    running = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            running.update(block)
    return running.hexdigest()


def _identify_bytes(path: Path) -> FileFormat:
    with path.open("rb") as file:
        head = file.read(16)
    cut = head[:4] == b"PK\x03\x04"
    if zipfile.is_zipfile(path):
        return _identify_archive(path, starts=cut)
    if cut:
        raise _damaged(path, "its end is missing")
    if head[:1] == b"\x80":
        raise ModelError(
            f"{path} is a Python pickle. Opening one runs code, and it usually contains weights "
            "without the model: export the model to ONNX or TorchScript."
        )
    return "onnx"


def _identify_archive(path: Path, *, starts: bool) -> FileFormat:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            offset = min((member.header_offset for member in archive.infolist()), default=0)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from error
    # A truncated archive may end with a nested archive, which starts at a later offset.
    if starts and offset > 0:
        raise _damaged(path, "its end is missing")
    members = {name.partition("/")[2] for name in names}
    if "constants.pkl" in members and any(name.startswith("code/") for name in members):
        return "torchscript"
    # Before torch 2.8 the program was at the top level of the archive.
    old = "serialized_exported_program.json" in names
    if old or "archive_format" in members or any(name.startswith("models/") for name in members):
        return "torch.export"
    if "data.pkl" in members:
        raise ModelError(
            f"{path} is a checkpoint: it contains weights without the code of the model. Load the "
            "weights into the model, then export the model to ONNX or TorchScript."
        )
    raise ModelError(
        f"{path} is a zip archive without a model: expected an ONNX file, a TorchScript "
        "archive or a torch.export archive."
    )


def _damaged(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"{path} is a damaged archive ({reason}): copy the file or export the model again."
    )
