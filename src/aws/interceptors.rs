//! Interceptors for calls. One counts them, the other rejects truncated response bodies.

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

/// Number of calls to AWS since the last count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallStats {
    /// Requests, including retries.
    pub calls: u64,
    /// Answers that reported throttling.
    pub throttles: u64,
    /// Alerts that the topic accepted.
    pub alerts: u64,
}

impl CallStats {
    /// Adds another count to this one.
    pub fn add(&mut self, other: CallStats) {
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

/// Interceptor that rejects truncated response bodies. The function returns whether a body is complete.
///
/// The SDK parses a truncated body as far as it can, and treats the result as complete. An image whose platform
/// details, tags or protection did not arrive would then look like an image that has none.
#[derive(Debug)]
pub(crate) struct TruncationCheck(pub(crate) fn(&[u8]) -> bool);

impl Intercept for TruncationCheck {
    fn name(&self) -> &'static str {
        "TruncationCheck"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // Unreadable answers and errors are already retried as errors.
        if context.output_or_error().is_err() {
            return Ok(());
        }
        let response = context.response();
        let whole = response.body().bytes().is_some_and(self.0);
        // Only the code of an error matters, so a truncated error body is harmless.
        if response.status().is_success() && !whole {
            return Err("the answer is incomplete".into());
        }
        Ok(())
    }
}

/// Interceptor that counts each attempt and each throttled answer.
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

/// Whether an answer reports throttling. The body is not parsed yet, so this searches it for the error codes. Each
/// protocol puts the code in a different place.
fn is_throttled(response: &HttpResponse) -> bool {
    if response.status().is_success() {
        return false;
    }
    let body = response.body().bytes().unwrap_or_default();
    let body = String::from_utf8_lossy(body);
    let says =
        |code: &&str| body.contains(&format!(">{code}<")) || body.contains(&format!("{code}\""));
    response.status().as_u16() == 429 || THROTTLED.iter().any(says)
}

/// Whether an XML document is complete. Its syntax must be valid and every element closed.
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
