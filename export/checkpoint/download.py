"""Fetching the official files, after their licences have been shown and accepted.

Knows what may be fetched from whom (`parts.PARTS`), how a known checksum is verified, and the hub's client. Needs no torch.
Files keep their repository's paths under one folder, which is the layout that `export.checkpoint.read` reads.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

from faceclip_serving.contract.errors import UserError

from ..outputs import require_directory
from ..paths import CHECKPOINT
from .digests import sha256
from .parts import NEEDED, PARTS, Digest, Part

Fetch = Callable[[str, str, Path], Path]
"""(repository, file, destination folder) -> where the file now lies. Raises `DownloadError`."""


class DownloadError(UserError):
    """Nothing usable was fetched; the message says why and what to do."""


class LicenseNotAcceptedError(DownloadError):
    """A licence needs the user's explicit consent first."""


def fetch_from_hub(repository: str, file: str, destination: Path, endpoint: str | None = None) -> Path:
    """Fetches one file through huggingface_hub: progress bar, resumed where it was interrupted, not fetched again if unchanged.

    `endpoint`: base URL of the hub; default: the client's own, which the environment variable HF_ENDPOINT sets.
    """
    from huggingface_hub import errors, hf_hub_download

    what = f"file '{file}' of {repository}"
    if _brought(destination, file):
        raise DownloadError(
            f"{what}: expected nothing at '{destination / file}', or what this command fetched; the file there is neither that nor"
            " the official one: move it away, or give --to another folder"
        )
    try:
        return Path(hf_hub_download(repository, file, local_dir=destination, endpoint=endpoint))
    except errors.GatedRepoError as error:
        raise DownloadError(
            f"{what}: its owners ask for a login; accept their terms on its page, then run: hf auth login"
        ) from error
    except (errors.RepositoryNotFoundError, errors.RemoteEntryNotFoundError) as error:
        raise DownloadError(f"{what}: the hub has no such file (any more); look for it on the repository's page") from error
    except (OSError, errors.HTTPError, errors.XetDownloadError) as error:  # type: ignore[attr-defined]
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise DownloadError(
            f"{what}: could not be fetched ({reason}); check the connection, the disk, and HF_ENDPOINT if a mirror is used, "
            f"then run the same command again: it resumes. Or bring the file to '{destination / file}' another way"
        ) from error


def download(destination: Path, parts: Iterable[str], accept_license: bool, fetch: Fetch = fetch_from_hub) -> list[Path]:
    """Fetches `parts` (names of `PARTS`) below `destination` and returns their files. Prints every licence concerned first.

    Raises `LicenseNotAcceptedError` before anything is fetched if a licence needs consent and `accept_license` is false, and
    `DownloadError` if a part is unknown, cannot be fetched, or is not the file its checksum promises.
    """
    names = list(dict.fromkeys(parts))
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise DownloadError(f"parts: expected some of {', '.join(PARTS)}, got {', '.join(unknown)}")
    _show_licenses(names)
    refused = [name for name in names if PARTS[name].license.must_be_accepted]
    if refused and not accept_license:
        raise LicenseNotAcceptedError(
            f"parts {', '.join(refused)}: their licences, printed above, must be accepted; read them, then add --accept-license"
        )
    require_directory(destination)
    return [path for name in names for path in _fetch_part(PARTS[name], destination, fetch)]


def _show_licenses(names: Iterable[str]) -> None:
    by_source: dict[tuple[str, str], list[str]] = {}
    for name in names:
        by_source.setdefault((PARTS[name].repository, PARTS[name].license.name), []).append(name)
    for (repository, license_name), of_source in by_source.items():
        terms = PARTS[of_source[0]].license
        print(f"{', '.join(of_source)} from {repository}: {license_name}: {terms.terms} ({terms.url})")


def _fetch_part(part: Part, destination: Path, fetch: Fetch) -> list[Path]:
    paths = []
    destination = destination / part.folder
    for file, *_ in part.files:
        path = destination / file
        if part.digest is None and _brought(destination, file):
            print(f"kept {path}, which was not fetched by this command")
        elif part.digest is None or not (path.is_file() and _matches(path, part.digest)):
            path = fetch(part.repository, file, destination)
            if part.digest is not None:
                _verify(path, part.digest)
        paths.append(path)
    return paths


def _brought(destination: Path, file: str) -> bool:
    """Whether a file lies there that the hub's client did not fetch: it leaves a record of each one that it did."""
    return (destination / file).exists() and not (destination / f".cache/huggingface/download/{file}.metadata").exists()


def _matches(path: Path, digest: Digest) -> bool:
    return path.stat().st_size == digest.size_bytes and sha256(path) == digest.sha256


def _verify(path: Path, digest: Digest) -> None:
    """Deletes a file that is not what `digest` promises, and raises `DownloadError`."""
    if _matches(path, digest):
        return
    found = f"{path.stat().st_size:,} bytes, SHA-256 {sha256(path)}"
    path.unlink()
    raise DownloadError(
        f"file '{path.name}': expected {digest.size_bytes:,} bytes, SHA-256 {digest.sha256}, got {found}; it was deleted. "
        "Try again; if it persists, the source or something on the way is not the one this project was checked with"
    )


# ------------------------------------------------------------------------------------------------------------ command
def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", type=Path, default=CHECKPOINT, metavar="DIR", help="folder to fill (default: %(default)s)")
    parser.add_argument("--variant", choices=list(NEEDED), default="sdxl", help="whose parts to fetch (default: sdxl)")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), metavar="PART", help=f"these instead: {', '.join(PARTS)}")
    parser.add_argument(
        "--accept-license", action="store_true", help="I have read the licences that are printed, and accept them"
    )


def run(args: argparse.Namespace) -> int:
    for path in download(args.to, args.only or NEEDED[args.variant], args.accept_license):
        print(path)
    return 0
