"""Small data sets on disk, written by Pillow, csv, json and tarfile as users have them."""

import csv
import io
import json
import struct
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Sample:
    colour: Colour
    captions: list[str]
    fields: dict[str, object] = field(default_factory=dict)


THREE = {
    "hearts/red": Sample((255, 0, 0), ["a red heart", "a heart"], {"name": "heart"}),
    "hearts/blue": Sample((0, 0, 255), ["a blue heart"], {"name": "heart"}),
    "leaf": Sample((0, 128, 0), ["a leaf", "a green leaf", "something green"], {"name": "leaf"}),
}


def png(colour: Colour = (200, 10, 30), side: int = 8) -> bytes:
    return to_bytes(Image.new("RGB", (side, side), colour))


def to_bytes(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims to be huge."""
    data = bytearray(png(side=1))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def flat_png(depth: int, levels: tuple[int, ...], clear: tuple[int, ...], side: int = 16) -> bytes:
    """A PNG of one grey or RGB colour and a tRNS chunk, in bit depths that Pillow does not write.

    PNG specification, third edition, 11.2.1 and 11.3.1.1: levels and the clear colour are whole
    numbers of `depth` bits, those of tRNS in two bytes each.
    """
    pixel = "".join(f"{level:0{depth}b}" for level in levels)
    row = int(pixel * side, 2).to_bytes(len(pixel) * side // 8, "big")
    kind = 0 if len(levels) == 1 else 2
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", side, side, depth, kind, 0, 0, 0),
        b"tRNS": struct.pack(f">{len(clear)}H", *clear),
        b"IDAT": zlib.compress((b"\0" + row) * side),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    )


def write(root: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def as_files(samples: dict[str, Sample]) -> dict[str, bytes | str]:
    """Image, captions and metadata fields of every sample, as files of one name."""
    files: dict[str, bytes | str] = {}
    for stem, sample in samples.items():
        files[f"{stem}.png"] = png(sample.colour)
        files[f"{stem}.txt"] = "\n".join(sample.captions) + "\n"
        files[f"{stem}.json"] = json.dumps({"captions": sample.captions, **sample.fields})
    return files


def write_tar(path: Path, members: dict[str, bytes | str] | list[tuple[str, bytes | str]]) -> Path:
    """A tar; a list of members may hold one name twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items() if isinstance(members, dict) else members:
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_jsonl(root: Path, samples: dict[str, Sample]) -> Path:
    rows = [
        {"file_name": f"{stem}.png", "text": sample.captions, **sample.fields}
        for stem, sample in samples.items()
    ]
    write(root, {f"{stem}.png": png(sample.colour) for stem, sample in samples.items()})
    return write(root, {"metadata.jsonl": "".join(json.dumps(row) + "\n" for row in rows)})


def write_csv(root: Path, samples: dict[str, Sample]) -> Path:
    """Several captions as a JSON list, since a CSV cell holds text only."""
    write(root, {f"{stem}.png": png(sample.colour) for stem, sample in samples.items()})
    columns = sorted({name for sample in samples.values() for name in sample.fields})
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "text", *columns])
        for stem, sample in samples.items():
            text = sample.captions[0] if len(sample.captions) == 1 else json.dumps(sample.captions)
            rows.writerow([f"{stem}.png", text, *(sample.fields.get(name) for name in columns)])
    return root
