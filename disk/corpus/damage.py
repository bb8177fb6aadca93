"""Disks that no operating system can be read off, and what makes them so."""

import os
import random
import struct

from volumes import MIB, SECTOR, THEN, Volume, copy_into, create


def noise(count, seed="noise"):
    """Bytes that do not pack, always the same."""
    return random.Random(seed).randbytes(count)


def swap(shop, size):
    """What mkswap writes."""
    page = bytearray(4096)
    struct.pack_into("<III16s", page, 1024, 1, size // 4096 - 1, 0, bytes(range(16)))
    page[-10:] = b"SWAPSPACE2"
    return bytes(page)


def raid_member(shop, size):
    """One of two disks of an md mirror: the superblock of version 1.2 at 4 KiB, the data 8 MiB behind the start."""
    sectors = size // SECTOR
    block = bytearray(256 + 2 * 256)
    struct.pack_into("<IIII16s32s", block, 0, 0xA92B4EFC, 1, 0, 0, bytes(range(16)), b"localhost:0")
    struct.pack_into(
        "<QIIQII", block, 72, THEN, 1, 0, sectors - 16384, 0, 2
    )  # made when, mirror, layout, size, chunk, disks
    struct.pack_into(
        "<QQQQ", block, 128, 16384, sectors - 16384, 8, 0
    )  # where the data is, how much, where this block is
    struct.pack_into("<II16sBBH", block, 160, 0, 0, bytes(range(16, 32)), 0, 0, 0)
    struct.pack_into("<QQQII", block, 192, THEN, 17, 0xFFFFFFFFFFFFFFFF, 0, 128)
    block[256:] = struct.pack("<HH", 0, 1) + b"\xff\xff" * 254
    total = sum(struct.unpack(f"<{len(block) // 4}I", block))
    struct.pack_into("<I", block, 216, (total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF)
    return bytes(4096) + bytes(block)


def luks(shop, size):
    """A LUKS 2 volume with the header that cryptsetup writes, but zeros for its key, which nobody has."""
    path = shop.temporary / "luks"
    create(path, size)
    shop.run("cryptsetup", "luksFormat", "-q", "--type", "luks2", "--uuid", "3f1f3b36-0000-4000-8000-00155d010203", "--pbkdf", "pbkdf2",
             "--pbkdf-force-iterations", "1000", path, "-", input="nobody knows", real_time=True)  # fmt: skip
    with open(path, "rb") as file:
        data = file.read(32 * 1024)
    path.unlink()
    return data


def squashfs(shop, size):
    path = shop.temporary / "squashfs"
    shop.run("mksquashfs", shop.folder({"usr/lib/os-release": b"ID=debian\n", "etc/hostname": b"live\n"}), path, "-quiet", "-no-progress", "-all-root",
             "-reproducible")  # fmt: skip
    return path.read_bytes()


def iso(shop, size):
    path = shop.temporary / "iso"
    shop.run(
        "xorriso",
        "-as",
        "mkisofs",
        "-quiet",
        "-V",
        "LIVE",
        "-R",
        "-o",
        path,
        shop.folder({"etc/os-release": b"ID=debian\n", "boot/vmlinuz": b"kernel"}),
    )
    return path.read_bytes()


class LogicalVolume(Volume):
    """A volume group on the partition, its one logical volume with a file system."""

    kind = "lvm"
    needs_root = True

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def make(self, shop, path, size):
        create(path, size)
        loop = shop.run("losetup", "-f", "--show", path, real_time=True).strip()
        # Without the kernel's device mapper: the group is only written down.
        quiet = ("--driverloaded", "n", "--config", "backup { backup = 0 archive = 0 }")
        try:
            shop.run(
                "pvcreate",
                *quiet,
                "-ff",
                "-y",
                "--uuid",
                "1Zq8kC-0000-0000-0000-0000-0000-000001",
                "--norestorefile",
                loop,
                real_time=True,
            )
            shop.run("vgcreate", *quiet, "rocky", loop, real_time=True)
            shop.run(
                "lvcreate", *quiet, "-an", "-Zn", "-Wn", "-y", "-n", "root", "-l", "100%FREE", "rocky", real_time=True
            )
        finally:
            shop.run("losetup", "-d", loop, real_time=True)
        inner = shop.temporary / "logical"
        length = (size - 2 * MIB) // (4 * MIB) * 4 * MIB
        self.inner.make(shop, inner, length)
        copy_into(inner, path, MIB)  # the first extent is behind the first MiB

    def check(self, shop, path):
        found = shop.run("blkid", "-p", "-s", "TYPE", "-o", "value", path, real_time=True, fails=(2,)).strip()
        inner = shop.run(
            "blkid", "-p", "-O", MIB, "-s", "TYPE", "-o", "value", path, real_time=True, fails=(2,)
        ).strip()
        return (
            []
            if (found, inner) == ("LVM2_member", self.inner.kind)
            else [f"blkid calls it {found!r}, and what is in it {inner!r}"]
        )


# --- what is done to finished disks ----------------------------------------------------------------------------------


def grow(size):
    """The volume becomes larger, and nobody has told the partition table."""

    def after(shop, disk):
        os.truncate(disk, size)

    return after


def cut(size):
    """The disk ends early."""
    return grow(size)


def overwrite(offset, data):
    def after(shop, disk):
        with open(disk, "r+b") as file:
            os.pwrite(file.fileno(), data, offset)

    return after


def erase_backup_table(shop, disk):
    size = disk.stat().st_size
    overwrite(size - 33 * SECTOR, bytes(33 * SECTOR))(shop, disk)


# --- how these are looked at -----------------------------------------------------------------------------------------


def blkid_says(expected, offset=0):
    """That blkid finds this file system, or none, at the offset."""

    def look(shop, disk):
        found = shop.run(
            "blkid", "-p", "-O", offset, "-s", "TYPE", "-o", "value", disk, real_time=True, fails=(2,)
        ).strip()
        return [] if found == expected else [f"blkid finds {found!r}, not {expected!r}"]

    return look


def e2fsck_complains(offset):
    """That e2fsck finds the superblock's checksum wrong."""

    def look(shop, disk):
        volume = shop.temporary / "damaged.img"
        create(volume, disk.stat().st_size - offset)
        with open(disk, "rb") as read:
            volume.write_bytes(read.read()[offset:])
        told = shop.run("e2fsck", "-fn", volume, real_time=True, fails=range(1, 20), stderr_too=True)
        return (
            []
            if "superblock checksum" in told or "Superblock has" in told or "Bad magic" in told or "invalid" in told
            else [f"e2fsck says: {told[:300]}"]
        )

    return look


def mdadm_knows(offset):
    """That mdadm finds a superblock of version 1.2 with a right checksum."""

    def look(shop, disk):
        part = shop.temporary / "member.img"
        create(part, disk.stat().st_size - offset)
        with open(disk, "rb") as read, open(part, "r+b") as write:
            read.seek(offset)
            write.write(read.read(64 * 1024))
        told = shop.run("mdadm", "--examine", part, real_time=True)
        return [] if "Version : 1.2" in told and "- correct" in told else [f"mdadm says: {told[:400]}"]

    return look
