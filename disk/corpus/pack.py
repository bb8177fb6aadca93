#!/usr/bin/env python3
"""Packs a raw disk image into a small file, and unpacks it again.

The format, inside gzip: the ASCII line `ami-guard-disk 1 SIZE_IN_BYTES`, then for each page of 4096 bytes that is not
all zeros, in ascending order, its index (8 bytes, little-endian) and its 4096 bytes. A disk that does not end on a
page's boundary has its last page filled up with zeros; SIZE_IN_BYTES says where it ends.

    python3 pack.py pack A.img A.gz
    python3 pack.py unpack A.gz B.img
"""

import gzip
import os
import struct
import sys

PAGE = 4096
ZEROS = bytes(PAGE)
MAGIC = b"ami-guard-disk 1 "


def pages(raw):
    """The pages of an open raw image that are not all zeros, as (index, bytes). Holes are not read."""
    size = os.fstat(raw.fileno()).st_size
    at = 0
    while at < size:
        try:
            start = os.lseek(raw.fileno(), at, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole till the end
            return
        at = os.lseek(raw.fileno(), start, os.SEEK_HOLE)
        for offset in range(start // PAGE * PAGE, at, PAGE):
            data = os.pread(raw.fileno(), PAGE, offset)
            if data.count(0) != len(data):
                yield offset // PAGE, data.ljust(PAGE, b"\0")
        at = -(-at // PAGE) * PAGE


def pack(raw, packed):
    """Packs the raw image at the path `raw` into the file `packed`. The same image gives the same bytes."""
    with open(raw, "rb") as image, open(packed, "wb") as out:
        with gzip.GzipFile("", "wb", 9, out, mtime=0) as gz:
            gz.write(MAGIC + b"%d\n" % os.fstat(image.fileno()).st_size)
            for index, data in pages(image):
                gz.write(struct.pack("<Q", index) + data)


def unpack(packed, raw):
    """Unpacks the file `packed` into a sparse raw image at the path `raw`."""
    with gzip.open(packed, "rb") as gz, open(raw, "wb") as image:
        line = gz.readline(64)
        if not line.startswith(MAGIC) or not line.endswith(b"\n"):
            raise ValueError(f"{packed} is no packed disk: it begins with {line!r}")
        size = int(line[len(MAGIC) :])
        while head := gz.read(8):
            data = gz.read(PAGE)
            if len(head) != 8 or len(data) != PAGE:
                raise ValueError(f"{packed} ends within a page")
            offset = struct.unpack("<Q", head)[0] * PAGE
            if offset >= size:
                raise ValueError(f"{packed} has a page at byte {offset} of a disk of {size} bytes")
            os.pwrite(image.fileno(), data[: size - offset], offset)
        image.truncate(size)


def main():
    match sys.argv[1:]:
        case ["pack", raw, packed]:
            pack(raw, packed)
        case ["unpack", packed, raw]:
            unpack(packed, raw)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
