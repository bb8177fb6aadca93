//! Recycle Bin look-ups: whether it contains an image, and whether a rule retains images.

use aws_sdk_ec2::error::ProvideErrorMetadata;
use chrono::{DateTime, Utc};

use super::connect::Aws;
use super::convert::{present_list, time};
use super::errors::{classify, is_one_of};
use super::images::UNKNOWN_IMAGE;
use crate::error::Error;
use crate::ids::AmiId;

/// Status of a Recycle Bin retention rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleStatus {
    /// The rule retains the images that match it.
    Available,
    /// The rule does not retain anything yet.
    Pending,
}

impl Aws {
    /// ListImagesInRecycleBin for one id. `None` if the image is not there. Otherwise the time at which it leaves the
    /// Recycle Bin, with an inner `None` if EC2 does not say.
    ///
    /// # Errors
    /// [`Error`] if there is no answer.
    #[allow(clippy::option_option)]
    pub(crate) async fn recycle_bin(
        &self,
        id: &AmiId,
    ) -> Result<Option<Option<DateTime<Utc>>>, Error> {
        let answer = self
            .ec2
            .list_images_in_recycle_bin()
            .image_ids(id.as_str())
            .send()
            .await;
        let images = match answer {
            Ok(answer) => present_list("ec2:ListImagesInRecycleBin", "*", answer.images)?,
            // For an id that is not there, EC2 may also return an error.
            Err(error) if is_one_of(&UNKNOWN_IMAGE, error.code()) => Vec::new(),
            Err(error) => return Err(classify("ec2:ListImagesInRecycleBin", "*", &error)),
        };
        let image = images
            .iter()
            .find(|image| image.image_id() == Some(id.as_str()));
        Ok(image.map(|image| time(*image.recycle_bin_exit_time()?)))
    }

    /// GetRule: the status of a retention rule for images.
    ///
    /// # Errors
    /// [`Error`] if there is no answer, the rule's status is another one, or the rule does not retain images.
    pub async fn recycle_bin_rule(&self, id: &str) -> Result<RuleStatus, Error> {
        use aws_sdk_rbin::types::{ResourceType, RuleStatus as Status};
        let call = "rbin:GetRule";
        let rule = self
            .rbin
            .get_rule()
            .identifier(id)
            .send()
            .await
            .map_err(|error| classify(call, id, &error))?;
        let unclear = |message: String| Error::Unavailable {
            call,
            resource: id.to_owned(),
            message,
        };
        match (rule.resource_type, rule.status) {
            (Some(ResourceType::Ec2Image), Some(Status::Available)) => Ok(RuleStatus::Available),
            (Some(ResourceType::Ec2Image), Some(Status::Pending)) => Ok(RuleStatus::Pending),
            (Some(ResourceType::Ec2Image), status) => {
                let status = status.as_ref().map_or("none", Status::as_str);
                Err(unclear(format!("the status of the rule is {status}")))
            }
            (Some(other), _) => Err(Error::NotPossible {
                resource: id.to_owned(),
                code: "NotForImages",
                message: format!("this Recycle Bin rule keeps {other}, not EC2_IMAGE"),
            }),
            (None, _) => Err(unclear(
                "the answer does not say what the rule keeps".into(),
            )),
        }
    }
}
