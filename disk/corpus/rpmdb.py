"""Real RPM databases with a few packages, in the three formats that the distributions use, made with Debian's rpm.

| format | file | who |
| --- | --- | --- |
| bdb | var/lib/rpm/Packages | RHEL up to 8, CentOS 7, Amazon Linux 2, SLES 12 |
| sqlite | var/lib/rpm/rpmdb.sqlite; usr/lib/sysimage/rpm since RHEL 10 and Fedora 36 | RHEL 9 and later, Amazon Linux 2023 |
| ndb | usr/lib/sysimage/rpm/Packages.db | SLES since 15, openSUSE |
"""

import sqlite3
import struct
import tempfile
import zlib
from pathlib import Path

from trees import Link

NAMES = (
    "filesystem",
    "setup",
    "glibc",
    "bash",
    "systemd",
    "kernel-core",
    "openssl-libs",
    "rpm",
    "cloud-init",
    "coreutils",
)

# name: (release package, vendor, version, release, format, folder)
DATABASES = {
    "rhel-bdb": ("redhat-release", "Red Hat, Inc.", "8.10", "0.3.el8", "bdb", "var/lib/rpm"),
    "rhel-sqlite": ("redhat-release", "Red Hat, Inc.", "9.4", "0.5.el9", "sqlite", "var/lib/rpm"),
    "rhel10-sqlite": ("redhat-release", "Red Hat, Inc.", "10.0", "29.el10", "sqlite", "usr/lib/sysimage/rpm"),
    "centos-bdb": ("centos-release", "CentOS", "7", "9.2009.1.el7.centos", "bdb", "var/lib/rpm"),
    "el9-sqlite": ("system-release", "Enterprise Linux", "9.4", "1.el9", "sqlite", "var/lib/rpm"),
    "fedora-sqlite": ("fedora-release-cloud", "Fedora Project", "41", "27", "sqlite", "usr/lib/sysimage/rpm"),
    "amazon-bdb": ("system-release", "Amazon Linux", "2", "16.amzn2", "bdb", "var/lib/rpm"),
    "amazon-sqlite": ("system-release", "Amazon Linux", "2023.8.20250808", "0.amzn2023", "sqlite", "var/lib/rpm"),
    "sles-bdb": ("sles-release", "SUSE LLC <https://www.suse.com/>", "12.5", "1.171", "bdb", "var/lib/rpm"),
    "sles-ndb": (
        "sles-release",
        "SUSE LLC <https://www.suse.com/>",
        "15.6",
        "150600.64.1",
        "ndb",
        "usr/lib/sysimage/rpm",
    ),
}

SPEC = """Name: {name}
Version: {version}
Release: {release}
Summary: {name}
License: GPL-2.0-or-later
Vendor: {vendor}
BuildArch: noarch
%description
{name}
%files
"""


class Databases(dict):
    """The databases by name, as {path: bytes}; each is made when it is asked for first."""

    def __init__(self, run):
        super().__init__()
        self.run = run

    def __missing__(self, name):
        release, vendor, version, package_release, kind, folder = DATABASES[name]
        with tempfile.TemporaryDirectory() as temporary:
            there = Path(temporary)
            for package in (release, *NAMES):
                spec = SPEC.format(name=package, version=version, release=package_release, vendor=vendor)
                (there / f"{package}.spec").write_text(spec)
            self.run("rpmbuild", "-bb", "--quiet", "--define", f"_topdir {there}", "--define", "_buildhost localhost",
                     *sorted(map(str, there.glob("*.spec"))))  # fmt: skip
            database = there / "root" / folder
            database.mkdir(parents=True)
            self.run("rpm", "--root", there / "root", "--dbpath", f"/{folder}", "--define", "_db_backend sqlite", "--justdb",
                     "--nodeps", "--noscripts", "-i", *sorted(map(str, there.glob("RPMS/*/*.rpm"))))  # fmt: skip
            tree = {f"{folder}/rpmdb.sqlite": (database / "rpmdb.sqlite").read_bytes()}
            if kind != "sqlite":
                with sqlite3.connect(database / "rpmdb.sqlite") as connection:
                    headers = connection.execute("select hnum, blob from Packages order by hnum").fetchall()
            if kind == "bdb":
                tree = {f"{folder}/Packages": self.berkeley(there, headers)}
            elif kind == "ndb":
                tree = {f"{folder}/Packages.db": ndb(headers)}
        tree[f"{folder}/.rpm.lock"] = b""
        if folder != "var/lib/rpm":
            tree["var/lib/rpm"] = Link("../../usr/lib/sysimage/rpm")
        self[name] = tree
        return tree

    def berkeley(self, there, headers):
        """The headers in a Berkeley DB: rpm itself can not write it any more."""
        lines = ["VERSION=3", "format=bytevalue", "type=hash", "db_pagesize=4096", "HEADER=END"]
        # Number 0 holds the largest number that was given.
        for number, blob in [(0, headers[-1][0].to_bytes(4, "little")), *headers]:
            lines += [" " + number.to_bytes(4, "little").hex(), " " + blob.hex()]
        (there / "dump").write_text("\n".join([*lines, "DATA=END", ""]))
        # With a fixed address space and fill, unused bytes are not whatever was in memory.
        self.run("env", "MALLOC_PERTURB_=85", "setarch", "-R", "db5.3_load", "-f", there / "dump", there / "Packages")
        data = bytearray((there / "Packages").read_bytes())
        data[52:72] = bytes(range(20))  # the file's random id
        for page in range(0, len(data), 4096):
            entries, items, _, kind = struct.unpack_from("<HHBB", data, page + 20)
            if kind in (2, 13):  # a page of the hash: what is between its index and its items is unused
                data[page + 26 + 2 * entries : page + items] = bytes(items - 26 - 2 * entries)
        return bytes(data)


def ndb(headers):
    """The headers in SUSE's format, which Debian's rpm lacks: a page of slots, then the blobs in blocks of 16 bytes."""
    slots, blobs = struct.pack("<4sIIII12x", b"RpmP", 0, 1, 1, headers[-1][0] + 1), b""
    for number, blob in headers:
        body = struct.pack("<4sIII", b"BlbS", number, 1, len(blob)) + blob
        body += bytes(-(len(body) + 12) % 16)
        body += struct.pack("<II4s", zlib.adler32(body), len(blob), b"BlbE")
        slots += struct.pack("<4sIII", b"Slot", number, (4096 + len(blobs)) // 16, len(body) // 16)
        blobs += body
    slots += struct.pack("<4sIII", b"Slot", 0, 0, 0) * ((4096 - len(slots)) // 16)
    return slots + blobs
