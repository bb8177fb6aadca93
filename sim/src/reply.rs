//! What a service answers, before it becomes an HTTP response.

use bytes::Bytes;

/// What goes back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    /// Further headers.
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
}

impl Reply {
    /// An XML document, which has the request id in it.
    pub(crate) fn xml(status: u16, document: String) -> Reply {
        Reply {
            status,
            content_type: "text/xml;charset=UTF-8",
            headers: Vec::new(),
            body: document.into(),
        }
    }
}
