//! The tags with which the guard marks an image that it discards.

use crate::ec2::Image;

/// The tag by which the guard marks an image that it discards. The template's Recycle Bin rule and
/// the IAM condition for deregistering name the pair of this key and [`DISCARD_VALUE`].
pub const DISCARD_TAG: &str = "ami-billing-guard:discard";
/// The value of [`DISCARD_TAG`] on an image that is being discarded.
pub const DISCARD_VALUE: &str = "true";
/// Its value on an image that turned out right after it was marked: neither the Recycle Bin rule nor
/// the IAM condition names this pair, and taking a tag away would need a permission more.
pub const WITHDRAWN_VALUE: &str = "withdrawn";
/// The tag with the verdict (`mismatch/wrong`).
pub const VERDICT_TAG: &str = "ami-billing-guard:verdict";
/// The tag with what the image should bill.
pub const SHOULD_BE_TAG: &str = "ami-billing-guard:should-be";
/// The tag with the id of the event that the image was judged for.
pub const RECORD_TAG: &str = "ami-billing-guard:record";

/// The tags that mark an image for its discard.
pub(crate) const MARKS: [&str; 4] = [DISCARD_TAG, VERDICT_TAG, SHOULD_BE_TAG, RECORD_TAG];

/// The most tags that an image can have, AWS's own not counted (EC2 User Guide, "Tag restrictions").
pub(crate) const MOST_TAGS: usize = 50;

/// Whether a tag is people's: AWS's own can not be set, and the guard's marks are of the image that it
/// discards alone.
pub(crate) fn is_of_people(key: &str) -> bool {
    !key.starts_with("aws:") && !MARKS.contains(&key)
}

/// Whether an image bears the mark of one that is being discarded.
pub(crate) fn is_marked(image: &Image) -> bool {
    image.tags.get(DISCARD_TAG).map(String::as_str) == Some(DISCARD_VALUE)
}
