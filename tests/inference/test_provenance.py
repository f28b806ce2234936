"""The note in the PNG that a model made it, read as other programs read it: chunk by chunk."""

import struct
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from wuerstchen.inference.png_metadata import save_png

DESCRIPTION = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"
SOURCE_TYPE = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def packets(path: Path) -> list[bytes]:
    """The XMP packets of a PNG: iTXt chunks of that key, neither compressed nor translated."""
    data, position, found = path.read_bytes(), 8, []
    while position < len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        body = data[position + 8 : position + 8 + length]
        start = b"XML:com.adobe.xmp\0" + bytes(4)
        if kind == b"iTXt" and body.startswith(start):
            found.append(body.removeprefix(start))
        position += 12 + length
    return found


@pytest.mark.parametrize(
    ("provenance", "term"),
    [
        ("generated", "trainedAlgorithmicMedia"),
        ("edited", "compositeWithTrainedAlgorithmicMedia"),
    ],
)
def test_the_packet_has_the_term_of_iptc(tmp_path, provenance, term):
    save_png(tmp_path / "a.png", Image.new("RGB", (8, 8)), None, provenance)
    (packet,) = packets(tmp_path / "a.png")
    (description,) = ElementTree.fromstring(packet).iter(DESCRIPTION)
    assert description.attrib[SOURCE_TYPE] == VOCABULARY + term


def test_it_is_there_by_default_and_can_be_left_out(tmp_path):
    save_png(tmp_path / "a.png", Image.new("RGB", (8, 8)), None)
    save_png(tmp_path / "b.png", Image.new("RGB", (8, 8)), None, None)
    assert len(packets(tmp_path / "a.png")) == 1 and packets(tmp_path / "b.png") == []
