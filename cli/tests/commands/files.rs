//! The files that `ami-guard` writes: nothing is lost that it did not make, as an ordinary user and as root.

use std::fs::{File, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::LazyLock;

use sim::{Fault, FaultKind, Sim};

use super::{GOOD, code, err, lines, out, program, says, simulated, temporary};

/// Nobody's id, by convention.
const ORDINARY: u32 = 65_534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this user can run the program as an ordinary user: root can, where that user can reach it.
fn can_be_ordinary() -> bool {
    static CAN: LazyLock<bool> = LazyLock::new(|| {
        let mut version = std::process::Command::new(env!("CARGO_BIN_EXE_ami-guard"));
        std::os::unix::process::CommandExt::uid(&mut version, ORDINARY);
        let listed = || {
            let mut list = std::process::Command::new("ls");
            list.arg(temporary(""));
            std::os::unix::process::CommandExt::uid(&mut list, ORDINARY);
            list.output()
        };
        is_root()
            && version.arg("--version").output().is_ok()
            && listed().is_ok_and(|it| it.status.success())
    });
    *CAN
}

/// Who runs the program.
#[derive(Clone, Copy, Debug, PartialEq)]
enum User {
    /// Whoever runs the tests.
    This,
    /// An ordinary user, where root runs the tests.
    Ordinary,
}

fn users() -> Vec<User> {
    match can_be_ordinary() {
        true => vec![User::This, User::Ordinary],
        false => vec![User::This],
    }
}

/// A folder of a user's, empty.
struct Folder {
    path: PathBuf,
    user: User,
}

impl Folder {
    fn new(name: &str, user: User) -> Folder {
        let path = temporary(&format!("files-{name}-{user:?}"));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        let folder = Folder { path, user };
        folder.owned(&folder.path);
        folder
    }

    /// Makes a file the user's.
    fn owned(&self, path: &Path) {
        if self.user == User::Ordinary {
            std::os::unix::fs::lchown(path, Some(ORDINARY), Some(ORDINARY)).unwrap();
        }
    }

    fn at(&self, name: &str) -> String {
        self.path.join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, content: &str) -> String {
        let path = self.at(name);
        std::fs::write(&path, content).unwrap();
        self.owned(Path::new(&path));
        path
    }

    fn command(&self, sim: &Sim, arguments: &[&str]) -> tokio::process::Command {
        let mut program = program(arguments);
        program
            .env("AWS_ENDPOINT_URL", sim.endpoint())
            .env("AWS_REGION", "eu-west-1")
            .env("XDG_STATE_HOME", self.at("state-home"));
        if self.user == User::Ordinary {
            program.uid(ORDINARY).gid(ORDINARY);
        }
        program
    }

    async fn run(&self, sim: &Sim, arguments: &[&str]) -> Output {
        self.command(sim, arguments).output().await.unwrap()
    }

    /// The names in it.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.path).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn mode(path: impl AsRef<Path>) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// An audit with what is written elsewhere, so that one file alone is looked at.
fn audit<'a>(option: &'a str, path: &'a str, state: &'a str) -> Vec<&'a str> {
    match option {
        "--html" | "--csv" => vec!["audit", "--state", state, option, path],
        _ => vec!["audit", option, path],
    }
}

#[tokio::test]
async fn regression_a_file_of_another_program_is_refused_and_kept() {
    let sim = simulated().await;
    for user in users() {
        let folder = Folder::new("foreign", user);
        let state = folder.at("other.jsonl");
        for option in ["--state", "--html", "--csv"] {
            for content in [
                "-----BEGIN PRIVATE KEY-----\nMIIEvQ\n",
                "version = 1\n",
                "{\"audit\": \"of something else\"}\n",
                "<!doctype html>\n<title>A page of another program</title>\n",
                "\n",
            ] {
                let path = folder.write("taken", content);
                sim.forget_calls();
                let output = folder.run(&sim, &audit(option, &path, &state)).await;
                assert_eq!((code(&output), out(&output).as_str()), (2, ""), "{content}");
                let errors = err(&output);
                says(&errors, &format!("{option}: {path:?} is not a "));
                says(
                    &errors,
                    "was not changed. Accepted: a name that does not exist yet",
                );
                assert_eq!(read(&path), content);
                assert!(sim.calls().is_empty(), "AWS was asked");
            }
        }
        assert_eq!(folder.names(), ["taken"]);
    }
}

#[tokio::test]
async fn regression_what_is_no_ordinary_file_is_refused_and_kept() {
    let sim = simulated().await;
    for user in users() {
        let folder = Folder::new("devices", user);
        let state = folder.at("other.jsonl");
        let own = folder.write("own", "");
        let made = |program: &str, arguments: &[&str]| {
            let mut command = std::process::Command::new(program);
            let made = command.args(arguments).output();
            made.is_ok_and(|it| it.status.success())
        };
        let path = |name: &str| folder.at(name);
        assert!(made("mkfifo", &[&path("fifo")]));
        std::fs::create_dir(path("folder")).unwrap();
        symlink(&own, path("link")).unwrap();
        symlink(path("nowhere"), path("dangling")).unwrap();
        let mut cases = vec![
            ("fifo", "is a FIFO"),
            ("folder", "is a folder"),
            ("link", "is a symbolic link"),
            ("dangling", "is a symbolic link"),
        ];
        // The names of sockets may not be long.
        if UnixListener::bind(path("socket")).is_ok() {
            cases.push(("socket", "is a socket"));
        }
        // Never a real device as root: a fault in the program would destroy it.
        if made("mknod", &[&path("device"), "c", "1", "3"]) {
            cases.push(("device", "is a device"));
        }
        for (name, what) in cases {
            let path = path(name);
            folder.owned(Path::new(&path));
            let before = std::fs::symlink_metadata(&path).unwrap();
            for option in ["--state", "--html", "--csv"] {
                sim.forget_calls();
                let output = folder.run(&sim, &audit(option, &path, &state)).await;
                assert_eq!((code(&output), out(&output).as_str()), (2, ""), "{name}");
                says(&err(&output), &format!("{option}: {path:?} {what}"));
                let after = std::fs::symlink_metadata(&path).unwrap();
                assert_eq!((before.ino(), before.mode()), (after.ino(), after.mode()));
                assert!(sim.calls().is_empty(), "AWS was asked");
            }
        }
        assert_eq!(read(&own), "");
        assert!(!Path::new(&path("nowhere")).exists());
        assert!(
            std::fs::metadata("/dev/null")
                .unwrap()
                .file_type()
                .is_char_device()
        );
    }
}

#[tokio::test]
async fn regression_links_planted_at_a_temporary_name_lead_nowhere() {
    let sim = simulated().await;
    for user in users() {
        let folder = Folder::new("planted", user);
        let (state, page) = (folder.at("s.jsonl"), folder.at("report.html"));
        let victim = folder.write("victim", "-----BEGIN PRIVATE KEY-----\n");
        for name in ["report.html.part", "s.jsonl.part"] {
            symlink(&victim, folder.at(name)).unwrap();
        }
        let arguments = ["audit", "--state", &state, "--html", &page];
        // The second time there are earlier ones.
        for _ in 0..2 {
            assert_eq!(code(&folder.run(&sim, &arguments).await), 1);
            assert_eq!(read(&victim), "-----BEGIN PRIVATE KEY-----\n");
            assert!(read(&page).trim_end().ends_with("</html>"));
            assert_eq!(
                folder.names(),
                [
                    "report.html",
                    "report.html.part",
                    "s.jsonl",
                    "s.jsonl.part",
                    "victim"
                ]
            );
        }
    }
}

#[tokio::test]
async fn regression_files_that_it_makes_are_their_owner_s_alone() {
    let sim = simulated().await;
    for user in users() {
        let folder = Folder::new("modes", user);
        let (page, loose) = (folder.at("report.html"), folder.write("loose.html", ""));
        std::fs::set_permissions(&loose, Permissions::from_mode(0o666)).unwrap();
        // The default state, in a folder that does not exist yet.
        assert_eq!(
            code(&folder.run(&sim, &["audit", "--html", &page]).await),
            1
        );
        assert_eq!(mode(&page), 0o600);
        let state_folder = folder.path.join("state-home/ami-billing-guard");
        assert_eq!(mode(&state_folder), 0o700);
        let states: Vec<_> = std::fs::read_dir(&state_folder).unwrap().collect();
        let [Ok(state)] = &states[..] else {
            panic!("{states:?}")
        };
        let name = state.file_name().into_string().unwrap();
        assert!(name.starts_with("audit-123456789012-") && name.ends_with(".jsonl"));
        assert_eq!(mode(state.path()), 0o600);
        // What was opened to others before it was used.
        std::fs::set_permissions(state.path(), Permissions::from_mode(0o644)).unwrap();
        let resumed = ["audit", "--resume", "--html", &loose];
        assert_eq!(code(&folder.run(&sim, &resumed).await), 1);
        assert_eq!((mode(&loose), mode(state.path())), (0o600, 0o600));
        assert_eq!(folder.names(), ["loose.html", "report.html", "state-home"]);
    }
}

#[tokio::test]
async fn a_report_of_its_own_and_an_empty_file_are_replaced() {
    let sim = simulated().await;
    for user in users() {
        let folder = Folder::new("own", user);
        let (state, page) = (folder.write("s.jsonl", ""), folder.write("page.html", ""));
        let arguments = ["audit", "--state", &state, "--html", &page];
        for images in [4, 3] {
            assert_eq!(code(&folder.run(&sim, &arguments).await), 1);
            says(&read(&page), &format!("{images} AMIs"));
            assert_eq!(read(&state).matches("{\"schema\":").count(), images);
            sim.world().images.remove(GOOD);
        }
        sim.world().images = super::account().images;
        assert_eq!(folder.names(), ["page.html", "s.jsonl"]);
    }
}

#[tokio::test]
async fn regression_a_state_of_another_audit_is_overwritten_only_by_force() {
    let sim = simulated().await;
    for user in users() {
        let folder = Folder::new("force", user);
        let (state, page) = (folder.at("s.jsonl"), folder.at("page.html"));
        let policy = folder.write("policy.toml", "version = 1\n");
        let begun = ["audit", "--state", &state, "--policy", &policy];
        assert_eq!(code(&folder.run(&sim, &begun).await), 1);
        let kept = read(&state);
        let refused = async |more: &[&str], what: &str| {
            let output = folder.run(&sim, &[&begun[..], more].concat()).await;
            assert_eq!((code(&output), out(&output).as_str()), (2, ""), "{what}");
            let errors = err(&output);
            says(&errors, &format!("{state:?} has another {what}"));
            says(&errors, "To replace it, add --force");
            assert_eq!(read(&state), kept);
        };
        let regions = "Region (eu-west-1 there, us-east-1 now)";
        refused(&["--region", "us-east-1"], regions).await;
        refused(&["--disk"], "--disk (not given there, given now)").await;
        refused(&["--since", "30d"], "--since (not given there, 30d now)").await;
        let both = "Region (eu-west-1 there, us-east-1 now), --disk";
        refused(&["--disk", "--region", "us-east-1"], both).await;
        folder.write(
            "policy.toml",
            "version = 1\n[evidence]\nlineage = 'never'\n",
        );
        refused(&[], &format!("policy ({policy} was changed since)")).await;
        folder.write("policy.toml", "version = 1\n");
        sim.world().account = "210987654321".into();
        refused(&[], "account (123456789012 there, 210987654321 now)").await;
        let output = folder
            .run(&sim, &[&begun[..], &["--resume"]].concat())
            .await;
        assert_eq!(code(&output), 2);
        assert_eq!(read(&state), kept);
        // The same audit begins anew as it likes, and another one by force; not another program's file.
        sim.world().account = "123456789012".into();
        assert_eq!(code(&folder.run(&sim, &begun).await), 1);
        let force = [&begun[..], &["--force", "--since", "30d"]].concat();
        assert_eq!(code(&folder.run(&sim, &force).await), 1);
        says(&read(&state), "\"since_said\":\"30d\"");
        let key = folder.write("page.html", "-----BEGIN PRIVATE KEY-----\n");
        for option in ["--state", "--html", "--csv"] {
            let mut arguments = audit(option, &page, &state);
            arguments.extend(["--policy", &policy, "--force"]);
            assert_eq!(code(&folder.run(&sim, &arguments).await), 2);
            assert_eq!(read(&key), "-----BEGIN PRIVATE KEY-----\n");
        }
        let both = ["audit", "--force", "--resume", "--state", &state];
        says(&err(&folder.run(&sim, &both).await), "cannot be used with");
    }
}

#[tokio::test]
async fn audits_of_other_regions_have_other_default_states() {
    let sim = simulated().await;
    let folder = Folder::new("default", User::This);
    for region in ["eu-west-1", "us-east-1"] {
        let output = folder.run(&sim, &["audit", "--region", region]).await;
        assert_ne!(code(&output), 2, "{}", err(&output));
    }
    let resume = ["audit", "--json", "--resume", "--region", "eu-west-1"];
    let output = folder.run(&sim, &resume).await;
    assert_eq!(lines(&output).len(), 4, "{}", err(&output));
}

#[tokio::test]
async fn regression_an_earlier_audit_survives_one_that_is_denied_at_its_first_page() {
    let sim = simulated().await;
    for user in users() {
        let folder = Folder::new("denied", user);
        let (state, regions) = (folder.at("s.jsonl"), folder.at("regions.jsonl"));
        let page = folder.at("page.html");
        let one = ["audit", "--json", "--html", &page, "--state", &state];
        let all = [
            "audit",
            "--json",
            "--html",
            &page,
            "--all-regions",
            "--state",
            &regions,
        ];
        for (arguments, path) in [(&one[..], &state), (&all, &regions)] {
            sim.heal();
            let earlier = folder.run(&sim, arguments).await;
            assert_eq!(code(&earlier), 1);
            let (kept, report) = (read(path), read(&page));
            sim.inject(Fault::always("DescribeImages", FaultKind::AccessDenied));
            let output = folder.run(&sim, arguments).await;
            assert_eq!(code(&output), 3);
            says(
                &err(&output),
                &format!("{path:?} still has the earlier audit"),
            );
            assert!(!err(&output).contains("--resume"), "{}", err(&output));
            assert_eq!((read(path), read(&page)), (kept, report));
            // Without anything that is asked of EC2.
            let resumed = folder.run(&sim, &[arguments, &["--resume"]].concat()).await;
            assert_eq!(code(&resumed), 1);
            assert_eq!(out(&resumed), out(&earlier));
        }
        sim.heal();
        assert_eq!(folder.names(), ["page.html", "regions.jsonl", "s.jsonl"]);
    }
}

#[tokio::test]
async fn an_audit_that_is_killed_at_its_first_page_leaves_the_earlier_one_and_nothing_else() {
    let sim = simulated().await;
    let folder = Folder::new("killed", User::This);
    let state = folder.at("s.jsonl");
    let arguments = ["audit", "--state", &state];
    assert_eq!(code(&folder.run(&sim, &arguments).await), 1);
    let kept = read(&state);
    sim.forget_calls();
    let slow = FaultKind::Slow(std::time::Duration::from_secs(3600));
    sim.inject(Fault::always("DescribeImages", slow));
    let mut command = folder.command(&sim, &arguments);
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    let asked = || sim.calls().iter().any(|it| it.action == "DescribeImages");
    while !asked() {
        assert_eq!(child.try_wait().unwrap(), None);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    // The earlier one is not another's to begin anew.
    let other = folder.run(&sim, &arguments).await;
    assert_eq!(code(&other), 3);
    says(&err(&other), "another audit is writing to");
    child.kill().await.unwrap();
    assert_eq!(read(&state), kept);
    assert_eq!(folder.names(), ["s.jsonl"]);
}

#[tokio::test]
async fn state_and_report_are_not_one_file_and_both_can_be_written() {
    let sim = simulated().await;
    for user in users() {
        let folder = Folder::new("one", user);
        let path = folder.at("both");
        let other = folder.at(&format!("../files-one-{user:?}/both"));
        for html in [&path, &other] {
            let output = folder
                .run(&sim, &["audit", "--state", &path, "--html", html])
                .await;
            assert_eq!(code(&output), 2);
            says(&err(&output), "--state and --html name the same file");
        }
        let nowhere = folder.at("nowhere/file");
        let mut cases = vec![(nowhere.as_str(), "the folder")];
        if user == User::Ordinary || !is_root() {
            std::fs::create_dir(folder.at("closed")).unwrap();
            cases.push(("closed/file", "cannot create a file in"));
        }
        for (path, what) in cases {
            let path = folder.path.join(path).to_str().unwrap().to_owned();
            if what.starts_with("cannot create") {
                std::fs::set_permissions(folder.at("closed"), Permissions::from_mode(0o555))
                    .unwrap();
            }
            for option in ["--state", "--html", "--csv"] {
                sim.forget_calls();
                let state = folder.at("s.jsonl");
                let output = folder.run(&sim, &audit(option, &path, &state)).await;
                assert_eq!(code(&output), 2, "{}", err(&output));
                says(&err(&output), &format!("{option}: {what}"));
                assert!(sim.calls().is_empty(), "AWS was asked");
            }
        }
    }
}

/// Somebody may have put one there to get to see the account's names.
#[tokio::test]
async fn another_user_s_file_is_refused_even_if_it_is_empty() {
    if !can_be_ordinary() {
        return;
    }
    let sim = simulated().await;
    let folder = Folder::new("others", User::This);
    let path = folder.write("empty", "");
    chown(&path, Some(ORDINARY), Some(ORDINARY)).unwrap();
    for option in ["--state", "--html", "--csv"] {
        let output = folder
            .run(&sim, &audit(option, &path, &folder.at("s.jsonl")))
            .await;
        assert_eq!(code(&output), 2);
        says(
            &err(&output),
            "belongs to another user, and was not changed",
        );
        assert_eq!(read(&path), "");
    }
}

/// The report's place is looked at again when the audit is done.
#[tokio::test]
async fn a_file_that_appears_while_an_audit_goes_on_is_kept_and_the_verdict_is_told() {
    let sim = simulated().await;
    let folder = Folder::new("meanwhile", User::This);
    let (state, page) = (folder.at("s.jsonl"), folder.at("page.html"));
    sim.inject(Fault::nth(
        "DescribeImages",
        1,
        FaultKind::Slow(std::time::Duration::from_millis(500)),
    ));
    let arguments = ["audit", "--json", "--state", &state, "--html", &page];
    let mut command = folder.command(&sim, &arguments);
    command.stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    while sim.calls().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    File::create_new(&page).unwrap();
    std::fs::write(&page, "-----BEGIN PRIVATE KEY-----\n").unwrap();
    let output = child.wait_with_output().await.unwrap();
    // A mismatch, although there is no report.
    assert_eq!(code(&output), 1, "{}", err(&output));
    says(&err(&output), "is not a report that ami-guard wrote");
    assert_eq!(
        lines(&output)
            .iter()
            .filter(|it| it["verdict"] == "mismatch")
            .count(),
        1
    );
    assert_eq!(read(&page), "-----BEGIN PRIVATE KEY-----\n");
    assert_eq!(folder.names(), ["page.html", "s.jsonl"]);
}
