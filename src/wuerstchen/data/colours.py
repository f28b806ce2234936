"""Colours that are not sRGB, brought to it by the profile that the file carries (ICC.1:2022)."""

import io

from PIL import Image, ImageCms

_SRGB = ImageCms.createProfile("sRGB")
_KINDS = {"RGB": ("RGB", "RGBA"), "CMYK": ("CMYK",), "GRAY": ("L",)}
"""Colour spaces of profiles, and the modes of Pillow that hold them."""


def to_srgb(image: Image.Image) -> Image.Image:
    """The same image in sRGB; unchanged where it has no profile, or none that fits its mode."""
    data = image.info.get("icc_profile")
    if not data:
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        if _is_srgb(profile) or image.mode not in _KINDS.get(_space(profile), ()):
            return image
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        found = ImageCms.profileToProfile(image, profile, _SRGB, outputMode=mode)
    except (OSError, ImageCms.PyCMSError):  # many files carry a damaged one; others ignore it too
        return image
    return image if found is None else found


def _space(profile: ImageCms.ImageCmsProfile) -> str:
    return str(profile.profile.xcolor_space).strip()


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    return "srgb" in (profile.profile.profile_description or "").lower()
