"""What comes back: pictures, their seeds and provenance, and the progress before them. Parses tensors; asks no server."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from .errors import InvalidRequestError, ProtocolError
from .transport import Array, Arrays

OUTPUTS = ("images", "seeds", "details")

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""File extension -> what `output_format` calls it."""


_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
"""Where JPEG and WebP have texts: EXIF's own directory, and its field."""


@dataclass(frozen=True)
class Provenance:
    """Where one picture comes from."""

    seed: int
    model: str
    variant: str
    server: str
    format: str
    width: int
    height: int
    sha256: str
    """Of the file as the server encoded it."""


@dataclass(frozen=True)
class FaceCLIPOutput:
    """The result of one call."""

    images: list[Any] | NDArray[np.float32]
    """By `output_type`: PIL images, whose `save` keeps the server's marks; an array [images, height, width, 3] in [0, 1]; or the
    encoded files."""
    seeds: list[int]
    """Seed of each picture."""
    details: dict[str, Any]
    """The server's report: timings in seconds, faces found, versions, and the parameters obeyed."""
    provenance: list[Provenance]
    files: list[bytes] = field(repr=False)
    """The pictures as the server encoded them, with whatever marks and metadata it put in."""

    @property
    def seed(self) -> int:
        """Seed of the first picture: giving it again repeats the call."""
        return self.seeds[0]

    @property
    def warnings(self) -> list[str]:
        """What the server found worth telling, e.g. a prompt longer than the model reads."""
        return list(self.details.get("warnings", []))

    @property
    def receipt(self) -> dict[str, Any] | None:
        """Of the server's audit log, where it keeps one: keep it, and nobody can take the entry away unnoticed."""
        return self.details.get("receipt")

    def save(self, path: str | Path) -> list[Path]:
        """Writes the server's files: one as `path`; several as name-0, name-1… Replaces existing files; returns the paths."""
        format = format_of(path)
        for made in self.provenance:
            if made.format != format:
                raise InvalidRequestError(f"{path}: the picture is {made.format}; call with output_format='{format}'")
        paths = numbered(Path(path), len(self.files))
        check_outputs(paths)
        for target, content in zip(paths, self.files, strict=True):
            write_file(target, content)
        return paths


@dataclass(frozen=True)
class Progress:
    """One step done. `step`: 1 to `total`, 0 before the first."""

    step: int
    total: int
    timestep: float | None = None
    """Diffusion time of the step, if the server tells it."""
    preview: Image.Image | None = field(default=None, repr=False)


def format_of(path: str | Path) -> str:
    """PNG, JPEG or WEBP, by the file's extension."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise InvalidRequestError(f"{path}: expected a file name ending in {', '.join(FORMATS)}, got '{suffix}'")
    return FORMATS[suffix]


def numbered(path: Path, count: int) -> list[Path]:
    """`out.png` for one picture; `out-0.png`, `out-1.png`… for several."""
    return [path] if count == 1 else [path.with_name(f"{path.stem}-{i}{path.suffix}") for i in range(count)]


def check_outputs(paths: Sequence[Path]) -> None:
    """Raises `InvalidRequestError` where a file cannot be written, so that this is known before a request is sent."""
    for path in paths:
        if path.is_dir():
            raise InvalidRequestError(f"{path}: expected the name of a file, it is a folder; choose another name")
        if not os.access(path.parent, os.W_OK) or not path.parent.is_dir():
            raise InvalidRequestError(f"{path}: expected a folder that exists and may be written to, got {path.parent}")
        if path.exists() and not os.access(path, os.W_OK):
            raise InvalidRequestError(f"{path}: expected a file that may be written to; choose another name")


def write_file(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Whole or not at all: on a full disk, or after Ctrl-C, an older file is as it was. `mode`: before the user's mask."""
    path = path.resolve()  # a link stays a link
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(content)
        partial.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def read_output(arrays: Arrays, output_type: str, model: str, variant: str, server: str) -> FaceCLIPOutput:
    """The result, from the tensors `images` [n], `seeds` [n] and `details` [1]."""
    missing = [name for name in OUTPUTS if name not in arrays]
    if missing:
        raise ProtocolError(f"model '{model}': expected the outputs {', '.join(OUTPUTS)}; missing: {', '.join(missing)}")
    files, seeds = _files(arrays["images"]), [int(seed) for seed in arrays["seeds"].ravel()]
    if not files or len(files) != len(seeds):
        raise ProtocolError(f"model '{model}': expected a seed for each picture, got {len(files)} pictures, {len(seeds)} seeds")
    pictures = [_open(f"images[{i}]", content, decode=output_type != "bytes") for i, content in enumerate(files)]
    provenance = [
        Provenance(seed, model, variant, server, str(picture.format), *picture.size, hashlib.sha256(content).hexdigest())
        for seed, picture, content in zip(seeds, pictures, files, strict=True)
    ]
    return FaceCLIPOutput(
        images=_as_type(pictures, files, output_type),
        seeds=seeds,
        details=_json("details", arrays["details"]),
        provenance=provenance,
        files=files,
    )


def read_progress(arrays: Arrays) -> Progress | None:
    """The progress in a streamed response; None if it is not about progress."""
    if "progress" not in arrays:
        return None
    document = _json("progress", arrays["progress"])
    try:
        step, total = int(document["step"]), int(document["total"])
    except (KeyError, TypeError, ValueError):
        raise ProtocolError(f"output 'progress': expected step and total, got {document}") from None
    preview = _files(arrays["preview_image"]) if "preview_image" in arrays else []
    picture = _open("preview_image", preview[0], decode=True) if preview else None
    return Progress(step, total, document.get("timestep"), picture)


def _files(array: Array) -> list[bytes]:
    return [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel()]


def _open(name: str, content: bytes, decode: bool) -> Image.Image:
    """A picture whose format and size are known, and which is decoded if asked."""
    try:
        picture = Image.open(io.BytesIO(content))
        if decode:
            picture.load()
    except (UnidentifiedImageError, OSError) as error:
        raise ProtocolError(f"output '{name}': expected an image file, got {len(content)} bytes of something else") from error
    return picture


def _as_type(pictures: Sequence[Image.Image], files: list[bytes], output_type: str) -> list[Any] | NDArray[np.float32]:
    if output_type == "bytes":
        return list(files)
    if output_type == "np":
        pixels: NDArray[np.uint8] = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
        return pixels.astype(np.float32) / np.float32(255)
    for picture, file in zip(pictures, files, strict=True):
        _keep_marks(picture, file)
    return list(pictures)


_XMP = "XML:com.adobe.xmp"
"""What PNG calls its XMP packet."""


def _keep_marks(picture: Image.Image, file: bytes) -> None:
    """`picture.save` keeps the server's marks. Pillow's own drops them.

    An unchanged picture is saved in its own format as the server's `file`, byte for byte, credentials included. In another format,
    changed, or with options, it keeps the texts, EXIF and XMP: that it is generated, by what, and its seed. Credentials would not
    hold any more. All this is of this picture; what is made of it, such as a resized one, has none. `exif`, `xmp` and `pnginfo` of
    a caller go first.
    """
    whole, pixels = str(picture.format), hashlib.sha256(picture.tobytes()).digest()
    texts = {
        name: text for name, text in picture.info.items() if isinstance(name, str) and isinstance(text, str) and name != _XMP
    }
    marks: dict[str, Any] = {}
    if "exif" in picture.info:  # of a JPEG, which wants it with its name before; a WebP has it without
        marks = {"exif": b"Exif\0\0" + picture.info["exif"].removeprefix(b"Exif\0\0")}
    if texts:  # of a PNG
        chunks, exif = PngImagePlugin.PngInfo(), Image.Exif()
        for name, text in texts.items():
            chunks.add_text(name, text)
        exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = b"ASCII\0\0\0" + json.dumps(texts).encode()
        marks = {"pnginfo": chunks, "exif": exif.tobytes()}
    packet = picture.info.get("xmp") or picture.info.get(_XMP)
    if packet:
        marks["xmp"] = packet if isinstance(packet, bytes) else packet.encode()
        marks.setdefault("pnginfo", PngImagePlugin.PngInfo()).add_itxt(_XMP, marks["xmp"].decode(errors="replace"))
    save = picture.save

    def save_marked(fp: Any, format: str | None = None, **params: Any) -> None:
        ending = "" if hasattr(fp, "write") else Path(os.fsdecode(fp)).suffix.lower()
        as_format = (format or FORMATS.get(ending, "")).upper()
        if not params and as_format == whole and hashlib.sha256(picture.tobytes()).digest() == pixels:
            if hasattr(fp, "write"):
                fp.write(file)
            else:
                Path(os.fsdecode(fp)).write_bytes(file)
        else:
            save(fp, format, **{**marks, **params})

    picture.save = save_marked  # type: ignore[method-assign]


def _json(name: str, array: Array) -> dict[str, Any]:
    try:
        document = json.loads(_files(array)[0])
    except (IndexError, ValueError) as error:
        raise ProtocolError(f"output '{name}': expected a JSON document ({error})") from error
    if not isinstance(document, dict):
        raise ProtocolError(f"output '{name}': expected a JSON object, got {type(document).__name__}")
    return document
