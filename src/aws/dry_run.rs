//! Permission checks with `DryRun`. EC2 then checks the caller's permissions and does nothing else (EC2 API reference,
//! "Common request parameters").

use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types as ec2;

use super::connect::Aws;
use super::convert::{filter, non_empty, observed};
use super::errors::classify;
use super::images::ImageName;
use crate::ec2::Image;
use crate::error::Error;
use crate::marks::{DISCARD_TAG, WITHDRAWN_VALUE};

/// The permissions that are tried on an image or its root snapshot.
pub(crate) const ON_AN_IMAGE: [&str; 5] = [
    "ec2:DescribeImageAttribute",
    "ec2:DescribeSnapshotAttribute",
    "ec2:CreateTags",
    "ec2:DeregisterImage",
    "ec2:DisableImage",
];

/// Largest number of pages to search for an image.
const PAGES: usize = 10;

/// Result of a dry run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    /// EC2 would have carried out the call.
    Allowed,
    /// A permission is missing. The text is EC2's message.
    Denied(String),
    /// The result does not show whether the call is permitted. The text says why.
    Unknown(String),
}

impl Aws {
    /// DescribeImages with a filter: a few of the account's own images. Empty if the first ten pages have none.
    ///
    /// # Errors
    /// [`Error`] if there is no answer.
    pub(crate) async fn own_images(&self, filter: &str, value: &str) -> Result<Vec<Image>, Error> {
        let mut token = None;
        // A page of filtered results may be empty.
        for _ in 0..PAGES {
            let answer = self
                .ec2
                .describe_images()
                .owners("self")
                .filters(self::filter(filter, &[value]))
                .max_results(100)
                .set_next_token(token)
                .send()
                .await
                .map_err(|error| classify("ec2:DescribeImages", "*", &error))?;
            let images: Vec<Image> = answer.images.into_iter().flatten().map(observed).collect();
            token = non_empty(answer.next_token);
            if !images.is_empty() || token.is_none() {
                return Ok(images);
            }
        }
        Ok(Vec::new())
    }

    /// Tries the read calls for which IAM has no resource. DescribeImageReferences is not among them, because EC2 looks
    /// up the image before it checks the caller's permissions. Only an existing image therefore proves anything.
    pub(crate) async fn try_to_look(&self) -> Vec<(&'static str, Tried)> {
        let ec2 = &self.ec2;
        vec![
            (
                "ec2:DescribeInstances",
                tried(ec2.describe_instances().dry_run(true).send().await),
            ),
            (
                "ec2:DescribeSnapshots",
                tried(ec2.describe_snapshots().dry_run(true).send().await),
            ),
            (
                "ec2:DescribeVolumes",
                tried(ec2.describe_volumes().dry_run(true).send().await),
            ),
            (
                "ec2:ListImagesInRecycleBin",
                tried(ec2.list_images_in_recycle_bin().dry_run(true).send().await),
            ),
        ]
    }

    /// Tries the guard's calls on an image as dry runs, in the order of [`ON_AN_IMAGE`].
    pub(crate) async fn try_on_image(
        &self,
        image: &ImageName<'_>,
        snapshot: Option<&str>,
    ) -> Vec<(&'static str, Tried)> {
        let ec2 = &self.ec2;
        let id = image.id.as_str();
        let attribute = ec2
            .describe_image_attribute()
            .image_id(id)
            .attribute(ec2::ImageAttributeName::LaunchPermission);
        let product_codes = match snapshot {
            None => Tried::Unknown("the image has no root snapshot".into()),
            Some(snapshot) => {
                let attribute = ec2
                    .describe_snapshot_attribute()
                    .snapshot_id(snapshot)
                    .attribute(ec2::SnapshotAttributeName::ProductCodes);
                tried(attribute.dry_run(true).send().await)
            }
        };
        let mark = ec2::Tag::builder().key(DISCARD_TAG).value(WITHDRAWN_VALUE);
        let tags = ec2.create_tags().resources(id).tags(mark.build());
        let deregister = ec2
            .deregister_image()
            .image_id(id)
            .delete_associated_snapshots(false);
        let disable = ec2.disable_image().image_id(id);
        let all = [
            tried(attribute.dry_run(true).send().await),
            product_codes,
            tried(tags.dry_run(true).send().await),
            tried(deregister.dry_run(true).send().await),
            tried(disable.dry_run(true).send().await),
        ];
        ON_AN_IMAGE.into_iter().zip(all).collect()
    }
}

fn tried<T, E: ProvideErrorMetadata>(answer: Result<T, SdkError<E, HttpResponse>>) -> Tried {
    let error = match answer {
        Ok(_) => return Tried::Unknown("EC2 did not treat it as a dry run".into()),
        Err(error) => error,
    };
    match error
        .as_service_error()
        .and_then(ProvideErrorMetadata::code)
    {
        Some("DryRunOperation") => Tried::Allowed,
        _ => match classify("DryRun", "", &error) {
            Error::AccessDenied { message, .. } => Tried::Denied(message),
            Error::Refused { code, message, .. } => Tried::Unknown(format!("{code}: {message}")),
            other => Tried::Unknown(other.to_string()),
        },
    }
}
