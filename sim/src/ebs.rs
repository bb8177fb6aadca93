//! The EBS direct APIs, which list and read the blocks of snapshots.
//!
//! A call is admitted while the world is locked. It reads the disk afterwards, so that calls do not wait for each
//! other.

mod disk;
mod token;

use std::collections::BTreeMap;
use std::io;
use tokio::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use crate::clock;
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::rest_json::{document, failed_with, refusal, refused, reply};
use crate::world::{Snapshot, World, expiry};
use disk::{BLOCK_SIZE, Disk};
use token::{Kind, Token};

/// `MaxResults` if the parameter is absent or smaller. "The minimum MaxResult parameter value you can use is 100. If
/// you submit a request with a MaxResult parameter value of under 100 […] the API will return at least 100 results"
/// (user guide, "Frequently asked questions for EBS direct APIs").
const SMALLEST_PAGE: usize = 100;

/// Largest accepted `MaxResults`.
const LARGEST_PAGE: usize = 10_000;

/// Names of the parameters in the query, with their names in the API reference, which are used everywhere else.
const IN_QUERY: [(&str, &str); 4] = [
    ("blockToken", "BlockToken"),
    ("maxResults", "MaxResults"),
    ("pageToken", "NextToken"),
    ("startingBlockIndex", "StartingBlockIndex"),
];

type Params = BTreeMap<String, String>;

/// The action and the parameters of a request, if its path belongs to the EBS direct APIs.
pub(crate) fn question(method: &str, path: &str, query: &str) -> Option<(String, Params)> {
    let rest = path.strip_prefix("/snapshots")?;
    let mut params: Params = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .map(|(key, value)| {
            let known = IN_QUERY.iter().find(|(in_query, _)| *in_query == key);
            (known.map_or(key, |(_, name)| (*name).to_owned()), value)
        })
        .collect();
    let segments: Vec<&str> = rest.split('/').collect();
    let action = match (method, segments.as_slice()) {
        ("GET", ["", id, "blocks"]) => {
            params.insert("SnapshotId".to_owned(), (*id).to_owned());
            "ListSnapshotBlocks".to_owned()
        }
        ("GET", ["", id, "blocks", index]) => {
            params.insert("SnapshotId".to_owned(), (*id).to_owned());
            params.insert("BlockIndex".to_owned(), (*index).to_owned());
            "GetSnapshotBlock".to_owned()
        }
        _ => format!("{method} {path}"),
    };
    Some((action, params))
}

/// An admitted call that still has to read the disk.
#[derive(Debug)]
pub(crate) enum Reading {
    /// A page of blocks.
    Listing(Listing),
    /// The data of a block.
    Block(Disk, u64),
}

/// Admits a call, or refuses it.
pub(crate) fn call(world: &mut World, action: &str, params: &Params) -> Result<Reading, Refusal> {
    let act: fn(&mut World, &Params) -> Result<Reading, Refusal> = match action {
        "ListSnapshotBlocks" => list_snapshot_blocks,
        "GetSnapshotBlock" => get_snapshot_block,
        _ => {
            return Err(refusal(
                "UnknownOperationException",
                format!("The operation {action} does not exist, or is not simulated."),
            ));
        }
    };
    if !world.ebs.admit(action, Instant::now()) {
        return Err(account_throttled());
    }
    act(world, params)
}

fn list_snapshot_blocks(world: &mut World, params: &Params) -> Result<Reading, Refusal> {
    let most = match number::<usize>(params, "MaxResults")? {
        Some(most) if most > LARGEST_PAGE => {
            return Err(invalid(
                "INVALID_PARAMETER_VALUE",
                format!("MaxResults must not be greater than {LARGEST_PAGE}."),
            ));
        }
        most => most.unwrap_or_default().max(SMALLEST_PAGE),
    };
    let starting = number(params, "StartingBlockIndex")?.unwrap_or_default();
    let snapshot = readable(world, params)?;
    let disk = match &snapshot.disk {
        Some(_) => Some(open(snapshot)?),
        None => None,
    };
    let (snapshot_id, volume_size) = (snapshot.id.clone(), snapshot.volume_size);
    let listed = clock::now();
    let first = match params.get("NextToken") {
        // "If you specify NextToken, then StartingBlockIndex is ignored."
        Some(text) => Token::read(text, Kind::Page, &snapshot_id)
            .filter(|token| expiry(token.listed(), world.ebs.page_tokens_last) > listed)
            .map(|token| token.index)
            .ok_or_else(|| invalid("INVALID_PAGE_TOKEN", "The page token is not valid."))?,
        None => starting,
    };
    let indexes = world.ebs.indexes_per_page.unwrap_or(u64::MAX);
    Ok(Reading::Listing(Listing {
        snapshot_id,
        disk,
        volume_size,
        first,
        most,
        // A page that covers no block would make the listing endless.
        end: first.saturating_add(indexes.max(1)),
        number: world.ebs.begin_listing(),
        listed,
        expiry: expiry(listed, world.ebs.block_tokens_last),
    }))
}

fn get_snapshot_block(world: &mut World, params: &Params) -> Result<Reading, Refusal> {
    let index = number(params, "BlockIndex")?.unwrap_or_default();
    let snapshot = readable(world, params)?;
    // The API reference requires access to the key here, but not for listing.
    let key = snapshot.kms_key_id.as_ref();
    if let Some(key) = key.filter(|key| world.ebs.denied_keys.contains(*key)) {
        return Err(access_denied(
            "DEPENDENCY_ACCESS_DENIED",
            format!("The KMS key {key} may not be used to decrypt the snapshot."),
        ));
    }
    // A block that was never written has no token, so it is refused here, too. Tokens of earlier listings stay valid,
    // although the user guide says that they "change" with a new listing.
    let wrong_token = || invalid("INVALID_BLOCK_TOKEN", "The block token is not valid.");
    let text = params.get("BlockToken").map_or("", String::as_str);
    let token = Token::read(text, Kind::Block, &snapshot.id)
        .filter(|token| token.index == index)
        .ok_or_else(wrong_token)?;
    let disk = open(snapshot)?;
    if !world.ebs.spend(token.listing, token.listed(), clock::now()) {
        return Err(wrong_token());
    }
    Ok(Reading::Block(disk, index))
}

/// The snapshot of a call, if its blocks may be read.
fn readable<'w>(world: &'w World, params: &Params) -> Result<&'w Snapshot, Refusal> {
    let id = params.get("SnapshotId").map_or("", String::as_str);
    let digits = id.strip_prefix("snap-").unwrap_or_default();
    let well_formed = !digits.is_empty()
        && id.len() <= 64
        && digits.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    if !well_formed {
        return Err(invalid(
            "INVALID_SNAPSHOT_ID",
            format!("The snapshot ID '{id}' is not valid."),
        ));
    }
    let snapshot = world.snapshots.get(id).ok_or_else(|| not_found(id))?;
    let account = &world.account;
    let usable = snapshot.owned_by(account) || snapshot.shared_with.contains(account);
    // "EBS direct APIs does not support public snapshots", not even for the owner. The error code is not documented.
    // Neither is the code for a private snapshot of another account, which may as well be "not found".
    if snapshot.public || !usable {
        return Err(access_denied(
            "UNAUTHORIZED_ACCOUNT",
            format!("The account is not authorized to read the snapshot '{id}'."),
        ));
    }
    // "The snapshot can be accessed only if it has a completed status." The error code is not documented. This one was
    // seen right after completion (coldsnap issue 141), so EBS has no such snapshot before completion.
    if snapshot.state != "completed" {
        return Err(not_found(id));
    }
    let completed = snapshot.completion_time;
    if completed.is_some_and(|at| expiry(at, world.ebs.shown_after) > clock::now()) {
        return Err(not_found(id));
    }
    // "You can't use EBS direct APIs with archived snapshots", nor with local ones (user guide). The error codes are
    // not documented.
    if snapshot.archived || snapshot.outpost_arn.is_some() {
        return Err(invalid(
            "INVALID_SNAPSHOT_ID",
            format!("The snapshot '{id}' cannot be read."),
        ));
    }
    Ok(snapshot)
}

fn open(snapshot: &Snapshot) -> Result<Disk, Refusal> {
    let path = snapshot.disk.as_deref().unwrap_or("".as_ref());
    Disk::open(path, snapshot.volume_size)
        .map_err(|error| failed_with(format!("can not open {}: {error}", path.display())))
}

/// A page of `ListSnapshotBlocks` that must still be read.
#[derive(Debug)]
pub(crate) struct Listing {
    snapshot_id: String,
    disk: Option<Disk>,
    volume_size: u32,
    first: u64,
    /// The index before which the page ends.
    end: u64,
    /// Maximum number of blocks in the page.
    most: usize,
    number: u64,
    listed: DateTime<Utc>,
    expiry: DateTime<Utc>,
}

impl Listing {
    fn read(mut self) -> io::Result<Json> {
        let (indexes, next) = match self.disk.take() {
            Some(mut disk) => self.page(&mut disk)?,
            None => (Vec::new(), None),
        };
        let token = |kind, index| {
            Token::new(kind, index, self.number, self.listed).write(&self.snapshot_id)
        };
        let blocks: Vec<Json> = indexes
            .into_iter()
            .map(|index| json!({"BlockIndex": index, "BlockToken": token(Kind::Block, index)}))
            .collect();
        let mut page = json!({
            "Blocks": blocks,
            // Seconds since 1970.
            "ExpiryTime": self.expiry.timestamp_millis() as f64 / 1000.0,
            "VolumeSize": self.volume_size,
            "BlockSize": BLOCK_SIZE,
        });
        if let (Some(next), Json::Object(members)) = (next, &mut page) {
            members.insert("NextToken".to_owned(), token(Kind::Page, next).into());
        }
        Ok(page)
    }

    /// The written blocks of the page, and the first index of the next page if there is one.
    fn page(&self, disk: &mut Disk) -> io::Result<(Vec<u64>, Option<u64>)> {
        let mut indexes = Vec::new();
        let mut from = self.first;
        while let Some(index) = disk.next_written(from, self.end)? {
            if indexes.len() == self.most {
                return Ok((indexes, Some(index)));
            }
            indexes.push(index);
            from = index + 1;
        }
        Ok((indexes, (self.end < disk.blocks()).then_some(self.end)))
    }
}

/// Reads the disk, and returns the reply. This may block.
pub(crate) fn read(request_id: &str, reading: Reading) -> Reply {
    let answer = match reading {
        Reading::Listing(listing) => listing.read().map(|page| document(request_id, &page)),
        Reading::Block(mut disk, index) => disk.read(index).map(|block| {
            let checksum = STANDARD.encode(Sha256::digest(&block));
            let headers = vec![
                ("x-amz-data-length", block.len().to_string()),
                ("x-amz-checksum", checksum),
                ("x-amz-checksum-algorithm", "SHA256".to_owned()),
            ];
            let content_type = "application/octet-stream";
            reply(request_id, 200, content_type, headers, block)
        }),
    };
    answer.unwrap_or_else(|error| refused(request_id, failed_with(error.to_string())))
}

fn number<T: std::str::FromStr>(params: &Params, name: &str) -> Result<Option<T>, Refusal> {
    let Some(text) = params.get(name) else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        invalid(
            "INVALID_PARAMETER_VALUE",
            format!("The value '{text}' of {name} is not valid."),
        )
    })
}

fn because(code: &str, reason: &str, message: impl Into<String>) -> Refusal {
    refusal(code, message).with_detail("Reason", reason.into())
}

fn invalid(reason: &str, message: impl Into<String>) -> Refusal {
    because("ValidationException", reason, message)
}

fn access_denied(reason: &str, message: impl Into<String>) -> Refusal {
    because("AccessDeniedException", reason, message)
}

fn not_found(id: &str) -> Refusal {
    let message = format!("The snapshot '{id}' does not exist.");
    because("ResourceNotFoundException", "SNAPSHOT_NOT_FOUND", message)
}

/// Too many requests. `ThrottlingException` is for the account and any action. `RequestThrottledException` is for the
/// snapshot and actions that read or write a block (user guide, "Error retries for EBS direct APIs").
pub(crate) fn throttled(action: &str) -> Refusal {
    match action {
        "GetSnapshotBlock" => because(
            "RequestThrottledException",
            "RESOURCE_LEVEL_THROTTLE",
            "The request rate of the snapshot is exceeded.",
        ),
        _ => account_throttled(),
    }
}

fn account_throttled() -> Refusal {
    refusal("ThrottlingException", "Rate exceeded")
}

/// `AccessDeniedException`, in IAM's wording for an identity without the permission (seen in cloudbeat issue 1208). It
/// has no reason here, because IAM denies the call and not EBS.
pub(crate) fn denied(world: &World, action: &str, params: &Params) -> Refusal {
    let id = params.get("SnapshotId").map_or("*", String::as_str);
    refusal(
        "AccessDeniedException",
        format!(
            "User: {} is not authorized to perform: ebs:{action} on resource: \
             arn:aws:ec2:{}::snapshot/{id} because no identity-based policy allows the ebs:{action} action",
            world.caller_arn(),
            world.region
        ),
    )
}
