//! Calls that read and change EC2 images.

use crate::aws::errors::may_have_acted;
use std::time::Duration;

use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::describe_images::builders::DescribeImagesFluentBuilder;
use aws_sdk_ec2::types as ec2;
use serde_json::{Value, json};

use super::calls::{MOST_IN_A_PAGE, MOST_VALUES, SLOW, all_pages, by_id, in_one_attempt, slowly};
use super::connect::Aws;
use super::convert::{
    Described, described, filter, identified, non_empty, observed, present, present_list, strings,
};
use super::errors::{CallFailure, classify, is_one_of, lacking, no_answer_in};
use crate::ec2::{Image, PUBLISHERS};
use crate::error::Error;
use crate::event::Registration;
use crate::ids::AmiId;
use crate::invocation::Backoff;

/// IAM's name of the most frequent call.
const DESCRIBE_IMAGES: &str = "ec2:DescribeImages";

/// EC2's error codes for an image id that it does not know, or no longer knows.
pub(super) const UNKNOWN_IMAGE: [&str; 2] = ["InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"];

/// Number of attempts of CreateTags. Another caller's tagging of the same image takes a moment.
const TAGGING: u32 = 4;

/// How to find images.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ImagesBy {
    /// The account's images with one of these snapshots on any of their devices.
    OwnOn,
    /// Images of Amazon and the AWS Marketplace with one of these snapshots on any of their devices. The search may
    /// take long.
    PublishedOn,
    /// The account's images that were copied from one of these images.
    CopiedOf,
    /// Images of any account, by their own ids.
    Id,
}

/// An image id with the other parts of its ARN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ImageName<'a> {
    /// The image id.
    pub(crate) id: &'a AmiId,
    /// The Region.
    pub(crate) region: &'a str,
    /// The partition (`aws`, `aws-cn`, `aws-us-gov`).
    pub(crate) partition: &'a str,
}

impl<'a> ImageName<'a> {
    /// Name of a registration's image. `topic` is the ARN of the alert topic, from which the partition is taken.
    pub(crate) fn new(registration: &'a Registration, topic: &'a str) -> ImageName<'a> {
        ImageName::of(&registration.image_id, &registration.region, topic)
    }

    /// Name of an image in this Region. `topic` is the ARN of the alert topic, from which the partition is taken.
    pub(crate) fn of(id: &'a AmiId, region: &'a str, topic: &'a str) -> ImageName<'a> {
        ImageName {
            id,
            region,
            partition: topic.split(':').nth(1).unwrap_or("aws"),
        }
    }

    /// The ARN that IAM policies use. An image's ARN has no account.
    pub(crate) fn arn(&self) -> String {
        self.arn_of(self.id.as_str())
    }

    /// The ARN of another image in the same Region.
    fn arn_of(&self, id: &str) -> String {
        format!("arn:{}:ec2:{}::image/{id}", self.partition, self.region)
    }
}

impl Aws {
    /// DescribeImages for one id, which may be a disabled image.
    ///
    /// # Errors
    /// [`Error`] if there is no answer on which to base a verdict.
    pub(crate) async fn describe_image(&self, id: &AmiId) -> Result<Described, Error> {
        let answer = self
            .ec2
            .describe_images()
            .image_ids(id.as_str())
            .include_disabled(true)
            .send()
            .await;
        let images = match answer {
            Ok(answer) => present_list(DESCRIBE_IMAGES, "*", answer.images)?,
            Err(error) => {
                return match error.code() {
                    Some("InvalidAMIID.NotFound") => Ok(Described::NotFound),
                    Some("InvalidAMIID.Unavailable") => {
                        Ok(Described::Gone("EC2 says InvalidAMIID.Unavailable".into()))
                    }
                    // IAM has no resource for DescribeImages.
                    _ => Err(classify(DESCRIBE_IMAGES, "*", &error)),
                };
            }
        };
        let image = images
            .into_iter()
            .find(|image| image.image_id.as_deref() == Some(id.as_str()));
        Ok(image.map_or(Described::NoImage, described))
    }

    /// DescribeImages for several of the account's images, including disabled ones. Leaves out images that EC2 does not
    /// show, of which nothing is known.
    ///
    /// # Errors
    /// [`Error`] if there is no answer.
    pub(crate) async fn describe_own_images(
        &self,
        ids: &[&str],
    ) -> Result<Vec<(AmiId, Described)>, Error> {
        let mut images = Vec::new();
        for ids in ids.chunks(MOST_VALUES) {
            let all = self.ec2.describe_images().include_disabled(true);
            let all = all.set_image_ids(Some(strings(ids))).send().await;
            let all = all.map(|answer| (answer.images, answer.next_token));
            let own = || {
                self.pages_of_images(|| {
                    let request = self.ec2.describe_images().owners("self");
                    let request = request.include_deprecated(true).include_disabled(true);
                    let request = request.max_results(MOST_IN_A_PAGE);
                    request.filters(filter("image-id", ids))
                })
            };
            images.extend(by_id(DESCRIBE_IMAGES, ids, &UNKNOWN_IMAGE, all, own).await?);
        }
        Ok(identified(images))
    }

    /// DescribeImages: the id of an image's root snapshot.
    ///
    /// # Errors
    /// [`Error`] if there is no such image, it is not available, or it has no root snapshot.
    pub async fn root_snapshot(&self, id: &AmiId) -> Result<String, Error> {
        let none = |code: &'static str, message: String| Error::NotPossible {
            resource: id.to_string(),
            code,
            message,
        };
        let missing = || "it does not exist in this Region, or this account cannot see it".into();
        match self.describe_image(id).await? {
            Described::Available(image) => image.root_snapshot.ok_or_else(|| {
                none(
                    "NoRootSnapshot",
                    "EC2 does not name the snapshot of its root device".into(),
                )
            }),
            Described::NoImage | Described::NotFound => {
                Err(none("InvalidAMIID.NotFound", missing()))
            }
            Described::Disabled => Err(none("NotAvailable", "it is disabled".into())),
            Described::Gone(why) | Described::Failed(why) | Described::Underway(why) => {
                Err(none("NotAvailable", why))
            }
        }
    }

    /// DescribeImages: the available images that have these ids, or were found through these snapshots or source
    /// images. Includes deprecated images. The copies of an image also include those that are pending or disabled. An
    /// image found by a snapshot may have it on another device than the root device. An image found by its own id may
    /// belong to any account.
    ///
    /// # Errors
    /// [`Error`] if there is no answer.
    pub(crate) async fn images(&self, by: ImagesBy, ids: &[&str]) -> Result<Vec<Image>, Error> {
        const ON: &str = "block-device-mapping.snapshot-id";
        let request = || {
            let request = self.ec2.describe_images().include_deprecated(true);
            // EC2 advises against requests without pagination, but refuses it if the request names ids.
            request.max_results(MOST_IN_A_PAGE)
        };
        let found = match by {
            // The `owners` parameter is fast only for `self`. It is slow for account ids and aliases (ansible issues
            // 24886 and 34385, aws-cli issue 4794), so these are filters.
            ImagesBy::OwnOn => {
                let request = || request().owners("self").filters(filter(ON, ids));
                self.pages_of_images(request).await?
            }
            ImagesBy::PublishedOn => {
                let publishers = filter("owner-alias", &PUBLISHERS);
                let request = || {
                    let request = request().filters(publishers.clone());
                    request.filters(filter(ON, ids))
                };
                self.pages_of_images(request).await?
            }
            // A copy that is pending or disabled was made from the image nevertheless.
            ImagesBy::CopiedOf => {
                let request = || {
                    let request = request().owners("self").include_disabled(true);
                    request.filters(filter("source-image-id", ids))
                };
                self.pages_of_images(request).await?
            }
            ImagesBy::Id => {
                let named = || self.ec2.describe_images().include_deprecated(true);
                let all = named().set_image_ids(Some(strings(ids))).send().await;
                let all = all.map(|answer| (answer.images, answer.next_token));
                let unknown = UNKNOWN_IMAGE;
                let own = || async {
                    let own = || request().owners("self").filters(filter("image-id", ids));
                    let mut found = self.pages_of_images(own).await?;
                    // Images of other accounts are requested one by one, because a search among the images of all
                    // accounts is slow.
                    for id in ids {
                        if found.iter().any(|it| it.image_id.as_deref() == Some(id)) {
                            continue;
                        }
                        match named().image_ids(*id).send().await {
                            Ok(answer) => {
                                found.extend(present_list(DESCRIBE_IMAGES, id, answer.images)?);
                            }
                            Err(error) if is_one_of(&unknown, error.code()) => {}
                            Err(error) => return Err(classify(DESCRIBE_IMAGES, "*", &error)),
                        }
                    }
                    Ok(found)
                };
                by_id(DESCRIBE_IMAGES, ids, &unknown, all, own).await?
            }
        };
        if found.iter().any(|it| it.image_id.is_none()) {
            return Err(lacking(DESCRIBE_IMAGES, "*", "the id of an image"));
        }
        use ec2::ImageState::{Available, Deregistered, Error as InError, Failed, Invalid};
        let no_copy = [Failed, InError, Invalid, Deregistered];
        let counts = |state: Option<&ec2::ImageState>| match by {
            ImagesBy::CopiedOf => state.is_none_or(|state| !no_copy.contains(state)),
            _ => state.is_none_or(|state| state == &Available),
        };
        let available = found.into_iter().filter(|it| counts(it.state.as_ref()));
        let mut available: Vec<Image> = available.map(observed).collect();
        // Sorted, so that the result does not depend on the order in which EC2 lists the images.
        available.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(available)
    }

    /// The images on all pages of a request.
    async fn pages_of_images(
        &self,
        request: impl Fn() -> DescribeImagesFluentBuilder,
    ) -> Result<Vec<ec2::Image>, Error> {
        let call = DESCRIBE_IMAGES;
        all_pages(call, "*", |token| {
            let request = request().set_next_token(token).customize();
            // The caller sets the time limit, because a search among the images of all accounts may take long.
            let request = request.config_override(slowly());
            async move {
                let answer = request.send().await;
                let answer = answer.map_err(|error| classify(call, "*", &error))?;
                Ok((answer.images, answer.next_token))
            }
        })
        .await
    }

    /// ARNs of what refers to an image in this account and Region.
    ///
    /// - DescribeImageReferences: instances that are not terminated, launch templates (the newest versions of each),
    ///   SSM parameters and Image Builder recipes. (EC2 User Guide, "Identify your resources referencing specified
    ///   AMIs".)
    /// - DescribeImages: the account's images that were copied from it.
    ///
    /// # Errors
    /// [`Error`] if there is no answer.
    pub(crate) async fn image_references(
        &self,
        image: &ImageName<'_>,
    ) -> Result<Vec<String>, Error> {
        let copied = [image.id.as_str()];
        let (referring, copies) = tokio::join!(
            Box::pin(self.referring_resources(image.id)),
            tokio::time::timeout(SLOW, Box::pin(self.images(ImagesBy::CopiedOf, &copied)))
        );
        let mut arns = referring?;
        let copies =
            copies.unwrap_or_else(|_| Err(no_answer_in(DESCRIBE_IMAGES, image.id.as_str(), SLOW)));
        for copy in copies? {
            // Leaves out a copy of an image that has the same id in another Region.
            let region = copy.source_image_region.as_deref();
            if region.is_none_or(|region| region == image.region) {
                arns.push(image.arn_of(&copy.id));
            }
        }
        Ok(arns)
    }

    async fn referring_resources(&self, id: &AmiId) -> Result<Vec<String>, Error> {
        use ec2::ImageReferenceResourceType::{
            Ec2Instance, Ec2LaunchTemplate, ImageBuilderContainerRecipe, ImageBuilderImageRecipe,
            SsmParameter,
        };
        let call = "ec2:DescribeImageReferences";
        let of = |kind| ec2::ResourceTypeRequest::builder().resource_type(kind);
        // By default, EC2 would also return terminated instances.
        let states = ["pending", "running", "shutting-down", "stopping", "stopped"];
        let alive = ec2::ResourceTypeOption::builder()
            .option_name(ec2::ImageReferenceOptionName::StateName)
            .set_option_values(Some(strings(&states)))
            .build();
        // Lists the types because the role's permissions cover exactly these. With `IncludeAllResourceTypes`, the call
        // would need more permissions on the day on which AWS adds a type.
        let kinds = [
            of(Ec2Instance).resource_type_options(alive).build(),
            of(Ec2LaunchTemplate).build(),
            of(SsmParameter).build(),
            of(ImageBuilderImageRecipe).build(),
            of(ImageBuilderContainerRecipe).build(),
        ];
        let pages = all_pages(call, id.as_str(), |token| {
            let request = self.ec2.describe_image_references();
            let request = request.image_ids(id.as_str()).set_next_token(token);
            let request = request.set_resource_types(Some(kinds.to_vec()));
            // EC2 calls the other services with the caller's permissions before it answers.
            let request = request.customize().config_override(slowly());
            async move {
                let answer = request.send().await;
                let answer = answer.map_err(|error| classify(call, "*", &error))?;
                Ok((answer.image_references, answer.next_token))
            }
        });
        let references = match tokio::time::timeout(SLOW, pages).await {
            Ok(references) => references?,
            Err(_) => return Err(no_answer_in(call, id.as_str(), SLOW)),
        };
        let arns = references.into_iter().map(|reference| {
            let arn = non_empty(reference.arn);
            arn.unwrap_or_else(|| "a resource that EC2 does not name".into())
        });
        Ok(arns.collect())
    }

    /// DescribeImageAttribute: launch permissions of an image, each in the form that ModifyImageAttribute accepts.
    ///
    /// # Errors
    /// [`Error`] if there is no answer, or it has a permission of an unknown kind.
    pub(crate) async fn launch_permissions(
        &self,
        image: &ImageName<'_>,
    ) -> Result<Vec<Value>, Error> {
        let answer = self
            .ec2
            .describe_image_attribute()
            .image_id(image.id.as_str())
            .attribute(ec2::ImageAttributeName::LaunchPermission)
            .send()
            .await
            .map_err(|error| classify("ec2:DescribeImageAttribute", image.arn(), &error))?;
        let call = "ec2:DescribeImageAttribute";
        let permissions = present_list(call, &image.arn(), answer.launch_permissions)?;
        permissions
            .into_iter()
            .map(|permission| {
                let permission = present(json!({
                    "Group": permission.group.map(|group| group.as_str().to_owned()),
                    "UserId": permission.user_id,
                    "OrganizationArn": permission.organization_arn,
                    "OrganizationalUnitArn": permission.organizational_unit_arn,
                }));
                match permission.as_object().is_some_and(|it| !it.is_empty()) {
                    true => Ok(permission),
                    // A new kind of permission, of which the guard does not know whom it names.
                    false => Err(Error::Unavailable {
                        call: "ec2:DescribeImageAttribute",
                        resource: image.arn(),
                        message: "the answer has a launch permission of an unknown kind".into(),
                    }),
                }
            })
            .collect()
    }

    /// CreateTags on an image. Retried while another caller is tagging the same image.
    ///
    /// # Errors
    /// [`Error`] if EC2 does not confirm the tags. Then either all tags or none were written.
    pub(crate) async fn tag_image(
        &self,
        image: &ImageName<'_>,
        tags: &[(&str, String)],
    ) -> Result<(), Error> {
        let tags: Vec<ec2::Tag> = tags
            .iter()
            .map(|(key, value)| ec2::Tag::builder().key(*key).value(value).build())
            .collect();
        let mut backoff = Backoff::new(Duration::from_millis(300), Duration::from_millis(1_200));
        let mut attempts = TAGGING;
        loop {
            attempts -= 1;
            let request = self.ec2.create_tags().resources(image.id.as_str());
            match request.set_tags(Some(tags.clone())).send().await {
                Ok(_) => return Ok(()),
                // The SDK does not retry this error.
                Err(error) if error.code() == Some("ConcurrentTagAccess") && attempts > 0 => {
                    backoff.pause().await;
                }
                Err(error) => return Err(classify("ec2:CreateTags", image.arn(), &error)),
            }
        }
    }

    /// DeregisterImage, in a single attempt. Keeps the image's snapshots.
    ///
    /// # Errors
    /// [`CallFailure`], which says whether the image may have been deregistered nevertheless.
    pub(crate) async fn deregister_image(&self, image: &ImageName<'_>) -> Result<(), CallFailure> {
        let answer = self
            .ec2
            .deregister_image()
            .image_id(image.id.as_str())
            // This is the default. It is explicit because the guard must never delete a snapshot.
            .delete_associated_snapshots(false)
            .customize()
            .config_override(in_one_attempt())
            .send()
            .await;
        let answer = answer.map(|answer| answer.r#return);
        taken("ec2:DeregisterImage", image, answer)
    }

    /// DisableImage, in a single attempt.
    ///
    /// # Errors
    /// As [`Aws::deregister_image`].
    pub(crate) async fn disable_image(&self, image: &ImageName<'_>) -> Result<(), CallFailure> {
        let answer = self
            .ec2
            .disable_image()
            .image_id(image.id.as_str())
            .customize()
            .config_override(in_one_attempt())
            .send()
            .await;
        let answer = answer.map(|answer| answer.r#return);
        taken("ec2:DisableImage", image, answer)
    }
}

/// Checks that EC2 deregistered or disabled an image. EC2 then answers with a `return` of `true`.
fn taken<E: ProvideErrorMetadata>(
    call: &'static str,
    image: &ImageName<'_>,
    answer: Result<Option<bool>, SdkError<E, HttpResponse>>,
) -> Result<(), CallFailure> {
    let said = match answer {
        Ok(Some(true)) => return Ok(()),
        Ok(Some(false)) => "EC2 answered that it did not do it",
        Ok(None) => "the answer does not say whether it was done",
        Err(error) => {
            return Err(CallFailure {
                may_have_acted: may_have_acted(&error),
                error: classify(call, image.arn(), &error),
            });
        }
    };
    // Only another look at the image shows whether this is true.
    Err(CallFailure {
        error: Error::Unavailable {
            call,
            resource: image.arn(),
            message: said.into(),
        },
        may_have_acted: true,
    })
}
