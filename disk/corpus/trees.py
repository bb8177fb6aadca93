"""What is on the images: trees of files as the distributions and Windows have them, as {path: content}.

Content is bytes, a Link, or None for an empty folder. The texts of os-release and the names of the signs are the real
ones; everything around them is filler, there to give the file systems something to do.
"""

import random
from dataclasses import dataclass

import hive


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


OS_RELEASE = "etc/os-release"
USR_OS_RELEASE = "usr/lib/os-release"


# --- os-release ------------------------------------------------------------------------------------------------------


def red_hat(version, name, like="fedora"):
    major = version.split(".")[0]
    tracker = "https://bugzilla.redhat.com/" if int(major) < 10 else "https://issues.redhat.com/"
    logo = 'LOGO="fedora-logo-icon"\n' if int(major) > 8 else ""
    cpe = f"enterprise_linux:{version}:GA:server" if major == "7" else f"enterprise_linux:{major}::baseos"
    platform = f'PLATFORM_ID="platform:el{major}"\n' if int(major) > 7 else ""
    return f"""NAME="Red Hat Enterprise Linux"
VERSION="{version} ({name})"
ID="rhel"
ID_LIKE="{like}"
VERSION_ID="{version}"
{platform}PRETTY_NAME="Red Hat Enterprise Linux {version} ({name})"
ANSI_COLOR="0;31"
{logo}CPE_NAME="cpe:/o:redhat:{cpe}"
HOME_URL="https://www.redhat.com/"
DOCUMENTATION_URL="https://access.redhat.com/documentation/en-us/red_hat_enterprise_linux/{major}"
BUG_REPORT_URL="{tracker}"

REDHAT_BUGZILLA_PRODUCT="Red Hat Enterprise Linux {major}"
REDHAT_BUGZILLA_PRODUCT_VERSION={version}
REDHAT_SUPPORT_PRODUCT="Red Hat Enterprise Linux"
REDHAT_SUPPORT_PRODUCT_VERSION="{version}"
"""


RHEL_7 = red_hat("7.9", "Maipo")
RHEL_8 = red_hat("8.10", "Ootpa")
RHEL_9 = red_hat("9.4", "Plow")
RHEL_10 = red_hat("10.0", "Coughlan", like="centos fedora")

ROCKY_9 = """NAME="Rocky Linux"
VERSION="9.4 (Blue Onyx)"
ID="rocky"
ID_LIKE="rhel centos fedora"
VERSION_ID="9.4"
PLATFORM_ID="platform:el9"
PRETTY_NAME="Rocky Linux 9.4 (Blue Onyx)"
ANSI_COLOR="0;32"
LOGO="fedora-logo-icon"
CPE_NAME="cpe:/o:rocky:rocky:9::baseos"
HOME_URL="https://rockylinux.org/"
VENDOR_NAME="RESF"
VENDOR_URL="https://resf.org/"
BUG_REPORT_URL="https://bugs.rockylinux.org/"
SUPPORT_END="2032-05-31"
ROCKY_SUPPORT_PRODUCT="Rocky-Linux-9"
ROCKY_SUPPORT_PRODUCT_VERSION="9.4"
REDHAT_SUPPORT_PRODUCT="Rocky Linux"
REDHAT_SUPPORT_PRODUCT_VERSION="9.4"
"""

ALMA_9 = """NAME="AlmaLinux"
VERSION="9.6 (Sage Margay)"
ID="almalinux"
ID_LIKE="rhel centos fedora"
VERSION_ID="9.6"
PLATFORM_ID="platform:el9"
PRETTY_NAME="AlmaLinux 9.6 (Sage Margay)"
ANSI_COLOR="0;34"
LOGO="fedora-logo-icon"
CPE_NAME="cpe:/o:almalinux:almalinux:9::baseos"
HOME_URL="https://almalinux.org/"
DOCUMENTATION_URL="https://wiki.almalinux.org/"
BUG_REPORT_URL="https://bugs.almalinux.org/"

ALMALINUX_MANTISBT_PROJECT="AlmaLinux-9"
ALMALINUX_MANTISBT_PROJECT_VERSION="9.6"
REDHAT_SUPPORT_PRODUCT="AlmaLinux"
REDHAT_SUPPORT_PRODUCT_VERSION="9.6"
SUPPORT_END=2032-06-01
"""

ORACLE_9 = """NAME="Oracle Linux Server"
VERSION="9.4"
ID="ol"
ID_LIKE="fedora"
VARIANT="Server"
VARIANT_ID="server"
VERSION_ID="9.4"
PLATFORM_ID="platform:el9"
PRETTY_NAME="Oracle Linux Server 9.4"
ANSI_COLOR="0;31"
CPE_NAME="cpe:/o:oracle:linux:9:4:server"
HOME_URL="https://linux.oracle.com/"
BUG_REPORT_URL="https://github.com/oracle/oracle-linux"

ORACLE_BUGZILLA_PRODUCT="Oracle Linux 9"
ORACLE_BUGZILLA_PRODUCT_VERSION=9.4
ORACLE_SUPPORT_PRODUCT="Oracle Linux"
ORACLE_SUPPORT_PRODUCT_VERSION=9.4
"""

CENTOS_7 = """NAME="CentOS Linux"
VERSION="7 (Core)"
ID="centos"
ID_LIKE="rhel fedora"
VERSION_ID="7"
PRETTY_NAME="CentOS Linux 7 (Core)"
ANSI_COLOR="0;31"
CPE_NAME="cpe:/o:centos:centos:7"
HOME_URL="https://www.centos.org/"
BUG_REPORT_URL="https://bugs.centos.org/"

CENTOS_MANTISBT_PROJECT="CentOS-7"
CENTOS_MANTISBT_PROJECT_VERSION="7"
REDHAT_SUPPORT_PRODUCT="centos"
REDHAT_SUPPORT_PRODUCT_VERSION="7"

"""

CENTOS_STREAM_9 = """NAME="CentOS Stream"
VERSION="9"
ID="centos"
ID_LIKE="rhel fedora"
VERSION_ID="9"
PLATFORM_ID="platform:el9"
PRETTY_NAME="CentOS Stream 9"
ANSI_COLOR="0;31"
LOGO="fedora-logo-icon"
CPE_NAME="cpe:/o:centos:centos:9"
HOME_URL="https://centos.org/"
BUG_REPORT_URL="https://issues.redhat.com/"
REDHAT_SUPPORT_PRODUCT="Red Hat Enterprise Linux 9"
REDHAT_SUPPORT_PRODUCT_VERSION="CentOS Stream"
"""

FEDORA_41 = """NAME="Fedora Linux"
VERSION="41 (Cloud Edition)"
RELEASE_TYPE=stable
ID=fedora
VERSION_ID=41
VERSION_CODENAME=""
PLATFORM_ID="platform:f41"
PRETTY_NAME="Fedora Linux 41 (Cloud Edition)"
ANSI_COLOR="0;38;2;60;110;180"
LOGO=fedora-logo-icon
CPE_NAME="cpe:/o:fedoraproject:fedora:41"
DEFAULT_HOSTNAME="fedora"
HOME_URL="https://fedoraproject.org/"
DOCUMENTATION_URL="https://docs.fedoraproject.org/en-US/fedora/f41/system-administrators-guide/"
SUPPORT_URL="https://ask.fedoraproject.org/"
BUG_REPORT_URL="https://bugzilla.redhat.com/"
REDHAT_BUGZILLA_PRODUCT="Fedora"
REDHAT_BUGZILLA_PRODUCT_VERSION=41
REDHAT_SUPPORT_PRODUCT="Fedora"
REDHAT_SUPPORT_PRODUCT_VERSION=41
SUPPORT_END=2025-12-15
VARIANT="Cloud Edition"
VARIANT_ID=cloud
"""

SLES_12 = """NAME="SLES"
VERSION="12-SP5"
VERSION_ID="12.5"
PRETTY_NAME="SUSE Linux Enterprise Server 12 SP5"
ID="sles"
ANSI_COLOR="0;32"
CPE_NAME="cpe:/o:suse:sles:12:sp5"
"""

SLES_15 = """NAME="SLES"
VERSION="15-SP6"
VERSION_ID="15.6"
PRETTY_NAME="SUSE Linux Enterprise Server 15 SP6"
ID="sles"
ID_LIKE="suse"
ANSI_COLOR="0;32"
CPE_NAME="cpe:/o:suse:sles:15:sp6"
DOCUMENTATION_URL="https://documentation.suse.com/"
"""

SLES_16 = """NAME="SLES"
VERSION="16.0"
VERSION_ID="16.0"
PRETTY_NAME="SUSE Linux Enterprise Server 16.0"
ID="sles"
ID_LIKE="suse"
ANSI_COLOR="0;32"
CPE_NAME="cpe:/o:suse:sles:16:16.0"
DOCUMENTATION_URL="https://documentation.suse.com/"
"""

SL_MICRO_6 = """NAME="SL-Micro"
VERSION="6.1"
VERSION_ID="6.1"
PRETTY_NAME="SUSE Linux Micro 6.1"
ID="sl-micro"
ID_LIKE="suse"
ANSI_COLOR="0;32"
CPE_NAME="cpe:/o:suse:sl-micro:6.1"
"""

FEDORA_COREOS = """NAME="Fedora Linux"
VERSION="41.20250105.3.0 (CoreOS)"
ID=fedora
VERSION_ID=41
PLATFORM_ID="platform:f41"
PRETTY_NAME="Fedora CoreOS 41.20250105.3.0"
CPE_NAME="cpe:/o:fedoraproject:fedora:41"
VARIANT="CoreOS"
VARIANT_ID=coreos
OSTREE_VERSION='41.20250105.3.0'
"""

RHCOS = """NAME="Red Hat Enterprise Linux CoreOS"
ID="rhcos"
ID_LIKE="rhel fedora"
VERSION="416.94.202406172220-0"
VERSION_ID="4.16"
VARIANT="CoreOS"
VARIANT_ID=coreos
PLATFORM_ID="platform:el9"
PRETTY_NAME="Red Hat Enterprise Linux CoreOS 416.94.202406172220-0"
CPE_NAME="cpe:/o:redhat:enterprise_linux:9::baseos::coreos"
OPENSHIFT_VERSION="4.16"
RHEL_VERSION=9.4
OSTREE_VERSION="416.94.202406172220-0"
"""

PHOTON_5 = """NAME="VMware Photon OS"
VERSION="5.0"
ID=photon
VERSION_ID=5.0
PRETTY_NAME="VMware Photon OS/Linux"
ANSI_COLOR="1;34"
"""

LEAP_15 = """NAME="openSUSE Leap"
VERSION="15.6"
ID="opensuse-leap"
ID_LIKE="suse opensuse"
VERSION_ID="15.6"
PRETTY_NAME="openSUSE Leap 15.6"
ANSI_COLOR="0;32"
CPE_NAME="cpe:/o:opensuse:leap:15.6"
BUG_REPORT_URL="https://bugs.opensuse.org"
HOME_URL="https://www.opensuse.org/"
DOCUMENTATION_URL="https://en.opensuse.org/Portal:Leap"
LOGO="distributor-logo-Leap"
"""


def ubuntu_release(pretty, version, name, code):
    return f"""PRETTY_NAME="{pretty}"
NAME="Ubuntu"
VERSION_ID="{version}"
VERSION="{pretty.removeprefix("Ubuntu ")} ({name})"
VERSION_CODENAME={code}
ID=ubuntu
ID_LIKE=debian
HOME_URL="https://www.ubuntu.com/"
SUPPORT_URL="https://help.ubuntu.com/"
BUG_REPORT_URL="https://bugs.launchpad.net/ubuntu/"
PRIVACY_POLICY_URL="https://www.ubuntu.com/legal/terms-and-policies/privacy-policy"
UBUNTU_CODENAME={code}
"""


UBUNTU_20 = ubuntu_release("Ubuntu 20.04.6 LTS", "20.04", "Focal Fossa", "focal")
UBUNTU_22 = ubuntu_release("Ubuntu 22.04.4 LTS", "22.04", "Jammy Jellyfish", "jammy")
UBUNTU_24 = ubuntu_release("Ubuntu 24.04.1 LTS", "24.04", "Noble Numbat", "noble") + "LOGO=ubuntu-logo\n"

AMAZON_2 = """NAME="Amazon Linux"
VERSION="2"
ID="amzn"
ID_LIKE="centos rhel fedora"
VERSION_ID="2"
PRETTY_NAME="Amazon Linux 2"
ANSI_COLOR="0;33"
CPE_NAME="cpe:2.3:o:amazon:amazon_linux:2"
HOME_URL="https://amazonlinux.com/"
SUPPORT_END="2026-06-30"
"""

AMAZON_2023 = """NAME="Amazon Linux"
VERSION="2023"
ID="amzn"
ID_LIKE="fedora"
VERSION_ID="2023"
PLATFORM_ID="platform:al2023"
PRETTY_NAME="Amazon Linux 2023.8.20250808"
ANSI_COLOR="0;33"
CPE_NAME="cpe:2.3:o:amazon:amazon_linux:2023"
HOME_URL="https://aws.amazon.com/linux/amazon-linux-2023/"
DOCUMENTATION_URL="https://docs.aws.amazon.com/linux/"
SUPPORT_URL="https://aws.amazon.com/premiumsupport/"
BUG_REPORT_URL="https://github.com/amazonlinux/amazon-linux-2023"
VENDOR_NAME="AWS"
VENDOR_URL="https://aws.amazon.com/"
SUPPORT_END="2029-06-30"
"""

DEBIAN_12 = """PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION="12 (bookworm)"
VERSION_CODENAME=bookworm
ID=debian
HOME_URL="https://www.debian.org/"
SUPPORT_URL="https://www.debian.org/support"
BUG_REPORT_URL="https://bugs.debian.org/"
"""


# --- what is around it -----------------------------------------------------------------------------------------------

WORDS = """acl attr audit bash bind boot bzip cache chrony cloud core cron crypto curl dbus dhcp diff dracut file find
firmware gawk gettext glib gnu gpg grep group grub gzip hash host hwdata icu init io iproute iptables jansson json kbd kernel key
kmod krb ldap less lib linux locale log lsof lua lz make man math mpfr ncurses net nettle newt nss nvme openssl pam parted passwd
pci pcre perl pipe pkg plymouth policy popt proc psl python quota random readline regex resolv rsync sed selinux shadow slang
snappy sqlite ssh stdc sudo sys systemd tar tcp term time tls tpm tz udev unbound usb user util uuid vim wget which xfs xml xz yaml
zip zlib zstd""".split()


def filler(seed, count):
    """Some `count` files of many sizes in many folders; all of them text of few different lines, to pack well."""
    rng, tree = random.Random(seed), {}
    folders = ["usr/share/doc/{}", "usr/share/{}/{}", "usr/lib/{}", "usr/lib64/{}/{}", "usr/bin", "usr/libexec/{}", "etc/sysconfig/{}", "etc/{}.d",
               "var/log", "var/cache/{}", "usr/lib/modules/6.1.0/kernel/drivers/{}", "usr/share/locale/{}/LC_MESSAGES", "usr/sbin"]  # fmt: skip
    while len(tree) < count:
        folder = rng.choice(folders).format(rng.choice(WORDS), rng.choice(WORDS))
        path = f"{folder}/{rng.choice(WORDS)}-{rng.choice(WORDS)}{rng.choice(['', '.conf', '.so.1', '.py', '.txt', '.gz', '.mo'])}"
        line = f"{rng.choice(WORDS)} {rng.choice(WORDS)}\n"
        length = rng.choice([0, 20, 60, 150, 400, 1500, 3000, 5000, 9000, 20000]) + rng.randrange(20)
        if length > 20 and rng.random() < 0.08 and tree:
            tree[path] = Link("/" + rng.choice(sorted(tree)))
        else:
            tree[path] = (line * (length // len(line) + 1))[:length].encode()
    # A folder that takes many blocks, and a file that takes many extents or indirect blocks.
    tree |= {
        f"usr/share/zoneinfo/{a}/{a}_{b}": b"TZif2"
        for a in rng.sample(WORDS, 3)
        for b in rng.sample(WORDS, min(60, count // 4))
    }
    tree["var/log/journal/system.journal"] = b"LPKSHHRH" * 26000
    return tree


def base(seed, os_release, count=220):
    """A Linux system without a package database, merged below /usr."""
    tree = filler(seed, count)
    tree |= {
        USR_OS_RELEASE: os_release.encode(),
        OS_RELEASE: Link("../usr/lib/os-release"),
        "bin": Link("usr/bin"), "sbin": Link("usr/sbin"), "lib": Link("usr/lib"), "lib64": Link("usr/lib64"),
        "usr/bin/bash": b"\x7fELF\x02\x01\x01" + b"bash " * 2000, "usr/bin/sh": Link("bash"),
        "usr/lib/systemd/systemd": b"\x7fELF\x02\x01\x01" + b"systemd " * 900,
        "etc/fstab": b"UUID=00000000-0000-4000-8000-000000000001 / auto defaults 0 0\n",
        "etc/hostname": b"localhost\n", "etc/passwd": b"root:x:0:0:root:/root:/bin/bash\n", "etc/machine-id": b"uninitialized\n",
        "etc/ssh/sshd_config": b"PasswordAuthentication no\n", "etc/localtime": Link("../usr/share/zoneinfo/UTC"),
        "usr/share/zoneinfo/UTC": b"TZif2" + bytes(100),
        "boot/grub2/grub.cfg": b"set timeout=1\n" * 40, "boot/vmlinuz-6.1.0": b"kernel " * 9000,
        "opt": None, "dev": None, "proc": None, "sys": None, "run": None, "tmp": None, "home": None, "root/.bashrc": b"# .bashrc\n",
        "var/run": Link("../run"), "var/lib/cloud/instance": Link("instances/i-0"), "var/lib/cloud/instances": None, "usr/local/bin": None,
    }  # fmt: skip
    return tree


def rpm_based(seed, os_release, packages, database, count=220):
    """A system with an RPM database, as {path below the root: bytes}: see rpmdb.py."""
    tree = base(seed, os_release, count) | packages[database]
    tree["etc/yum.repos.d"] = None
    tree["etc/dnf/dnf.conf"] = b"[main]\ngpgcheck=1\n"
    return tree


DEB_NAMES = sorted(
    {f"{kind}{word}{tail}" for word in WORDS for kind, tail in (("", ""), ("lib", "1"), ("", "-common"))}
)


def dpkg_based(seed, os_release, count=160, packages=120):
    """A system with dpkg's database: status, and the folder `info` with several hundred entries."""
    tree = base(seed, os_release, count)
    names = DEB_NAMES[:packages]
    entry = "Package: {0}\nStatus: install ok installed\nPriority: optional\nSection: libs\nArchitecture: amd64\nVersion: 1.0-1\n\n"
    tree["var/lib/dpkg/status"] = "".join(entry.format(name) for name in names).encode()
    for number, name in enumerate(names):
        tree[f"var/lib/dpkg/info/{name}.list"] = f"/.\n/usr/share/doc/{name}\n".encode()
        tree[f"var/lib/dpkg/info/{name}.md5sums"] = b""
        if number % 9 == 0:
            tree[f"var/lib/dpkg/info/{name}.postinst"] = b"#!/bin/sh\nset -e\n"
    tree["var/lib/dpkg/info/format"] = b"1\n"
    tree["etc/apt/sources.list"] = b""
    tree["etc/debian_version"] = b"12.5\n"
    return tree


# --- signs -----------------------------------------------------------------------------------------------------------

CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def rhui_certificate(major):
    return {
        f"etc/pki/rhui/product/content-rhel{major}.crt": CERTIFICATE,
        f"etc/pki/rhui/product/rhui-client-config-server-{major}.crt": CERTIFICATE,
        f"etc/pki/rhui/content-rhel{major}.key": b"-----BEGIN PRIVATE KEY-----\n",
        "etc/pki/rhui/cdn.redhat.com-chain.crt": CERTIFICATE,
    }


def repository(name, *sections):
    return {
        f"etc/yum.repos.d/{name}.repo": "".join(
            f"[{section}]\nname={section}\nenabled=1\ngpgcheck=1\n\n" for section in sections
        ).encode()
    }


def rhui_repositories(major):
    return repository(
        "redhat-rhui", f"rhel-{major}-baseos-rhui-rpms", f"rhel-{major}-appstream-rhui-rpms"
    ) | repository("redhat-rhui-client-config", f"rhui-client-config-server-{major}")


def rhui(major):
    return rhui_certificate(major) | rhui_repositories(major)


CONSUMER = {
    "etc/pki/consumer/cert.pem": CERTIFICATE,
    "etc/pki/consumer/key.pem": b"-----BEGIN PRIVATE KEY-----\n",
    "etc/yum.repos.d/redhat.repo": b"#\n# Managed by subscription-manager\n#\n[rhel-9-for-x86_64-baseos-rpms]\nenabled=1\n",
    "etc/rhsm/rhsm.conf": b"[server]\nhostname = subscription.rhsm.redhat.com\n",
}

GUESTREGISTER_UNIT = {
    "usr/lib/systemd/system/guestregister.service": b"[Unit]\nDescription=Guest registration service\n"
}
GUESTREGISTER = GUESTREGISTER_UNIT | {
    "etc/systemd/system/multi-user.target.wants/guestregister.service": Link(
        "/usr/lib/systemd/system/guestregister.service"
    ),
}
SUSE_BYOS = {
    "usr/lib/motd.d/20_byos_register": b"Register this system to get access to updates and extensions:\nsudo registercloudguest\n"
}

MSSQL = {
    "opt/mssql/bin/sqlservr": b"\x7fELF\x02\x01\x01" + b"sqlservr " * 3000,
    "opt/mssql/lib/sqlservr.sfp": b"sfp" * 500,
    "var/opt/mssql/mssql.conf": b"[sqlagent]\nenabled = false\n",
}

PRO_AUTO_ATTACH = {
    "var/lib/dpkg/info/ubuntu-pro-auto-attach.list": b"/.\n/lib/systemd/system/ubuntu-advantage.service\n",
    "var/lib/dpkg/info/ubuntu-pro-auto-attach.md5sums": b"",
}
PRO_TOKEN = {
    "var/lib/ubuntu-advantage/private/machine-token.json": b'{"machineToken": "none", "machineTokenInfo": {}}\n',
    "var/lib/ubuntu-advantage/status.json": b'{"attached": true}\n',
}


# --- whole systems ---------------------------------------------------------------------------------------------------


SLES_PRODUCT = """<?xml version='1.0'?>
<product schemeversion='0'>
  <vendor>SUSE</vendor>
  <name>SLES</name>
  <version>{}</version>
</product>
"""


def suse(seed, os_release, packages, version, count=220, product="SLES"):
    """SLES: the product is in products.d, the RPM database below usr/lib/sysimage since 15."""
    tree = rpm_based(seed, os_release, packages, "sles-bdb" if version.startswith("12") else "sles-ndb", count)
    tree |= {
        f"etc/products.d/{product}.prod": SLES_PRODUCT.format(version).replace("SLES", product).encode(),
        "etc/products.d/baseproduct": Link(f"{product}.prod"),
        "etc/zypp/zypp.conf": b"[main]\n", "etc/SUSEConnect.example": b"---\n",
    }  # fmt: skip
    if version.startswith("12"):
        tree[OS_RELEASE] = tree.pop(USR_OS_RELEASE)
    return tree


def ostree(name, tree, serial=0):
    """A system as OSTree deploys it: all of it below ostree/deploy, /var once for all deployments of a name, the RPM
    database below /usr, /opt a link to /var/opt."""
    own = f"ostree/deploy/{name}"
    deployment = f"{own}/deploy/{format(serial + 10, 'x') * 64}.{serial}"
    made = {f"{deployment}.origin": b"[origin]\nrefspec=none\n", "ostree/repo/config": b"[core]\nmode=bare\n", "boot": None}
    for path, content in tree.items():
        if path.startswith("var/lib/rpm/"):
            made[f"{deployment}/usr/share/rpm/{path.removeprefix('var/lib/rpm/')}"] = content
        elif path == "opt" or path.startswith("boot/"):
            continue
        elif path.startswith("opt/"):
            made[f"{own}/var/{path}"] = content
        elif path.startswith("var/"):
            made[f"{own}/{path}"] = content
        else:
            made[f"{deployment}/{path}"] = content
    made[f"{deployment}/opt"] = Link("var/opt")
    made[f"{deployment}/var"] = None
    return made


def ubuntu(seed, os_release=UBUNTU_24, count=160):
    tree = dpkg_based(seed, os_release, count)
    tree["etc/debian_version"] = b"trixie/sid\n"
    tree["etc/lsb-release"] = b"DISTRIB_ID=Ubuntu\n"
    tree["snap"] = None
    return tree


def windows(software, system32=60, sql=()):
    """A Windows disk: `software` is the SOFTWARE hive, `sql` the ids of SQL Server's instances."""
    rng = random.Random(f"windows {system32}")
    tree = {
        "Windows/explorer.exe": b"MZ" + b"explorer" * 800,
        "Windows/System32/config/SOFTWARE": software,
        "Windows/System32/config/SOFTWARE.LOG1": b"",
        "Windows/System32/ntoskrnl.exe": b"MZ" + b"kernel" * 3000,
        "Windows/System32/drivers/etc/hosts": b"# localhost name resolution is handled within DNS itself.\r\n",
        "Windows/System32/winevt/Logs/System.evtx": b"ElfFile\0" + bytes(8000),
        "Windows/SysWOW64/kernel32.dll": b"MZ" + b"wow" * 700,
        "Program Files/Amazon/EC2Launch/EC2Launch.exe": b"MZ" + b"launch" * 300,
        "Program Files/Common Files/System/ado/msado15.dll": b"MZ",
        "Program Files (x86)/Common Files": None, "ProgramData/Amazon/EC2Launch/config/agent-config.yml": b"version: 1.0\r\n",
        "ProgramData/Microsoft/Windows": None, "Users/Administrator/NTUSER.DAT": hive.write(hive.Key(), "ntuser.dat"),
        "Users/Public/Desktop/desktop.ini": b"[.ShellClassInfo]\r\n", "System Volume Information/tracking.log": bytes(20480), "PerfLogs": None,
        "$Recycle.Bin": None, "Recovery": None,
    }  # fmt: skip
    for name in ("SYSTEM", "SAM", "SECURITY", "DEFAULT"):
        root = hive.Key()
        root.at("Select" if name == "SYSTEM" else "Data").set("Current", 1)
        tree[f"Windows/System32/config/{name}"] = hive.write(root, name)
    while sum(path.startswith("Windows/System32/") for path in tree) < system32:
        name = (
            rng.choice(WORDS)
            + rng.choice(WORDS)
            + rng.choice(["api", "core", "ui", "svc", "host", "32", "64", ""])
            + rng.choice([".dll", ".exe", ".mui", ".sys"])
        )
        tree[f"Windows/System32/{name}"] = b"MZ" + b"\x90" * rng.choice([0] * 30 + [300] * 9 + [6000])
    for number in range(8):
        tree[
            f"Windows/WinSxS/amd64_microsoft-windows-{rng.choice(WORDS)}_31bf3856ad364e35_10.0.20348.{number}_none/{rng.choice(WORDS)}.dll"
        ] = b"MZ"
    for identity in sql:
        tree[f"Program Files/Microsoft SQL Server/{identity}/MSSQL/Binn/sqlservr.exe"] = b"MZ" + b"sqlservr" * 2000
        tree[f"Program Files/Microsoft SQL Server/{identity}/MSSQL/DATA/master.mdf"] = b"\x01\x0f\0\0" + bytes(30000)
        tree[f"Program Files/Microsoft SQL Server/{identity}/MSSQL/Log/ERRORLOG"] = b"started\r\n"
    return tree
