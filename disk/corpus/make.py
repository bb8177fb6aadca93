#!/usr/bin/env python3
"""Makes the corpus of disk images, each with a label that says what the product must make of it.

    make.py OUT                  makes all images in the folder OUT, and OUT/labels.json
    make.py OUT --pack           packs the small ones into images/ beside this file as well, and writes labels.json there
    make.py OUT --check          looks at the images in OUT with other tools than the product's reader
    make.py OUT --only NAME ...  only these images
    make.py OUT --small          only the images that are packed: not the whole distributions

Some images take a mount, and so root: without it they are left out, which is said. It takes these Debian packages:
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import damage
import hive
import pack
import rpmdb
import trees as t
from volumes import (
    BIOS_BOOT, BOOT_LOADER, EFI_SYSTEM, GIB, LINUX, LINUX_ROOT, MIB, MICROSOFT_BASIC, MICROSOFT_RECOVERY, MICROSOFT_RESERVED, PREP,
    SECTOR, Btrfs, Bytes, Crash, Ext, Failed, Fat, Ntfs, Part, Shop, Whole, Xfs, copy_into, create, partition,
)  # fmt: skip

HERE = Path(__file__).resolve().parent
PACKAGES = {
    "mke2fs": "e2fsprogs", "mkfs.xfs": "xfsprogs", "mkfs.btrfs": "btrfs-progs", "mkntfs": "ntfs-3g", "fusermount": "fuse3", "mkfs.vfat": "dosfstools",
    "mcopy": "mtools", "sfdisk": "fdisk", "sgdisk": "gdisk", "faketime": "faketime", "rpmbuild": "rpm", "db5.3_load": "db5.3-util",
    "hivexget": "libhivex-bin", "vgcreate": "lvm2", "cryptsetup": "cryptsetup-bin", "mdadm": "mdadm", "mksquashfs": "squashfs-tools",
    "xorriso": "xorriso", "debootstrap": "debootstrap", "blkid": "util-linux",
}  # fmt: skip


# --- what the product shall say --------------------------------------------------------------------------------------

LINUX_ONLY = ["Linux"]
# License Manager converts one licence into the other, and leaves the disk as it is.
RED_HAT = ["RedHat", "RedHatByol"]
RED_HAT_HA = ["RedHatHa"]
RED_HAT_OPEN = ["RedHat", "RedHatByol", "Linux"]
BY_PRODUCT_CODE = "Linux with a product code"
RED_HAT_SOLD = ["RedHat", "RedHatHa", "RedHatByol", BY_PRODUCT_CODE]
SUSE_OPEN = ["SUSE", "Linux"]
SQL = ["SQL Server Web", "SQL Server Standard", "SQL Server Enterprise"]
RED_HAT_SQL = ["RedHat", *(f"Red Hat Enterprise Linux with {edition}" for edition in SQL), "RedHatByol"]
WINDOWS = ["Windows", "WindowsByol"]
WINDOWS_SQL = ["Windows", *(f"Windows with {edition}" for edition in SQL), "WindowsByol"]


@dataclass
class Image:
    """One image: its label, and how it is made."""

    name: str
    what: str
    file_system: str
    table: str
    size: int
    # The partitions, given the RPM databases; with table "none", one volume.
    parts: Callable
    says: list
    # What must occur in the reason why it does not say anything; "" where any reason will do.
    undetermined: str | None = None
    # Paths from the root, without a slash in front: links by their own name, not by where they lead.
    evidence: tuple = ()
    # The partition with the system, for the check; 0 is the whole disk.
    root: int = 0
    packed: bool = True
    # What is done to the finished disk: a function of the shop and its path.
    after: Callable | None = None
    # For a disk that is looked at in another way than by its volumes: gives what is wrong.
    look: Callable | None = None

    def label(self):
        return {
            "name": self.name, "what": self.what, "file_system": self.file_system, "table": self.table, "says": self.says,
            "undetermined": self.undetermined, "evidence": list(self.evidence), "packed": self.packed,
        }  # fmt: skip

    def layout(self, databases):
        made = self.parts(databases)
        return made if isinstance(made, list) else [Part(0, 0, self.size // SECTOR, "", made)]

    def make(self, shop):
        disk = shop.out / f"{self.name}.img"
        create(disk, self.size)
        parts = self.layout(shop.databases)
        if self.table != "none":
            partition(shop, disk, self.table, parts)
        for part in parts:
            if part.volume is not None:
                volume = shop.temporary / f"{self.name}-{part.number}"
                part.volume.make(shop, volume, part.sectors * SECTOR)
                copy_into(volume, disk, part.start * SECTOR)
                volume.unlink()
        if self.after:
            self.after(shop, disk)
        return disk

    def check(self, shop):
        disk = shop.out / f"{self.name}.img"
        parts = self.layout(shop.databases)
        if self.look:
            return self.look(shop, disk)
        wrong = []
        if self.after is None and self.table != "none":
            shop.run("sfdisk", "--verify", disk, real_time=True)
            listed = json.loads(shop.run("sfdisk", "--json", disk, real_time=True))["partitiontable"]
            if listed["label"] != {"gpt": "gpt", "mbr": "dos"}[self.table]:
                wrong.append(f"its table is {listed['label']}")
            there = {(entry["start"], entry["size"]) for entry in listed["partitions"]}
            wrong += [
                f"partition {part.number} is not in the table"
                for part in parts
                if (part.start, part.sectors) not in there
            ]
            if self.table == "gpt" and "No problems found" not in shop.run("sgdisk", "--verify", disk, real_time=True):
                wrong.append("sgdisk finds problems")
        for part in parts:
            if part.volume is not None:
                wrong += [f"partition {part.number}: {what}" for what in self.check_part(shop, disk, part)]
        return wrong

    def check_part(self, shop, disk, part):
        volume = shop.temporary / "checked.img"
        create(volume, part.sectors * SECTOR)
        with open(disk, "rb") as read, open(volume, "r+b") as write:
            for index, data in pack.pages(read):
                at = index * pack.PAGE - part.start * SECTOR
                if 0 <= at < part.sectors * SECTOR:
                    os.pwrite(write.fileno(), data[: part.sectors * SECTOR - at], at)
        return part.volume.check(shop, volume)


# --- how disks are laid out ------------------------------------------------------------------------------------------


def rest(size, start):
    """The sectors from `start` to the last one that a GPT leaves, on a boundary of 1 MiB."""
    return (size // SECTOR - 34 - start) // 2048 * 2048


BIOS = Bytes(content=lambda shop, size: b"\xeb\x63" + b"GRUB stage 1.5 " * 2000)


def efi(loader):
    return Fat({f"EFI/{loader}/grubx64.efi": b"MZ" + b"grub" * 500, "EFI/BOOT/BOOTX64.EFI": b"MZ" + b"shim" * 500})


def boot_tree():
    return {f"{name}-6.1.0": b"kernel " * 4000 for name in ("vmlinuz", "initramfs", "System.map", "config")} | {
        "grub2/grub.cfg": b"set timeout=1\n" * 30, "loader/entries/one.conf": b"title Linux\n"}  # fmt: skip


def red_hat_8(root, size=10 * GIB):
    return [Part(1, 2048, 2048, BIOS_BOOT, BIOS), Part(2, 4096, rest(size, 4096), LINUX, root)]


def red_hat_9(root, size=10 * GIB):
    return [
        Part(1, 2048, 2048, BIOS_BOOT, BIOS),
        Part(2, 4096, 200 * 2048, EFI_SYSTEM, efi("redhat")),
        Part(3, 413696, 960 * 2048, BOOT_LOADER, Xfs(boot_tree())),
        Part(4, 2379776, rest(size, 2379776), LINUX_ROOT, root),
    ]


def rocky(root, size=10 * GIB):
    return [
        Part(1, 2048, 2 * 2048, BIOS_BOOT, BIOS),
        Part(2, 6144, 100 * 2048, EFI_SYSTEM, efi("rocky")),
        Part(3, 210944, 1000 * 2048, LINUX, Xfs(boot_tree())),
        Part(4, 2258944, 8 * 2048, PREP),
        Part(5, 2275328, rest(size, 2275328), LINUX, root),
    ]


def amazon_2(root, size=8 * GIB):
    return [Part(1, 4096, rest(size, 4096), LINUX, root), Part(128, 2048, 2048, BIOS_BOOT, BIOS)]


def amazon_2023(root, size=8 * GIB):
    return [
        Part(1, 24576, rest(size, 24576), LINUX, root),
        Part(127, 22528, 2048, BIOS_BOOT, BIOS),
        Part(128, 2048, 10 * 2048, EFI_SYSTEM, efi("amzn")),
    ]


def debian(root, size=8 * GIB):
    return [
        Part(1, 262144, rest(size, 262144), LINUX_ROOT, root),
        Part(14, 2048, 3 * 2048, BIOS_BOOT, BIOS),
        Part(15, 8192, 124 * 2048, EFI_SYSTEM, efi("debian")),
    ]


def ubuntu_22(root, size=8 * GIB):
    return [
        Part(1, 227328, rest(size, 227328), LINUX, root),
        Part(14, 2048, 4 * 2048, BIOS_BOOT, BIOS),
        Part(15, 10240, 106 * 2048, EFI_SYSTEM, efi("ubuntu")),
    ]


def ubuntu_24(root, size=8 * GIB):
    return [
        Part(1, 2099200, rest(size, 2099200), LINUX, root),
        Part(14, 2048, 4 * 2048, BIOS_BOOT, BIOS),
        Part(15, 10240, 106 * 2048, EFI_SYSTEM, efi("ubuntu")),
        Part(16, 227328, 913 * 2048, BOOT_LOADER, Ext(boot_tree())),
    ]


def suse_15(root, size=10 * GIB):
    return [
        Part(1, 2048, 2 * 2048, BIOS_BOOT, BIOS),
        Part(2, 6144, 33 * 2048, EFI_SYSTEM, efi("sles")),
        Part(3, 73728, rest(size, 73728), LINUX, root),
    ]


def fedora(root, size=10 * GIB):
    return [
        Part(1, 2048, 2 * 2048, BIOS_BOOT, BIOS),
        Part(2, 6144, 100 * 2048, EFI_SYSTEM, efi("fedora")),
        Part(3, 210944, 1000 * 2048, BOOT_LOADER, Ext(boot_tree())),
        Part(4, 2258944, rest(size, 2258944), LINUX_ROOT, root),
    ]


def core_os(root, size=10 * GIB):
    """Fedora CoreOS and RHEL CoreOS."""
    return [
        Part(1, 2048, 2048, BIOS_BOOT, BIOS),
        Part(2, 4096, 127 * 2048, EFI_SYSTEM, efi("fedora")),
        Part(3, 264192, 384 * 2048, LINUX, Ext({"ostree/default-0/vmlinuz": b"kernel " * 4000, "loader/entries/ostree-1.conf": b"title Linux\n"})),
        Part(4, 1050624, rest(size, 1050624), LINUX_ROOT, root),
    ]  # fmt: skip


def one(root, size=512 * MIB, type="83"):
    """An MBR with one partition behind the first MiB."""
    return [Part(1, 2048, size // SECTOR - 2048, type, root)]


def one_gpt(root, size=512 * MIB):
    return [Part(1, 2048, rest(size, 2048), LINUX, root)]


# NTFS on these is as small as it may be: the larger it is, the longer is its journal, which is not zeros.
SMALL_NTFS = 64 * MIB


def windows_gpt(root, size):
    """Windows Server 2022 as it installs itself on UEFI: EFI, reserved, Windows, recovery."""
    recovery = Ntfs(
        {"Recovery/WindowsRE/Winre.wim": b"MSWIM\0\0\0" + bytes(9000), "Recovery/WindowsRE/boot.sdi": bytes(4000)}
    )
    end = rest(size, 0) - 64 * 2048
    return [
        Part(
            1,
            2048,
            99 * 2048,
            EFI_SYSTEM,
            Fat(
                {
                    "EFI/Microsoft/Boot/bootmgfw.efi": b"MZ" + b"boot" * 500,
                    "EFI/Microsoft/Boot/BCD": hive.write(hive.Key(), "BCD"),
                }
            ),
        ),
        Part(2, 204800, 16 * 2048, MICROSOFT_RESERVED),
        Part(3, 237568, end - 237568, MICROSOFT_BASIC, root),
        Part(4, end, 64 * 2048, MICROSOFT_RECOVERY, recovery),
    ]


def windows_mbr(root, size):
    """Windows Server 2019 on BIOS, with "System Reserved" first."""
    reserved = Ntfs(
        {
            "bootmgr": b"\xeb\x11" + b"bootmgr" * 900,
            "Boot/BCD": hive.write(hive.Key(), "BCD"),
            "BOOTNXT": b"\1",
            "Boot/en-US/bootmgr.exe.mui": b"MZ",
        }
    )
    return [
        Part(1, 2048, 64 * 2048, "7", reserved),
        Part(2, 2048 + 64 * 2048, size // SECTOR - 2048 - 64 * 2048, "7", root),
    ]


# --- the systems that several images have ----------------------------------------------------------------------------


def rhel(db, version=9, signs=None, count=160):
    release, database = {
        7: (t.RHEL_7, "rhel-bdb"),
        8: (t.RHEL_8, "rhel-bdb"),
        9: (t.RHEL_9, "rhel-sqlite"),
        10: (t.RHEL_10, "rhel10-sqlite"),
    }[version]
    return t.rpm_based(f"rhel{version}", release, db, database, count) | (signs or {})


def server(edition="Windows Server 2022 Datacenter", build="20348", kind="Server", instances=(), **more):
    return hive.write(hive.software(kind, edition, build, "ServerDatacenter", instances, **more))


HIVE = "Windows/System32/config/SOFTWARE"


# --- the images ------------------------------------------------------------------------------------------------------


UNKNOWN = 'NAME="Example Linux"\nID=examplelinux\nVERSION_ID="1"\nPRETTY_NAME="Example Linux 1"\n'


def the_distributions():
    """Each operating system once as its vendor's AMI is laid out, and with each sign of who licenses it."""
    rhui_ha = t.rhui(8) | t.repository("redhat-rhui-ha", "rhel-8-highavailability-rhui-rpms")
    rhui_ha_7 = t.rhui_certificate(7) | t.repository("redhat-rhui-client-config-ha", "rhui-client-config-server-7-ha")
    return [
        Image("rhel9-rhui", "RHEL 9 as AWS sells it: RHUI's certificate and repositories; the root is the 4th partition.", "xfs", "gpt", 10 * GIB,
              lambda db: red_hat_9(Xfs(rhel(db, 9, t.rhui(9)))), RED_HAT, evidence=[t.OS_RELEASE], root=4),
        Image("rhel8-rhui-certificate", "RHEL 8 with RHUI's certificate only, RPM database in Berkeley DB.", "xfs", "gpt", 10 * GIB,
              lambda db: red_hat_8(Xfs(rhel(db, 8, t.rhui_certificate(8)))), RED_HAT,
              evidence=[t.OS_RELEASE, "etc/pki/rhui/product/content-rhel8.crt"], root=2),
        Image("rhel9-rhui-repository", "RHEL 9 with RHUI's repository only.", "xfs", "gpt", 10 * GIB,
              lambda db: red_hat_9(Xfs(rhel(db, 9, t.repository("redhat-rhui", "rhel-9-baseos-rhui-rpms"), count=60))), RED_HAT,
              evidence=[t.OS_RELEASE, "etc/yum.repos.d/redhat-rhui.repo"], root=4),
        Image("rhel8-rhui-ha", "RHEL 8 with RHUI and its high availability repository.", "xfs", "gpt", 10 * GIB,
              lambda db: red_hat_8(Xfs(rhel(db, 8, rhui_ha, count=60))), RED_HAT_HA,
              evidence=[t.OS_RELEASE, "etc/yum.repos.d/redhat-rhui-ha.repo"], root=2),
        Image("rhel7-rhui-client-config-ha", "RHEL 7 with RHUI and the client configuration of high availability.", "xfs", "mbr", 10 * GIB,
              lambda db: one(Xfs(rhel(db, 7, rhui_ha_7, count=60)), 10 * GIB), RED_HAT_HA,
              evidence=[t.OS_RELEASE, "etc/yum.repos.d/redhat-rhui-client-config-ha.repo"], root=1),
        Image("rhel9-byol", "RHEL 9 with a subscription of its own: a consumer certificate, no RHUI.", "xfs", "gpt", 10 * GIB,
              lambda db: red_hat_9(Xfs(rhel(db, 9, t.CONSUMER, count=60))), RED_HAT_OPEN,
              evidence=[t.OS_RELEASE, "etc/pki/consumer/cert.pem"], root=4),
        Image("rhel9-rhui-and-consumer", "RHEL 9 with RHUI that is registered with Red Hat besides: sold by the AWS Marketplace, or converted.", "xfs", "gpt", 10 * GIB,
              lambda db: red_hat_9(Xfs(rhel(db, 9, t.rhui(9) | t.CONSUMER, count=60))), RED_HAT_SOLD, evidence=[t.OS_RELEASE], root=4),
        Image("rhel10-no-sign", "RHEL 10 without any sign of who licenses it, as Red Hat's image builder makes it.", "xfs", "gpt", 10 * GIB,
              lambda db: red_hat_9(Xfs(rhel(db, 10))), RED_HAT_OPEN, evidence=[t.OS_RELEASE], root=4),
        Image("rhel9-rhui-mssql", "RHEL 9 with RHUI and SQL Server for Linux.", "xfs", "gpt", 10 * GIB,
              lambda db: red_hat_9(Xfs(rhel(db, 9, t.rhui(9) | t.MSSQL, count=60))), RED_HAT_SQL,
              evidence=[t.OS_RELEASE, "opt/mssql/bin/sqlservr"], root=4),
        Image("centos7", "CentOS 7: one partition, XFS.", "xfs", "mbr", 8 * GIB,
              lambda db: one(Xfs(t.rpm_based("centos7", t.CENTOS_7, db, "centos-bdb")), 8 * GIB), LINUX_ONLY,
              evidence=[t.OS_RELEASE], root=1),
        Image("centos-stream9", "CentOS Stream 9, whose os-release mentions Red Hat Enterprise Linux 9 as the product to report to.", "xfs", "gpt", 10 * GIB,
              lambda db: red_hat_8(Xfs(t.rpm_based("stream9", t.CENTOS_STREAM_9, db, "el9-sqlite", 60))), LINUX_ONLY, evidence=[t.OS_RELEASE], root=2),
        Image("rocky9", "Rocky Linux 9: the root is the 5th partition.", "xfs", "gpt", 10 * GIB,
              lambda db: rocky(Xfs(t.rpm_based("rocky9", t.ROCKY_9, db, "el9-sqlite"))), LINUX_ONLY, evidence=[t.OS_RELEASE], root=5),
        Image("alma9", "AlmaLinux 9: BIOS boot, EFI, /boot on XFS; the root is the 4th partition.", "xfs", "gpt", 10 * GIB,
              lambda db: red_hat_9(Xfs(t.rpm_based("alma9", t.ALMA_9, db, "el9-sqlite", 60))), LINUX_ONLY, evidence=[t.OS_RELEASE], root=4),
        Image("oracle9", "Oracle Linux 9.", "xfs", "gpt", 10 * GIB,
              lambda db: red_hat_9(Xfs(t.rpm_based("oracle9", t.ORACLE_9, db, "el9-sqlite", 60))), LINUX_ONLY, evidence=[t.OS_RELEASE], root=4),
        Image("fedora41", "Fedora 41: btrfs, compressed with zstd, its root in the subvolume `root`, which is not the default one, /var in another.", "btrfs", "gpt", 10 * GIB,
              lambda db: fedora(Btrfs(t.rpm_based("fedora41", t.FEDORA_41, db, "fedora-sqlite"), subvolumes=("root", "home", "var"), default="root", set_default=False,
                                      mounts={"home": "home", "var": "var"}, compress="zstd:1", options=("-m", "single"))), LINUX_ONLY, evidence=[t.OS_RELEASE], root=4,
              ),
        Image("amazon-linux-2", "Amazon Linux 2: the root first in number, second in place.", "xfs", "gpt", 8 * GIB,
              lambda db: amazon_2(Xfs(t.rpm_based("amazon2", t.AMAZON_2, db, "amazon-bdb"))), LINUX_ONLY, evidence=[t.OS_RELEASE], root=1,
              ),
        Image("amazon-linux-2023", "Amazon Linux 2023: partitions 1, 127 and 128.", "xfs", "gpt", 8 * GIB,
              lambda db: amazon_2023(Xfs(t.rpm_based("amazon2023", t.AMAZON_2023, db, "amazon-sqlite"))), LINUX_ONLY, evidence=[t.OS_RELEASE], root=1),
        Image("amazon-linux-2-mssql", "Amazon Linux 2 with SQL Server for Linux.", "xfs", "gpt", 8 * GIB,
              lambda db: amazon_2(Xfs(t.rpm_based("amazon2", t.AMAZON_2, db, "amazon-bdb", 60) | t.MSSQL)), LINUX_ONLY + SQL,
              evidence=[t.OS_RELEASE, "opt/mssql/bin/sqlservr"], root=1),
        Image("debian12", "Debian 12: partitions 1, 14 and 15, dpkg with several hundred files.", "ext4", "gpt", 8 * GIB,
              lambda db: debian(Ext(t.dpkg_based("debian12", t.DEBIAN_12, packages=300), roomy=True)), LINUX_ONLY, evidence=[t.OS_RELEASE], root=1),
        Image("debian12-with-rpm", "Debian 12 with the package `rpm`, and an RPM database of Red Hat's packages, beside dpkg: still Debian.", "ext4", "gpt", 8 * GIB,
              lambda db: debian(Ext(t.dpkg_based("debian12", t.DEBIAN_12, 60) | db["rhel-sqlite"])), LINUX_ONLY, evidence=[t.OS_RELEASE], root=1),
        Image("opensuse-leap15", "openSUSE Leap 15, plain btrfs.", "btrfs", "gpt", 10 * GIB,
              lambda db: suse_15(Btrfs(t.rpm_based("leap15", t.LEAP_15, db, "sles-ndb", 60), options=("-m", "single"))), LINUX_ONLY,
              evidence=[t.OS_RELEASE], root=3),
        Image("sles12", "SLES 12, ext4, os-release a file of its own, no sign of who licenses it.", "ext4", "mbr", 8 * GIB,
              lambda db: one(Ext(t.suse("sles12", t.SLES_12, db, "12.5")), 8 * GIB), SUSE_OPEN, evidence=[t.OS_RELEASE], root=1),
        Image("sles15-no-sign", "SLES 15, its registration service there but not enabled.", "xfs", "gpt", 10 * GIB,
              lambda db: suse_15(Xfs(t.suse("sles15", t.SLES_15, db, "15.6") | t.GUESTREGISTER_UNIT)), SUSE_OPEN, evidence=[t.OS_RELEASE], root=3),
        Image("sles15-pay-as-you-go", "SLES 15 as AWS sells it: guestregister.service is enabled.", "xfs", "gpt", 10 * GIB,
              lambda db: suse_15(Xfs(t.suse("sles15", t.SLES_15, db, "15.6", 60) | t.GUESTREGISTER)), ["SUSE"],
              evidence=[t.OS_RELEASE, "etc/systemd/system/multi-user.target.wants/guestregister.service"], root=3),
        Image("sles15-byos", "SLES 15 that asks to be registered (BYOS).", "xfs", "gpt", 10 * GIB,
              lambda db: suse_15(Xfs(t.suse("sles15", t.SLES_15, db, "15.6", 60) | t.SUSE_BYOS | t.GUESTREGISTER_UNIT)), LINUX_ONLY,
              evidence=[t.OS_RELEASE, "usr/lib/motd.d/20_byos_register"], root=3),
        Image("sles15-both-signs", "SLES 15 with the signs of pay-as-you-go and of BYOS.", "xfs", "gpt", 10 * GIB,
              lambda db: suse_15(Xfs(t.suse("sles15", t.SLES_15, db, "15.6", 60) | t.SUSE_BYOS | t.GUESTREGISTER)), SUSE_OPEN,
              evidence=[t.OS_RELEASE], root=3),
        Image("sles16", "SLES 16: btrfs, its root the default subvolume @/.snapshots/1/snapshot, without a sign of who licenses it.", "btrfs", "gpt", 10 * GIB,
              lambda db: suse_15(suse_snapshots(t.suse("sles16", t.SLES_16, db, "16.0"))), SUSE_OPEN, evidence=[t.OS_RELEASE], root=3,
              ),
        Image("sles16-byos-mssql", "SLES 16 BYOS with SQL Server in the subvolume @/opt.", "btrfs", "gpt", 10 * GIB,
              lambda db: suse_15(suse_snapshots(t.suse("sles16", t.SLES_16, db, "16.0", 60) | t.SUSE_BYOS | t.MSSQL)), LINUX_ONLY + SQL,
              evidence=[t.OS_RELEASE, "opt/mssql/bin/sqlservr"], root=3),
        Image("sles15-sap-pay-as-you-go", "SLES 15 for SAP as the AWS Marketplace sells it: its base product is SLES_SAP, guestregister.service is enabled.", "xfs", "gpt", 10 * GIB,
              lambda db: suse_15(Xfs(t.suse("sles15", t.SLES_15, db, "15.6", 60, product="SLES_SAP") | t.GUESTREGISTER)), [BY_PRODUCT_CODE],
              evidence=[t.OS_RELEASE, "etc/products.d/baseproduct"], root=3),
        Image("sles16-sap-variant", "SLES 16 for SAP by VARIANT_ID, pay as you go.", "btrfs", "gpt", 10 * GIB,
              lambda db: suse_15(suse_snapshots(t.suse("sles16", t.SLES_16 + 'VARIANT_ID="sles-sap"\n', db, "16.0", 60) | t.GUESTREGISTER)), [BY_PRODUCT_CODE],
              evidence=[t.OS_RELEASE], root=3),
        Image("sles12-sap-byos", "SLES 12 for SAP by its ID, which asks to be registered (BYOS).", "ext4", "mbr", 8 * GIB,
              lambda db: one(Ext(t.suse("sles12", t.SLES_12.replace('ID="sles"', 'ID="sles_sap"'), db, "12.5", 60) | t.SUSE_BYOS), 8 * GIB), ["Linux", BY_PRODUCT_CODE],
              evidence=[t.OS_RELEASE, "usr/lib/motd.d/20_byos_register"], root=1),
        Image("sl-micro6", "SUSE Linux Micro 6, without a sign of who licenses it.", "btrfs", "gpt", 10 * GIB,
              lambda db: suse_15(suse_snapshots(t.suse("micro6", t.SL_MICRO_6, db, "6.1", 60, product="SL-Micro"))), SUSE_OPEN, evidence=[t.OS_RELEASE], root=3),
        Image("sl-micro6-pay-as-you-go", "SUSE Linux Micro 6 with guestregister.service enabled.", "btrfs", "gpt", 10 * GIB,
              lambda db: suse_15(suse_snapshots(t.suse("micro6", t.SL_MICRO_6, db, "6.1", 60, product="SL-Micro") | t.GUESTREGISTER)), ["SUSE", BY_PRODUCT_CODE],
              evidence=[t.OS_RELEASE, "etc/systemd/system/multi-user.target.wants/guestregister.service"], root=3),
        Image("fedora-coreos", "Fedora CoreOS: BIOS boot, EFI, /boot on ext4, and an OSTree root on XFS with the deployments of two releases.", "xfs", "gpt", 10 * GIB,
              lambda db: core_os(Xfs(t.ostree("fedora-coreos", t.rpm_based("fcos", t.FEDORA_COREOS, db, "fedora-sqlite", 60))
                                     | t.ostree("fedora-coreos", t.rpm_based("fcos", t.FEDORA_COREOS, db, "fedora-sqlite", 40), serial=1))),
              LINUX_ONLY, evidence=[t.OS_RELEASE], root=4),
        Image("rhcos", "RHEL CoreOS, OpenShift's node system: an OSTree root on XFS.", "xfs", "gpt", 16 * GIB,
              lambda db: core_os(Xfs(t.ostree("rhcos", t.rpm_based("rhcos", t.RHCOS, db, "rhel-sqlite", 60))), 16 * GIB), LINUX_ONLY, evidence=[t.OS_RELEASE], root=4),
        Image("rhel9-image-mode", "RHEL 9 in image mode (bootc) with RHUI: an OSTree root on XFS.", "xfs", "gpt", 10 * GIB,
              lambda db: core_os(Xfs(t.ostree("default", rhel(db, 9, t.rhui(9), count=60)))), RED_HAT, evidence=[t.OS_RELEASE, "etc/yum.repos.d/redhat-rhui.repo"], root=4),
        Image("centos-bootc-mssql", "CentOS Stream 9 in image mode on ext4, with SQL Server below /opt, which is a link to /var/opt.", "ext4", "gpt", 10 * GIB,
              lambda db: core_os(Ext(t.ostree("default", t.rpm_based("stream9", t.CENTOS_STREAM_9, db, "el9-sqlite", 60) | t.MSSQL))), LINUX_ONLY + SQL,
              evidence=[t.OS_RELEASE, "opt/mssql/bin/sqlservr"], root=4),
        Image("fedora-silverblue", "Fedora with an OSTree root in a subvolume of btrfs.", "btrfs", "gpt", 10 * GIB,
              lambda db: fedora(Btrfs(t.ostree("fedora", t.rpm_based("fedora41", t.FEDORA_41, db, "fedora-sqlite", 60)), subvolumes=("root", "home", "var"), default="root", set_default=False,
                                      mounts={"home": "home", "var": "var"}, options=("-m", "single"))), LINUX_ONLY, evidence=[t.OS_RELEASE], root=4),
        Image("photon5", "Photon OS 5, whose ID is not on any list of the product's.", "ext4", "mbr", 512 * MIB,
              lambda db: one(Ext(t.rpm_based("photon", t.PHOTON_5, db, "el9-sqlite", 40))), LINUX_ONLY, evidence=[t.OS_RELEASE], root=1),
        Image("unknown-id", "A Linux that nobody has heard of.", "ext4", "mbr", 512 * MIB,
              lambda db: one(Ext(t.base("unknown", UNKNOWN, 40))), LINUX_ONLY, evidence=[t.OS_RELEASE], root=1),
        Image("ubuntu24", "Ubuntu 24.04: partitions 1, 14, 15 and 16, the root the last in place.", "ext4", "gpt", 8 * GIB,
              lambda db: ubuntu_24(Ext(t.ubuntu("ubuntu24"), roomy=True)), LINUX_ONLY, evidence=[t.OS_RELEASE], root=1),
        Image("ubuntu22-pro", "Ubuntu Pro 22.04, by the package that attaches it by itself.", "ext4", "gpt", 8 * GIB,
              lambda db: ubuntu_22(Ext(t.ubuntu("ubuntu22", t.UBUNTU_22, 60) | t.PRO_AUTO_ATTACH | t.PRO_TOKEN)), ["UbuntuPro"],
              evidence=[t.OS_RELEASE, "var/lib/dpkg/info/ubuntu-pro-auto-attach.list"], root=1),
        Image("ubuntu20-pro-old-package", "Ubuntu Pro by the package's former name, ubuntu-advantage-pro.", "ext4", "gpt", 8 * GIB,
              lambda db: ubuntu_22(Ext(t.ubuntu("ubuntu20", t.UBUNTU_20, 60) | {f"var/lib/dpkg/info/ubuntu-advantage-pro.{kind}": b"/.\n" for kind in ("list", "md5sums")})), ["UbuntuPro"],
              evidence=[t.OS_RELEASE, "var/lib/dpkg/info/ubuntu-advantage-pro.list"], root=1),
        Image("ubuntu24-token", "Ubuntu 24.04 that somebody attached to a subscription: AWS's or one's own, it does not say.", "ext4", "gpt", 8 * GIB,
              lambda db: ubuntu_24(Ext(t.ubuntu("ubuntu24", count=60) | t.PRO_TOKEN)), ["Linux", "UbuntuPro"],
              evidence=[t.OS_RELEASE, "var/lib/ubuntu-advantage/private/machine-token.json"], root=1),
        Image("ubuntu22-mssql", "Ubuntu 22.04 with SQL Server for Linux.", "ext4", "gpt", 8 * GIB,
              lambda db: ubuntu_22(Ext(t.ubuntu("ubuntu22", t.UBUNTU_22, 60) | t.MSSQL)), LINUX_ONLY + SQL,
              evidence=[t.OS_RELEASE, "opt/mssql/bin/sqlservr"], root=1),
    ]  # fmt: skip


def suse_snapshots(tree):
    """SUSE's layout: snapshots of the root, and folders that no snapshot takes back as subvolumes of their own."""
    own = ("home", "opt", "root", "srv", "usr/local", "var")
    return Btrfs(tree, subvolumes=("@", *(f"@/{name}" for name in own), "@/.snapshots", "@/.snapshots/1/snapshot"), default="@/.snapshots/1/snapshot",
                 mounts={name: f"@/{name}" for name in own}, options=("-m", "single"))  # fmt: skip


def the_file_systems():
    """The same few systems on what file systems there are besides today's defaults."""
    return [
        Image("ext4-old-features", "Amazon Linux on ext4 without checksums and 64 bit, on a disk without a table.", "ext4", "none", 8 * GIB,
              lambda db: Ext(t.rpm_based("amazon1", t.AMAZON_2, db, "amazon-bdb"), options=("-O", "^metadata_csum,^64bit")), LINUX_ONLY,
              evidence=[t.OS_RELEASE]),
        Image("ext3-without-extents", "Debian on ext3: files by indirect blocks.", "ext4", "mbr", 512 * MIB,
              lambda db: one(Ext(t.dpkg_based("ext3", t.DEBIAN_12, 120), type="ext3")), LINUX_ONLY, evidence=[t.OS_RELEASE], root=1),
        Image("ext4-small-blocks", "Debian on ext4 with blocks of 1 KiB, so that folders take several levels.", "ext4", "mbr", 128 * MIB,
              lambda db: one(Ext(t.dpkg_based("small", t.DEBIAN_12, 120), options=("-b", "1024")), 128 * MIB), LINUX_ONLY, evidence=[t.OS_RELEASE], root=1),
        Image("ext4-inline-data", "Debian on ext4 with small files and folders inside their inodes.", "ext4", "mbr", 512 * MIB,
              lambda db: one(Ext(t.dpkg_based("inline", t.DEBIAN_12, 120), options=("-O", "inline_data"))), [], "unsupported features", root=1),
        Image("xfs-v4-no-ftype", "CentOS 7 on XFS as its first releases made it: no checksums, no file types in folders.", "xfs", "mbr", 8 * GIB,
              lambda db: one(Xfs(t.rpm_based("centos7", t.CENTOS_7, db, "centos-bdb", 120), options=("-m", "crc=0", "-n", "ftype=0")), 8 * GIB),
              LINUX_ONLY, evidence=[t.OS_RELEASE], root=1),
        Image("xfs-before-bigtime", "RHEL 8 with RHUI on XFS without bigtime, inode B-tree counters and reflink.", "xfs", "mbr", 8 * GIB,
              lambda db: one(Xfs(rhel(db, 8, t.rhui(8), 120), options=("-m", "bigtime=0,inobtcount=0,reflink=0")), 8 * GIB), RED_HAT,
              evidence=[t.OS_RELEASE], root=1),
        Image("xfs-wide-folders", "RHEL 9 with RHUI on XFS with blocks of folders of 16 KiB and blocks of 1 KiB, and a folder of 1,000 files beside RHUI's.", "xfs", "none", 512 * MIB,
              lambda db: Xfs(rhel(db, 9, t.rhui_certificate(9) | {f"etc/pki/rhui/product/old-{n:04}-{n * 7919 % 1000}.crt": b"" for n in range(1000)}, 60),
                             options=("-b", "size=1024", "-n", "size=16384")), RED_HAT, evidence=[t.OS_RELEASE]),
        Image("btrfs-plain", "Debian on plain btrfs, metadata twice as is the default.", "btrfs", "none", 512 * MIB,
              lambda db: Btrfs(t.dpkg_based("btrfs", t.DEBIAN_12, 40, 60)), LINUX_ONLY, evidence=[t.OS_RELEASE]),
        Image("btrfs-at", "Ubuntu on btrfs, its root in the subvolume `@`, which is not the default one.", "btrfs", "gpt", 8 * GIB,
              lambda db: ubuntu_22(Btrfs(t.ubuntu("ubuntu22", t.UBUNTU_22, 60), subvolumes=("@", "@home"), default="@", set_default=False,
                                         mounts={"home": "@home"}, options=("-m", "single"))), LINUX_ONLY, evidence=[t.OS_RELEASE], root=1),
        Image("btrfs-zstd", "Rocky Linux on btrfs, all of it compressed with zstd.", "btrfs", "gpt", 512 * MIB,
              lambda db: one_gpt(Btrfs(t.rpm_based("rocky9", t.ROCKY_9, db, "el9-sqlite", 60), compress="zstd:9", options=("-m", "single"))), LINUX_ONLY,
              evidence=[t.OS_RELEASE], root=1),
    ]  # fmt: skip


def the_tables():
    """Partition tables besides the usual ones."""
    return [
        Image("mbr-logical", "Debian in a logical partition, behind /boot: number 5 of an MBR.", "ext4", "mbr", GIB,
              lambda db: [Part(1, 2048, 200 * 2048, "83", Ext(boot_tree())), Part(2, 413696, GIB // SECTOR - 413696, "5"),
                          Part(5, 415744, GIB // SECTOR - 415744, "83", Ext(t.dpkg_based("logical", t.DEBIAN_12, 60)))], LINUX_ONLY,
              evidence=[t.OS_RELEASE], root=5),
        Image("mbr-root-last", "CentOS 7 on an MBR: /boot, swap, /home, and the root last.", "xfs", "mbr", 2 * GIB,
              lambda db: [Part(1, 2048, 200 * 2048, "83", Ext(boot_tree())), Part(2, 411648, 64 * 2048, "82", Bytes(content=damage.swap, blkid="swap")),
                          Part(3, 542720, 100 * 2048, "83", Ext({"user/.bashrc": b"# .bashrc\n", "user/etc/os-release": b"ID=debian\n"})),
                          Part(4, 747520, 2 * GIB // SECTOR - 747520, "83", Xfs(t.rpm_based("last", t.CENTOS_7, db, "centos-bdb", 60)))], LINUX_ONLY,
              evidence=[t.OS_RELEASE], root=4),
        Image("gpt-grown", "Amazon Linux 2 on a volume that was made larger: the second table is not at the disk's end.", "xfs", "gpt", 8 * GIB,
              lambda db: amazon_2(Xfs(t.rpm_based("amazon2", t.AMAZON_2, db, "amazon-bdb", 60))), LINUX_ONLY, evidence=[t.OS_RELEASE], root=1,
              after=damage.grow(30 * GIB)),
        Image("gpt-no-second", "Debian on a GPT without its second table.", "ext4", "gpt", 512 * MIB,
              lambda db: one_gpt(Ext(t.dpkg_based("second", t.DEBIAN_12, 60))), LINUX_ONLY, evidence=[t.OS_RELEASE], root=1,
              after=damage.erase_backup_table),
        Image("gpt-first-damaged", "Debian on a GPT whose first header is damaged; the second one is whole.", "ext4", "gpt", 512 * MIB,
              lambda db: one_gpt(Ext(t.dpkg_based("first", t.DEBIAN_12, 60))), LINUX_ONLY, evidence=[t.OS_RELEASE], root=1,
              after=damage.overwrite(SECTOR + 40, damage.noise(40))),
    ]  # fmt: skip


def the_journals():
    """Disks whose power went: snapshots of running instances. What was committed counts, wherever it is."""
    release = {t.USR_OS_RELEASE: t.DEBIAN_12.encode(), t.OS_RELEASE: t.Link("../usr/lib/os-release")}

    def without_release(tree):
        return {path: content for path, content in tree.items() if path not in release}

    converted = {
        t.USR_OS_RELEASE: t.RHEL_7.encode(),
        "etc/redhat-release": b"Red Hat Enterprise Linux Server release 7.9 (Maipo)\n",
    }
    return [
        Image("ext4-journal-has-it", "Debian whose os-release was committed to the journal of ext4, and is nowhere else yet.", "ext4", "gpt", 8 * GIB,
              lambda db: debian(Ext(without_release(t.dpkg_based("journal", t.DEBIAN_12, 60)), crash=Crash(release))), LINUX_ONLY,
              evidence=[t.OS_RELEASE], root=1),
        Image("ext4-crash", "Ubuntu that crashed while it wrote logs: the journal of ext4 is to be replayed.", "ext4", "gpt", 8 * GIB,
              lambda db: ubuntu_22(Ext(t.ubuntu("crash", t.UBUNTU_22, 60), crash=Crash({"var/lib/cloud/data/status.json": b"{}\n"}, churn=120))), LINUX_ONLY,
              evidence=[t.OS_RELEASE], root=1),
        Image("xfs-log-converts", "CentOS 7 that was just converted to RHEL: the new os-release is in the log of XFS, the old one still in its place.", "xfs", "mbr", 8 * GIB,
              lambda db: one(Xfs(t.rpm_based("convert", t.CENTOS_7, db, "centos-bdb", 60), crash=Crash(converted)), 8 * GIB), RED_HAT_OPEN,
              evidence=[t.OS_RELEASE], root=1),
        Image("xfs-log-has-rhui", "RHEL 9 whose RHUI certificate is only in the log of XFS yet.", "xfs", "gpt", 10 * GIB,
              lambda db: red_hat_8(Xfs(rhel(db, 9, count=60), crash=Crash(t.rhui_certificate(9)))), RED_HAT,
              evidence=[t.OS_RELEASE, "etc/pki/rhui/product/content-rhel9.crt"], root=2),
        Image("xfs-crash", "Amazon Linux 2023 that crashed while it wrote logs: the log of XFS is to be replayed.", "xfs", "gpt", 8 * GIB,
              lambda db: amazon_2023(Xfs(t.rpm_based("crash", t.AMAZON_2023, db, "amazon-sqlite", 60), crash=Crash({"var/lib/cloud/data/status.json": b"{}\n"}, churn=120))),
              LINUX_ONLY, evidence=[t.OS_RELEASE], root=1),
        Image("btrfs-crash", "openSUSE Leap that crashed while it wrote logs: its btrfs has a log tree.", "btrfs", "mbr", 8 * GIB,
              lambda db: one(Btrfs(t.rpm_based("leap15", t.LEAP_15, db, "sles-ndb", 60), options=("-m", "single"),
                                   crash=Crash({"var/lib/cloud/data/status.json": b"{}\n"}, churn=60)), 8 * GIB), LINUX_ONLY, evidence=[t.OS_RELEASE], root=1),
    ]  # fmt: skip


def the_links():
    """os-release as a link, in all the ways in which it can be one."""

    def linked(target, **more):
        return t.dpkg_based("links", t.DEBIAN_12, 40, 60) | {t.OS_RELEASE: t.Link(target)} | more

    long = "../usr/lib" + "/../lib" * 20 + "/os-release"
    return [
        Image("link-absolute", "Debian whose os-release is a link that begins at the root.", "ext4", "mbr", 512 * MIB,
              lambda db: one(Ext(linked("/usr/lib/os-release"))), LINUX_ONLY, evidence=[t.OS_RELEASE], root=1),
        Image("link-escapes", "Debian whose os-release is a link with more `..` than there are folders: the root is the end.", "xfs", "mbr", 512 * MIB,
              lambda db: one(Xfs(linked("../" * 30 + "usr/lib/os-release"))), LINUX_ONLY, evidence=[t.OS_RELEASE], root=1),
        Image("link-long", "Debian whose os-release is a link too long for an inode.", "ext4", "mbr", 512 * MIB,
              lambda db: one(Ext(linked(long))), LINUX_ONLY, evidence=[t.OS_RELEASE], root=1),
        Image("link-over-links", "Debian whose os-release is a link over other links, of files and of folders.", "btrfs", "mbr", 512 * MIB,
              lambda db: one(Btrfs(linked("../lib/release", **{"usr/lib/release": t.Link("../../etc/alternatives/os-release"),
                                                               "etc/alternatives/os-release": t.Link("/lib/os-release")}), options=("-m", "single"))),
              LINUX_ONLY, evidence=[t.OS_RELEASE], root=1),
        Image("link-dangles", "Debian whose os-release in /etc is a link to nothing; the one in /usr/lib is there.", "ext4", "mbr", 512 * MIB,
              lambda db: one(Ext(linked("/run/os-release"))), LINUX_ONLY, evidence=[t.USR_OS_RELEASE], root=1),
        Image("link-loop", "A system whose os-release are links to each other.", "ext4", "mbr", 512 * MIB,
              lambda db: one(Ext(linked("../usr/lib/os-release") | {t.USR_OS_RELEASE: t.Link("../../etc/os-release")})), [], "does not say which", root=1),
    ]  # fmt: skip


def the_windows():
    """Windows, by its registry, on NTFS in the places where it is."""
    standard = [("MSSQLSERVER", "MSSQL16.MSSQLSERVER", "Standard Edition")]
    size = 256 * MIB

    def small(tree, kind="Server", instances=(), **more):
        return lambda db: one(Ntfs(tree(), registry=registry(kind, instances) if kind else {}, **more), size, "7")

    def sql(*instances):
        return small(
            lambda: t.windows(server(instances=instances), sql=[identity for _, identity, _ in instances]),
            instances=instances,
        )

    return [
        Image("windows2022", "Windows Server 2022 on UEFI: EFI, reserved, Windows, recovery.", "ntfs", "gpt", 30 * GIB,
              lambda db: windows_gpt(Ntfs(t.windows(server(), system32=200), registry=registry()), 30 * GIB), WINDOWS, evidence=[HIVE], root=3),
        Image("windows2019", "Windows Server 2019 on BIOS, behind a partition \"System Reserved\".", "ntfs", "mbr", 512 * MIB,
              lambda db: windows_mbr(Ntfs(t.windows(server("Windows Server 2019 Datacenter", "17763")), whole=True, registry=registry()), 512 * MIB), WINDOWS, evidence=[HIVE], root=2),
        Image("windows2016-core", "Windows Server 2016 without a desktop, its hive with lists of the older kind.", "ntfs", "mbr", size,
              small(lambda: t.windows(hive.write(hive.software("Server Core", "Windows Server 2016 Datacenter", "14393", "ServerDatacenter"), minor=3, lists=b"lf")), "Server Core"),
              WINDOWS, evidence=[HIVE], root=1),
        Image("windows10-client", "A Windows 10 for desktops.", "ntfs", "mbr", size,
              small(lambda: t.windows(hive.write(hive.software("Client", "Windows 10 Enterprise", "19045", "Enterprise"))), "Client"), ["WindowsByol"],
              evidence=[HIVE], root=1),
        Image("windows-hive-is-noise", "A Windows whose SOFTWARE hive is noise.", "ntfs", "mbr", size,
              small(lambda: t.windows(damage.noise(9000)), None), WINDOWS_SQL, root=1),
        Image("windows-hive-is-empty", "A Windows whose SOFTWARE hive has no bytes.", "ntfs", "mbr", size, small(lambda: t.windows(b""), None), WINDOWS_SQL, root=1),
        Image("windows-hive-is-cut", "A Windows whose SOFTWARE hive ends in the middle.", "ntfs", "mbr", size,
              small(lambda: t.windows(server()[:50000]), None), WINDOWS_SQL, root=1),
        Image("windows-hive-is-dirty", "A Windows Server 2022 whose SOFTWARE hive was not closed: as in a snapshot of a running instance.", "ntfs", "mbr", size,
              small(lambda: t.windows(server_dirty())), WINDOWS, evidence=[HIVE], root=1),
        Image("windows-hive-in-pieces", "A Windows Server 2022 whose SOFTWARE hive is in so many pieces that one file record can not list them.", "ntfs", "mbr", size,
              small(lambda: t.windows(server(siblings=[f"Key{n:04}" for n in range(9000)] + hive.BELOW_MICROSOFT)), fragment=HIVE), WINDOWS,
              evidence=[HIVE], root=1),
        Image("windows-upper-case", "A Windows Server 2022 with names in other cases: WINDOWS/system32/CONFIG/software.", "ntfs", "mbr", size,
              small(lambda: {upper_case(path): content for path, content in t.windows(server()).items()}), WINDOWS, root=1),
        Image("windows-many-files", "A Windows Server 2022 with 3,050 files in System32, so that its index has several levels.", "ntfs", "mbr", size,
              small(lambda: t.windows(server(), system32=3050)), WINDOWS, evidence=[HIVE], root=1),
        Image("windows2022-sql-standard", "Windows Server 2022 with SQL Server 2022 Standard.", "ntfs", "gpt", 512 * MIB,
              lambda db: windows_gpt(Ntfs(t.windows(server(instances=standard), sql=["MSSQL16.MSSQLSERVER"]), registry=registry(instances=standard)), 512 * MIB),
              ["Windows", "Windows with SQL Server Standard", "WindowsByol"], evidence=[HIVE], root=3),
        Image("windows2022-sql-enterprise-named", "Windows Server 2022 with SQL Server 2019 Enterprise (core-based), in an instance with a name.", "ntfs", "mbr", size,
              sql(("SALES", "MSSQL15.SALES", "Enterprise Edition: Core-based Licensing")), ["Windows", "Windows with SQL Server Enterprise", "WindowsByol"],
              evidence=[HIVE], root=1),
        Image("windows2022-sql-web-and-express", "Windows Server 2022 with SQL Server Web, and Express beside it.", "ntfs", "mbr", size,
              sql(("SQLEXPRESS", "MSSQL16.SQLEXPRESS", "Express Edition"), ("MSSQLSERVER", "MSSQL16.MSSQLSERVER", "Web Edition")),
              ["Windows", "Windows with SQL Server Web", "WindowsByol"], evidence=[HIVE], root=1),
        Image("windows2022-sql-express", "Windows Server 2022 with SQL Server Express, which nobody pays for.", "ntfs", "mbr", size,
              sql(("SQLEXPRESS", "MSSQL16.SQLEXPRESS", "Express Edition")), WINDOWS, evidence=[HIVE], root=1),
        Image("windows2022-sql-developer", "Windows Server 2022 with SQL Server Developer, which nobody pays for.", "ntfs", "mbr", size,
              sql(("MSSQLSERVER", "MSSQL16.MSSQLSERVER", "Developer Edition")), WINDOWS, evidence=[HIVE], root=1),
        Image("windows2022-sql-no-edition", "Windows Server 2022 with SQL Server; the registry does not tell the edition.", "ntfs", "mbr", size,
              sql(("MSSQLSERVER", "MSSQL16.MSSQLSERVER", None)), WINDOWS_SQL, evidence=[HIVE], root=1),
        Image("windows-hive-is-noise-sql", "A Windows with SQL Server whose SOFTWARE hive is noise.", "ntfs", "mbr", size,
              small(lambda: t.windows(damage.noise(9000), sql=["MSSQL16.MSSQLSERVER"]), None), WINDOWS_SQL, root=1),
    ]  # fmt: skip


def registry(kind="Server", instances=()):
    """What hivexget must find in such a hive."""
    editions = {
        (f"Microsoft\\Microsoft SQL Server\\{identity}\\Setup", "Edition"): sold_as
        for _, identity, sold_as in instances
        if sold_as
    }
    return {("Microsoft\\Windows NT\\CurrentVersion", "InstallationType"): kind} | editions


def server_dirty():
    return hive.write(
        hive.software("Server", "Windows Server 2022 Datacenter", "20348", "ServerDatacenter"), dirty=True
    )


def upper_case(path):
    """The path with its well-known folders in other cases."""
    for one, other in (
        ("Windows/System32", "WINDOWS/system32"),
        ("/config/", "/CONFIG/"),
        ("/SOFTWARE", "/software"),
        ("Windows/", "WINDOWS/"),
    ):
        path = path.replace(one, other)
    return path


def the_undetermined():
    """Disks of which the product must say that it does not know, and why."""

    def other(release):
        return lambda db: one(Ext(t.base("other", "", 40) | {t.USR_OS_RELEASE: release}))

    lie = (
        t.base("lie", t.DEBIAN_12, 60) | t.rhui_certificate(9) | t.repository("redhat-rhui", "rhel-9-baseos-rhui-rpms")
    )
    return [
        Image("lvm", "Rocky Linux on a logical volume.", "lvm", "gpt", 10 * GIB,
              lambda db: rocky(damage.LogicalVolume(Xfs(t.rpm_based("rocky9", t.ROCKY_9, db, "el9-sqlite", 40)))), [], "LVM", root=5),
        Image("luks", "A disk whose root is encrypted with LUKS.", "luks", "gpt", 8 * GIB,
              lambda db: debian(Bytes(content=damage.luks, blkid="crypto_LUKS")), [], "LUKS", root=1),
        Image("raid-member", "A disk whose root is one half of an md mirror.", "md", "mbr", 8 * GIB,
              lambda db: one(Bytes(content=damage.raid_member, blkid="linux_raid_member"), 8 * GIB, "fd"), [], "md array", root=1,
              look=damage.mdadm_knows(MIB)),
        Image("all-zeros", "A disk that nobody ever wrote to.", "none", "none", 8 * GIB, lambda db: Bytes(content=lambda shop, size: b""), [], ""),
        Image("gpt-no-file-system", "A GPT with one partition, and nothing on it.", "none", "gpt", 8 * GIB,
              lambda db: one_gpt(Bytes(content=lambda shop, size: b""), 8 * GIB), [], "file system"),
        Image("noise", "Noise from the first byte on.", "none", "none", 8 * GIB, lambda db: Bytes(content=lambda shop, size: damage.noise(16384)), [], "something unknown"),
        Image("ext4-superblock-damaged", "Debian whose ext4 superblock has noise in it, its magic number apart.", "ext4", "mbr", 512 * MIB,
              lambda db: one(Ext(t.dpkg_based("damaged", t.DEBIAN_12, 40, 60))), [], "ext4", root=1,
              after=damage.overwrite(MIB + 1024, damage.noise(56)), look=damage.e2fsck_complains(MIB)),
        Image("xfs-superblock-damaged", "CentOS whose XFS superblock has noise in it, its magic number apart.", "xfs", "mbr", 512 * MIB,
              lambda db: one(Xfs(t.rpm_based("damaged", t.CENTOS_STREAM_9, db, "el9-sqlite", 40))), [], "XFS", root=1,
              after=damage.overwrite(MIB + 4, damage.noise(100)), look=damage.blkid_says("", MIB)),
        Image("truncated", "Rocky Linux on a disk that ends in the middle of its root.", "xfs", "gpt", 10 * GIB,
              lambda db: rocky(Xfs(t.rpm_based("rocky9", t.ROCKY_9, db, "el9-sqlite", 60))), [], "", root=5,
              after=damage.cut(2275328 * SECTOR + 64 * 1024), look=damage.blkid_says("xfs", 2275328 * SECTOR)),
        Image("fat-only", "An EFI partition and nothing else.", "vfat", "gpt", 512 * MIB,
              lambda db: [Part(1, 2048, 200 * 2048, EFI_SYSTEM, efi("debian"))], [], "", root=1),
        Image("squashfs", "A live system: its root is squashfs, which is not read.", "squashfs", "mbr", 64 * MIB,
              lambda db: one(Bytes(content=damage.squashfs, blkid="squashfs"), 64 * MIB), [], "", root=1),
        Image("iso", "An ISO image for a CD.", "iso9660", "none", 64 * MIB, lambda db: Bytes(content=damage.iso, blkid="iso9660"), [], ""),
        Image("swap-only", "A disk for swap.", "swap", "none", 8 * GIB, lambda db: Bytes(content=damage.swap, blkid="swap"), [], ""),
        Image("two-linuxes", "Debian on one partition, CentOS on another: which one starts does not show.", "ext4", "mbr", 2 * GIB,
              lambda db: [Part(1, 2048, 500 * 2048, "83", Ext(t.dpkg_based("one", t.DEBIAN_12, 40, 60))),
                          Part(2, 1026048, 500 * 2048, "83", Xfs(t.rpm_based("two", t.CENTOS_7, db, "centos-bdb", 40)))], [], "more than one", root=1),
        Image("linux-and-windows", "Ubuntu on one partition, Windows on another.", "ext4", "mbr", 2 * GIB,
              lambda db: [Part(1, 2048, 256 * 2048, "7", Ntfs(t.windows(server()))),
                          Part(2, 526336, 500 * 2048, "83", Ext(t.ubuntu("two", t.UBUNTU_22, 40)))], [], "more than one", root=2),
        Image("unknown-id-of-red-hat", "A system whose ID is unknown, and whose name is Red Hat's.", "ext4", "mbr", 512 * MIB,
              other(t.RHEL_9.replace('ID="rhel"', 'ID="example"', 1).encode()), [], "which this version does not know", root=1),
        Image("unknown-id-of-suse", "A system whose ID is unknown, and whose CPE name is SUSE's.", "ext4", "mbr", 512 * MIB,
              other(b'NAME="Example"\nID=example\nCPE_NAME="cpe:/o:suse:sles:15:sp6"\n'), [], "which this version does not know", root=1),
        Image("id-is-none", "An os-release whose ID has a space in it.", "ext4", "mbr", 512 * MIB, other(b'NAME="Example"\nID="two words"\n'), [], "cannot be one", root=1),
        Image("ostree-two-systems", "Two OSTree deployments that hold different systems: CentOS Stream, and RHEL with RHUI.", "xfs", "gpt", 10 * GIB,
              lambda db: core_os(Xfs(t.ostree("default", t.rpm_based("stream9", t.CENTOS_STREAM_9, db, "el9-sqlite", 40))
                                     | t.ostree("default", rhel(db, 9, t.rhui(9), count=40), serial=1))), [], "different systems", root=4),
        Image("ostree-beside-a-root", "RHEL that was turned into image mode in place, its old root still there.", "xfs", "gpt", 10 * GIB,
              lambda db: core_os(Xfs(rhel(db, 9, t.rhui(9), count=40) | t.ostree("default", t.rpm_based("stream9", t.CENTOS_STREAM_9, db, "el9-sqlite", 40)))),
              [], "beside", root=4),
        Image("os-release-without-id", "An os-release that tells no ID.", "ext4", "mbr", 512 * MIB, other(b'NAME="Linux"\n'), [], "ID", root=1),
        Image("os-release-is-noise", "An os-release that is noise.", "ext4", "mbr", 512 * MIB, other(damage.noise(3000)), [], "", root=1),
        Image("os-release-is-a-folder", "An os-release that is a folder.", "ext4", "mbr", 512 * MIB, other(None), [], "does not say which", root=1),
        Image("os-release-of-10-mb", "Debian with an os-release of 10 MB.", "ext4", "mbr", 512 * MIB,
              other(b"# filler\n" * 1_100_000 + t.DEBIAN_12.encode()), [], "", root=1),
        Image("no-os-release", "A Linux tree of which nothing tells whose it is.", "ext4", "mbr", 512 * MIB,
              lambda db: one(Ext({path: content for path, content in t.base("none", "", 60).items() if not path.endswith("os-release")})), [], "does not say which", root=1),
        Image("it-lies", "RHEL 9 with RHUI and an RPM database, and no dpkg, whose os-release says Debian.", "xfs", "gpt", 10 * GIB,
              lambda db: red_hat_9(Xfs(lie | db["rhel-sqlite"])), [], "contradict", root=4),
    ]  # fmt: skip


def the_deceptive():
    """Disks with another system beside the real one, which is hidden: by an accident, or by somebody. What the decoy is, must not be said."""
    decoy = Ext(t.dpkg_based("decoy", t.DEBIAN_12, 40, 60))
    red_hat = t.base("hidden", t.RHEL_9, 60) | t.rhui(9)

    def beside(hidden, kind="83"):
        return lambda db: [Part(1, 2048, 256 * 2048, kind, hidden), Part(2, 526336, 256 * 2048, "83", decoy)]

    def without_release(tree):
        return {path: content for path, content in tree.items() if not path.endswith("os-release")}

    size = GIB
    removed = {path: content for path, content in (t.ubuntu("removed", t.UBUNTU_22, 60) | t.PRO_AUTO_ATTACH).items()
               if path != "var/lib/dpkg/info/ubuntu-pro-auto-attach.md5sums"}  # fmt: skip
    elsewhere = b"[server]\nmetadataAccess = /usr/bin/azuremetadata\n"
    return [
        Image("hidden-nameless", "RHEL whose os-release is gone, beside Debian.", "ext4", "mbr", size,
              beside(Ext(without_release(red_hat) | {"etc/fstab": b"", "etc/passwd": b"root:x:0:0::/root:/bin/sh\n"})), [], "does not say which", root=1),
        Image("hidden-usr-apart", "RHEL whose /usr is a partition of its own, so that os-release leads nowhere, beside Debian.", "ext4", "mbr", 2 * GIB,
              lambda db: [Part(1, 2048, 256 * 2048, "83", Ext({"etc/os-release": t.Link("../usr/lib/os-release"), "etc/fstab": b"", "usr": None})),
                          Part(2, 526336, 256 * 2048, "83", decoy),
                          Part(3, 1050624, 256 * 2048, "83", Ext({"lib/os-release": t.RHEL_9.encode(), "bin/bash": b"bash"}))],
              [], "does not say which", root=1),
        Image("hidden-by-fat", "RHEL on an ext4 whose boot sector says FAT32, beside Debian.", "ext4", "mbr", size, beside(Ext(red_hat)), [],
              "more than one", root=1, after=damage.overwrite(MIB + 0x52, b"FAT32   ")),
        Image("hidden-by-swap", "Windows on an NTFS whose boot code says swap, beside Debian.", "ntfs", "mbr", size, beside(Ntfs(t.windows(server())), "7"), [],
              "more than one", root=1, after=damage.overwrite(MIB + 0xff6, b"SWAPSPACE2")),
        Image("hidden-in-noise", "Something encrypted that does not say so, beside Debian.", "ext4", "mbr", size,
              beside(Bytes(content=lambda shop, size: damage.noise(65536))), [], "something unknown", root=2),
        Image("hidden-in-the-table", "RHEL and Debian, with RHEL's entry gone from the first table alone: the second counts.", "ext4", "gpt", size,
              lambda db: [Part(1, 2048, 200 * 2048, LINUX, Ext(red_hat)), Part(2, 411648, 200 * 2048, LINUX, decoy)], [], "more than one", root=1,
              after=damage.overwrite(1024, bytes(128)), look=damage.blkid_says("ext4", MIB)),
        Image("hidden-by-its-type", "RHEL on a partition that is said to be GRUB's, beside Debian.", "ext4", "gpt", size,
              lambda db: [Part(1, 2048, 200 * 2048, BIOS_BOOT, Ext(red_hat)), Part(2, 411648, 200 * 2048, LINUX, decoy)], [], "more than one", root=1),
        Image("windows-with-os-release", "A Windows with a folder etc that says Debian.", "ntfs", "mbr", size,
              lambda db: one(Ntfs(t.windows(server()) | {"etc/os-release": t.DEBIAN_12.encode(), "var/lib/dpkg/status": b"Package: dpkg\n"})),
              WINDOWS, evidence=[HIVE], root=1),
        Image("os-releases-differ", "RHEL of which /etc/os-release says CentOS, for an installer's sake.", "ext4", "mbr", size,
              lambda db: one(Ext(t.base("differ", t.RHEL_9, 60) | db["rhel-sqlite"] | {"etc/os-release": t.CENTOS_STREAM_9.encode()})), [], "contradict", root=1),
        Image("ubuntu-pro-removed", "Ubuntu whose package of Ubuntu Pro was removed, its list of files left.", "ext4", "mbr", size,
              lambda db: one(Ext(removed)), ["Linux", "UbuntuPro"], evidence=[t.OS_RELEASE], root=1),
        Image("sles-of-another-cloud", "SLES 15 pay-as-you-go of another cloud, imported.", "xfs", "mbr", size,
              lambda db: one(Xfs(t.suse("azure", t.SLES_15, db, "15.6", 60) | t.GUESTREGISTER | {"etc/regionserverclnt.cfg": elsewhere})),
              SUSE_OPEN, evidence=[t.OS_RELEASE], root=1),
        Image("opt-apart", "RHEL with RHUI whose /opt is a partition of its own, with SQL Server.", "xfs", "mbr", 2 * GIB,
              lambda db: [Part(1, 2048, 512 * 2048, "83", Xfs(red_hat | db["rhel-sqlite"])),
                          Part(2, 1050624, 256 * 2048, "83", Ext({path.removeprefix("opt/"): content for path, content in t.MSSQL.items() if path.startswith("opt/")}))],
              RED_HAT_SQL, evidence=["opt/mssql/bin/sqlservr"], root=1),
    ]  # fmt: skip


def the_whole_distributions():
    """Debian itself, all of its packages' files, on each of the file systems; and a hive that Windows wrote."""
    made = []
    for code, number in (("bookworm", 12), ("trixie", 13)):
        for kind, more in (
            ("ext4", {}),
            ("xfs", {}),
            ("btrfs", {} if number == 12 else {"subvolume": "@rootfs", "mount": "compress=zstd:3"}),
        ):
            where = f", in the subvolume {more['subvolume']}, compressed with zstd" if more else ""
            made.append(
                Image(f"debian{number}-whole-{kind}", f"Debian {number} as debootstrap installs it, on {kind}{where}.", kind, "gpt", 8 * GIB,
                      lambda db, kind=kind, code=code, more=more: debian(Whole(kind=kind, source=lambda shop: debootstrap(shop, code), **more)), LINUX_ONLY,
                      evidence=[t.OS_RELEASE], root=1, packed=False))  # fmt: skip
    return made


def debootstrap(shop, code):
    """The folder with this release of Debian; it is kept beside the images."""
    folder = shop.out / "cache" / code
    if not (folder / "etc/os-release").exists() or not (folder / "var/lib/dpkg/status").exists():
        shutil.rmtree(folder, ignore_errors=True)
        archives = shop.out / "cache" / "archives"
        archives.mkdir(parents=True, exist_ok=True)
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        shop.run(
            "debootstrap",
            "--variant=minbase",
            f"--cache-dir={archives.resolve()}",
            code,
            unfinished,
            real_time=True,
        )
        unfinished.rename(folder)
    return folder


# --- the program -----------------------------------------------------------------------------------------------------


def missing_packages(shop):
    paths = shop.environment["PATH"]
    return sorted({package for tool, package in PACKAGES.items() if not shutil.which(tool, path=paths)})


def images():
    """All of them, in the order in which they are made."""
    return [
        *the_distributions(),
        *the_file_systems(),
        *the_tables(),
        *the_journals(),
        *the_links(),
        *the_windows(),
        *the_undetermined(),
        *the_deceptive(),
        *the_whole_distributions(),
    ]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__ + "    " + " ".join(sorted(set(PACKAGES.values()))),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--pack", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", nargs="+", default=[])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    every = images()
    if unknown := set(arguments.only) - {image.name for image in every}:
        parser.error(f"no such image: {', '.join(sorted(unknown))}")
    chosen = [
        image
        for image in every
        if (not arguments.only or image.name in arguments.only) and (image.packed or not arguments.small)
    ]
    with tempfile.TemporaryDirectory(prefix="corpus-") as temporary:
        shop = Shop(arguments.out, temporary)
        shop.databases = rpmdb.Databases(shop.run)
        if missing := missing_packages(shop):
            sys.exit(f"missing: apt-get install --no-install-recommends {' '.join(missing)}")
        failed = [image.name for image in chosen if not work(shop, image, arguments)]
    write_labels(
        arguments.out / "labels.json", [image for image in every if (arguments.out / f"{image.name}.img").exists()]
    )
    if arguments.pack:
        write_labels(HERE / "labels.json", every)
    if failed:
        sys.exit(f"not as they should be: {', '.join(failed)}")


def work(shop, image, arguments):
    """Makes one image, or checks it; false if something is wrong with it."""
    disk, started = shop.out / f"{image.name}.img", time.monotonic()
    print(f"{image.name:34}", end=" ", flush=True)
    try:
        if arguments.check:
            wrong = image.check(shop) if disk.exists() else ["it is not there: make it first"]
            print("; ".join(wrong) or "as it should be")
            return not wrong
        if os.geteuid() != 0 and any(part.volume and part.volume.needs_root for part in image.layout(shop.databases)):
            print(
                "left out: it takes a mount, and so root" + (" (the packed one stays as it is)" if image.packed else "")
            )
            return True
        image.make(shop)
        told = (
            f"{time.monotonic() - started:.1f} s, {disk.stat().st_blocks // 2} KiB of {disk.stat().st_size >> 20} MiB"
        )
        if arguments.pack and image.packed:
            packed = HERE / "images" / f"{image.name}.gz"
            packed.parent.mkdir(exist_ok=True)
            pack.pack(disk, packed)
            told += f", packed {packed.stat().st_size // 1024} KiB"
        print(told)
        return True
    except Failed as failure:
        print(f"failed: {failure}")
        return False
    finally:
        for left in shop.temporary.iterdir():
            if left.is_dir() and not os.path.ismount(left):
                shutil.rmtree(left, ignore_errors=True)


def write_labels(path, chosen):
    lines = ",\n".join("  " + json.dumps(image.label(), ensure_ascii=False) for image in chosen)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
