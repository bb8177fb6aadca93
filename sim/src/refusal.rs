//! Refusals of requests.

use serde_json::{Map, Value as Json};

/// A refusal of a request, which becomes the error document of any of the services.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
    /// Further members of the error documents of the services with JSON.
    pub(crate) details: Map<String, Json>,
}

impl Refusal {
    /// A refusal with the status 400, which most have.
    pub(crate) fn new(code: impl Into<String>, message: impl Into<String>) -> Refusal {
        Refusal {
            status: 400,
            code: code.into(),
            message: message.into(),
            details: Map::new(),
        }
    }

    pub(crate) fn with_status(self, status: u16) -> Refusal {
        Refusal { status, ..self }
    }

    pub(crate) fn with_detail(mut self, name: &str, detail: Json) -> Refusal {
        self.details.insert(name.to_owned(), detail);
        self
    }

    /// `InvalidParameterValue`.
    pub(crate) fn invalid(message: impl Into<String>) -> Refusal {
        Refusal::new("InvalidParameterValue", message)
    }

    /// `InvalidAction`: the action does not exist, or is not simulated.
    pub(crate) fn unknown_action(action: &str) -> Refusal {
        Refusal::new(
            "InvalidAction",
            format!("The action {action} is not valid for this web service."),
        )
    }
}
