//! Ids in a request: their format, and EC2's errors for those that do not exist.

use std::collections::BTreeSet;

use crate::refusal::Refusal;
use crate::world::{Snapshot, World};

/// Refuses an id that is not `PREFIX-` and 8 or 17 hexadecimal digits. `noun` is EC2's term in the error code: `AMIID`,
/// `SnapshotID`, …
pub(super) fn check_id(id: &str, prefix: &str, noun: &str) -> Result<(), Refusal> {
    let well_formed = id
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('-'))
        .is_some_and(|digits| {
            matches!(digits.len(), 8 | 17)
                && digits.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
        });
    if well_formed {
        return Ok(());
    }
    Err(Refusal::new(
        format!("Invalid{noun}.Malformed"),
        format!("Invalid id: \"{id}\" (expecting \"{prefix}-...\")"),
    ))
}

/// The ids in a request, or `None` if it has none.
pub(super) fn named<'a>(ids: &[&'a str]) -> Option<BTreeSet<&'a str>> {
    (!ids.is_empty()).then(|| ids.iter().copied().collect())
}

/// The snapshot of this id, if the account may see it.
pub(super) fn find_snapshot<'w>(world: &'w World, id: &str) -> Result<&'w Snapshot, Refusal> {
    check_id(id, "snap", "SnapshotID")?;
    world
        .snapshots
        .get(id)
        .filter(|snapshot| snapshot.visible_to(&world.account))
        .ok_or_else(|| snapshot_not_found(id))
}

/// EC2's message differs between one id and several.
pub(super) fn image_not_found(ids: &[&str]) -> Refusal {
    let message = match ids {
        [id] => format!("The image id '[{id}]' does not exist"),
        ids => format!("The image ids '[{}]' do not exist", ids.join(", ")),
    };
    Refusal::new("InvalidAMIID.NotFound", message)
}

pub(super) fn snapshot_not_found(id: &str) -> Refusal {
    Refusal::new(
        "InvalidSnapshot.NotFound",
        format!("The snapshot '{id}' does not exist."),
    )
}

pub(super) fn volume_not_found(id: &str) -> Refusal {
    Refusal::new(
        "InvalidVolume.NotFound",
        format!("The volume '{id}' does not exist."),
    )
}

pub(super) fn instance_not_found(id: &str) -> Refusal {
    Refusal::new(
        "InvalidInstanceID.NotFound",
        format!("The instance ID '{id}' does not exist"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_8_or_17_lower_case_hexadecimal_digits() {
        for id in ["ami-12345678", "ami-0123456789abcdef0"] {
            assert_eq!(check_id(id, "ami", "AMIID"), Ok(()));
        }
        for id in [
            "",
            "ami-",
            "ami-1234567",
            "ami-0123456789ABCDEF0",
            "snap-12345678",
            "ami-1234567g",
            "ami-12345678 ",
        ] {
            let refusal = check_id(id, "ami", "AMIID").unwrap_err();
            assert_eq!(refusal.code, "InvalidAMIID.Malformed", "{id}");
        }
    }
}
