"""The note in an image that a model made it: IPTC's `digitalSourceType` in an XMP packet.

Search engines and platforms read it, and article 50 of the EU AI Act asks for a machine-readable
mark. (IPTC Photo Metadata Standard; XMP is ISO 16684-1.)
"""

from typing import Literal

Provenance = Literal["generated", "edited"]
"""Made of noise and text; or with an image of the user's as well."""

SOURCE_TYPES: dict[Provenance, str] = {
    "generated": "trainedAlgorithmicMedia",
    "edited": "compositeWithTrainedAlgorithmicMedia",
}
"""Terms of the controlled vocabulary at `VOCABULARY`."""

VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"

PACKET = """\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    Iptc4xmpExt:DigitalSourceType="{source_type}"/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


def xmp(provenance: Provenance) -> str:
    """The XMP packet, the same in every file format."""
    return PACKET.format(source_type=VOCABULARY + SOURCE_TYPES[provenance])
