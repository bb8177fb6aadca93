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

mod connection;
mod in_process;
