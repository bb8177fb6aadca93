//! Block tokens and page tokens. They are opaque to clients. Here they contain all their data, and a tag that no other
//! token has.

use std::hash::{DefaultHasher, Hash, Hasher};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};

/// Purpose of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Reads the block of its index.
    Block,
    /// Continues a listing from its index.
    Page,
}

/// A token for one snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) index: u64,
    /// Number of the listing that issued it.
    pub(super) listing: u64,
    /// Time of issue, in milliseconds since 1970.
    listed: i64,
}

impl Token {
    pub(super) fn new(kind: Kind, index: u64, listing: u64, listed: DateTime<Utc>) -> Token {
        Token {
            kind,
            index,
            listing,
            listed: listed.timestamp_millis(),
        }
    }

    /// Time of issue.
    pub(super) fn listed(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.listed).unwrap_or(DateTime::<Utc>::MIN_UTC)
    }

    /// Encodes the token in letters, digits and `+/=`, like EBS's tokens.
    pub(super) fn write(&self, snapshot_id: &str) -> String {
        let parts = [
            self.index.to_be_bytes(),
            self.listing.to_be_bytes(),
            self.listed.to_be_bytes(),
            self.tag(snapshot_id).to_be_bytes(),
        ];
        STANDARD.encode(parts.concat())
    }

    /// Decodes a token, or `None` if it is invalid, or of another kind or snapshot.
    pub(super) fn read(text: &str, kind: Kind, snapshot_id: &str) -> Option<Token> {
        let bytes = STANDARD.decode(text).ok()?;
        let (parts, []) = bytes.as_chunks::<8>() else {
            return None;
        };
        let &[index, listing, listed, tag] = parts else {
            return None;
        };
        let token = Token {
            kind,
            index: u64::from_be_bytes(index),
            listing: u64::from_be_bytes(listing),
            listed: i64::from_be_bytes(listed),
        };
        (token.tag(snapshot_id) == u64::from_be_bytes(tag)).then_some(token)
    }

    fn tag(&self, snapshot_id: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self, snapshot_id).hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_token_is_of_one_kind_and_of_one_snapshot() {
        let token = Token::new(Kind::Block, 7, 1, clock::now());
        let text = token.write("snap-1");
        assert!(text.len() <= 256);
        assert_eq!(Token::read(&text, Kind::Block, "snap-1"), Some(token));
        assert_eq!(Token::read(&text, Kind::Block, "snap-2"), None);
        assert_eq!(Token::read(&text, Kind::Page, "snap-1"), None);
    }

    #[test]
    fn a_token_that_nobody_gave_out_is_none() {
        let real = Token::new(Kind::Block, 7, 1, clock::now()).write("snap-1");
        let swapped: String = real.chars().rev().collect();
        for text in ["", "AAUB", "not base64!", &swapped, &real.repeat(2)] {
            assert_eq!(Token::read(text, Kind::Block, "snap-1"), None, "{text}");
        }
    }
}
