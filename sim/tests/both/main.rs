//! The simulator as its clients meet it, on both ways to it: over a connection, and in one process without a socket. What
//! holds on one way holds on the other.
#![allow(
    clippy::duplicate_mod,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests, and each way has the same ones"
)]

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};

mod connection;
mod in_process;

/// What a client received of an answer.
#[derive(Debug)]
struct Received {
    status: u16,
    headers: BTreeMap<String, String>,
    /// As much as came before the connection ended.
    body: Vec<u8>,
}

impl Received {
    /// The length that the head promises.
    fn promised(&self) -> usize {
        self.headers["content-length"].parse().unwrap()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The status, the code and the reason of an error.
    fn error(&self) -> (u16, String, String) {
        let reason = self.json()["Reason"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        (
            self.status,
            self.headers["x-amzn-errortype"].clone(),
            reason,
        )
    }

    /// Whether the body has the length and the checksum that the headers tell.
    fn is_sound(&self) -> bool {
        assert_eq!(self.headers["x-amz-checksum-algorithm"], "SHA256");
        self.headers["x-amz-data-length"] == self.body.len().to_string()
            && self.headers["x-amz-checksum"] == STANDARD.encode(Sha256::digest(&self.body))
    }
}
