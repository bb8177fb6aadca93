//! A service's reply, before it becomes an HTTP response.

use bytes::Bytes;

/// A reply.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    /// Further headers.
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
}

impl Reply {
    /// An XML document that contains the request id.
    pub(crate) fn xml(status: u16, document: String) -> Reply {
        Reply {
            status,
            content_type: "text/xml;charset=UTF-8",
            headers: Vec::new(),
            body: document.into(),
        }
    }
}
