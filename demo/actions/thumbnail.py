"""Makes a thumbnail of the photograph that lies beside this file in the archive."""

import base64
import io
from pathlib import Path

import PIL
from PIL import Image

PHOTO = Path(__file__).with_name("photo.jpg")


def main(args):
    side = args.get("side", 320)
    with Image.open(PHOTO) as photo:
        before = photo.size
        photo.thumbnail((side, side), Image.Resampling.LANCZOS)
        packed = io.BytesIO()
        photo.save(packed, "JPEG", quality=85)
    print(f"Pillow {PIL.__version__}: {before} to {photo.size}, {PHOTO.stat().st_size} to {packed.tell()} bytes")
    return {"from": list(before), "image": base64.b64encode(packed.getvalue()).decode()}
