"""What a file of the data is by its name: image, caption, metadata, tar, or none of the user's."""

from pathlib import PurePosixPath
from typing import Literal

from PIL import features

_ALWAYS_SUPPORTED = """
    .jpg .jpeg .jpe .jfif .pjpeg .pjp .mpo .png .apng .webp .bmp .dib .gif .tif .tiff
    .ppm .pgm .pbm .pnm .tga .ico
"""

_JPEG_2000 = frozenset({".jp2", ".j2k", ".jpf", ".jpx"})

IMAGE_SUFFIXES = frozenset(
    {*_ALWAYS_SUPPORTED.split()}
    | ({".avif"} if features.check("avif") else set())
    | (_JPEG_2000 if features.check("jpg_2000") else set())
)
"""Files that are read as images; other builds of Pillow than its wheels may lack the last two."""

_RAW = """
    .3fr .ari .arw .bay .braw .cr2 .cr3 .crw .dcr .dcs .dng .drf .eip .erf .fff .gpr .iiq .k25 .kdc
    .mdc .mef .mos .mrw .nef .nrw .orf .ori .pef .ptx .r3d .raf .raw .rw2 .rwl .rwz .sr2 .srf .srw
    .x3f
"""

_OTHER_FORMATS = """
    .avif .avifs .avci .heic .heics .heif .heifs .hif .jxl .jxr .wdp .hdp .jp2 .j2k .jpf .jpx .j2c
    .jpc .jph .jls .psd .psb .xcf .kra .ora .clip .afphoto .svg .svgz .eps .ps .ai .wmf .emf .exr
    .hdr .pfm .pcx .dds .ktx .ktx2 .icns .cur .sgi .xbm .xpm .pam .qoi .bpg .flif .dcm .fits .djvu
"""

UNSUPPORTED_SUFFIXES = frozenset({*_RAW.split(), *_OTHER_FORMATS.split()} - IMAGE_SUFFIXES)
"""Images that are not read (raw camera files, vector graphics, layers), and so are reported."""

TABLE_NAMES = frozenset({"metadata.jsonl", "metadata.csv"})
"""Tables that are read; compared without case."""

_UNREAD_TABLES = ".parquet .arrow .feather .tsv .xls .xlsx .ods .csv .jsonl"

_ARCHIVES = ".tgz .tbz2 .txz .gz .bz2 .xz .zst .zip .7z .rar"

_SYSTEM_NAMES = """
    @eadir @tmp @recycle @recently-snapshot #recycle #snapshot .@__thumb .@__qini __macosx
    lost+found $recycle.bin thumbs.db ehthumbs.db desktop.ini .ds_store .thumbnails
    .ipynb_checkpoints .trashes .spotlight-v100 .fseventsd system-volume-information
"""
"""Thumbnails, waste bins and notes that a NAS, a desktop or a notebook keeps; without case."""

Kind = Literal["image", "unsupported", ".txt", ".json"]


def kind_of(file: PurePosixPath) -> Kind | None:
    """What a file is for its key, that is, its path without the suffix."""
    suffix = file.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    if suffix in UNSUPPORTED_SUFFIXES:
        return "unsupported"
    return ".txt" if suffix == ".txt" else ".json" if suffix == ".json" else None


def is_table(file: PurePosixPath) -> bool:
    return file.name.lower() in TABLE_NAMES


def is_unread_table(file: PurePosixPath) -> bool:
    """A table of captions in a format, or with a name, that is not read."""
    named = file.stem.lower() == "metadata" and file.suffix.lower() != ".txt"
    return not is_table(file) and (named or file.suffix.lower() in _UNREAD_TABLES.split())


def is_tar(file: PurePosixPath) -> bool:
    return file.suffix.lower() == ".tar"


def is_unread_archive(file: PurePosixPath) -> bool:
    return file.suffix.lower() in _ARCHIVES.split()


def left_out(name: str) -> str | None:
    """Under which name a file or folder called `name` is left out and counted; None: it is not."""
    if name.lower().replace(" ", "-") in _SYSTEM_NAMES.split():
        return name
    return "hidden" if name.startswith(".") and name not in (".", "..") else None


def other_kind(file: PurePosixPath) -> str:
    """Under which name a file that is no image, caption, table or tar is counted."""
    return f"*{file.suffix.lower()}" if file.suffix else "without a suffix"
