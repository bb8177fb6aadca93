//! The digest of images that were over an hourly limit.

use super::Guard;
use crate::error::Error;
use crate::event::Digest;
use crate::invocation::Delivery;
use crate::notify;
use crate::record::Record;
use crate::record::stored::StoredRecord;

/// Largest number of images in one message of a digest. They are split into several messages if they do not fit into
/// one.
const IN_A_DIGEST: usize = 50;

/// Sends the digest of the images whose discards or alerts were over an hourly limit, in as few messages as possible.
///
/// # Errors
/// [`Error`] if the event must be delivered again. The next attempt repeats the images that were reported last.
pub(super) async fn digest(
    guard: &Guard,
    digest: Digest,
    delivery: &Delivery,
) -> Result<Record, Error> {
    let (account, region) = (digest.account.as_str(), digest.region.as_str());
    let waiting = guard.ledger.waiting_for_digest(account, region).await?;
    let waiting: Vec<_> = waiting.into_iter().collect();
    let mut told = 0;
    for images in waiting.chunks(IN_A_DIGEST) {
        let mut held = Vec::new();
        for (image, _) in images {
            let entry = guard.ledger.entry(account, region, image).await?;
            match (entry.for_digest(), &entry.last) {
                (Some(record), _) => held.push(record.clone()),
                // What happened to the image meanwhile has its own record and, if necessary, its own alert.
                (None, Some(_)) => {}
                (None, None) => held.push(StoredRecord {
                    image_id: Some(image.to_string()),
                    ..StoredRecord::default()
                }),
            }
        }
        told += held.len();
        for message in notify::digest(&digest, held, guard.runbook()) {
            guard.notifier.send(&message).await?;
        }
        let notes = images.iter().flat_map(|(_, notes)| notes.clone());
        let notes = notes.collect();
        guard.ledger.digested(account, region, notes).await?;
    }
    Ok(guard.journal(delivery, Record::of_digest(digest, told)))
}
