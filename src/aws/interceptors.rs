//! What happens around every call: it is counted, and an answer that is not whole is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::config::interceptors::{
    AfterDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
    FinalizerInterceptorContextRef,
};
use aws_sdk_ec2::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_ec2::error::BoxError;
use xmlparser::{ElementEnd, Token};

use super::errors::THROTTLED;

/// What went out to AWS, since it was counted last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests, those that were repeated too.
    pub calls: u64,
    /// Answers that said that there were too many.
    pub throttles: u64,
    /// Alerts that the topic took.
    pub alerts: u64,
}

impl Tally {
    /// Adds what went out elsewhere.
    pub fn add(&mut self, other: Tally) {
        self.calls += other.calls;
        self.throttles += other.throttles;
        self.alerts += other.alerts;
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) calls: AtomicU64,
    pub(super) throttles: AtomicU64,
    pub(super) alerts: AtomicU64,
}

/// Refuses an answer that is not whole, as this says of its body. The SDK reads as far as it can and takes what it has
/// for all there is: an image whose platform details, tags or protection did not arrive would pass for one that has
/// none.
#[derive(Debug)]
pub(crate) struct Whole(pub(crate) fn(&[u8]) -> bool);

impl Intercept for Whole {
    fn name(&self) -> &'static str {
        "Whole"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // What could not be read, or is an error, is tried again as such.
        if context.output_or_error().is_err() {
            return Ok(());
        }
        let response = context.response();
        let whole = response.body().bytes().is_some_and(self.0);
        // What is in an error besides its code decides nothing.
        if response.status().is_success() && !whole {
            return Err("the answer is not whole".into());
        }
        Ok(())
    }
}

/// Counts what goes out, each attempt, and what comes back as too much.
#[derive(Clone, Debug)]
pub(crate) struct Counting(pub(super) Arc<Counters>);

impl Intercept for Counting {
    fn name(&self) -> &'static str {
        "Counting"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if context.response().is_some_and(is_throttled) {
            self.0.throttles.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Whether an answer says that there were too many requests. Before it is read, its code is but a word in it, and
/// each protocol has another place for that.
pub(super) fn is_throttled(response: &HttpResponse) -> bool {
    if response.status().is_success() {
        return false;
    }
    let body = response.body().bytes().unwrap_or_default();
    let body = String::from_utf8_lossy(body);
    let says =
        |code: &&str| body.contains(&format!(">{code}<")) || body.contains(&format!("{code}\""));
    response.status().as_u16() == 429 || THROTTLED.iter().any(says)
}

/// Whether every element of an XML document is closed, and nothing in it is broken.
pub(super) fn is_whole_document(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let mut open = 0_usize;
    let mut elements = 0_usize;
    for token in xmlparser::Tokenizer::from(text) {
        match token {
            Ok(Token::ElementStart { .. }) => {
                open += 1;
                elements += 1;
            }
            Ok(Token::ElementEnd {
                end: ElementEnd::Close(..) | ElementEnd::Empty,
                ..
            }) => match open.checked_sub(1) {
                Some(left) => open = left,
                None => return false,
            },
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    elements > 0 && open == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_ends_early_or_is_broken_is_not_whole() {
        let whole = "<?xml version=\"1.0\"?>\n<a b=\"c\"><d/><e>f &amp; g</e></a>";
        assert!(is_whole_document(whole.as_bytes()));
        for end in 0..whole.len() {
            assert!(!is_whole_document(&whole.as_bytes()[..end]), "{end}");
        }
        for broken in ["<a></a></a>", "<a>\u{1}</a>", "text", "<a", "<a><b></a>"] {
            assert!(!is_whole_document(broken.as_bytes()), "{broken}");
        }
        assert!(!is_whole_document(b"<a>\xff</a>"));
    }
}
