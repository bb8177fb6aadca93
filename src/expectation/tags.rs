//! Declarations with the tag [`EXPECT_TAG`], on the image and on its root snapshot.

use std::collections::BTreeMap;

use super::{EXPECT_TAG, Evidence, Lookup, Says, Source, Subject};
use crate::billing::Platforms;
use crate::ec2::Image;
use crate::policy::Policy;

pub(super) fn on_image(image: &Image, policy: &Policy) -> Evidence {
    if !policy.ask_tags {
        return not_asked(Source::ImageTag);
    }
    read(Source::ImageTag, &image.tags)
}

pub(super) fn on_snapshot(subject: Subject<'_>, policy: &Policy) -> Evidence {
    if !policy.ask_tags {
        return not_asked(Source::SnapshotTag);
    }
    let says = |says, detail: &str| Evidence {
        source: Source::SnapshotTag,
        says,
        detail: detail.to_owned(),
    };
    match subject.snapshot {
        Lookup::NotYet => not_asked(Source::SnapshotTag),
        Lookup::NotApplicable(why) => says(Says::NotApplicable, why),
        Lookup::Failed(why) => says(Says::Failed(why.clone()), EXPECT_TAG),
        Lookup::Seen(snapshot) if snapshot.owner.is_none() => {
            let why = format!("EC2 does not say who owns {}", snapshot.id);
            says(Says::Failed(why), EXPECT_TAG)
        }
        // Only people who may speak for the account can declare something with a tag.
        Lookup::Seen(snapshot)
            if snapshot.owner.as_deref() != Some(subject.registration.account.as_str()) =>
        {
            says(
                Says::Silent,
                "the root snapshot does not belong to this account",
            )
        }
        Lookup::Seen(snapshot) => read(Source::SnapshotTag, &snapshot.tags),
    }
}

fn read(source: Source, tags: &BTreeMap<String, String>) -> Evidence {
    let Some(value) = tags.get(EXPECT_TAG) else {
        return Evidence {
            source,
            says: Says::Silent,
            detail: EXPECT_TAG.into(),
        };
    };
    Evidence {
        source,
        says: match Platforms::parse(value.split(',')) {
            Ok(platforms) => Says::Platforms(platforms),
            Err(text) => Says::NoPlatform(text.to_owned()),
        },
        detail: format!("{EXPECT_TAG}={value}"),
    }
}

fn not_asked(source: Source) -> Evidence {
    Evidence {
        source,
        says: Says::NotAsked,
        detail: EXPECT_TAG.into(),
    }
}
