"""Writes Windows registry hives (REGF), as Windows lays them out: keys in several bins, sorted lists of keys (lf, lh, and
an ri above them when there are many), values inside their record when they are short, in a db record when they are long.
"""

import struct

NONE = 0xFFFFFFFF
SZ, EXPAND_SZ, BINARY, DWORD, MULTI_SZ, QWORD = 1, 2, 3, 4, 7, 11
WRITTEN = 133_614_144_000_000_000  # 2024-05-30, in Windows' time: 100 ns since 1601
MOST_IN_A_LIST = 160  # Windows splits later, at some 500; this makes an ri list of a few hundred keys
SEGMENT = 16344  # the most bytes of one value in one cell


class Key:
    """A key: values as {name: (type, data)}, and keys below it."""

    def __init__(self):
        self.values, self.keys = {}, {}

    def at(self, path):
        """The key at this path below this one, made if it is not there."""
        key = self
        for name in path.split("\\"):
            found = next((known for known in key.keys if known.upper() == name.upper()), name)
            key = key.keys.setdefault(found, Key())
        return key

    def set(self, name, value, kind=None):
        """Sets a value: text, a number, or bytes with their type."""
        if isinstance(value, str):
            kind, value = kind or SZ, (value + "\0").encode("utf-16-le")
        elif isinstance(value, int):
            kind, value = kind or DWORD, struct.pack("<I", value)
        self.values[name] = (BINARY if kind is None else kind, value)
        return self


class Writer:
    """Cells, one after the other, in bins of 4096 bytes or more; a cell never crosses a bin's end."""

    def __init__(self, lists):
        self.data, self.bin_end, self.next, self.lists = bytearray(), 0, 0, lists

    def cell(self, content):
        size = -(-(len(content) + 4) // 8) * 8
        if self.next + size > self.bin_end:
            self.close_bin()
            start, length = len(self.data), max(4096, -(-(size + 32) // 4096) * 4096)
            self.data += struct.pack("<4sIIQQI", b"hbin", start, length, 0, WRITTEN if not start else 0, 0).ljust(
                length, b"\0"
            )
            self.next, self.bin_end = start + 32, start + length
        at = self.next
        self.data[at : at + 4 + len(content)] = struct.pack("<i", -size) + content
        self.next += size
        return at

    def close_bin(self):
        if self.next < self.bin_end:
            struct.pack_into("<i", self.data, self.next, self.bin_end - self.next)

    def value(self, name, kind, data):
        raw = name.encode("latin-1")
        if len(data) <= 4:
            length, where = len(data) | 0x80000000, struct.unpack("<I", data.ljust(4, b"\0"))[0]
        elif len(data) <= SEGMENT:
            length, where = len(data), self.cell(data)
        else:
            segments = [self.cell(data[i : i + SEGMENT]) for i in range(0, len(data), SEGMENT)]
            listed = self.cell(struct.pack(f"<{len(segments)}I", *segments))
            length, where = len(data), self.cell(struct.pack("<2sHII", b"db", len(segments), listed, 0))
        return self.cell(struct.pack("<2sHIIIHH", b"vk", len(raw), length, where, kind, 1 if raw else 0, 0) + raw)

    def key_list(self, entries):
        """The list of (name, offset), sorted already."""
        if not entries:
            return NONE
        if len(entries) > MOST_IN_A_LIST:
            parts = [entries[i : i + MOST_IN_A_LIST] for i in range(0, len(entries), MOST_IN_A_LIST)]
            offsets = [self.key_list(part) for part in parts]
            return self.cell(struct.pack("<2sH", b"ri", len(offsets)) + struct.pack(f"<{len(offsets)}I", *offsets))
        if self.lists == b"li":
            return self.cell(
                struct.pack("<2sH", b"li", len(entries)) + b"".join(struct.pack("<I", at) for _, at in entries)
            )
        hint = name_hash if self.lists == b"lh" else name_start
        return self.cell(
            struct.pack("<2sH", self.lists, len(entries))
            + b"".join(struct.pack("<I4s", at, hint(name)) for name, at in entries)
        )

    def key(self, key, name, parent, security, root=False):
        raw = name.encode("latin-1")
        at = self.cell(bytes(76) + raw)
        names = sorted(key.keys, key=str.upper)
        children = [(child, self.key(key.keys[child], child, at, security)) for child in names]
        listed = self.key_list(children)
        values = [self.value(value, *key.values[value]) for value in key.values]
        value_list = self.cell(struct.pack(f"<{len(values)}I", *values)) if values else NONE
        record = struct.pack(
            "<2sHQIIIIIIIIIIIIIIIHH", b"nk", 0x2C if root else 0x20, WRITTEN, 0, parent, len(children), 0, listed, NONE,
            len(values), value_list, security, NONE, max([2 * len(child) for child in names], default=0), 0,
            max([2 * len(value) for value in key.values], default=0),
            max([len(data) for _, data in key.values.values()], default=0), 0, len(raw), 0,
        )  # fmt: skip
        self.data[at + 4 : at + 4 + len(record)] = record
        return at


def name_hash(name):
    total = 0
    for character in name.upper():
        total = (total * 37 + ord(character)) & NONE
    return struct.pack("<I", total)


def name_start(name):
    return name.encode("latin-1")[:4].ljust(4, b"\0")


def write(root, name="SOFTWARE", minor=5, lists=b"lh", dirty=False):
    """The hive's bytes. A dirty one has been written to, and the last writes are not all there yet, says its header."""
    writer = Writer(lists)
    # Everybody in the group of administrators may do everything; the root key's record comes first, as in Windows' own.
    owner = bytes.fromhex("01020000000000052000000020020000")
    acl = (
        struct.pack("<BBHHH", 2, 0, 8 + 8 + len(owner), 1, 0)
        + struct.pack("<BBHI", 0, 2, 8 + len(owner), 0xF003F)
        + owner
    )
    descriptor = (
        struct.pack("<BBHIIII", 1, 0, 0x8004, 20, 20 + len(owner), 0, 20 + 2 * len(owner)) + owner + owner + acl
    )
    security = writer.cell(bytes(20) + descriptor)
    count = sum(1 for _ in every(root))
    record = struct.pack("<2sHIIII", b"sk", 0, security, security, count, len(descriptor))
    writer.data[security + 4 : security + 4 + len(record)] = record
    top = writer.key(root, "ROOT", security, security, root=True)
    writer.close_bin()
    first, second = (1042, 1041) if dirty else (1042, 1042)
    title = f"\\SystemRoot\\System32\\Config\\{name}"[-31:].encode("utf-16-le")
    head = struct.pack(
        "<4sIIQIIIIIII64s", b"regf", first, second, WRITTEN, 1, minor, 0, 1, top, len(writer.data), 1, title
    )
    head = head.ljust(508, b"\0")
    check = 0
    for (word,) in struct.iter_unpack("<I", head):
        check ^= word
    check = {0: 1, NONE: NONE - 1}.get(check, check)
    return (head + struct.pack("<I", check)).ljust(4096, b"\0") + bytes(writer.data)


def every(key):
    yield key
    for child in key.keys.values():
        yield from every(child)


# What Windows has below SOFTWARE\Microsoft, shortened: names only, for there to be many.
BELOW_MICROSOFT = """.NETFramework AccountsControl ActiveSync ADs ALG AllUserInstallAgent AMSI Analog AppModel AppReadiness
AppServiceProtocols AppV ASP.NET Assistance AuthHost BidInterface BitLockerCsp CallAndMessagingEnhancement Cellular Chkdsk
ClickNote Clipboard CloudManagedUpdate Code COM3 CommandProcessor CommsAPHost Composition CoreShell Cryptography CTF DataAccess
DataCollection DataMarketplace DataSharing DDDS DeviceReg Dfrg DFS DiagnosticLogCSP DirectDraw DirectInput DirectPlay8
DirectPlayNATHelp DirectShow DirectX DownloadManager Driver DRM DVR DXP EAPSIMMethods EnterpriseCertificates EnterpriseDataProtection
EventSounds EventSystem F12 FamilyStore Fax Feeds FilePicker Flighting Function FuzzyDS GameBar GPUPipeline HTMLHelp IdentityCRL
IdentityStore IHDS IMAPI IME IMEJP IMEKR IMETC InputMethod InputPersonalization Internet LanguageOverlay Lync LexiconUpdate
MediaPlayer MessengerService MMC Mobile MSBuild MSDE MSDRM MSDTC MSF MSLicensing MSMQ MTF MTFFuzzyFactors MTFInputType
MultiMedia NetShProvider NetworkPolicyServer NETServer NcdAutoSetup Notepad ODBC OEM OfficeCSP OneDrive OnlineProviders Outlook
Palm PCHealth Personalization Phone Photos PIM PLA PlayToReceiver PolicyManager PowerShell Print Provisioning PushRouter
RADAR Ras RAS_AutoDial RcsPresence Reliability RemovalTools RendezvousApps RFC1156Agent Router Rpc SchedulingAgent
SearchIndexer Secure SecurityManager SensorFramework Services SettingSync Shared SideShow Siuf Software Speech SpeechOneCore
Spectrum SQMClient StrongName Sync Sysprep SystemCertificates SystemSettings TableTextService TabletPC TaskFlow Tcpip
TelemetryClient Terminal TermServLicensing TouchPrediction Tracing Transaction TV Unified UPnP UserData UserManager
VisualStudio VolatileUserMgr WAB WaaS Wallet WBEM WcmSvc WebManagement WIMMount Windows WindowsRuntime WindowsSelfHost
WindowsUpdate Wisp WlanSvc Wlpasvc Wow64 WSDAPI WwanSvc XAML""".split()


def software(installation_type, product, build, edition, instances=(), siblings=BELOW_MICROSOFT):
    """A SOFTWARE hive. `instances` of SQL Server: (name, id, edition or None)."""
    root = Key()
    for name in ("Classes", "Clients", "DefaultUserEnvironment", "ODBC", "OpenSSH", "Partner", "Policies", "RegisteredApplications",
                 "Setup", "WOW6432Node", "Amazon"):  # fmt: skip
        root.at(name)
    root.at("Amazon\\PVDriver").set("Version", "8.4.3")
    root.at("Amazon\\MachineImage").set("AMIName", "Windows_Server-English-Full-Base").set("AMIVersion", "2024.05.15")
    for number in range(200):
        root.at(f"Classes\\CLSID\\{{{number * 0x01234567 & 0xFFFFFFFF:08X}-0000-0000-C000-000000000046}}")
    for name in siblings:
        root.at(f"Microsoft\\{name}")
    root.at("Microsoft\\Cryptography").set("MachineGuid", "5f1f3b36-0000-4000-8000-00155d010203")
    root.at("Microsoft\\DRM").set("Blob", bytes(range(256)) * 160)  # 40 KiB: a db record
    root.at("Microsoft\\Windows\\CurrentVersion\\Run").set(
        "SecurityHealth", "%windir%\\system32\\SecurityHealthSystray.exe", EXPAND_SZ
    )
    version = root.at("Microsoft\\Windows NT\\CurrentVersion")
    version.set("SystemRoot", "C:\\Windows").set("BuildBranch", "fe_release").set("CurrentBuild", build)
    version.set("CurrentBuildNumber", build).set("CurrentMajorVersionNumber", 10).set("CurrentMinorVersionNumber", 0)
    version.set("CurrentType", "Multiprocessor Free").set("CurrentVersion", "6.3").set("EditionID", edition)
    if installation_type is not None:
        version.set("InstallationType", installation_type)
    version.set("InstallDate", 1717027200).set("ProductName", product).set("RegisteredOwner", "EC2").set("UBR", 2461)
    version.set("DigitalProductId", bytes(164))
    for name in ("AeDebug", "Drivers32", "Fonts", "Image File Execution Options", "NetworkList", "ProfileList", "SoftwareProtectionPlatform",
                 "Svchost", "Time Zones", "Winlogon"):  # fmt: skip
        version.at(name)
    for number in range(40):
        version.at(f"Time Zones\\Zone {number:03} Standard Time").set("Std", f"Zone {number:03}")
    if instances:
        top = root.at("Microsoft\\Microsoft SQL Server")
        for name in ("100", "110", "120", "130", "140", "150", "160", "Client", "RefCount", "Services", "SQLNCLI11"):
            top.at(name)
        top.set("InstalledInstances", "\0".join(name for name, _, _ in instances) + "\0", MULTI_SZ)
        for name, identity, sold_as in instances:
            top.at("Instance Names\\SQL").set(name, identity)
            top.at(f"{identity}\\MSSQLServer\\CurrentVersion").set("CurrentVersion", "16.0.1000.6")
            setup = (
                top.at(f"{identity}\\Setup")
                .set("Version", "16.0.1000.6")
                .set("SQLPath", f"C:\\Program Files\\Microsoft SQL Server\\{identity}\\MSSQL")
            )
            if sold_as is not None:
                setup.set("Edition", sold_as)
    return root
