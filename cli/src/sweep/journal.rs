//! What a sweep has found, in a file, as it finds it: a sweep that is stopped, however, goes on from there.
//!
//! Lines of JSON: the header, then the rows of a page and the page's end, and so on. Rows without the end of their page
//! do not count: they are found again.

use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ami_billing_guard::sweep::Swept;
use chrono::{DateTime, Utc};
use etcetera::BaseStrategy;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::summary::Listed;
use crate::{Stop, show};

/// What is swept. A sweep goes on only as what it began.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) account: String,
    pub(super) regions: Vec<String>,
    pub(super) since: Option<DateTime<Utc>>,
    /// The same as it was said: how long ago was another time then.
    pub(super) since_said: Option<String>,
    pub(super) disk: bool,
    pub(super) enforce: bool,
    /// The policy, written out.
    pub(super) policy: String,
    /// Where it was read.
    pub(super) policy_name: String,
    pub(super) begun: DateTime<Utc>,
}

/// The end of a page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Page {
    pub(super) region: String,
    /// When it was looked at.
    pub(super) at: DateTime<Utc>,
    /// Where the next begins, if there is one.
    pub(super) next: Option<String>,
    /// How many AMIs were pending.
    pub(super) underway: usize,
    /// Why the Region could not be looked at.
    pub(super) failed: Option<String>,
}

impl Page {
    pub(super) fn of(region: &str, swept: &Swept) -> Page {
        Page {
            region: region.to_owned(),
            at: Utc::now(),
            next: swept.next.clone(),
            underway: swept.underway,
            failed: None,
        }
    }

    pub(super) fn failed(region: &str, why: &str) -> Page {
        Page {
            region: region.to_owned(),
            at: Utc::now(),
            next: None,
            underway: 0,
            failed: Some(why.to_owned()),
        }
    }
}

/// A line that is no row. A row is a record, which has none of these keys.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mark {
    Sweep(Header),
    Page(Page),
}

/// The file, open for writing, and what it has.
pub(super) struct Journal {
    pub(super) header: Header,
    /// How many rows count.
    pub(super) rows: u64,
    /// Whether it was begun by an earlier sweep.
    pub(super) resumed: bool,
    pages: Vec<Page>,
    path: PathBuf,
    out: BufWriter<File>,
}

impl Journal {
    /// Opens the journal: the one that was begun, if it is to be resumed and is of the same sweep, or a new one.
    pub(super) fn open(path: Option<&Path>, header: Header, resume: bool) -> Result<Journal, Stop> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => default_path(&header.account)?,
        };
        let shown = path.display().to_string();
        let unusable = |error| Stop::Unknown(format!("{shown:?}, where progress is kept: {error}"));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        // Names and tags of the account are nobody else's.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Stop::Unknown(format!(
                    "{shown:?}: another sweep is writing there"
                )));
            }
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        let mut journal = Journal {
            header,
            rows: 0,
            resumed: resume,
            pages: Vec::new(),
            out: BufWriter::new(file.try_clone().map_err(unusable)?),
            path,
        };
        if resume {
            let (whole, acts) = journal.read(&mut file).map_err(unusable)??;
            file.set_len(whole).map_err(unusable)?;
            file.seek(SeekFrom::End(0)).map_err(unusable)?;
            for row in acts {
                journal.keep(&row)?;
            }
            journal.out.flush().map_err(unusable)?;
        } else {
            file.set_len(0).map_err(unusable)?;
            let header = show::json(&Mark::Sweep(journal.header.clone()))?;
            journal.out.write_all(header.as_bytes()).map_err(unusable)?;
            journal.out.flush().map_err(unusable)?;
        }
        file.seek(SeekFrom::End(0)).map_err(unusable)?;
        Ok(journal)
    }

    /// Takes note of what is there, and says how much of it is whole, and which rows beyond that tell of something
    /// that was done: it is not found again.
    fn read(&mut self, file: &mut File) -> std::io::Result<Result<(u64, Vec<String>), Stop>> {
        let mut lines = BufReader::new(file);
        let mut line = String::new();
        let (mut at, mut whole, mut rows) = (0, 0, 0);
        let mut acts = Vec::new();
        while lines.read_line(&mut line)? > 0 && line.ends_with('\n') {
            at += line.len() as u64;
            match mark(&line) {
                Some(Mark::Sweep(begun)) if whole == 0 => {
                    if let Some(what) = self.header.differs(&begun) {
                        return Ok(Err(Stop::Usage(format!(
                            "--resume: the sweep in {:?} was of another {what}; without --resume a new one begins",
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
                Some(Mark::Sweep(_)) => break,
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
            0 => Err(Stop::Usage(format!(
                "--resume: there is no sweep in {:?} to go on with",
                self.path.display().to_string()
            ))),
            whole => Ok((whole, acts)),
        })
    }

    /// Where to go on in a Region: at its beginning (`None` inside), or somewhere. `None` if it is done.
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
    pub(super) fn is_complete(&self) -> bool {
        let mut regions = self.header.regions.iter();
        regions.all(|region| self.place(region).is_none())
    }

    /// Keeps a row.
    pub(super) fn keep(&mut self, line: &str) -> Result<(), Stop> {
        self.rows += 1;
        self.out
            .write_all(line.as_bytes())
            .map_err(|error| self.full(error))
    }

    /// Keeps the end of a page: from here on its rows count.
    pub(super) fn end_page(&mut self, page: &Page) -> Result<(), Stop> {
        let line = show::json(&Mark::Page(page.clone()))?;
        let kept = self
            .out
            .write_all(line.as_bytes())
            .and_then(|()| self.out.flush());
        kept.map_err(|error| self.full(error))?;
        self.pages.push(page.clone());
        Ok(())
    }

    fn full(&self, error: std::io::Error) -> Stop {
        Stop::Unknown(format!(
            "{:?} can not be written: {error}",
            self.path.display().to_string()
        ))
    }

    /// Makes sure that what is kept stays, whatever comes.
    pub(super) fn flush(&mut self) -> Result<(), Stop> {
        let flushed = self.out.flush();
        flushed.map_err(|error| self.full(error))
    }

    /// The pages' ends, without those of Regions that were looked at later after all.
    pub(super) fn pages(&self) -> impl Iterator<Item = &Page> {
        let later = |page: &Page, number: usize| {
            let mut rest = self.pages.iter().skip(number + 1);
            rest.any(|other| other.region == page.region)
        };
        let pages = self.pages.iter().enumerate();
        pages
            .filter(move |(number, page)| page.failed.is_none() || !later(page, *number))
            .map(|(_, page)| page)
    }

    /// When the last page was looked at.
    pub(super) fn ended(&self) -> DateTime<Utc> {
        self.pages.last().map_or(self.header.begun, |page| page.at)
    }

    /// The rows' lines.
    pub(super) fn lines(&self) -> Result<impl Iterator<Item = Result<String, Stop>>, Stop> {
        let file = File::open(&self.path).map_err(|error| unreadable(&error.to_string()))?;
        Ok(BufReader::new(file).lines().filter_map(|line| match line {
            Ok(line) if mark(&line).is_some() => None,
            Ok(line) => Some(Ok(line + "\n")),
            Err(error) => Some(Err(unreadable(&error.to_string()))),
        }))
    }

    /// The rows, as far as somebody wants to know of them.
    pub(super) fn rows<T: DeserializeOwned>(
        &self,
    ) -> Result<impl Iterator<Item = Result<T, Stop>>, Stop> {
        Ok(self.lines()?.map(|line| row(&line?)))
    }

    /// The images of a Region that are kept.
    pub(super) fn images_of(&self, region: &str) -> Result<HashSet<String>, Stop> {
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
    /// In what another sweep is not this one.
    fn differs(&self, other: &Header) -> Option<&'static str> {
        let differ = [
            (self.account != other.account, "account"),
            (self.regions != other.regions, "Region"),
            (self.since_said != other.since_said, "--since"),
            (self.disk != other.disk, "--disk"),
            (self.enforce != other.enforce, "--enforce"),
            (self.policy != other.policy, "policy"),
        ];
        differ
            .into_iter()
            .find(|(differs, _)| *differs)
            .map(|(_, what)| what)
    }
}

/// A row, as far as somebody wants to know of it.
pub(super) fn row<T: DeserializeOwned>(line: &str) -> Result<T, Stop> {
    serde_json::from_str(line).map_err(|error| unreadable(&error.to_string()))
}

fn unreadable(why: &str) -> Stop {
    Stop::Unknown(format!("what was found can not be read again: {why}"))
}

fn mark(line: &str) -> Option<Mark> {
    // Rows are many and long.
    if !line.starts_with("{\"sweep\":") && !line.starts_with("{\"page\":") {
        return None;
    }
    serde_json::from_str(line).ok()
}

fn default_path(account: &str) -> Result<PathBuf, Stop> {
    let folders = etcetera::choose_base_strategy().map_err(|error| {
        Stop::Usage(format!(
            "no folder to keep progress in is known ({error}): say --state"
        ))
    })?;
    let state = folders.state_dir().unwrap_or_else(|| folders.data_dir());
    let folder = state.join("ami-billing-guard");
    std::fs::create_dir_all(&folder).map_err(|error| {
        Stop::Usage(format!(
            "{:?} can not be made: {error}; say --state",
            folder.display().to_string()
        ))
    })?;
    Ok(folder.join(format!("sweep-{account}.jsonl")))
}
