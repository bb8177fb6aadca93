//! What the files of a root directory say.

use crate::findings::{SqlServer, System};

/// What the files of one root directory say.
#[derive(PartialEq)]
pub(super) struct Told {
    pub(super) system: System,
    pub(super) name: String,
    pub(super) sql_server: Option<SqlServer>,
}
