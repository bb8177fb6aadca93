//! Batched look-ups for many images.
//!
//! An audit of an account, or a batch of events, needs the same few look-ups for every image. One call for each would
//! be too many. A look-up that has no answer yet is therefore only queued. The queued look-ups of many images are sent
//! together. Once they are answered, the images are looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::aws::{Aws, ImagesBy, MOST_VALUES, SLOW, no_answer_in, retry};
use crate::ec2::{Image, Instance, Snapshot, Volume};
use crate::error::Error;

/// Look-ups in EC2. For a single image, each is a call of its own. For many images, they are batched.
#[derive(Clone, Debug)]
pub(crate) struct Lookups {
    /// AWS, for calls that are not batched.
    pub(crate) aws: Aws,
    batch: Option<Arc<BatchLoader>>,
}

impl Lookups {
    /// Sends each look-up on its own.
    pub(crate) fn single(aws: Aws) -> Lookups {
        Lookups { aws, batch: None }
    }

    /// Queues each look-up until [`BatchLoader::put`] sends it, together with those of other images.
    pub(crate) fn together(aws: Aws, batch: Arc<BatchLoader>) -> Lookups {
        let batch = Some(batch);
        Lookups { aws, batch }
    }

    /// Whether look-ups are batched.
    pub(crate) fn are_together(&self) -> bool {
        self.batch.is_some()
    }

    /// Whether a look-up for this image is still queued. Look-ups that depend on its answer need not be made.
    pub(super) fn waits(&self) -> bool {
        self.batch.as_ref().is_some_and(|batch| batch.notes().noted)
    }

    /// A snapshot. `None` if EC2 shows none with this id.
    ///
    /// # Errors
    /// [`Error`] if there is no answer, or the look-up is only queued.
    pub(super) async fn snapshot(&self, id: &str) -> Result<Option<Snapshot>, Error> {
        match &self.batch {
            Some(batch) => batch.snapshot(id),
            None => self.aws.describe_snapshot(id).await,
        }
    }

    /// A volume. `None` if none with this id exists, or it no longer exists.
    ///
    /// # Errors
    /// [`Error`] if there is no answer, or the look-up is only queued.
    pub(super) async fn volume(&self, id: &str) -> Result<Option<Volume>, Error> {
        if let Some(batch) = &self.batch {
            return batch.volume(id);
        }
        let volumes = self.aws.volumes(&[id]).await?;
        Ok(volumes.into_iter().find(|volume| volume.id == id))
    }

    /// The instances with these ids. Leaves out instances that do not exist.
    ///
    /// # Errors
    /// [`Error`] if there is no answer, or the look-up is only queued.
    pub(super) async fn instances(&self, ids: &[&str]) -> Result<Vec<Instance>, Error> {
        match &self.batch {
            Some(batch) => batch.instances(ids),
            None => self.aws.instances(ids).await,
        }
    }

    /// The images that are found by these ids.
    ///
    /// # Errors
    /// [`Error`] if there is no answer, or the look-up is only queued.
    pub(super) async fn images(&self, by: ImagesBy, ids: &[&str]) -> Result<Vec<Image>, Error> {
        match &self.batch {
            Some(batch) => batch.images(by, ids),
            None => self.aws.images(by, ids).await,
        }
    }
}

/// Batch loader: the queued look-ups of many images, and the answers.
#[derive(Debug, Default)]
pub(crate) struct BatchLoader(Mutex<Notes>);

#[derive(Debug, Default)]
struct Notes {
    snapshots: Questions<Option<Snapshot>>,
    volumes: Questions<Option<Volume>>,
    instances: Questions<Option<Instance>>,
    /// The account's images that have a snapshot as their root.
    own: Questions<Vec<Image>>,
    /// The publishers' images that have a snapshot as their root.
    published: Questions<Vec<Image>>,
    images: Questions<Vec<Image>>,
    /// Whether a look-up was queued since this was last reset.
    noted: bool,
}

/// Look-ups of one kind, by the ids that they are about.
#[derive(Debug)]
struct Questions<T> {
    open: BTreeSet<String>,
    answers: BTreeMap<String, Result<T, Error>>,
}

impl<T> Default for Questions<T> {
    fn default() -> Questions<T> {
        Questions {
            open: BTreeSet::new(),
            answers: BTreeMap::new(),
        }
    }
}

impl<T: Clone> Questions<T> {
    /// The answers, if all are there. Queues the look-ups without an answer.
    fn ask(&mut self, ids: &[&str], noted: &mut bool) -> Result<Vec<T>, Error> {
        let mut answers = Vec::new();
        let mut missing = Ok(());
        for id in ids {
            match self.answers.get(*id) {
                Some(answer) => answers.push(answer.clone()),
                None => {
                    self.open.insert((*id).to_owned());
                    *noted = true;
                    missing = Err(Error::Unavailable {
                        call: "a look-up",
                        resource: (*id).to_owned(),
                        message: "it is queued, to be sent together with others".into(),
                    });
                }
            }
        }
        missing?;
        answers.into_iter().collect()
    }

    /// Takes the queued ids for one call.
    fn next(&mut self) -> Vec<String> {
        let ids: Vec<String> = self.open.iter().take(MOST_VALUES).cloned().collect();
        if let Some(last) = ids.last() {
            self.open = self.open.split_off(last);
            self.open.remove(last);
        }
        ids
    }

    /// Stores the answer of a call. `of` extracts the part that is about an id.
    fn answer<A>(
        &mut self,
        ids: Vec<String>,
        answer: &Result<A, Error>,
        of: impl Fn(&A, &str) -> T,
    ) {
        self.answers.extend(ids.into_iter().map(|id| {
            let said = match answer {
                Ok(answer) => Ok(of(answer, &id)),
                Err(error) => Err(error.clone()),
            };
            (id, said)
        }));
    }
}

impl BatchLoader {
    /// Whether a look-up was queued since this was last called.
    pub(crate) fn noted(&self) -> bool {
        std::mem::take(&mut self.notes().noted)
    }

    fn snapshot(&self, id: &str) -> Result<Option<Snapshot>, Error> {
        let notes = &mut *self.notes();
        let found = notes.snapshots.ask(&[id], &mut notes.noted)?;
        Ok(found.into_iter().flatten().next())
    }

    fn volume(&self, id: &str) -> Result<Option<Volume>, Error> {
        let notes = &mut *self.notes();
        let found = notes.volumes.ask(&[id], &mut notes.noted)?;
        Ok(found.into_iter().flatten().next())
    }

    fn instances(&self, ids: &[&str]) -> Result<Vec<Instance>, Error> {
        let notes = &mut *self.notes();
        let found = notes.instances.ask(ids, &mut notes.noted)?;
        Ok(found.into_iter().flatten().collect())
    }

    fn images(&self, by: ImagesBy, ids: &[&str]) -> Result<Vec<Image>, Error> {
        let notes = &mut *self.notes();
        let questions = match by {
            ImagesBy::OwnOn => &mut notes.own,
            ImagesBy::PublishedOn => &mut notes.published,
            ImagesBy::Id => &mut notes.images,
            // Looked up only before a discard, for a single image.
            ImagesBy::CopiedOf => return Ok(Vec::new()),
        };
        let found = questions.ask(ids, &mut notes.noted)?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Sends all queued look-ups, each kind in calls of its own, all concurrently. A look-up that fails is answered
    /// with its error. With `again`, calls are retried on transient errors.
    pub(crate) async fn put(&self, aws: &Aws, again: bool) {
        let snapshots = self.put_all(
            again,
            |notes| &mut notes.snapshots,
            |ids: Vec<String>| async move { aws.snapshots(&named(&ids)).await },
            |found, id| found.iter().find(|it| it.id == id).cloned(),
        );
        let volumes = self.put_all(
            again,
            |notes| &mut notes.volumes,
            |ids: Vec<String>| async move { aws.volumes(&named(&ids)).await },
            |found, id| found.iter().find(|it| it.id == id).cloned(),
        );
        let instances = self.put_all(
            again,
            |notes| &mut notes.instances,
            |ids: Vec<String>| async move { aws.instances(&named(&ids)).await },
            |found, id| found.iter().find(|it| it.id == id).cloned(),
        );
        let on = |found: &Vec<Image>, id: &str| {
            let on = found.iter().filter(|image| image.may_be_on(id));
            on.cloned().collect()
        };
        let own = self.put_all(
            again,
            |notes| &mut notes.own,
            |ids: Vec<String>| async move { aws.images(ImagesBy::OwnOn, &named(&ids)).await },
            on,
        );
        // This search may take long. If the caller must not wait, each image makes its own search.
        let published = self.put_all(
            false,
            |notes| &mut notes.published,
            |ids: Vec<String>| async move {
                if !again {
                    return Err(no_answer_in("ec2:DescribeImages", "*", Duration::ZERO));
                }
                let ids = named(&ids);
                let search = aws.images(ImagesBy::PublishedOn, &ids);
                match tokio::time::timeout(SLOW, search).await {
                    Ok(answer) => answer,
                    Err(_) => Err(no_answer_in("ec2:DescribeImages", "*", SLOW)),
                }
            },
            on,
        );
        let images = self.put_all(
            again,
            |notes| &mut notes.images,
            |ids: Vec<String>| async move { aws.images(ImagesBy::Id, &named(&ids)).await },
            |found: &Vec<Image>, id| found.iter().filter(|it| it.id == id).cloned().collect(),
        );
        tokio::join!(snapshots, volumes, instances, own, published, images);
    }

    /// Sends all queued look-ups of one kind, in as many concurrent calls as they need.
    async fn put_all<T: Clone, A, F: Future<Output = Result<A, Error>>>(
        &self,
        again: bool,
        kind: impl Fn(&mut Notes) -> &mut Questions<T>,
        call: impl Fn(Vec<String>) -> F,
        of: impl Fn(&A, &str) -> T,
    ) {
        let mut calls = FuturesUnordered::new();
        loop {
            let ids = kind(&mut self.notes()).next();
            if ids.is_empty() {
                break;
            }
            let call = &call;
            // Boxed because the SDK's futures are large.
            calls.push(async move {
                let answer = match again {
                    true => retry(|| Box::pin(call(ids.clone()))).await,
                    false => Box::pin(call(ids.clone())).await,
                };
                (ids, answer)
            });
        }
        while let Some((ids, answer)) = calls.next().await {
            kind(&mut self.notes()).answer(ids, &answer, &of);
        }
    }

    /// Ignoring poisoning is safe, because the critical sections leave the value consistent.
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn named(ids: &[String]) -> Vec<&str> {
    ids.iter().map(String::as_str).collect()
}
