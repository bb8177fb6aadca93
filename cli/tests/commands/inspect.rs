//! `ami-guard inspect`, as it is run: against files, and against a simulated EC2 and EBS.

#[path = "../../../disk/corpus/packed.rs"]
mod packed;

use std::process::Output;

use packed::Packed;
use serde_json::Value;
use sim::{Call, Fault, FaultKind, Image, Sim, Snapshot, World};
use tokio::process::Command;

use super::{before as run_before, run, temporary};

const AMI: &str = "ami-0a1b2c3d4e5f60001";
const SNAPSHOT: &str = "snap-0a1b2c3d4e5f60001";

/// A disk of the corpus, as a file.
fn disk(name: &str) -> String {
    let path = temporary(&format!("cli-{name}.img"));
    packed::unpacked(name, &path);
    path.to_str().unwrap().to_owned()
}

fn program() -> Command {
    super::program(&[])
}

async fn account(name: &str) -> Sim {
    let mut world = World::default();
    world.add_image(Image::new(AMI));
    world.add_snapshot(Snapshot::of_disk(SNAPSHOT, disk(name)).unwrap());
    Sim::start(world).await.unwrap()
}

fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let code = output.status.code().unwrap();
    (code, text(&output.stdout), text(&output.stderr))
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn a_file_is_told_with_what_tells_it() {
    let (code, out, err) = said(&run(&["inspect", &disk("rhel9-rhui")]).await);
    assert_eq!((code, err.as_str()), (0, ""));
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("Red Hat Enterprise Linux 9"), "{out}");
    assert_eq!(lines[1], "  platform    RedHat, or RedHatByol");
    assert_eq!(lines[2], "  where       partition 4, xfs");
    assert_eq!(lines[3], "  evidence    /etc/os-release");
    assert!(
        out.contains("\n              /etc/pki/rhui/product/content-rhel9.crt\n"),
        "{out}"
    );
    assert!(lines.last().unwrap().starts_with("  read        "), "{out}");
}

#[tokio::test]
async fn a_setting_reads_without_limits_where_they_cannot_be_set_and_never_in_lambda() {
    let disk = disk("rhel9-rhui");
    let with = async |settings: &[(&str, &str)]| {
        let mut program = super::program(&["inspect", &disk]);
        program.envs(settings.iter().copied());
        said(&program.output().await.unwrap())
    };
    let setting = "AMI_GUARD_UNLIMITED_READER";
    let (code, out, err) = with(&[(setting, "1")]).await;
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("Red Hat Enterprise Linux 9"), "{out}");
    let (code, out, err) = with(&[(setting, "1"), ("AWS_LAMBDA_FUNCTION_NAME", "guard")]).await;
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("is not accepted in Lambda"), "{err}");
    let (code, _, err) = with(&[(setting, "yes")]).await;
    assert_eq!(code, 2);
    assert!(err.contains("Accepted: 1 or 0"), "{err}");
}

#[tokio::test]
async fn regression_a_snapshot_that_ebs_does_not_find_may_be_new() {
    let sim = account("debian12").await;
    sim.world().ebs.shown_after = std::time::Duration::from_secs(24 * 3600);
    let (code, _, err) = said(&run_before(&sim, &["inspect", SNAPSHOT]).await);
    assert_eq!(code, 3);
    assert!(
        err.contains("up to two minutes after its completion"),
        "{err}"
    );
}

#[tokio::test]
async fn json_has_the_keys_that_programs_rely_on() {
    let output = run(&["inspect", "--json", &disk("windows2022-sql-standard")]).await;
    assert_eq!(output.status.code(), Some(0));
    let report = json(&output);
    assert_eq!(
        report["says"],
        serde_json::json!(["Windows", "Windows with SQL Server Standard", "WindowsByol"])
    );
    assert_eq!(report["undetermined"], Value::Null);
    let evidence = report["evidence"].as_array().unwrap();
    assert!(
        evidence.contains(&"/Windows/System32/config/SOFTWARE".into()),
        "{report}"
    );
    assert!(report["blocks_read"].as_u64().unwrap() > 0);
    assert!(report["elapsed_ms"].is_u64());
}

#[tokio::test]
async fn what_is_undetermined_says_why_and_ends_with_3() {
    let (code, out, err) = said(&run(&["inspect", &disk("lvm")]).await);
    assert_eq!((code, err.as_str()), (3, ""));
    assert!(out.starts_with("undetermined: LVM"), "{out}");
    let output = run(&["inspect", "--json", &disk("lvm")]).await;
    assert_eq!(output.status.code(), Some(3));
    let report = json(&output);
    assert_eq!(report["says"], serde_json::json!([]));
    assert!(report["undetermined"].as_str().unwrap().starts_with("LVM"));

    let few = run(&["inspect", "--max-blocks", "2", &disk("rhel9-rhui")]).await;
    let (code, out, _) = said(&few);
    assert_eq!(code, 3);
    assert!(
        out.starts_with("undetermined: it takes more than the 2 blocks"),
        "{out}"
    );
}

#[tokio::test]
async fn a_snapshot_and_an_ami_are_read_through_ebs_and_nothing_is_changed() {
    let sim = account("debian12").await;
    let by_snapshot = json(&run_before(&sim, &["inspect", "--json", SNAPSHOT]).await);
    assert_eq!(by_snapshot["says"], serde_json::json!(["Linux"]));
    let calls = sim.calls();
    assert!(
        calls
            .iter()
            .all(|call| call.action.ends_with("SnapshotBlocks") || call.block().is_some())
    );
    let blocks = calls.iter().filter_map(Call::block).count();
    assert_eq!(by_snapshot["blocks_read"], blocks);

    let by_ami = json(&run_before(&sim, &["inspect", "--json", AMI]).await);
    for key in ["says", "undetermined", "evidence", "blocks_read"] {
        assert_eq!(by_ami[key], by_snapshot[key], "{key}");
    }
    let of_ami = &sim.calls()[calls.len()..];
    assert_eq!(of_ami[0].action, "DescribeImages");
    let looks = |call: &Call| {
        ["Describe", "List", "Get"]
            .iter()
            .any(|verb| call.action.starts_with(verb))
    };
    assert!(of_ami.iter().all(looks));
}

#[tokio::test]
async fn what_can_not_be_reached_is_an_error_that_says_what_is_missing() {
    let sim = account("debian12").await;
    let (code, out, err) = said(&run_before(&sim, &["inspect", "ami-0a1b2c3d4e5f60009"]).await);
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(err.contains("it does not exist in this Region"), "{err}");
    let (code, _, err) = said(&run_before(&sim, &["inspect", "snap-0a1b2c3d4e5f60009"]).await);
    assert_eq!(code, 3);
    assert!(
        err.contains("ebs:ListSnapshotBlocks on snap-0a1b2c3d4e5f60009"),
        "{err}"
    );
    sim.inject(Fault::always("GetSnapshotBlock", FaultKind::AccessDenied));
    let output = run_before(&sim, &["inspect", "--json", SNAPSHOT]).await;
    assert_eq!(output.status.code(), Some(3));
    let report = json(&output);
    assert_eq!(report["says"], serde_json::json!([]));
    let why = report["undetermined"].as_str().unwrap();
    assert!(
        why.starts_with("access denied: ebs:GetSnapshotBlock"),
        "{why}"
    );
    let (code, _, err) = said(&run_before(&sim, &["inspect", SNAPSHOT]).await);
    assert_eq!(code, 3);
    assert!(err.contains("access denied: ebs:GetSnapshotBlock"), "{err}");

    let (code, out, err) = said(&run(&["inspect", SNAPSHOT]).await);
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(err.contains("no Region is set. Pass --region"), "{err}");

    for (name, bytes, expected) in [
        (
            "disk.qcow2",
            &b"QFI\xfb\0\0\0\x03"[..],
            "is a qcow2 image, not a raw image",
        ),
        ("disk.gz", b"\x1f\x8b\x08\0", "is compressed with gzip"),
    ] {
        let path = temporary(name);
        std::fs::write(&path, bytes).unwrap();
        let (code, _, err) = said(&run(&["inspect", path.to_str().unwrap()]).await);
        assert_eq!(code, 3);
        assert!(err.contains(expected), "{err}");
    }
    for (path, expected) in [
        ("snap-nonsense", "No such file"),
        ("/nowhere/disk.img", "No such file"),
        ("/tmp", "is neither a file nor a block device"),
        ("/dev/zero", "is neither a file nor a block device"),
        ("ami-123", "No such file"),
    ] {
        let (code, _, err) = said(&run(&["inspect", path]).await);
        assert_eq!(code, 3, "{err}");
        assert!(
            err.contains(expected) && err.contains("Accepted: a snapshot (snap-…)"),
            "{err}"
        );
    }
}

/// A file of zeros that has these bytes at these places.
fn with(name: &str, size: usize, parts: &[(usize, &[u8])]) -> String {
    let mut bytes = vec![0; size];
    for (at, part) in parts {
        bytes[*at..at + part.len()].copy_from_slice(part);
    }
    let path = temporary(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn regression_what_is_no_raw_disk_is_named_with_how_to_convert_it() {
    let size = 64 * 1024;
    let mut footer = [0; 512];
    footer[..8].copy_from_slice(b"conectix");
    footer[60..64].copy_from_slice(&[0, 0, 0, 2]);
    let convert = "qemu-img convert -O raw";
    for (name, parts, what, how) in [
        ("qed", &[(0, &b"QED\0"[..])][..], "a QED image", convert),
        (
            "hdd",
            &[(0, b"WithoutFreeSpace")],
            "a Parallels image",
            convert,
        ),
        (
            "hds",
            &[(0, b"WithouFreSpacExt")],
            "a Parallels image",
            convert,
        ),
        (
            "vdi",
            &[
                (0, b"<<< Oracle VM VirtualBox Disk Image >>>\n"),
                (64, b"\x7f\x10\xda\xbe\x01\0\x01\0"),
            ],
            "a VDI image",
            convert,
        ),
        (
            "vhd",
            &[(510, &[0x55, 0xaa]), (size - 512, &footer)],
            "a fixed VHD image",
            "qemu-img convert -f vpc -O raw",
        ),
        // As Virtual PC wrote it before 2004.
        (
            "vhd",
            &[(size - 511, &footer[..511])],
            "a fixed VHD image",
            "qemu-img convert -f vpc -O raw",
        ),
        (
            "iso",
            &[(32_769, b"CD001")],
            "an ISO 9660 image",
            "inspect the installed disk",
        ),
        (
            "ova",
            &[(0, b"appliance.ovf"), (257, b"ustar")],
            "an OVA archive",
            "tar -xf",
        ),
        (
            "tar",
            &[(0, b"disk.raw"), (257, b"ustar")],
            "a tar archive",
            "tar -xf",
        ),
        (
            "bz2",
            &[(0, b"BZh91AY&SY")],
            "compressed with bzip2",
            "bzip2 -d <",
        ),
        (
            "gz",
            &[(0, b"\x1f\x8b\x08")],
            "compressed with gzip",
            "gzip -d <",
        ),
        ("xz", &[(0, b"\xfd7zXZ\0")], "compressed with xz", "xz -d <"),
        (
            "zst",
            &[(0, b"\x28\xb5\x2f\xfd")],
            "compressed with zstd",
            "zstd -d <",
        ),
        (
            "lz4",
            &[(0, b"\x04\x22\x4d\x18")],
            "compressed with lz4",
            "lz4 -d <",
        ),
        ("zip", &[(0, b"PK\x03\x04")], "a zip archive", "unzip"),
        ("7z", &[(0, b"7z\xbc\xaf\x27\x1c")], "a 7z archive", "7z x"),
    ] {
        let path = with(&format!("format.{name}"), size, parts);
        let (code, out, err) = said(&run(&["inspect", &path]).await);
        assert_eq!((code, out.as_str()), (3, ""), "{name}");
        assert!(err.contains(&format!("{path:?} is {what}")), "{err}");
        assert!(err.contains(", not a raw image: "), "{err}");
        assert!(err.contains(how), "{err}");
        let report = json(&run(&["inspect", "--json", &path]).await);
        let why = report["undetermined"].as_str().unwrap();
        assert!(why.contains(what) && why.contains(how), "{why}");
    }
    // What is no disk that anybody knows is said to be none, as ever.
    let path = with("format.unknown", size, &[(0, b"Hello")]);
    let (code, out, err) = said(&run(&["inspect", &path]).await);
    assert_eq!((code, err.as_str()), (3, ""));
    assert!(out.starts_with("undetermined: "), "{out}");
}

#[tokio::test]
async fn without_credentials_the_error_says_so() {
    let output = program()
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY")
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        .args(["inspect", "--region", "eu-west-1", SNAPSHOT])
        .output()
        .await
        .unwrap();
    let (code, _, err) = said(&output);
    assert_eq!(code, 3);
    assert!(err.contains("credentials"), "{err}");
}

#[tokio::test]
async fn an_empty_file_is_an_empty_disk() {
    let path = temporary("empty.img");
    std::fs::write(&path, b"").unwrap();
    let (code, out, _) = said(&run(&["inspect", path.to_str().unwrap()]).await);
    assert_eq!(code, 3);
    assert!(out.starts_with("undetermined: the disk is empty"), "{out}");
}

#[tokio::test]
async fn a_command_line_that_is_not_understood_ends_with_2_and_help_with_0() {
    for arguments in [
        &[][..],
        &["inspekt"],
        &["inspect"],
        &["inspect", "a", "b"],
        &["inspect", "--max-blocks", "0", "a"],
        &["inspect", "--jsn", "a"],
    ] {
        let (code, out, err) = said(&run(arguments).await);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}");
        assert!(
            err.contains("try '--help'") || err.contains("Usage: "),
            "{err}"
        );
    }
    for arguments in [&["--help"][..], &["inspect", "--help"]] {
        let (code, out, err) = said(&run(arguments).await);
        assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}");
        assert!(out.contains("Exit codes:\n  0  "), "{out}");
    }
    let (code, out, _) = said(&run(&["--version"]).await);
    assert_eq!(code, 0);
    assert!(out.starts_with("ami-guard "), "{out}");
}

#[tokio::test]
async fn a_reader_that_stops_early_is_no_failure() {
    let shell = format!(
        "{} inspect {} | true",
        env!("CARGO_BIN_EXE_ami-guard"),
        disk("debian12")
    );
    let output = Command::new("bash")
        .args(["-c", &format!("set -o pipefail; {shell}")])
        .output()
        .await
        .unwrap();
    let (code, _, err) = said(&output);
    assert_eq!((code, err.as_str()), (0, ""));
}

#[tokio::test]
async fn what_a_stranger_wrote_on_a_disk_does_nothing_to_a_terminal() {
    let mut packed = Packed::read("debian12");
    // Every PRETTY_NAME becomes one that would clear a screen.
    let mut found = 0;
    for (index, page) in packed.pages.clone().iter() {
        for at in 0..page.len() - 40 {
            if page[at..].starts_with(b"PRETTY_NAME=\"") {
                for (offset, byte) in b"\x1b[2J\x07".iter().enumerate() {
                    let place = index * 4096 + (at + 13 + offset) as u64;
                    packed.changes.insert(place, *byte);
                }
                found += 1;
            }
        }
    }
    assert!(found > 0);
    let path = temporary("cli-hostile.img");
    packed.unpack(&path);
    let output = run(&["inspect", path.to_str().unwrap()]).await;
    let (code, out, _) = said(&output);
    assert_eq!(code, 0);
    assert!(out.starts_with("\\u{1b}[2J\\u{7}"), "{out:?}");
    assert!(!out.contains('\u{1b}'));
}

#[tokio::test]
async fn a_profile_that_is_named_goes_before_the_environment() {
    let sim = account("debian12").await;
    let config = temporary("cli-config");
    let profile = "[profile other]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = x\nregion = us-west-2\n";
    std::fs::write(&config, profile).unwrap();
    let run = async |profile: &str| {
        let mut program = program();
        program
            .env("AWS_ENDPOINT_URL", sim.endpoint())
            .env("AWS_REGION", "eu-west-1")
            .env("AWS_CONFIG_FILE", &config);
        let arguments = ["inspect", "--json", "--profile", profile, SNAPSHOT];
        program.args(arguments).output().await.unwrap()
    };
    let output = run("other").await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = run("nobody").await;
    assert_eq!(output.status.code(), Some(3));
    let why = json(&output)["undetermined"].as_str().unwrap().to_owned();
    assert!(why.contains("profile"), "{why}");
}

#[tokio::test]
async fn the_time_that_it_may_take_is_kept_whatever_does_not_answer() {
    let sim = account("debian12").await;
    for action in ["DescribeImages", "ListSnapshotBlocks", "GetSnapshotBlock"] {
        let slow = FaultKind::Slow(std::time::Duration::from_secs(60));
        sim.inject(Fault::nth(action, 1, slow));
        let output = run_before(&sim, &["inspect", "--json", "--max-seconds", "1", AMI]).await;
        assert_eq!(output.status.code(), Some(3), "{action}");
        let report = json(&output);
        assert!(report["elapsed_ms"].as_u64().unwrap() < 10_000, "{report}");
        assert!(report["undetermined"].is_string(), "{report}");
    }
}
