"""File systems and partition tables, made with the tools that distributions use, and looked at again with other ones.

A volume has `make(shop, path, size)`, which makes it in a file, and `check(shop, path)`, which gives what is wrong with it.
"""

import contextlib
import fcntl
import os
import random
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from pack import PAGE, pages
from trees import Link, WORDS

SECTOR = 512
MIB = 1 << 20
GIB = 1 << 30
THEN = 1717027200  # 2024-05-30: when all of this was made, for whoever asks
GOING_DOWN = 0x8004587D  # the ioctl that stops a file system at once, XFS's and ext4's


class Failed(Exception):
    """A tool said no."""


class Shop:
    """Where images are made: the folder, a temporary one, and the tools, run at one fixed time."""

    def __init__(self, out, temporary):
        self.out, self.temporary, self.databases = Path(out), Path(temporary), None
        self.environment = os.environ | {
            "SOURCE_DATE_EPOCH": str(THEN), "E2FSPROGS_FAKE_TIME": str(THEN), "MTOOLS_SKIP_CHECK": "1", "TZ": "UTC", "LC_ALL": "C.UTF-8",
            "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin",
        }  # fmt: skip

    def run(self, *command, real_time=False, fails=(), text=True, stderr_too=False, **more):
        """Runs a tool and gives its standard output. `fails` are exit codes, besides 0, that are fine."""
        command = [str(part) for part in command]
        if not real_time:
            command = ["faketime", "-f", "2024-05-30 00:00:00", *command]
        done = subprocess.run(command, capture_output=True, text=text, env=self.environment, **more)
        if done.returncode not in (0, *fails):
            raise Failed(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr if stderr_too else done.stdout

    def folder(self, tree):
        """Writes the tree into a new folder."""
        there = self.temporary / f"tree-{uuid.uuid4().hex}"
        there.mkdir()
        write_tree(there, tree)
        for path in sorted(there.rglob("*"), reverse=True):
            os.utime(path, (THEN, THEN), follow_symlinks=False)
        os.utime(there, (THEN, THEN))
        return there

    @contextlib.contextmanager
    def mounted(self, image, *options):
        """Mounts an image as a loop device: for root only."""
        there = self.temporary / f"mount-{uuid.uuid4().hex}"
        there.mkdir()
        self.run("mount", "-o", ",".join(["loop", *options]), image, there, real_time=True)
        try:
            yield there
        finally:
            for _ in range(20):
                if subprocess.run(["umount", there], capture_output=True).returncode == 0:
                    break
                time.sleep(0.2)
            there.rmdir()


def write_tree(there, tree):
    for path, content in tree.items():
        target = there / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            target.symlink_to(content.target)
        elif content is None:
            target.mkdir(exist_ok=True)
        else:
            target.write_bytes(content)
            if "/bin/" in path or path.startswith("bin/"):
                target.chmod(0o755)


def folder_against_tree(there, tree):
    """What is wrong with a folder that should hold the tree."""
    wrong = []
    for path, content in tree.items():
        target = there / path
        if isinstance(content, Link):
            right = target.is_symlink() and os.readlink(target) == content.target
        elif content is None:
            right = target.is_dir()
        else:
            right = target.is_file() and not target.is_symlink() and target.read_bytes() == content
        if not right:
            wrong.append(f"{path} is not as it should be")
    return wrong[:5]


def identity(seed):
    """A UUID, always the same for one seed."""
    return str(uuid.UUID(int=random.Random(seed).getrandbits(128), version=4))


@dataclass
class Crash:
    """What is done to a mounted file system right before the power goes: new files, committed, but still only in the journal."""

    writes: dict
    # Many small files are made and some removed, so that the journal has more than one transaction.
    churn: int = 0

    def happen(self, root):
        logs = root / "var/log/burst"
        for number in range(self.churn):
            logs.mkdir(exist_ok=True)
            (logs / f"{WORDS[number % len(WORDS)]}-{number}").write_bytes(b"line\n" * (number % 40))
            if number % 3 == 2:
                (logs / f"{WORDS[(number - 1) % len(WORDS)]}-{number - 1}").unlink()
            if number % 50 == 49:
                sync_file(logs)
        for path, content in self.writes.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            beside = target.with_name("." + target.name + ".new")
            if isinstance(content, Link):
                beside.symlink_to(content.target)
            else:
                beside.write_bytes(content)
                sync_file(beside)
            beside.rename(target)
            sync_file(target.parent)
        sync_file(root / "var")


def sync_file(path):
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass
class Volume:
    """A file system with a tree on it."""

    tree: dict = field(default_factory=dict)
    # Further options of the tool that makes it.
    options: tuple = ()
    crash: Crash | None = None
    kind = "?"

    @property
    def needs_root(self):
        return self.crash is not None

    def final_tree(self):
        """What is there once the journal is replayed."""
        return self.tree | (self.crash.writes if self.crash else {})

    def copy_after_crash(self, shop, path, stop):
        """Lets the crash happen and keeps what is on the disk at that moment."""
        kept = path.with_suffix(".crashed")
        with shop.mounted(path) as root:
            self.crash.happen(root)
            if stop is not None:
                handle = os.open(root, os.O_RDONLY)
                fcntl.ioctl(handle, GOING_DOWN, stop.to_bytes(4, "little"))
                os.close(handle)
            copy_into(path, kept, 0, create=path.stat().st_size)
        kept.replace(path)


@dataclass
class Ext(Volume):
    """ext4, or what mke2fs makes of `options`."""

    type: str = "ext4"
    # With room to grow a thousand times, as is mke2fs' default: 1,000 blocks that list others. Otherwise just twice.
    roomy: bool = False

    kind = "ext4"

    def make(self, shop, path, size):
        create(path, size)
        extended = f"hash_seed={identity('hash')},lazy_itable_init=1" + ("" if self.roomy else f",resize={size * 2 >> 10}K")
        shop.run("mke2fs", "-q", "-F", "-t", self.type, "-U", identity(path.name), "-E", extended, *self.options,
                 "-d", shop.folder(self.tree), path)  # fmt: skip
        # mke2fs takes the times of files from the folder, of which that of the last change can not be set there.
        every = {parent for name in self.tree for parent in (name, *(str(part) for part in Path(name).parents))}
        commands = shop.temporary / "debugfs-commands"
        commands.write_text("".join(f'set_inode_field "/{name}" ctime @{THEN}\n' for name in sorted(every)))
        shop.run("debugfs", "-w", "-f", commands, path)
        if self.crash:
            self.copy_after_crash(shop, path, 2)  # do not even flush the journal: what was synced is there

    def check(self, shop, path):
        if self.crash:
            plain = shop.run("debugfs", "-R", "cat " + next(iter(self.crash.writes)), path, text=False)
            if plain == next(iter(self.crash.writes.values())):
                return ["the file is there without the journal: nothing depends on it"]
            copy = shop.temporary / "replayed.img"
            copy_into(path, copy, 0, create=path.stat().st_size)
            path = copy
            shop.run("e2fsck", "-fy", path, fails=(1,))
        shop.run("e2fsck", "-fn", path)
        if "inline_data" in self.options:  # of which debugfs gives 60 bytes even of shorter files
            if os.geteuid() != 0:
                return []
            with shop.mounted(path, "ro", "noload") as there:
                return folder_against_tree(there, self.final_tree())
        there = shop.temporary / f"dumped-{uuid.uuid4().hex}"
        there.mkdir()
        shop.run("debugfs", "-R", f"rdump / {there}", path)
        return folder_against_tree(there, self.final_tree())


@dataclass
class Xfs(Volume):
    """XFS, filled from a prototype as mkfs.xfs takes it."""

    kind = "xfs"

    def make(self, shop, path, size):
        create(path, size)
        prototype = shop.temporary / "prototype"
        prototype.write_text(self.prototype(shop.folder(self.tree)))
        shop.run("mkfs.xfs", "-q", "-f", "-m", f"uuid={identity(path.name)}", "-p", prototype, *self.options, path)
        if self.crash:
            self.copy_after_crash(shop, path, 1)  # flush the log, then stop

    def prototype(self, folder):
        lines = ["/dev/null", "0 0", "d--755 0 0"]

        def fill(here, depth):
            for entry in sorted(here.iterdir()):
                start = " " * depth + entry.name
                if " " in entry.name:
                    raise Failed(f"mkfs.xfs takes no blank in {entry}")
                if entry.is_symlink():
                    lines.append(f"{start} l--777 0 0 {os.readlink(entry)}")
                elif entry.is_dir():
                    lines.append(f"{start} d--755 0 0")
                    fill(entry, depth + 1)
                    lines.append(" " * depth + "$")
                else:
                    lines.append(f"{start} ---644 0 0 {entry}")

        fill(folder, 1)
        return "\n".join([*lines, "$", ""])

    def check(self, shop, path):
        wrong = []
        if self.crash:
            key, content = next(iter(self.crash.writes.items()))
            log = shop.run("xfs_logprint", "-t", path, real_time=True)
            if "CLEAN" in log or "DIRTY" not in log:
                wrong.append("its log is clean")
            if os.geteuid() == 0:
                with shop.mounted(path, "ro", "norecovery", "nouuid") as there:
                    if (there / key).exists() and (there / key).read_bytes() == content:
                        wrong.append("the file is there without the log: nothing depends on it")
            copy = shop.temporary / "replayed.img"
            copy_into(path, copy, 0, create=path.stat().st_size)
            path = copy
            if os.geteuid() != 0:
                return wrong
            with shop.mounted(path, "nouuid"):
                pass
        shop.run("xfs_repair", "-n", "-f", path, real_time=True)
        for name in [name for name, content in self.final_tree().items() if isinstance(content, bytes)][:40]:
            if "core.magic = 0x494e" not in shop.run(
                "xfs_db", "-r", "-f", "-c", f"path /{name}", "-c", "print core.magic", path, real_time=True
            ):
                wrong.append(f"xfs_db finds no {name}")
        if os.geteuid() == 0 and "crc=0" not in self.options:  # newer kernels do not mount version 4
            with shop.mounted(path, "ro", "norecovery", "nouuid") as there:
                wrong += folder_against_tree(there, self.final_tree())
        return wrong


@dataclass
class Btrfs(Volume):
    """btrfs. With subvolumes, which take a mount: `subvolumes` by path, of which `default` is the one that is mounted as root."""

    subvolumes: tuple = ()
    default: str = ""
    set_default: bool = True
    # Paths of subvolumes that the system mounts over its root: {where in the root: subvolume}.
    mounts: dict = field(default_factory=dict)
    compress: str = ""

    kind = "btrfs"

    @property
    def needs_root(self):
        return bool(self.crash or self.subvolumes or self.compress)

    def split(self, tree):
        """The tree by subvolume: {path within the whole volume: content}."""
        whole = {}
        for path, content in tree.items():
            home = max(
                (where for where in self.mounts if path == where or path.startswith(where + "/")), key=len, default=None
            )
            if home is None:
                whole[f"{self.default}/{path}".lstrip("/")] = content
            elif path != home:
                whole[f"{self.mounts[home]}/{path.removeprefix(home + '/')}"] = content
        return whole

    def make(self, shop, path, size):
        create(path, size)
        command = ["mkfs.btrfs", "-q", "-f", "-U", identity(path.name), *self.options]
        if not self.subvolumes and not self.compress:
            shop.run(*command, "--rootdir", shop.folder(self.tree), path)
        else:
            shop.run(*command, path)
            options = [f"compress-force={self.compress}"] if self.compress else []
            with shop.mounted(path, *options) as root:
                for name in self.subvolumes:
                    (root / name).parent.mkdir(parents=True, exist_ok=True)
                    shop.run("btrfs", "subvolume", "create", root / name, real_time=True)
                if self.default and self.set_default:
                    listed = shop.run("btrfs", "inspect-internal", "rootid", root / self.default, real_time=True)
                    shop.run("btrfs", "subvolume", "set-default", listed.strip(), root, real_time=True)
                write_tree(root, self.split(self.tree))
                for where in self.mounts:
                    (root / self.default / where).mkdir(parents=True, exist_ok=True)
                shop.run("sync", "-f", root, real_time=True)
                shop.run(
                    "fstrim", root, real_time=True
                )  # former versions of the trees would only make the packed image large
        if self.crash:
            self.copy_after_crash(shop, path, None)  # btrfs can not be stopped: the copy is of one moment all the same

    def check(self, shop, path):
        if not self.crash:
            shop.run("btrfs", "check", "--readonly", path, real_time=True)
        there = shop.temporary / f"restored-{uuid.uuid4().hex}"
        there.mkdir()
        # -r 5: from the top of the volume, whatever the default subvolume is.
        if self.crash:
            if os.geteuid() != 0:
                return []
            if "log_root\t\t0\n" in shop.run("btrfs", "inspect-internal", "dump-super", path, real_time=True):
                return ["it has no log tree"]
            copy = shop.temporary / "replayed.img"
            copy_into(path, copy, 0, create=path.stat().st_size)
            with shop.mounted(copy, "subvolid=5") as there:
                return folder_against_tree(there, self.split(self.final_tree()))
        shop.run("btrfs", "restore", "-r", "5", "-S", "-s", "-x", path, there, real_time=True, fails=(1,))
        if not self.subvolumes or os.geteuid() != 0:
            return folder_against_tree(there, self.split(self.tree))
        # `restore` leaves out subvolumes within subvolumes: look at these with a mount.
        with shop.mounted(path, "ro", "subvolid=5") as there:
            wrong = folder_against_tree(there, self.split(self.tree))
        with shop.mounted(path, "ro") as there:
            if self.default and self.set_default and not (there / "usr/lib/os-release").exists():
                wrong.append("its default subvolume is another one")
        return wrong


@dataclass
class Ntfs(Volume):
    """NTFS, filled through ntfs-3g. `fragment` is a path whose file is written in pieces of one cluster.

    Not whole, it packs to a third: the table of upper case letters is zeros from U+3000 on, and the journal but for its begin.
    """

    fragment: str = ""
    whole: bool = False
    # What hivexget must find in the SOFTWARE hive: {(key, value): text}.
    registry: dict = field(default_factory=dict)

    kind = "ntfs"

    def make(self, shop, path, size):
        create(path, size)
        shop.run("mkntfs", "-q", "-F", "-Q", "-s", "512", "-p", "2048", "-H", "255", "-S", "63", *self.options, path)
        with self.filled(shop, path) as there:
            tree = dict(self.tree)
            pieces = tree.pop(self.fragment, b"")
            write_tree(there, tree)
            if pieces:
                self.write_in_pieces(there, pieces)
        if not self.whole:
            self.thin(path)

    def write_in_pieces(self, there, pieces):
        """Writes the file when nothing but holes of one cluster is free."""
        temporary = there / "Windows/Temp"
        temporary.mkdir()
        count = len(pieces) // PAGE + 20
        for number in range(2 * count):
            (temporary / f"{number}").write_bytes(bytes(PAGE))
        with contextlib.suppress(OSError), open(temporary / "all-that-is-free", "wb", 0) as file:
            while True:
                file.write(bytes(16 * PAGE))
        for number in range(0, 2 * count, 2):
            (temporary / f"{number}").unlink()
        (there / self.fragment).write_bytes(pieces)
        for left in list(temporary.iterdir()):
            left.unlink()

    def thin(self, path):
        letters = b"".join(number.to_bytes(2, "little") for number in range(0x3000, 0x3800))
        with open(path, "r+b") as file:
            run = 0
            for index, data in list(pages(file)):
                if data == letters:
                    os.pwrite(file.fileno(), bytes(131072 - 0x6000), index * PAGE)
                run = run + 1 if data.count(0xFF) == PAGE else 0
                if run > 16:  # the journal, and nothing else, is as many ones
                    os.pwrite(file.fileno(), bytes(PAGE), index * PAGE)

    @contextlib.contextmanager
    def filled(self, shop, path):
        there = shop.temporary / f"ntfs-{uuid.uuid4().hex}"
        there.mkdir()
        command = ["faketime", "-f", "2024-05-30 00:00:00", "ntfs-3g", "-o", "no_detach,silent", str(path), str(there)]
        daemon = subprocess.Popen(command, env=shop.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            while not os.path.ismount(there):
                if daemon.poll() is not None:
                    raise Failed(f"{' '.join(command)}\n{daemon.stderr.read().decode()}")
                time.sleep(0.05)
            yield there
        finally:
            for _ in range(50):
                if (
                    daemon.poll() is not None
                    or subprocess.run(["fusermount", "-u", there], capture_output=True).returncode == 0
                ):
                    break
                time.sleep(0.1)
            daemon.wait(60)

    def check(self, shop, path):
        wrong = []
        names = [name for name, content in self.tree.items() if isinstance(content, bytes) and content]
        keys = [name for name in names if "/config/" in name or name.endswith("sqlservr.exe")]
        for name in keys + names[:10]:
            if shop.run("ntfscat", path, name, text=False) != self.tree[name]:
                wrong.append(f"{name} is not as it should be")
        for (key, value), text in self.registry.items():
            hive = shop.temporary / "hive"
            hive.write_bytes(
                shop.run(
                    "ntfscat", path, next(name for name in names if name.upper().endswith("/SOFTWARE")), text=False
                )
            )
            if (found := shop.run("hivexget", hive, key, value).strip()) != text:
                wrong.append(f"hivexget finds {found!r} as {key} {value}, not {text!r}")
        if self.fragment and "$ATTRIBUTE_LIST" not in shop.run("ntfsinfo", "-v", "-F", self.fragment, path, real_time=True, fails=(1,)):
            wrong.append("its hive fits into one file record")
        listed = set(shop.run("ntfsls", "-a", "-p", "Windows/System32", path).split("\n")) if keys else set()
        for name in names:
            folder, _, last = name.rpartition("/")
            if keys and folder == "Windows/System32" and last not in listed:
                wrong.append(f"ntfsls does not list {name}")
        return wrong


@dataclass
class Whole(Volume):
    """A folder with a whole system, copied by the kernel: `kind` is the file system, `source` a function of the shop."""

    kind: str = "ext4"
    source: object = None
    subvolume: str = ""
    mount: str = "defaults"
    needs_root = True

    def make(self, shop, path, size):
        create(path, size)
        shop.run(f"mkfs.{self.kind}", "-q", "-F" if self.kind == "ext4" else "-f", path)
        source = self.source(shop)
        with shop.mounted(path, self.mount) as root:
            if self.subvolume:
                shop.run("btrfs", "subvolume", "create", root / self.subvolume, real_time=True)
            shop.run("cp", "-a", f"{source}/.", root / self.subvolume, real_time=True)
            if self.kind == "btrfs":
                shop.run("sync", "-f", root, real_time=True)
                shop.run("fstrim", root, real_time=True)

    def check(self, shop, path):
        command = {
            "ext4": ["e2fsck", "-fn"],
            "xfs": ["xfs_repair", "-n", "-f"],
            "btrfs": ["btrfs", "check", "--readonly"],
        }[self.kind]
        shop.run(*command, path, real_time=True)
        if os.geteuid() != 0:
            return []
        with shop.mounted(path, "ro") as there:
            return shop.run(
                "diff",
                "-rq",
                "--no-dereference",
                "-x",
                "dev",
                "-x",
                "lost+found",
                self.source(shop),
                there / self.subvolume,
                real_time=True,
                fails=(1,),
            ).splitlines()[:5]


@dataclass
class Fat(Volume):
    """FAT, as for EFI."""

    kind = "vfat"

    def make(self, shop, path, size):
        create(path, size)
        shop.run("mkfs.vfat", "--invariant", "-i", "0badcafe", "-n", "EFI", *self.options, path)
        folder = shop.folder(self.tree)
        for entry in sorted(folder.iterdir()):
            shop.run("mcopy", "-s", "-m", "-i", path, entry, "::")

    def check(self, shop, path):
        shop.run("fsck.vfat", "-n", path)
        return []


@dataclass
class Bytes(Volume):
    """Whatever `content` (a function of the size) gives, from the volume's start."""

    content: object = None
    # What blkid calls it, if it knows it.
    blkid: str = ""

    kind = "none"

    def make(self, shop, path, size):
        create(path, size)
        with open(path, "r+b") as file:
            file.write(self.content(shop, size))

    def check(self, shop, path):
        found = shop.run("blkid", "-p", "-s", "TYPE", "-o", "value", path, real_time=True, fails=(2,)).strip()
        return [] if found == self.blkid else [f"blkid calls it {found!r}, not {self.blkid!r}"]


def create(path, size):
    with open(path, "wb") as file:
        file.truncate(size)


def copy_into(source, target, offset, create=None):
    """Copies the pages of the file `source` that are not zeros into `target`, from the offset on."""
    with open(source, "rb") as read, open(target, "wb" if create else "r+b") as write:
        if create:
            write.truncate(create)
        for index, data in pages(read):
            os.pwrite(write.fileno(), data, offset + index * PAGE)
        size = max(os.fstat(write.fileno()).st_size, 0)
        write.truncate(create or size)


# --- partition tables ------------------------------------------------------------------------------------------------

BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
EFI_SYSTEM = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
LINUX_ROOT = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
BOOT_LOADER = "BC13C2FF-59E6-4262-A352-B275FD6F7172"
PREP = "9E1A2D38-C612-4316-AA26-8B49521E5A8B"
MICROSOFT_RESERVED = "E3C9E316-0B5C-4DB8-817D-F92DF00215AE"
MICROSOFT_BASIC = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
MICROSOFT_RECOVERY = "DE94BBA4-06D1-4D4D-A16A-BFD50179D6AC"


@dataclass
class Part:
    """A partition: its number, its first sector and its size in sectors, its type, and what is on it."""

    number: int
    start: int
    sectors: int
    type: str
    volume: Volume | None = None


def partition(shop, disk, table, parts):
    """Writes the table on the disk."""
    lines = [
        f"label: {'gpt' if table == 'gpt' else 'dos'}",
        f"label-id: {identity(disk.name) if table == 'gpt' else '0x5eed0001'}",
        "unit: sectors",
    ]
    if table == "gpt":
        lines.append("first-lba: 34")
    for part in sorted(parts, key=lambda part: part.number):
        line = f"/dev/x{part.number} : start={part.start}, size={part.sectors}, type={part.type}"
        lines.append(line + (f", uuid={identity(f'{disk.name} {part.number}')}" if table == "gpt" else ""))
    shop.run("sfdisk", "-q", "--no-tell-kernel", "--no-reread", disk, input="\n".join(lines) + "\n")
