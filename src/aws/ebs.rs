//! Blocks of a snapshot, read through the EBS direct APIs.

use std::collections::BTreeMap;
use std::ops::Range;

use aws_sdk_ebs::operation::get_snapshot_block::GetSnapshotBlockError;
use aws_sdk_ebs::operation::list_snapshot_blocks::{
    ListSnapshotBlocksError, ListSnapshotBlocksOutput,
};
use aws_sdk_ebs::types::error::AccessDeniedException;
use aws_sdk_ebs::types::{AccessDeniedExceptionReason, ValidationExceptionReason};
use base64::prelude::{BASE64_STANDARD, Engine};
use disk::BLOCK_BYTES;
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use super::connect::Aws;
use super::errors::classify;
use crate::error::Error;

/// Permission that reading an encrypted snapshot needs.
pub(crate) const KMS: &str = "kms:Decrypt";

/// Number of blocks listed at once. They are half a gigabyte if all of it was written.
const PAGE: i32 = 1000;

/// Largest number of pages to follow to one block. EBS may return a page with few or no blocks that still has a token.
const MOST_PAGES: usize = 100;

/// Number of attempts to fetch a block that arrives damaged or incomplete.
const ATTEMPTS: usize = 3;

/// A completed snapshot whose blocks can be fetched.
#[derive(Debug)]
pub(crate) struct SnapshotBlocks {
    ebs: aws_sdk_ebs::Client,
    id: String,
    /// Volume size in bytes.
    size: u64,
    /// Block tokens of the blocks that are known to be written, by block index.
    tokens: BTreeMap<u64, String>,
    /// Ranges that were listed. A block in them has a token or was never written.
    listed: Vec<Range<u64>>,
}

impl Aws {
    /// ListSnapshotBlocks: starts to read a snapshot. (Amazon EBS User Guide, "Use EBS direct APIs to access the
    /// contents of an EBS snapshot".)
    ///
    /// # Errors
    /// [`Error`] if there is no answer.
    pub(crate) async fn snapshot_blocks(&self, id: &str) -> Result<SnapshotBlocks, Error> {
        let mut snapshot = SnapshotBlocks {
            ebs: self.ebs.clone(),
            id: id.to_owned(),
            size: 0,
            tokens: BTreeMap::new(),
            listed: Vec::new(),
        };
        snapshot.list(0).await?;
        Ok(snapshot)
    }
}

impl SnapshotBlocks {
    /// Volume size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// GetSnapshotBlock for each of these blocks, concurrently. Returns them in order, with `None` for a block that was
    /// never written.
    ///
    /// # Errors
    /// [`Error`] if any block cannot be fetched. None of them is returned then.
    pub(crate) async fn fetch(
        &mut self,
        blocks: Range<u64>,
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let mut found = BTreeMap::new();
        let mut fetching = JoinSet::new();
        for index in blocks.clone() {
            if let Some(token) = self.token(index).await? {
                let (ebs, id) = (self.ebs.clone(), self.id.clone());
                fetching.spawn(async move { (index, fetch_one(&ebs, &id, index, &token).await) });
            }
        }
        let mut expired = Vec::new();
        while let Some(joined) = fetching.join_next().await {
            match joined {
                Ok((index, Ok(bytes))) => drop(found.insert(index, bytes)),
                Ok((index, Err(Failed::Expired(_)))) => expired.push(index),
                Ok((_, Err(Failed::For(error)))) => return Err(error),
                Err(panic) => return Err(self.broken(GET, panic.to_string())),
            }
        }
        for index in expired {
            // EBS refused the token, so list again to get a new one. If EBS refuses the new token too, the refusal is
            // final.
            self.listed.clear();
            if let Some(token) = self.token(index).await? {
                match fetch_one(&self.ebs, &self.id, index, &token).await {
                    Ok(bytes) => drop(found.insert(index, bytes)),
                    Err(Failed::For(error) | Failed::Expired(error)) => return Err(error),
                }
            }
        }
        Ok(blocks.map(|index| found.remove(&index)).collect())
    }

    /// Token for fetching a block. `None` if the block was never written.
    async fn token(&mut self, index: u64) -> Result<Option<String>, Error> {
        if !self.listed.iter().any(|listed| listed.contains(&index)) {
            self.list(index).await?;
        }
        Ok(self.tokens.get(&index).cloned())
    }

    /// Lists the blocks from this index on, until it is known whether the block there was written.
    async fn list(&mut self, from: u64) -> Result<(), Error> {
        let first = i32::try_from(from).map_err(|_| self.broken(LIST, "too many blocks".into()))?;
        let mut next = None;
        for _ in 0..MOST_PAGES {
            let request = self.ebs.list_snapshot_blocks().snapshot_id(&self.id);
            let request = match &next {
                None => request.starting_block_index(first),
                Some(_) => request.set_next_token(next),
            };
            let page = request.max_results(PAGE).send().await.map_err(|error| {
                let denial = match error.as_service_error() {
                    Some(ListSnapshotBlocksError::AccessDeniedException(denial)) => Some(denial),
                    _ => None,
                };
                denied_key(classify(LIST, &self.id, &error), denial)
            })?;
            let known = self.take(from, &page)?;
            next = page.next_token.filter(|token| !token.is_empty());
            if known || next.is_none() {
                return Ok(());
            }
        }
        Err(self.broken(
            LIST,
            format!("{MOST_PAGES} pages do not include block {from}"),
        ))
    }

    /// Stores a page of a list that begins at `from`. Returns whether the block at `from` is known now.
    fn take(&mut self, from: u64, page: &ListSnapshotBlocksOutput) -> Result<bool, Error> {
        if page.block_size().map(u64_of) != Some(BLOCK_BYTES) {
            let size = format!("{:?}", page.block_size());
            return Err(self.broken(LIST, format!("blocks of {size} bytes are not supported")));
        }
        let Some(gibibytes) = page.volume_size().map(i64::unsigned_abs) else {
            return Err(self.broken(LIST, "the answer lacks the size of the volume".into()));
        };
        self.size = gibibytes.saturating_mul(1 << 30);
        let mut end = from;
        // An empty list would say that no block was written. A missing one says nothing.
        if page.blocks.is_none() {
            return Err(self.broken(LIST, "the answer lacks its list".into()));
        }
        for block in page.blocks() {
            let (Some(index), Some(token)) = (block.block_index(), block.block_token()) else {
                return Err(self.broken(LIST, "the answer lacks part of a block".into()));
            };
            let index = u64_of(index);
            self.tokens.insert(index, token.to_owned());
            end = end.max(index + 1);
        }
        if page.next_token().is_none_or(str::is_empty) {
            end = u64::MAX;
        }
        self.listed.push(from..end);
        Ok(end > from)
    }

    fn broken(&self, call: &'static str, message: String) -> Error {
        Error::Unavailable {
            call,
            resource: self.id.clone(),
            message,
        }
    }
}

const LIST: &str = "ebs:ListSnapshotBlocks";
const GET: &str = "ebs:GetSnapshotBlock";

/// Why a block was not fetched.
enum Failed {
    /// Its token is no longer valid. A new token may be.
    Expired(Error),
    For(Error),
}

/// GetSnapshotBlock, attempted up to three times until the block matches its checksum. The SDK does not verify the
/// checksum.
async fn fetch_one(
    ebs: &aws_sdk_ebs::Client,
    id: &str,
    index: u64,
    token: &str,
) -> Result<Vec<u8>, Failed> {
    let number = i32::try_from(index).unwrap_or(i32::MAX);
    let mut wrong = String::new();
    for _ in 0..ATTEMPTS {
        let request = ebs.get_snapshot_block().snapshot_id(id);
        let answer = request.block_index(number).block_token(token).send().await;
        let block = answer.map_err(|error| {
            let said = classify(GET, id, &error);
            match error.as_service_error() {
                Some(GetSnapshotBlockError::AccessDeniedException(denial)) => {
                    Failed::For(denied_key(said, Some(denial)))
                }
                Some(GetSnapshotBlockError::ValidationException(refusal))
                    if refusal.reason() == Some(&ValidationExceptionReason::InvalidBlockToken) =>
                {
                    Failed::Expired(said)
                }
                _ => Failed::For(said),
            }
        })?;
        let expected = block.checksum.unwrap_or_default();
        match block.block_data.collect().await {
            Ok(bytes) => {
                let bytes = bytes.to_vec();
                let checksum = BASE64_STANDARD.encode(Sha256::digest(&bytes));
                match bytes.len() as u64 == BLOCK_BYTES && checksum == expected {
                    true => return Ok(bytes),
                    false => wrong = format!("block {index} does not match its checksum"),
                }
            }
            Err(error) => wrong = format!("block {index} arrived incomplete: {error}"),
        }
    }
    Err(Failed::For(Error::Unavailable {
        call: GET,
        resource: id.to_owned(),
        message: wrong,
    }))
}

/// Changes the missing permission of a denial to `kms:Decrypt`, if EBS says that the key denied access. EBS decrypts
/// with the caller's permissions. (Amazon EBS User Guide, "Required IAM permissions for EBS direct APIs".)
fn denied_key(error: Error, denial: Option<&AccessDeniedException>) -> Error {
    match (error, denial.map(AccessDeniedException::reason)) {
        (
            Error::AccessDenied {
                resource, message, ..
            },
            Some(AccessDeniedExceptionReason::DependencyAccessDenied),
        ) => Error::AccessDenied {
            permission: KMS,
            resource,
            message,
        },
        (error, _) => error,
    }
}

fn u64_of(number: i32) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
