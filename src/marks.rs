//! The tags with which the guard marks an image that it discards.

use crate::ec2::Image;

/// Key of the tag that marks an image as being discarded. The template's Recycle Bin rule and the IAM condition for
/// deregistering name this key with [`DISCARD_VALUE`].
pub const DISCARD_TAG: &str = "ami-billing-guard:discard";
/// The value of [`DISCARD_TAG`] on an image that is being discarded.
pub const DISCARD_VALUE: &str = "true";
/// Value of [`DISCARD_TAG`] on an image that was marked and then turned out to be right. Neither the Recycle Bin rule
/// nor the IAM condition names this value. Removing the tag would need another permission.
pub const WITHDRAWN_VALUE: &str = "withdrawn";
/// Key of the tag with the verdict (`mismatch/wrong`).
pub const VERDICT_TAG: &str = "ami-billing-guard:verdict";
/// Key of the tag with what the image is expected to be billed as.
pub const SHOULD_BE_TAG: &str = "ami-billing-guard:should-be";
/// Key of the tag with the id of the event for which the image was judged.
pub const RECORD_TAG: &str = "ami-billing-guard:record";

/// Keys of the tags that mark an image for its discard.
pub(crate) const MARKS: [&str; 4] = [DISCARD_TAG, VERDICT_TAG, SHOULD_BE_TAG, RECORD_TAG];

/// Largest number of tags on an image, not counting AWS's own (EC2 User Guide, "Tag restrictions").
pub(crate) const MOST_TAGS: usize = 50;

/// Whether a tag is a person's. AWS's own tags cannot be set, and the guard's marks belong only to the image that it
/// discards.
pub(crate) fn is_of_people(key: &str) -> bool {
    !key.starts_with("aws:") && !MARKS.contains(&key)
}

/// Whether an image is marked as being discarded.
pub(crate) fn is_marked(image: &Image) -> bool {
    image.tags.get(DISCARD_TAG).map(String::as_str) == Some(DISCARD_VALUE)
}
