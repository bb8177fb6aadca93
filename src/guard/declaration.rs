//! Declares with the tag [`EXPECT_TAG`] what an image is expected to be billed as, after a preview of what follows.

use serde_json::json;

use crate::aws::ImageName;
use crate::ec2::Observation;
use crate::error::Error;
use crate::escape::{escaped_json, shell_quoted};
use crate::event::Registration;
use crate::expectation::EXPECT_TAG;
use crate::guard::{Guard, evaluation, preview};
use crate::ids::{AccountId, AmiId};
use crate::invocation::{Deadline, Delivery, RetryBudget};
use crate::record::Record;

/// A declaration that can be made.
#[derive(Clone, Debug)]
pub struct Declaration {
    /// The image.
    pub image: AmiId,
    /// Value that the tag is to have.
    pub value: String,
    /// Value that the tag has now.
    pub before: Option<String>,
    /// Record of what the guard would do about the image if its tag had the new value.
    pub record: Record,
    /// Command that restores the value of now, or deletes the tag.
    pub undo: String,
}

impl Guard {
    /// Prepares a declaration for an image of this account. Changes nothing and sends no alert.
    ///
    /// # Errors
    /// [`Error`] if the image could not be seen within `GUARD_WAIT_SECONDS`, is not available, or belongs to another
    /// account.
    pub async fn prepare_declaration(
        &self,
        image: &AmiId,
        account: &AccountId,
        value: &str,
    ) -> Result<Declaration, Error> {
        let not_possible = |code: &'static str, message: String| Error::NotPossible {
            resource: image.to_string(),
            code,
            message,
        };
        let region = self.aws.region().unwrap_or_default();
        let (id, owner) = (image.clone(), account.clone());
        let registration =
            Registration::without_event(id, owner, region, "declaration", self.now());
        let delivery = Delivery::from(Deadline::now() + preview::REHEARSAL);
        let mut budget = RetryBudget::new(self.config.wait, delivery.deadline);
        let mut seen = match evaluation::observe(self, &registration, &mut budget).await? {
            Observation::Available(image) => image,
            Observation::Gone { why, .. } | Observation::Failed { why } => {
                return Err(not_possible("NotAvailable", why));
            }
        };
        match seen.owner.as_deref() {
            Some(owner) if owner == account.as_str() => {}
            Some(owner) => {
                let why = format!(
                    "it belongs to account {owner}, not to {account}. The guard reads the tags of its own account's \
                     AMIs only"
                );
                return Err(not_possible("NotOwner", why));
            }
            None => {
                return Err(not_possible(
                    "NotOwner",
                    "EC2 does not say who owns it".into(),
                ));
            }
        }
        let before = seen.tags.insert(EXPECT_TAG.into(), value.into());
        let seen = Observation::Available(seen);
        Ok(Declaration {
            image: image.clone(),
            value: value.into(),
            undo: undo(image, region, before.as_deref()),
            before,
            record: preview::judged(self, &registration, seen, &delivery).await,
        })
    }

    /// CreateTags: makes a declaration.
    ///
    /// # Errors
    /// [`Error`] if EC2 does not confirm the tag.
    pub async fn declare(&self, declaration: &Declaration) -> Result<(), Error> {
        let name = ImageName {
            id: &declaration.image,
            region: self.aws.region().unwrap_or_default(),
            // In a policy of IAM, this names the image in any partition.
            partition: "*",
        };
        let tags = [(EXPECT_TAG, declaration.value.clone())];
        self.aws.tag_image(&name, &tags).await
    }
}

/// Command that gives the tag this value, or deletes it. The tag is in JSON, because the short form takes a comma for
/// the end of the value.
fn undo(image: &AmiId, region: &str, before: Option<&str>) -> String {
    let (command, tag) = match before {
        Some(value) => (
            "create-tags",
            json!([{ "Key": EXPECT_TAG, "Value": value }]),
        ),
        None => ("delete-tags", json!([{ "Key": EXPECT_TAG }])),
    };
    let tags = shell_quoted(&escaped_json(&tag.to_string()));
    format!("aws ec2 {command} --region {region} --resources {image} --tags {tags}")
}
