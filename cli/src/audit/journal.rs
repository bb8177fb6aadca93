//! The state file of an audit. It is written during the audit, so that an audit that stops for any reason can be resumed.
//!
//! The file contains lines of JSON: the header, then for each page its rows and the page's end. Rows without their
//! page's end do not count, because the resumed audit finds them again.
//!
//! An earlier audit's state stays in place until the new audit has completed a page. So an audit that is denied at once
//! loses nothing.

use std::collections::HashSet;
use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ami_billing_guard::Clock;
use ami_billing_guard::audit::Audited;
use chrono::{DateTime, Utc};
use etcetera::BaseStrategy;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::row::Listed;
use crate::files::{self, Existing, Kind};
use crate::outcome::CliError;
use crate::show;

/// The state file of an audit, recognised by its header.
pub(super) const STATE: Kind = Kind {
    option: "--state",
    name: "a file that ami-guard audit wrote",
    has_first_line: |line| matches!(mark(line), Some(Mark::Audit(_))),
};

/// Purpose of opening a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Resume the audit in the journal.
    Resume,
    /// Begin a new audit. It may replace an earlier state of the same audit.
    Begin,
    /// Begin a new audit. It may replace an earlier state of any audit.
    BeginByForce,
}

/// The parameters of an audit. An audit can be resumed only with the same parameters.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) account: String,
    pub(crate) regions: Vec<String>,
    pub(super) since: Option<DateTime<Utc>>,
    /// The option's original text. A relative age gives another point in time when the audit is resumed.
    pub(super) since_said: Option<String>,
    pub(super) disk: bool,
    pub(super) enforce: bool,
    /// The content of the policy.
    pub(super) policy: String,
    /// The file from which the policy was read.
    pub(super) policy_name: String,
    pub(super) begun: DateTime<Utc>,
}

/// The end of a page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Page {
    pub(crate) region: String,
    /// When the page was examined.
    pub(super) at: DateTime<Utc>,
    /// Pagination cursor of the next page, if there is one.
    pub(super) next: Option<String>,
    /// Number of pending AMIs.
    pub(crate) underway: usize,
    /// The reason why the Region could not be examined.
    pub(crate) failed: Option<String>,
}

impl Page {
    pub(super) fn of(region: &str, audited: &Audited) -> Page {
        Page {
            region: region.to_owned(),
            at: Clock::SYSTEM.now(),
            next: audited.next.clone(),
            underway: audited.underway,
            failed: None,
        }
    }

    pub(super) fn failed(region: &str, why: &str) -> Page {
        Page {
            region: region.to_owned(),
            at: Clock::SYSTEM.now(),
            next: None,
            underway: 0,
            failed: Some(why.to_owned()),
        }
    }
}

/// A line that is not a row. A row is a record, which has none of these keys.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mark {
    Audit(Header),
    Page(Page),
}

/// The state file, open for writing, and what is known of its content.
pub(crate) struct Journal {
    pub(crate) header: Header,
    /// Number of rows.
    pub(super) rows: u64,
    /// Whether an earlier audit began the journal.
    pub(super) resumed: bool,
    pages: Vec<Page>,
    path: PathBuf,
    place: Place,
    /// The same file as `out`, for reading.
    file: File,
    /// The length in bytes up to which rows count. Only in a journal that is not written, an incomplete page may follow.
    length: u64,
    out: BufWriter<File>,
}

/// The file to which results are written.
enum Place {
    /// The state file itself.
    Own,
    /// An unnamed file that is lost when this process ends. An earlier state still has the state's name, and this
    /// process holds its lock.
    Apart(Existing),
}

impl Journal {
    /// Opens the journal. Resumes the existing one if that is the purpose and its parameters are the same, or begins a
    /// new one.
    pub(super) fn open(
        path: Option<&Path>,
        header: Header,
        purpose: Purpose,
    ) -> Result<Journal, CliError> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => default_path(&header)?,
        };
        let found = locked(&path)?;
        if purpose == Purpose::Resume {
            return match found {
                Some(found) if !found.is_empty => Journal::resume(path, header, found),
                _ => Err(nothing_to_resume(&path)),
            };
        }
        if let (Purpose::Begin, Some(found)) = (purpose, &found)
            && !found.is_empty
        {
            let earlier = earlier_header(&path, &found.file)?;
            if let Some(what) = header.differs(&earlier) {
                return Err(CliError::Usage(format!(
                    "--state: the audit in {:?} has another {what}, and was not changed. To replace it, add --force. \
                     To keep both, use another --state",
                    path.display().to_string()
                )));
            }
        }
        Journal::begin(path, header, found)
    }

    fn resume(path: PathBuf, header: Header, found: Existing) -> Result<Journal, CliError> {
        let failed = |error| unusable(&path, error);
        let mut file = found.file.try_clone().map_err(failed)?;
        // An earlier version may have created the file, or its owner may have changed its permissions.
        file.set_permissions(Permissions::from_mode(0o600))
            .map_err(failed)?;
        let mut journal = Journal {
            header,
            rows: 0,
            resumed: true,
            pages: Vec::new(),
            path: path.clone(),
            place: Place::Own,
            out: BufWriter::new(file.try_clone().map_err(failed)?),
            file: file.try_clone().map_err(failed)?,
            length: u64::MAX,
        };
        let (whole, acts) = journal.read(&mut file).map_err(failed)??;
        if acts.is_empty() {
            file.set_len(whole).map_err(failed)?;
            file.seek(SeekFrom::End(0)).map_err(failed)?;
            return Ok(journal);
        }
        // These rows cannot be found again, so the file must contain them at every moment.
        journal.rows += acts.len() as u64;
        let acts = acts.concat();
        let mut kept = ReadAt::beginning(&file).take(whole).chain(acts.as_bytes());
        let file = put(&path, &mut kept, Some(&found))?;
        journal.out = BufWriter::new(file.try_clone().map_err(failed)?);
        journal.file = file;
        Ok(journal)
    }

    /// Opens a state file to read it. Changes nothing, and takes no lock.
    ///
    /// # Errors
    /// [`CliError::Usage`], if the file cannot be read or is not an audit's.
    pub(crate) fn view(path: &Path) -> Result<Journal, CliError> {
        let shown = path.display().to_string();
        let unreadable = |error: io::Error| {
            CliError::Usage(format!("--state: {shown:?} cannot be read: {error}"))
        };
        // Checked before the file is opened, because opening a FIFO waits for a writer.
        let is_file = std::fs::metadata(path).map_err(unreadable)?.is_file();
        let mut file = match is_file {
            true => File::open(path).map_err(unreadable)?,
            false => return Err(not_an_audit(&shown)),
        };
        let header = earlier_header(path, &file).map_err(|_| not_an_audit(&shown))?;
        let mut journal = Journal {
            header,
            rows: 0,
            resumed: false,
            pages: Vec::new(),
            path: path.to_owned(),
            place: Place::Own,
            out: BufWriter::new(file.try_clone().map_err(unreadable)?),
            file: file.try_clone().map_err(unreadable)?,
            length: 0,
        };
        let (whole, _) = journal.read(&mut file).map_err(unreadable)??;
        journal.length = whole;
        Ok(journal)
    }

    fn begin(path: PathBuf, header: Header, found: Option<Existing>) -> Result<Journal, CliError> {
        let failed = |error| unusable(&path, error);
        let line = show::json(&Mark::Audit(header.clone()))?;
        let (file, place) = match found {
            Some(found) if !found.is_empty => {
                let file = tempfile::tempfile_in(files::folder(&path)).map_err(failed)?;
                (file, Place::Apart(found))
            }
            // There is no earlier state to lose.
            found => (
                put(&path, &mut line.as_bytes(), found.as_ref())?,
                Place::Own,
            ),
        };
        let mut journal = Journal {
            header,
            rows: 0,
            resumed: false,
            pages: Vec::new(),
            out: BufWriter::new(file.try_clone().map_err(failed)?),
            file,
            length: u64::MAX,
            place,
            path: path.clone(),
        };
        if let Place::Apart(_) = journal.place {
            journal.out.write_all(line.as_bytes()).map_err(failed)?;
        }
        Ok(journal)
    }

    /// The path of the state file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the results are in the state file, and can be resumed.
    pub(super) fn is_in_place(&self) -> bool {
        matches!(self.place, Place::Own)
    }

    /// Whether any page was completed.
    pub(super) fn has_a_page(&self) -> bool {
        self.pages.iter().any(|page| page.failed.is_none())
    }

    /// Replaces the earlier state with the results so far.
    fn put_in_place(&mut self) -> Result<(), CliError> {
        let Place::Apart(earlier) = &self.place else {
            return Ok(());
        };
        let mut found = ReadAt::beginning(&self.file);
        let file = put(&self.path, &mut found, Some(earlier))?;
        let again = file.try_clone().map_err(|error| self.full(error))?;
        self.out = BufWriter::new(again);
        self.file = file;
        self.place = Place::Own;
        Ok(())
    }

    /// Reads the existing state. Returns the length in bytes up to the last page's end, and the rows after it that
    /// record an action. A resumed audit cannot find these rows again.
    fn read(&mut self, file: &mut File) -> std::io::Result<Result<(u64, Vec<String>), CliError>> {
        let mut lines = BufReader::new(file);
        let mut line = String::new();
        let (mut at, mut whole, mut rows) = (0, 0, 0);
        let mut acts = Vec::new();
        while lines.read_line(&mut line)? > 0 && line.ends_with('\n') {
            at += line.len() as u64;
            match mark(&line) {
                Some(Mark::Audit(begun)) if whole == 0 => {
                    if let Some(what) = self.header.differs(&begun) {
                        return Ok(Err(CliError::Usage(format!(
                            "--resume: the audit in {:?} has another {what}, and was not changed",
                            self.path.display().to_string()
                        ))));
                    }
                    self.header = begun;
                    whole = at;
                }
                Some(Mark::Page(page)) => {
                    self.pages.push(page);
                    self.rows += rows;
                    (whole, rows) = (at, 0);
                    acts.clear();
                }
                Some(Mark::Audit(_)) => break,
                None => {
                    rows += 1;
                    if row::<Listed>(&line).is_ok_and(|row| row.outcome.is_some()) {
                        acts.push(line.clone());
                    }
                }
            }
            line.clear();
        }
        Ok(match whole {
            0 => Err(nothing_to_resume(&self.path)),
            whole => Ok((whole, acts)),
        })
    }

    /// The pagination cursor at which to continue in a Region, or `Some(None)` for its beginning. `None` if the Region
    /// is done.
    #[allow(clippy::option_option)]
    pub(super) fn place(&self, region: &str) -> Option<Option<String>> {
        let last = self.pages.iter().rev().find(|page| page.region == region);
        match last {
            None => Some(None),
            Some(page) if page.failed.is_some() => Some(None),
            Some(page) => page.next.clone().map(Some),
        }
    }

    /// Whether every Region is done.
    pub(crate) fn is_complete(&self) -> bool {
        let mut regions = self.header.regions.iter();
        regions.all(|region| self.place(region).is_none())
    }

    /// Adds a row.
    pub(super) fn keep(&mut self, line: &str) -> Result<(), CliError> {
        self.rows += 1;
        self.out
            .write_all(line.as_bytes())
            .map_err(|error| self.full(error))
    }

    /// Adds the end of a page, which makes the page's rows count.
    pub(super) fn end_page(&mut self, page: &Page) -> Result<(), CliError> {
        let line = show::json(&Mark::Page(page.clone()))?;
        let kept = self
            .out
            .write_all(line.as_bytes())
            .and_then(|()| self.out.flush());
        kept.map_err(|error| self.full(error))?;
        self.pages.push(page.clone());
        match page.failed {
            // A failed Region has no result that would justify replacing the earlier state.
            Some(_) => Ok(()),
            None => self.put_in_place(),
        }
    }

    fn full(&self, error: std::io::Error) -> CliError {
        CliError::Unknown(format!(
            "{:?} cannot be written: {error}",
            self.path.display().to_string()
        ))
    }

    /// Writes all rows to the state file, because a row that records an action cannot be found again.
    pub(super) fn flush(&mut self) -> Result<(), CliError> {
        let flushed = self.out.flush();
        flushed.map_err(|error| self.full(error))?;
        self.put_in_place()
    }

    /// The ends of pages, without failures of Regions that were examined later.
    pub(crate) fn pages(&self) -> impl Iterator<Item = &Page> {
        let later = |page: &Page, number: usize| {
            let mut rest = self.pages.iter().skip(number + 1);
            rest.any(|other| other.region == page.region)
        };
        let pages = self.pages.iter().enumerate();
        pages
            .filter(move |(number, page)| page.failed.is_none() || !later(page, *number))
            .map(|(_, page)| page)
    }

    /// When the last page was examined.
    pub(super) fn ended(&self) -> DateTime<Utc> {
        self.pages.last().map_or(self.header.begun, |page| page.at)
    }

    /// The lines of the rows.
    pub(super) fn lines(&self) -> Result<impl Iterator<Item = Result<String, CliError>>, CliError> {
        let rows = ReadAt::beginning(&self.file).take(self.length);
        let lines = BufReader::new(rows).lines();
        Ok(lines.filter_map(|line| match line {
            Ok(line) if mark(&line).is_some() => None,
            Ok(line) => Some(Ok(line + "\n")),
            Err(error) => Some(Err(unreadable(&error.to_string()))),
        }))
    }

    /// The rows, with the keys that `T` needs.
    pub(crate) fn rows<T: DeserializeOwned>(
        &self,
    ) -> Result<impl Iterator<Item = Result<T, CliError>>, CliError> {
        Ok(self.lines()?.map(|line| row(&line?)))
    }

    /// The ids of a Region's images that the journal has.
    pub(super) fn images_of(&self, region: &str) -> Result<HashSet<String>, CliError> {
        let mut images = HashSet::new();
        for row in self.rows::<Listed>()? {
            let row = row?;
            if row.region.as_deref() == Some(region) {
                images.extend(row.image_id);
            }
        }
        Ok(images)
    }
}

impl Header {
    /// The parameters in which an earlier audit differs: `Region (eu-west-1 there, us-east-1 now)`.
    fn differs(&self, earlier: &Header) -> Option<String> {
        let said = |since: &Option<String>| since.clone().unwrap_or_else(|| "not given".into());
        let given = |given: bool| if given { "given" } else { "not given" }.to_owned();
        let compared = [
            ("account", earlier.account.clone(), self.account.clone()),
            ("Region", earlier.regions.join(" "), self.regions.join(" ")),
            ("--since", said(&earlier.since_said), said(&self.since_said)),
            ("--disk", given(earlier.disk), given(self.disk)),
            ("--enforce", given(earlier.enforce), given(self.enforce)),
        ];
        let mut differ: Vec<String> = compared
            .into_iter()
            .filter(|(_, there, now)| there != now)
            .map(|(what, there, now)| format!("{what} ({there} there, {now} now)"))
            .collect();
        if self.policy != earlier.policy {
            let (there, now) = (&earlier.policy_name, &self.policy_name);
            // The file of this name may have changed.
            differ.push(match there == now {
                true => format!("policy ({now} was changed since)"),
                false => format!("policy ({there} there, {now} now)"),
            });
        }
        (!differ.is_empty()).then(|| differ.join(", "))
    }

    /// Code in the names of an account's default state files. Audits of other Regions or with other options get another
    /// file.
    fn code(&self) -> Result<String, CliError> {
        let options = (&self.regions, &self.since_said, self.disk, self.enforce);
        let digest = Sha256::digest(show::json(&options)?);
        Ok(digest
            .iter()
            .take(4)
            .map(|it| format!("{it:02x}"))
            .collect())
    }
}

/// Reads a file from its beginning, independently of the position at which it is written.
struct ReadAt<'a> {
    file: &'a File,
    at: u64,
}

impl ReadAt<'_> {
    fn beginning(file: &File) -> ReadAt<'_> {
        ReadAt { file, at: 0 }
    }
}

impl Read for ReadAt<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// The file with the state's name, locked, so that no other audit writes to it.
fn locked(path: &Path) -> Result<Option<Existing>, CliError> {
    let Some(found) = STATE.find(path)? else {
        return Ok(None);
    };
    let name = path.display().to_string();
    let taken = || CliError::Unknown(format!("another audit is writing to {name:?}"));
    match found.file.try_lock() {
        // Another process may have replaced the file before it was locked.
        Ok(()) if found.is_at(path) => Ok(Some(found)),
        Ok(()) | Err(TryLockError::WouldBlock) => Err(taken()),
        Err(TryLockError::Error(error)) => Err(unusable(path, error)),
    }
}

/// Writes a new state file, locks it, and renames it to the state's name.
fn put(path: &Path, content: &mut dyn Read, found: Option<&Existing>) -> Result<File, CliError> {
    let failed = |error| unusable(path, error);
    let mut new = STATE.beside(path).map_err(failed)?;
    // This cannot wait, because no other process knows the file's name yet.
    new.as_file()
        .try_lock()
        .map_err(|error| failed(error.into()))?;
    io::copy(content, new.as_file_mut()).map_err(failed)?;
    STATE.put(new, path, found)
}

fn unusable(path: &Path, error: io::Error) -> CliError {
    let name = path.display().to_string();
    CliError::Unknown(format!("cannot use {name:?} for the results: {error}"))
}

fn not_an_audit(shown: &str) -> CliError {
    let name = STATE.name;
    CliError::Usage(format!(
        "--state: {shown:?} is not {name}. Accepted: {name} with --state"
    ))
}

fn nothing_to_resume(path: &Path) -> CliError {
    let name = path.display().to_string();
    CliError::Usage(format!("--resume: {name:?} has no audit to continue"))
}

/// The header of an earlier state.
fn earlier_header(path: &Path, file: &File) -> Result<Header, CliError> {
    let mut line = String::new();
    BufReader::new(ReadAt::beginning(file).take(files::MOST_FIRST_LINE))
        .read_line(&mut line)
        .map_err(|error| unusable(path, error))?;
    match mark(&line) {
        Some(Mark::Audit(header)) => Ok(header),
        _ => Err(nothing_to_resume(path)),
    }
}

/// Parses a row, with the keys that `T` needs.
pub(super) fn row<T: DeserializeOwned>(line: &str) -> Result<T, CliError> {
    serde_json::from_str(line).map_err(|error| unreadable(&error.to_string()))
}

fn unreadable(why: &str) -> CliError {
    CliError::Unknown(format!("the saved results cannot be read: {why}"))
}

fn mark(line: &str) -> Option<Mark> {
    // Avoids parsing the rows, which are many and long.
    if !line.starts_with("{\"audit\":") && !line.starts_with("{\"page\":") {
        return None;
    }
    serde_json::from_str(line).ok()
}

fn default_path(header: &Header) -> Result<PathBuf, CliError> {
    let folders = etcetera::choose_base_strategy().map_err(|error| {
        CliError::Usage(format!(
            "no folder for the results is known ({error}). Pass --state"
        ))
    })?;
    let state = folders.state_dir().unwrap_or_else(|| folders.data_dir());
    let folder = state.join("ami-billing-guard");
    // The names and tags of the account's AMIs are private.
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(&folder).map_err(|error| {
        CliError::Usage(format!(
            "{:?} cannot be created: {error}. Pass --state",
            folder.display().to_string()
        ))
    })?;
    let (account, code) = (&header.account, header.code()?);
    Ok(folder.join(format!("audit-{account}-{code}.jsonl")))
}
