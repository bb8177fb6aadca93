//! Reads disks in a child process that can do no harm. No input can make the caller panic, take more memory than the
//! child may have, or take longer than its time limit.
//!
//! The child is the same program, started with [`ARGUMENT`]. It gets no environment and no open connection. Its parent
//! sends it the disk's blocks through a pipe.
//!
//! The protocol uses little-endian numbers.
//!
//! - The parent begins with the disk's size in bytes and the maximum number of blocks (`u64` each).
//! - The child requests blocks with `?`, the first block (`u64`) and the number of blocks (`u32`).
//! - The parent answers with each block's length (`u32`, zero for a block that was never written) and its bytes.
//! - The child ends with `.`, a length (`u32`) and the [`Inspection`] as JSON.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rlimit::Resource;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::volume::AT_ONCE;
use crate::{BlockSource, Inspection};

/// Argument that starts a program as the child. The program must then call [`run_child`] before anything else.
pub const ARGUMENT: &str = "read-disk";

/// Environment variable that permits reading where the operating system does not allow a limit to be set. A
/// command-line program may honour it. A service must not.
pub const UNLIMITED: &str = "AMI_GUARD_UNLIMITED_READER";

/// Argument that passes this permission to the child.
const LENIENT: &str = "lenient";

/// Whether children of this process may read where a limit cannot be set.
static MAY_BE_LENIENT: AtomicBool = AtomicBool::new(false);

/// Memory limit of the child, in bytes. It holds the cache of 16 MiB, and several times what the readers need besides.
const MOST_MEMORY: u64 = 96 * 1024 * 1024;

/// Maximum length of the child's answer, in bytes. Its texts are bounded, but a file name may have 255 letters.
const MOST_ANSWER: u32 = 256 * 1024;

/// Maximum number of bytes read from the standard error of a child that failed.
const MOST_LAST_WORDS: usize = 4096;

/// Maximum number of its characters that are shown.
const MOST_SHOWN: usize = 400;

/// How long to wait for a failed child to finish its standard error, and then to exit. It is then killed, as any child
/// is.
const PATIENCE: Duration = Duration::from_secs(1);

const ASKS: u8 = b'?';
const ANSWERS: u8 = b'.';

/// Limits for reading a disk.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of blocks of 512 KiB to fetch.
    pub blocks: u64,
    /// Maximum time for the whole reading.
    pub time: Duration,
}

/// Lets children of this process read although a limit cannot be set, from now on. The limits that can be set still
/// are.
pub fn allow_missing_limits() {
    MAY_BE_LENIENT.store(true, Ordering::Relaxed);
}

/// Source of the blocks that the parent sends: an asynchronous [`BlockSource`].
pub trait Blocks: Send {
    /// Like [`BlockSource::size`].
    fn size(&self) -> u64;

    /// Like [`BlockSource::fetch`].
    ///
    /// # Errors
    /// Those of [`BlockSource::fetch`].
    fn fetch(
        &mut self,
        blocks: Range<u64>,
    ) -> impl Future<Output = Result<Vec<Option<Vec<u8>>>, String>> + Send;
}

impl<S: BlockSource + Send> Blocks for S {
    fn size(&self) -> u64 {
        BlockSource::size(self)
    }

    async fn fetch(&mut self, blocks: Range<u64>) -> Result<Vec<Option<Vec<u8>>>, String> {
        BlockSource::fetch(self, blocks)
    }
}

/// The process that reads disks.
#[derive(Clone, Debug)]
pub enum Reader {
    /// A child process of this program, which can do no harm.
    Child(PathBuf),
    /// This process, without that protection. For tests with virtual time, which cannot wait for another process.
    Here,
}

impl Reader {
    /// Reads a disk.
    ///
    /// Anything that prevents the reading, including a limit, makes the inspection's result `Err` with the reason.
    pub async fn inspect(&self, disk: &mut impl Blocks, limits: Limits) -> Inspection {
        let mut blocks_read = 0;
        let answer = match self {
            Reader::Child(program) => ask_child(program, disk, limits, &mut blocks_read).await,
            Reader::Here => read_here(disk, limits).await,
        };
        answer.unwrap_or_else(|why| Inspection {
            blocks_read,
            result: Err(why),
        })
    }

    /// Checks that disks can be read at all, with an empty disk, within `time`.
    ///
    /// # Errors
    /// The reason why they cannot.
    pub async fn check(&self, time: Duration) -> Result<(), String> {
        let limits = Limits { blocks: 1, time };
        match self {
            Reader::Child(program) => {
                let answer = ask_child(program, &mut Nothing, limits, &mut 0).await;
                answer.map(|_| ())
            }
            Reader::Here => Ok(()),
        }
    }
}

/// Reads the disk in this process. Each pass starts from the beginning and ends at the first block that is missing. The
/// missing blocks are then fetched for the next pass.
async fn read_here(disk: &mut impl Blocks, limits: Limits) -> Result<Inspection, String> {
    let fetched = Fetched {
        size: disk.size(),
        blocks: Arc::default(),
    };
    let reading = async {
        loop {
            let inspection = crate::inspect(fetched.clone(), limits.blocks);
            let Some(missing) = fetched.lock().missing.take() else {
                return Ok(inspection);
            };
            let first = missing.start;
            let blocks = disk.fetch(missing).await?;
            fetched.lock().there.extend((first..).zip(blocks));
        }
    };
    match tokio::time::timeout(limits.time, reading).await {
        Ok(answer) => answer,
        Err(_) => Err(too_long(limits.time)),
    }
}

/// A disk of which some blocks have been fetched.
#[derive(Clone)]
struct Fetched {
    size: u64,
    blocks: Arc<Mutex<Fetching>>,
}

#[derive(Default)]
struct Fetching {
    there: BTreeMap<u64, Option<Vec<u8>>>,
    /// The first blocks that were requested but are missing.
    missing: Option<Range<u64>>,
}

impl Fetched {
    fn lock(&self) -> MutexGuard<'_, Fetching> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockSource for Fetched {
    fn size(&self) -> u64 {
        self.size
    }

    fn fetch(&mut self, blocks: Range<u64>) -> Result<Vec<Option<Vec<u8>>>, String> {
        let mut fetching = self.lock();
        let block = |at: u64| fetching.there.get(&at).cloned();
        let there: Option<Vec<_>> = match fetching.missing {
            None => blocks.clone().map(block).collect(),
            Some(_) => None,
        };
        there.ok_or_else(|| {
            fetching.missing.get_or_insert(blocks);
            "it is not there yet".to_owned()
        })
    }
}

fn too_long(time: Duration) -> String {
    format!("it takes more than {:.0} seconds", time.as_secs_f64())
}

/// A disk without blocks.
struct Nothing;

impl BlockSource for Nothing {
    fn size(&self) -> u64 {
        0
    }

    fn fetch(&mut self, _: Range<u64>) -> Result<Vec<Option<Vec<u8>>>, String> {
        Err("there is no block".into())
    }
}

/// The child's answer, or the reason why there is none. `blocks_read` counts the written blocks sent so far.
async fn ask_child(
    program: &Path,
    disk: &mut impl Blocks,
    limits: Limits,
    blocks_read: &mut u64,
) -> Result<Inspection, String> {
    let mut child = start(program, limits.time)
        .map_err(|error| format!("the reader could not be started: {error}"))?;
    let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("the reader could not be spoken to".into());
    };
    let talk = talk(to, from, disk, limits.blocks, blocks_read);
    match tokio::time::timeout(limits.time, talk).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            let why = last_words(&mut child).await;
            Err(why.unwrap_or_else(|| error.to_string()))
        }
        // Dropping the child kills it.
        Err(_) => Err(too_long(limits.time)),
    }
}

fn start(program: &Path, time: Duration) -> io::Result<Child> {
    let lenient = MAY_BE_LENIENT.load(Ordering::Relaxed);
    Command::new(program)
        .arg(ARGUMENT)
        .arg(time.as_secs().to_string())
        .args(lenient.then_some(LENIENT))
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// Sends the child the blocks it requests, until it answers or a fetch fails.
async fn talk(
    mut to: ChildStdin,
    mut from: ChildStdout,
    disk: &mut impl Blocks,
    most_blocks: u64,
    blocks_read: &mut u64,
) -> io::Result<Result<Inspection, String>> {
    to.write_u64_le(disk.size()).await?;
    to.write_u64_le(most_blocks).await?;
    to.flush().await?;
    let mut asked = 0;
    loop {
        match from.read_u8().await? {
            ASKS => {
                let first = from.read_u64_le().await?;
                let count = from.read_u32_le().await?;
                let blocks = first..first.saturating_add(count.into());
                asked += u64::from(count);
                if u64::from(count) > AT_ONCE || asked > most_blocks {
                    return Err(io::Error::other("the reader asked for more than it may"));
                }
                let blocks = match disk.fetch(blocks).await {
                    Ok(blocks) => blocks,
                    Err(why) => return Ok(Err(why)),
                };
                for block in blocks {
                    let block = block.unwrap_or_default();
                    *blocks_read += u64::from(!block.is_empty());
                    to.write_u32_le(length(&block)?).await?;
                    to.write_all(&block).await?;
                }
                to.flush().await?;
            }
            ANSWERS => {
                let length = from.read_u32_le().await?.min(MOST_ANSWER);
                let mut json = vec![0; usize::try_from(length).unwrap_or(0)];
                from.read_exact(&mut json).await?;
                return Ok(Ok(serde_json::from_slice(&json)?));
            }
            _ => return Err(io::Error::other("the reader said what nobody understands")),
        }
    }
}

fn length(bytes: &[u8]) -> io::Result<u32> {
    u32::try_from(bytes.len()).map_err(io::Error::other)
}

/// The reason why a child ended without an answer, or `None` if it did not end.
async fn last_words(child: &mut Child) -> Option<String> {
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let mut some = stderr.take(MOST_LAST_WORDS as u64);
        let _ = tokio::time::timeout(PATIENCE, some.read_to_end(&mut said)).await;
    }
    let status = tokio::time::timeout(PATIENCE, child.wait())
        .await
        .ok()?
        .ok()?;
    Some(how_it_ended(&String::from_utf8_lossy(&said), status))
}

fn how_it_ended(said: &str, status: ExitStatus) -> String {
    if said.contains("memory allocation") {
        let most = MOST_MEMORY / (1024 * 1024);
        return format!("reading it takes more than {most} MiB of memory");
    }
    // `thread 'main' (12) panicked at crate/src/file.rs:205:10:`, with the panic's message in the next line.
    let panic = said.split_once("panicked at ").map(|(_, rest)| rest);
    let place = panic.and_then(|rest| rest.lines().next());
    // The folder in which the crate was compiled is not shown.
    let place = place.map(|place| place.trim_end_matches(':').rsplit("/registry/src/").next());
    match place.flatten() {
        Some(place) => {
            let file = place.split_once('/').map_or(place, |(_, file)| file);
            format!("the reader panicked at {file}: the disk is damaged, or nobody foresaw it")
        }
        None => {
            let ended = format!("the reader ended without an answer ({status})");
            match one_line(said) {
                said if said.is_empty() => ended,
                said => format!("{ended}: {said}"),
            }
        }
    }
}

/// Escapes and truncates the child's standard error to one line.
fn one_line(said: &str) -> String {
    let words: Vec<&str> = said.split_whitespace().collect();
    let short: String = words.join(" ").chars().take(MOST_SHOWN).collect();
    short.escape_debug().to_string()
}

/// Runs the child: reads the disk whose blocks the parent sends, and writes the answer.
///
/// `arguments` are those after [`ARGUMENT`]. The first is the CPU time limit in seconds, 60 if absent. A second one
/// passes the permission of [`allow_missing_limits`].
pub fn run_child(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    let arguments: Vec<String> = arguments.into_iter().collect();
    let seconds = arguments.iter().find_map(|text| text.parse().ok());
    let lenient = arguments.iter().any(|text| text == LENIENT);
    let set = |resource: Resource, soft, hard| resource.set(soft, hard);
    let worked = limit(seconds.unwrap_or(60), lenient, set);
    match worked.and_then(|()| answer().map_err(|error| error.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Sets the child's resource limits. Some systems refuse: macOS cannot limit the memory.
///
/// # Errors
/// The limit that cannot be set, unless `lenient`.
fn limit(
    seconds: u64,
    lenient: bool,
    set: impl Fn(Resource, u64, u64) -> io::Result<()>,
) -> Result<(), String> {
    let seconds = seconds.max(1);
    for (resource, soft, hard) in [
        // Written memory: the heap. A limit on the address space would count the program itself, too.
        (Resource::DATA, MOST_MEMORY, MOST_MEMORY),
        (Resource::CPU, seconds, seconds + 1),
        (Resource::CORE, 0, 0),
        (Resource::FSIZE, 0, 0),
    ] {
        if let Err(error) = set(resource, soft, hard)
            && !lenient
        {
            let name = resource.as_name();
            return Err(format!(
                "the limit {name} cannot be set on this system: {error}. To read disks on the command line without it, set \
                 {UNLIMITED}=1"
            ));
        }
    }
    Ok(())
}

fn answer() -> io::Result<()> {
    let size = number()?;
    let most_blocks = number()?;
    let inspection = crate::inspect(Parent { size }, most_blocks);
    let json = serde_json::to_vec(&inspection)?;
    let mut out = io::stdout().lock();
    out.write_all(&[ANSWERS])?;
    out.write_all(&length(&json)?.to_le_bytes())?;
    out.write_all(&json)?;
    out.flush()
}

fn number() -> io::Result<u64> {
    let mut bytes = [0; 8];
    io::stdin().read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// The disk as the child sees it: a proxy for the parent.
struct Parent {
    size: u64,
}

impl Parent {
    fn ask(&self, blocks: Range<u64>) -> io::Result<Vec<Option<Vec<u8>>>> {
        let count = u32::try_from(blocks.end - blocks.start).map_err(io::Error::other)?;
        let mut out = io::stdout().lock();
        out.write_all(&[ASKS])?;
        out.write_all(&blocks.start.to_le_bytes())?;
        out.write_all(&count.to_le_bytes())?;
        out.flush()?;
        let mut input = io::stdin().lock();
        let mut block = |_| {
            let mut length = [0; 4];
            input.read_exact(&mut length)?;
            let length = usize::try_from(u32::from_le_bytes(length)).map_err(io::Error::other)?;
            let mut bytes = vec![0; length];
            input.read_exact(&mut bytes)?;
            Ok((length > 0).then_some(bytes))
        };
        blocks.map(&mut block).collect()
    }
}

impl BlockSource for Parent {
    fn size(&self) -> u64 {
        self.size
    }

    fn fetch(&mut self, blocks: Range<u64>) -> Result<Vec<Option<Vec<u8>>>, String> {
        let asked = self.ask(blocks);
        asked.map_err(|error| format!("the blocks did not arrive: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refuses the memory limit, as macOS does.
    fn memory_is_not_limited(resource: Resource, _: u64, _: u64) -> io::Result<()> {
        match resource {
            Resource::DATA => Err(io::Error::from_raw_os_error(22)),
            _ => Ok(()),
        }
    }

    #[test]
    fn regression_where_a_limit_cannot_be_set_the_reason_is_said_and_a_setting_goes_on() {
        let why = limit(60, false, memory_is_not_limited).unwrap_err();
        assert!(
            why.starts_with("the limit RLIMIT_DATA cannot be set on this system: "),
            "{why}"
        );
        assert!(why.contains("AMI_GUARD_UNLIMITED_READER=1"), "{why}");
        assert_eq!(limit(60, true, memory_is_not_limited), Ok(()));
        assert_eq!(limit(60, false, |_, _, _| Ok(())), Ok(()));
    }

    #[test]
    fn last_words_are_harmless_and_on_one_line() {
        let words = one_line("a\n\u{1b}[2J b\r\n");
        assert_eq!(words, "a \\u{1b}[2J b");
        assert_eq!(one_line(&"x".repeat(10_000)).len(), MOST_SHOWN);
    }
}
