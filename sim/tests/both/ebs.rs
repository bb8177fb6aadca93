//! The EBS direct APIs as a client meets them: blocks of real image files, by real requests.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sim::{Answer, Fault, FaultKind, Limit, Service, Sim, Snapshot, World};
use tokio::time::Instant;

use super::{exchange, open};
use crate::Received;

const BLOCK: usize = 512 << 10;
const SNAPSHOT: &str = "snap-0123456789abcdef0";
const OTHER: &str = "snap-0fedcba9876543210";
const KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/12345678-1234-1234-1234-123456789012";

/// An image file, deleted when it is dropped.
struct Image(PathBuf);

impl Drop for Image {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.0);
    }
}

impl Image {
    /// A sparse file of so many bytes, with these blocks written.
    fn new(length: u64, written: impl IntoIterator<Item = u64>) -> Image {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Each way has these tests, and files of its own.
        let way = module_path!().replace("::", "-");
        let name = format!("sim-{way}-{}-{number}.img", std::process::id());
        let image = Image(std::env::temp_dir().join(name));
        let mut file = File::create(&image.0).unwrap();
        for index in written {
            file.seek(SeekFrom::Start(index * BLOCK as u64)).unwrap();
            file.write_all(&(index + 1).to_be_bytes()).unwrap();
        }
        file.set_len(length).unwrap();
        image
    }

    fn snapshot(&self, id: &str) -> Snapshot {
        Snapshot::of_disk(id, &self.0).unwrap()
    }
}

/// What [`Image::new`] writes as this block: its beginning tells its index.
fn block(index: u64) -> Vec<u8> {
    let mut block = (index + 1).to_be_bytes().to_vec();
    block.resize(BLOCK, 0);
    block
}

const GIB: u64 = 1 << 30;

/// A world with [`SNAPSHOT`] of an image file of 1 GiB with these blocks, and the file.
fn world_with(written: impl IntoIterator<Item = u64>) -> (World, Image) {
    let image = Image::new(GIB, written);
    let mut world = World::default();
    world.add_snapshot(image.snapshot(SNAPSHOT));
    (world, image)
}

async fn sim_with(written: impl IntoIterator<Item = u64>) -> (Sim, Image) {
    let (world, image) = world_with(written);
    (open(world).await.unwrap(), image)
}

fn get(sim: &Sim, path: &str) -> io::Result<Received> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: sim\r\nconnection: close\r\n\r\n");
    exchange(sim, request.as_bytes())
}

fn list(sim: &Sim, snapshot: &str, query: &[(&str, &str)]) -> Received {
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(query)
        .finish();
    get(sim, &format!("/snapshots/{snapshot}/blocks?{query}")).unwrap()
}

fn read(sim: &Sim, snapshot: &str, index: u64, token: &str) -> io::Result<Received> {
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("blockToken", token)
        .finish();
    get(
        sim,
        &format!("/snapshots/{snapshot}/blocks/{index}?{query}"),
    )
}

/// A page of a listing: blocks with their tokens, and the token of the next page.
#[derive(Debug)]
struct Page {
    blocks: Vec<(u64, String)>,
    next: Option<String>,
}

impl Page {
    fn indexes(&self) -> Vec<u64> {
        self.blocks.iter().map(|(index, _)| *index).collect()
    }

    fn token(&self, index: u64) -> &str {
        let found = self.blocks.iter().find(|(of, _)| *of == index);
        &found.unwrap().1
    }
}

fn page(sim: &Sim, snapshot: &str, query: &[(&str, &str)]) -> Page {
    let received = list(sim, snapshot, query);
    assert_eq!(received.status, 200, "{received:?}");
    let page = received.json();
    Page {
        blocks: page["Blocks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|block| {
                let token = block["BlockToken"].as_str().unwrap();
                (block["BlockIndex"].as_u64().unwrap(), token.to_owned())
            })
            .collect(),
        next: page["NextToken"].as_str().map(str::to_owned),
    }
}

/// The indexes of all pages.
fn pages(sim: &Sim, query: &[(&str, &str)]) -> Vec<Vec<u64>> {
    let mut found = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let mut query = query.to_vec();
        if let Some(next) = &next {
            query.push(("pageToken", next));
        }
        let page = page(sim, SNAPSHOT, &query);
        found.push(page.indexes());
        next = page.next;
        if next.is_none() {
            return found;
        }
    }
}

/// The refusal of a read, or what a good one gives.
fn outcome(received: io::Result<Received>) -> Result<(), (u16, String, String)> {
    let received = received.unwrap();
    if received.status == 200 {
        assert!(received.is_sound());
        return Ok(());
    }
    Err(received.error())
}

fn error(status: u16, code: &str, reason: &str) -> (u16, String, String) {
    (status, code.to_owned(), reason.to_owned())
}

fn invalid(reason: &str) -> (u16, String, String) {
    error(400, "ValidationException", reason)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_written_blocks_are_listed() {
    let image = Image::new(GIB + 1, [0, 3, 2047]);
    // Written, and all zeros; the file's last byte is alone in its block.
    let mut file = File::options().write(true).open(&image.0).unwrap();
    file.seek(SeekFrom::Start(5 * BLOCK as u64)).unwrap();
    file.write_all(&vec![0; BLOCK]).unwrap();
    file.seek(SeekFrom::Start(GIB)).unwrap();
    file.write_all(b"x").unwrap();
    let mut world = World::default();
    world.add_snapshot(image.snapshot(SNAPSHOT));
    let sim = open(world).await.unwrap();

    let received = list(&sim, SNAPSHOT, &[]);
    assert_eq!(received.status, 200);
    assert!(received.headers["x-amzn-requestid"].starts_with("0000"));
    let answer = received.json();
    assert_eq!(answer["VolumeSize"], 2);
    assert_eq!(answer["BlockSize"], BLOCK);
    assert_eq!(answer.get("NextToken"), None);
    let now = sim::clock::now();
    let lasts = answer["ExpiryTime"].as_f64().unwrap() - now.timestamp() as f64;
    assert!((lasts - 7.0 * 86_400.0).abs() < 600.0, "{lasts}");
    let page = page(&sim, SNAPSHOT, &[]);
    assert_eq!(page.indexes(), [0, 3, 2047, 2048]);
    for (_, token) in &page.blocks {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
        assert!(token.len() <= 256 && token.chars().all(allowed));
    }

    // What is beyond the volume's end is not there.
    sim.world().snapshots.get_mut(SNAPSHOT).unwrap().volume_size = 1;
    assert_eq!(pages(&sim, &[]), [[0, 3, 2047]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_without_a_disk_has_no_blocks() {
    let mut world = World::default();
    world.add_snapshot(Snapshot::new(SNAPSHOT));
    let sim = open(world).await.unwrap();
    assert_eq!(list(&sim, SNAPSHOT, &[]).json()["VolumeSize"], 8);
    assert_eq!(pages(&sim, &[]), [[0; 0]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_comes_whole_with_its_length_and_checksum() {
    // The file ends within its last block.
    let image = Image::new(3 * BLOCK as u64 + 8, [1, 3]);
    let mut world = World::default();
    world.add_snapshot(image.snapshot(SNAPSHOT));
    let sim = open(world).await.unwrap();
    let page = page(&sim, SNAPSHOT, &[]);
    for index in [1, 3] {
        let received = read(&sim, SNAPSHOT, index, page.token(index)).unwrap();
        assert_eq!(received.status, 200);
        assert!(received.is_sound());
        assert_eq!(received.headers["content-type"], "application/octet-stream");
        assert!(received.body == block(index));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_follow_each_other_without_gap_or_overlap() {
    let written: Vec<u64> = (0..250).map(|number| number * 8).collect();
    let (sim, _image) = sim_with(written.clone()).await;
    for (query, sizes) in [
        (vec![], vec![100, 100, 50]),
        // Less than 100 is 100.
        (vec![("maxResults", "1")], vec![100, 100, 50]),
        (vec![("maxResults", "125")], vec![125, 125]),
        (vec![("maxResults", "10000")], vec![250]),
    ] {
        let pages = pages(&sim, &query);
        let found: Vec<usize> = pages.iter().map(Vec::len).collect();
        assert_eq!(found, sizes, "{query:?}");
        assert_eq!(pages.concat(), written);
    }
    for most in ["10001", "-1", "many"] {
        let refused = list(&sim, SNAPSHOT, &[("maxResults", most)]);
        assert_eq!(refused.error(), invalid("INVALID_PARAMETER_VALUE"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_blocks_are_scarce_pages_are_short_or_empty() {
    let (mut world, _image) = world_with([0, 1, 700, 1001]);
    world.ebs.indexes_per_page = Some(500);
    let sim = open(world).await.unwrap();
    let expected: [&[u64]; 5] = [&[0, 1], &[700], &[1001], &[], &[]];
    assert_eq!(pages(&sim, &[]), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_begins_at_the_next_written_block() {
    let (sim, _image) = sim_with(0..150).await;
    let from = |index| page(&sim, SNAPSHOT, &[("startingBlockIndex", index)]).indexes();
    assert_eq!(from("147"), [147, 148, 149]);
    assert_eq!(from("150"), [0; 0]);
    assert_eq!(from("18446744073709551615"), [0; 0]);
    // A page token wins.
    let next = page(&sim, SNAPSHOT, &[]).next.unwrap();
    let query = [("startingBlockIndex", "3"), ("pageToken", &next)];
    assert_eq!(page(&sim, SNAPSHOT, &query).indexes()[0], 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_token_is_of_one_snapshot_and_expires() {
    let (mut world, image) = world_with(0..150);
    world.add_snapshot(image.snapshot(OTHER));
    let sim = open(world).await.unwrap();
    let first = page(&sim, SNAPSHOT, &[]);
    let next = first.next.as_deref().unwrap();
    let refused = |snapshot, token| list(&sim, snapshot, &[("pageToken", token)]).error();
    assert_eq!(refused(OTHER, next), invalid("INVALID_PAGE_TOKEN"));
    for made_up in ["", "AAUB", first.token(0)] {
        assert_eq!(refused(SNAPSHOT, made_up), invalid("INVALID_PAGE_TOKEN"));
    }
    assert_eq!(
        page(&sim, SNAPSHOT, &[("pageToken", next)]).indexes().len(),
        50
    );
    sim.world().ebs.page_tokens_last = Duration::ZERO;
    assert_eq!(refused(SNAPSHOT, next), invalid("INVALID_PAGE_TOKEN"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_token_is_of_one_block_of_one_snapshot() {
    let (mut world, image) = world_with([1, 2]);
    world.add_snapshot(image.snapshot(OTHER));
    let sim = open(world).await.unwrap();
    let listed = page(&sim, SNAPSHOT, &[]);
    let token = listed.token(1);
    for (snapshot, index, token) in [
        (SNAPSHOT, 2, token),
        (OTHER, 1, token),
        (SNAPSHOT, 1, "AAUB"),
        (SNAPSHOT, 1, ""),
        // Never written, or not of the volume.
        (SNAPSHOT, 0, token),
        (SNAPSHOT, 1_000_000_000, token),
    ] {
        let refused = outcome(read(&sim, snapshot, index, token)).unwrap_err();
        assert_eq!(
            refused,
            invalid("INVALID_BLOCK_TOKEN"),
            "{snapshot} {index}"
        );
    }
    let without = get(&sim, &format!("/snapshots/{SNAPSHOT}/blocks/1")).unwrap();
    assert_eq!(without.error(), invalid("INVALID_BLOCK_TOKEN"));
    let no_number = get(&sim, &format!("/snapshots/{SNAPSHOT}/blocks/one")).unwrap();
    assert_eq!(no_number.error(), invalid("INVALID_PARAMETER_VALUE"));
    assert_eq!(outcome(read(&sim, SNAPSHOT, 1, token)), Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn block_tokens_expire_and_a_new_listing_gives_good_ones() {
    let (mut world, _image) = world_with([1]);
    world.ebs.reads_per_listing = Some(2);
    let sim = open(world).await.unwrap();
    let expired = Err(invalid("INVALID_BLOCK_TOKEN"));
    let old = page(&sim, SNAPSHOT, &[]);
    let read_with = |page: &Page| outcome(read(&sim, SNAPSHOT, 1, page.token(1)));
    assert_eq!([read_with(&old), read_with(&old)], [Ok(()), Ok(())]);
    assert_eq!(read_with(&old), expired);

    let new = page(&sim, SNAPSHOT, &[]);
    assert_ne!(old.token(1), new.token(1));
    assert_eq!(read_with(&old), expired);
    assert_eq!(read_with(&new), Ok(()));
    sim.world().ebs.expire_block_tokens();
    assert_eq!(read_with(&new), expired);

    let newer = page(&sim, SNAPSHOT, &[]);
    assert_eq!(read_with(&newer), Ok(()));
    sim.world().ebs.block_tokens_last = Duration::ZERO;
    assert_eq!(read_with(&newer), expired);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_read_is_refused_by_both_actions() {
    let (sim, image) = sim_with([1]).await;
    let token = page(&sim, SNAPSHOT, &[]).token(1).to_owned();
    let not_found = error(404, "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND");
    let denied = error(403, "AccessDeniedException", "UNAUTHORIZED_ACCOUNT");
    let unreadable = error(400, "ValidationException", "INVALID_SNAPSHOT_ID");
    sim.world().ebs.shown_after = Duration::from_secs(120);
    let own = image.snapshot(SNAPSHOT);
    let theirs = Snapshot {
        owner: "210987654321".into(),
        ..own.clone()
    };
    let me = sim.world().account.clone();
    for (snapshot, expected) in [
        (own.clone(), None),
        (
            Snapshot {
                state: "pending".into(),
                ..own.clone()
            },
            Some(&not_found),
        ),
        (
            Snapshot {
                completion_time: Some(sim::clock::now() - chrono::TimeDelta::seconds(30)),
                ..own.clone()
            },
            Some(&not_found),
        ),
        (
            Snapshot {
                archived: true,
                ..own.clone()
            },
            Some(&unreadable),
        ),
        (
            Snapshot {
                outpost_arn: Some("arn:aws:outposts:eu-west-1:123456789012:outpost/op-1".into()),
                ..own.clone()
            },
            Some(&unreadable),
        ),
        (theirs.clone(), Some(&denied)),
        (
            Snapshot {
                shared_with: [me].into(),
                ..theirs.clone()
            },
            None,
        ),
        (
            Snapshot {
                public: true,
                ..theirs
            },
            Some(&denied),
        ),
        (
            Snapshot {
                public: true,
                ..own
            },
            Some(&denied),
        ),
    ] {
        sim.world().add_snapshot(snapshot);
        let listed = list(&sim, SNAPSHOT, &[]);
        let read = outcome(read(&sim, SNAPSHOT, 1, &token)).err();
        assert_eq!(read.as_ref(), expected);
        match expected {
            Some(expected) => assert_eq!(&listed.error(), expected),
            None => assert_eq!(listed.status, 200),
        }
    }
    assert_eq!(list(&sim, OTHER, &[]).error(), not_found);
    for malformed in ["snap-", "ami-0123456789abcdef0", "snap-XYZ"] {
        let refused = list(&sim, malformed, &[]).error();
        assert_eq!(refused, invalid("INVALID_SNAPSHOT_ID"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_block_is_read_only_with_its_key() {
    let (mut world, image) = world_with([1]);
    world.add_snapshot(Snapshot {
        kms_key_id: Some(KEY.into()),
        ..image.snapshot(SNAPSHOT)
    });
    let sim = open(world).await.unwrap();
    let token = page(&sim, SNAPSHOT, &[]).token(1).to_owned();
    assert_eq!(outcome(read(&sim, SNAPSHOT, 1, &token)), Ok(()));
    sim.world().ebs.denied_keys.insert(KEY.into());
    let denied = error(403, "AccessDeniedException", "DEPENDENCY_ACCESS_DENIED");
    assert_eq!(outcome(read(&sim, SNAPSHOT, 1, &token)), Err(denied));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_calls_too_often_is_throttled() {
    let (mut world, _image) = world_with([1]);
    let limit = Limit {
        burst: 2,
        per_second: 0,
    };
    world.ebs.limits.insert("GetSnapshotBlock".into(), limit);
    let sim = open(world).await.unwrap();
    let token = page(&sim, SNAPSHOT, &[]).token(1).to_owned();
    let read = || outcome(read(&sim, SNAPSHOT, 1, &token));
    assert_eq!([read(), read()], [Ok(()), Ok(())]);
    assert_eq!(read(), Err(error(400, "ThrottlingException", "")));
    let answer = sim.calls().pop().unwrap().answer;
    assert_eq!(answer, Answer::Refused("ThrottlingException".into()));
    // The other action has its own limit.
    assert_eq!(list(&sim, SNAPSHOT, &[]).status, 200);
    sim.world().ebs.limits.clear();
    assert_eq!(read(), Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_refuse_in_the_words_of_ebs() {
    let (sim, _image) = sim_with([1]).await;
    let token = page(&sim, SNAPSHOT, &[]).token(1).to_owned();
    let refuse = |code: &str| FaultKind::Refuse {
        code: code.into(),
        message: "Not now.".into(),
    };
    for (kind, expected) in [
        (
            FaultKind::Throttle,
            error(400, "RequestThrottledException", "RESOURCE_LEVEL_THROTTLE"),
        ),
        (
            FaultKind::InternalError,
            error(500, "InternalServerException", ""),
        ),
        (
            FaultKind::AccessDenied,
            error(403, "AccessDeniedException", ""),
        ),
        (
            refuse("ResourceNotFoundException"),
            error(404, "ResourceNotFoundException", ""),
        ),
        (
            refuse("ServiceQuotaExceededException"),
            error(402, "ServiceQuotaExceededException", ""),
        ),
        (
            refuse("ValidationException"),
            error(400, "ValidationException", ""),
        ),
    ] {
        sim.inject(Fault::nth("GetSnapshotBlock", 1, kind.clone()));
        let refused = outcome(read(&sim, SNAPSHOT, 1, &token));
        assert_eq!(refused, Err(expected), "{kind:?}");
        assert_eq!(outcome(read(&sim, SNAPSHOT, 1, &token)), Ok(()));
    }
    sim.inject(Fault::nth("ListSnapshotBlocks", 1, FaultKind::Throttle));
    let throttled = list(&sim, SNAPSHOT, &[]).error();
    assert_eq!(throttled, error(400, "ThrottlingException", ""));
    sim.inject(Fault::nth("ListSnapshotBlocks", 1, FaultKind::AccessDenied));
    let denied = list(&sim, SNAPSHOT, &[]).json();
    assert_eq!(
        denied["Message"],
        format!(
            "User: arn:aws:sts::123456789012:assumed-role/guard/guard is not authorized to perform: \
             ebs:ListSnapshotBlocks on resource: arn:aws:ec2:eu-west-1::snapshot/{SNAPSHOT} because no \
             identity-based policy allows the ebs:ListSnapshotBlocks action"
        )
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_does_not_fit_the_checksum() {
    let (sim, _image) = sim_with([1]).await;
    let token = page(&sim, SNAPSHOT, &[]).token(1).to_owned();
    sim.inject(Fault::nth("GetSnapshotBlock", 1, FaultKind::FlipBit));
    let received = read(&sim, SNAPSHOT, 1, &token).unwrap();
    assert_eq!((received.status, received.body.len()), (200, BLOCK));
    assert!(!received.is_sound());
    assert!(read(&sim, SNAPSHOT, 1, &token).unwrap().is_sound());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_is_cut_or_lost_on_the_way() {
    let (sim, _image) = sim_with([1]).await;
    let token = page(&sim, SNAPSHOT, &[]).token(1).to_owned();
    let read_with = |kind| {
        sim.inject(Fault::nth("GetSnapshotBlock", 1, kind));
        read(&sim, SNAPSHOT, 1, &token)
    };
    let cut = read_with(FaultKind::CutBody).unwrap();
    assert_eq!(cut.headers["content-length"], BLOCK.to_string());
    assert_eq!(cut.body.len(), BLOCK / 2);
    let short = read_with(FaultKind::CutShort(100)).unwrap();
    assert_eq!(short.headers["content-length"], "100");
    assert_eq!(short.headers["x-amz-data-length"], BLOCK.to_string());
    assert!(!short.is_sound());
    for reset in [FaultKind::ResetBefore, FaultKind::ResetAfter] {
        let error = read_with(reset).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
    let start = Instant::now();
    let delay = Duration::from_millis(100);
    assert!(read_with(FaultKind::Slow(delay)).unwrap().is_sound());
    assert!(start.elapsed() >= delay);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_has_the_latency_and_none_waits_for_another() {
    const CALLS: u32 = 20;
    let (sim, _image) = sim_with([1]).await;
    let token = page(&sim, SNAPSHOT, &[]).token(1).to_owned();
    let latency = Duration::from_secs(2);
    sim.world().ebs.latency = latency;
    let timed = |call: &dyn Fn() -> u16| {
        let start = Instant::now();
        assert_eq!(call(), 200);
        start.elapsed()
    };
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..CALLS {
            scope.spawn(|| {
                assert!(timed(&|| read(&sim, SNAPSHOT, 1, &token).unwrap().status) >= latency);
            });
        }
    });
    assert!(start.elapsed() < latency * CALLS / 2);
    assert!(timed(&|| list(&sim, SNAPSHOT, &[]).status) >= latency);
    // Of EBS alone.
    let latency = Duration::from_secs(60);
    sim.world().ebs.latency = latency;
    let describe = "/?Action=DescribeSnapshots&Version=2016-11-15";
    assert!(timed(&|| get(&sim, describe).unwrap().status) < latency);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_is_logged_in_order_with_its_block() {
    let (sim, _image) = sim_with([1, 2]).await;
    let listed = page(&sim, SNAPSHOT, &[("startingBlockIndex", "1")]);
    read(&sim, SNAPSHOT, 2, listed.token(2)).unwrap();
    read(&sim, SNAPSHOT, 1, "AAUB").unwrap();
    get(&sim, &format!("/snapshots/{SNAPSHOT}/changedblocks")).unwrap();
    let calls = sim.calls();
    assert!(calls.iter().all(|call| call.service == Service::Ebs));
    let summary: Vec<_> = calls
        .iter()
        .map(|call| (call.action.as_str(), call.block(), call.answer.clone()))
        .collect();
    let refused = |code: &str| Answer::Refused(code.into());
    assert_eq!(
        summary,
        [
            ("ListSnapshotBlocks", None, Answer::Ok),
            ("GetSnapshotBlock", Some((SNAPSHOT, 2)), Answer::Ok),
            (
                "GetSnapshotBlock",
                Some((SNAPSHOT, 1)),
                refused("ValidationException")
            ),
            (
                "GET /snapshots/snap-0123456789abcdef0/changedblocks",
                None,
                refused("UnknownOperationException")
            ),
        ]
    );
    assert_eq!(calls[0].params["SnapshotId"], SNAPSHOT);
    assert_eq!(calls[0].params["StartingBlockIndex"], "1");
    assert_eq!(calls[1].params["BlockToken"], listed.token(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_file_that_is_gone_is_an_internal_error_that_names_it() {
    let (sim, image) = sim_with([1]).await;
    let path = image.0.display().to_string();
    drop(image);
    let received = list(&sim, SNAPSHOT, &[]);
    assert_eq!(received.error(), error(500, "InternalServerException", ""));
    let message = received.json()["Message"].to_string();
    assert!(message.contains(&path), "{message}");
    assert!(Snapshot::of_disk(SNAPSHOT, path).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_a_disk_tells_its_size_and_its_key() {
    let image = Image::new(2 * GIB + 1, []);
    let mut world = World::default();
    world.add_snapshot(Snapshot {
        kms_key_id: Some(KEY.into()),
        ..image.snapshot(SNAPSHOT)
    });
    world.add_snapshot(image.snapshot(OTHER));
    let sim = open(world).await.unwrap();
    let describe = |id| {
        let path = format!("/?Action=DescribeSnapshots&Version=2016-11-15&SnapshotId.1={id}");
        String::from_utf8(get(&sim, &path).unwrap().body).unwrap()
    };
    let encrypted = describe(SNAPSHOT);
    for element in [
        "<volumeSize>3</volumeSize>".to_owned(),
        "<encrypted>true</encrypted>".to_owned(),
        format!("<kmsKeyId>{KEY}</kmsKeyId>"),
    ] {
        assert!(encrypted.contains(&element), "{encrypted}");
    }
    let plain = describe(OTHER);
    assert!(plain.contains("<encrypted>false</encrypted>") && !plain.contains("kmsKeyId"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_a_volume_that_was_made_from_a_snapshot_has_its_blocks_and_its_key() {
    let (mut world, image) = world_with([1]);
    world.add_snapshot(Snapshot {
        kms_key_id: Some(KEY.into()),
        ..image.snapshot(SNAPSHOT)
    });
    let sim = open(world).await.unwrap();
    let ec2 = |action: &str| {
        let path = format!("/?Version=2016-11-15&Action={action}");
        assert_eq!(get(&sim, &path).unwrap().status, 200);
    };
    ec2(&format!(
        "CreateVolume&AvailabilityZone=eu-west-1a&SnapshotId={SNAPSHOT}"
    ));
    let volume = sim.world().volumes.keys().next().unwrap().clone();
    ec2(&format!("CreateSnapshot&VolumeId={volume}"));
    let mut ids: Vec<String> = sim.world().snapshots.keys().cloned().collect();
    ids.retain(|id| id != SNAPSHOT);
    assert_eq!(page(&sim, &ids[0], &[]).indexes(), [1]);
    let copy = sim.world().snapshots[&ids[0]].clone();
    assert_eq!(
        (copy.encrypted, copy.kms_key_id.as_deref()),
        (true, Some(KEY))
    );
}
