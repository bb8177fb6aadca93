//! EC2's images: what it says of them, and what is done to them.

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
use super::errors::{NotTaken, classify, is_one_of, lacking, no_answer_in};
use crate::ec2::{Image, PUBLISHERS};
use crate::error::Error;
use crate::event::Registration;
use crate::ids::AmiId;

/// What IAM calls the call that is made most.
pub(super) const DESCRIBE_IMAGES: &str = "ec2:DescribeImages";

/// What EC2 calls the id of an image that it does not know, or not any more.
pub(super) const UNKNOWN_IMAGE: [&str; 2] = ["InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"];

/// The pauses before CreateTags is sent again, jittered, while others tag the same image: their writes take a moment.
const TAGGING: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];

/// How images are looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ImagesBy {
    /// The account's, by the snapshot of the root device.
    OwnOn,
    /// Those of Amazon and of the AWS Marketplace, by the snapshot of the root device. It may take long.
    PublishedOn,
    /// The account's, by the image that they were copied from.
    CopiedOf,
    /// Anybody's, by the id.
    Id,
}

/// An image with what its ARN is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ImageName<'a> {
    /// The id.
    pub(crate) id: &'a AmiId,
    /// The Region.
    pub(crate) region: &'a str,
    /// The partition (`aws`, `aws-cn`, `aws-us-gov`).
    pub(crate) partition: &'a str,
}

impl<'a> ImageName<'a> {
    /// The image of a registration; its partition is that of the alert topic.
    pub(crate) fn new(registration: &'a Registration, topic: &'a str) -> ImageName<'a> {
        ImageName::of(&registration.image_id, &registration.region, topic)
    }

    /// An image of this Region; its partition is that of the topic.
    pub(crate) fn of(id: &'a AmiId, region: &'a str, topic: &'a str) -> ImageName<'a> {
        ImageName {
            id,
            region,
            partition: topic.split(':').nth(1).unwrap_or("aws"),
        }
    }

    /// The ARN, as IAM policies name it: an image's has no account.
    pub(crate) fn arn(&self) -> String {
        self.arn_of(self.id.as_str())
    }

    /// The ARN of another image of the same Region.
    fn arn_of(&self, id: &str) -> String {
        format!("arn:{}:ec2:{}::image/{id}", self.partition, self.region)
    }
}

impl Aws {
    /// DescribeImages for one id, disabled images too.
    ///
    /// # Errors
    /// [`Error`], if there is no answer to judge by.
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
                    // DescribeImages knows no resource in IAM.
                    _ => Err(classify(DESCRIBE_IMAGES, "*", &error)),
                };
            }
        };
        let image = images
            .into_iter()
            .find(|image| image.image_id.as_deref() == Some(id.as_str()));
        Ok(image.map_or(Described::NoImage, described))
    }

    /// DescribeImages for some of the account's images at once, disabled ones too. Those that EC2 does not show are left
    /// out: nothing is known of them.
    ///
    /// # Errors
    /// [`Error`], if there is no answer.
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

    /// DescribeImages: the root snapshot of an image.
    ///
    /// # Errors
    /// [`Error`], if there is no such image, none that is available, or none with such a snapshot.
    pub async fn root_snapshot(&self, id: &AmiId) -> Result<String, Error> {
        let none = |code: &'static str, message: String| Error::NotPossible {
            resource: id.to_string(),
            code,
            message,
        };
        let missing =
            || "there is no such AMI in this Region, or this account may not see it".into();
        match self.describe_image(id).await? {
            Described::Available(image) => image.root_snapshot.ok_or_else(|| {
                none(
                    "NoRootSnapshot",
                    "EC2 names no snapshot of its root device".into(),
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

    /// DescribeImages: every available image that is found by these ids (of images or snapshots), deprecated ones too; of
    /// copies also those that are under way or disabled.
    /// Found by a snapshot, it may have it elsewhere than at its root. Found by its own id, it may be anybody's.
    ///
    /// # Errors
    /// [`Error`], if there is no answer.
    pub(crate) async fn images(&self, by: ImagesBy, ids: &[&str]) -> Result<Vec<Image>, Error> {
        const ON: &str = "block-device-mapping.snapshot-id";
        let request = || {
            let request = self.ec2.describe_images().include_deprecated(true);
            // EC2 advises against requests without pages, but takes none where ids are named.
            request.max_results(MOST_IN_A_PAGE)
        };
        let found = match by {
            // The parameter is fast for `self` alone, and slow for account ids and aliases (ansible issues 24886 and
            // 34385, aws-cli issue 4794): those are filters.
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
            // A copy that is under way, or disabled, was made from it all the same.
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
                    // Others' are asked for one by one, as a search among everybody's images is slow.
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
        // In whatever order EC2 lists them, the same is said of them.
        available.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(available)
    }

    /// All pages of a request for images.
    pub(super) async fn pages_of_images(
        &self,
        request: impl Fn() -> DescribeImagesFluentBuilder,
    ) -> Result<Vec<ec2::Image>, Error> {
        let call = DESCRIBE_IMAGES;
        all_pages(call, "*", |token| {
            let request = request().set_next_token(token).customize();
            // Whoever waits for it says how long: a search among everybody's images may take long.
            let request = request.config_override(slowly());
            async move {
                let answer = request.send().await;
                let answer = answer.map_err(|error| classify(call, "*", &error))?;
                Ok((answer.images, answer.next_token))
            }
        })
        .await
    }

    /// What refers to an image in this account and Region, as ARNs. DescribeImageReferences: instances that are not
    /// terminated, launch templates (of the newest versions of each), SSM parameters, Image Builder recipes (EC2 User
    /// Guide, "Identify your resources referencing specified AMIs"). DescribeImages: the account's images that were
    /// copied from it.
    ///
    /// # Errors
    /// [`Error`], if there is no answer.
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
            // A copy of an image with the same id in another Region.
            let region = copy.source_image_region.as_deref();
            if region.is_none_or(|region| region == image.region) {
                arns.push(image.arn_of(&copy.id));
            }
        }
        Ok(arns)
    }

    pub(super) async fn referring_resources(&self, id: &AmiId) -> Result<Vec<String>, Error> {
        use ec2::ImageReferenceResourceType::{
            Ec2Instance, Ec2LaunchTemplate, ImageBuilderContainerRecipe, ImageBuilderImageRecipe,
            SsmParameter,
        };
        let call = "ec2:DescribeImageReferences";
        let of = |kind| ec2::ResourceTypeRequest::builder().resource_type(kind);
        // By itself EC2 would also name instances that are terminated.
        let states = ["pending", "running", "shutting-down", "stopping", "stopped"];
        let alive = ec2::ResourceTypeOption::builder()
            .option_name(ec2::ImageReferenceOptionName::StateName)
            .set_option_values(Some(strings(&states)))
            .build();
        // By name, as the role's permissions are made for these: `IncludeAllResourceTypes` would need others on the day
        // on which AWS adds a type.
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
            // EC2 asks the other services in the caller's name before it answers.
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

    /// DescribeImageAttribute: who may launch instances from an image, each as ModifyImageAttribute takes it.
    ///
    /// # Errors
    /// [`Error`], if there is no answer.
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
                    // A kind that is new: whom it names is not known.
                    false => Err(Error::Unavailable {
                        call: "ec2:DescribeImageAttribute",
                        resource: image.arn(),
                        message: "the answer has a launch permission of an unknown kind".into(),
                    }),
                }
            })
            .collect()
    }

    /// CreateTags on an image.
    ///
    /// # Errors
    /// [`Error`]: then none of the tags, or all, were written.
    pub(crate) async fn tag_image(
        &self,
        image: &ImageName<'_>,
        tags: &[(&str, String)],
    ) -> Result<(), Error> {
        let tags: Vec<ec2::Tag> = tags
            .iter()
            .map(|(key, value)| ec2::Tag::builder().key(*key).value(value).build())
            .collect();
        let mut pauses = TAGGING.iter();
        loop {
            let request = self.ec2.create_tags().resources(image.id.as_str());
            let answer = request.set_tags(Some(tags.clone())).send().await;
            match (answer, pauses.next()) {
                (Ok(_), _) => return Ok(()),
                // The SDK does not send it again.
                (Err(error), Some(pause)) if error.code() == Some("ConcurrentTagAccess") => {
                    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                }
                (Err(error), _) => return Err(classify("ec2:CreateTags", image.arn(), &error)),
            }
        }
    }

    /// DeregisterImage, in one attempt. The image's snapshots stay.
    ///
    /// # Errors
    /// [`NotTaken`], which says whether the image may be gone all the same.
    pub(crate) async fn deregister_image(&self, image: &ImageName<'_>) -> Result<(), NotTaken> {
        let answer = self
            .ec2
            .deregister_image()
            .image_id(image.id.as_str())
            // The default, said aloud: a snapshot is never deleted.
            .delete_associated_snapshots(false)
            .customize()
            .config_override(in_one_attempt())
            .send()
            .await;
        let answer = answer.map(|answer| answer.r#return);
        taken("ec2:DeregisterImage", image, answer)
    }

    /// DisableImage, in one attempt.
    ///
    /// # Errors
    /// As [`Aws::deregister_image`].
    pub(crate) async fn disable_image(&self, image: &ImageName<'_>) -> Result<(), NotTaken> {
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

/// Whether EC2 says that it took an image away: its `return`, which is `true` if it did.
fn taken<E: ProvideErrorMetadata>(
    call: &'static str,
    image: &ImageName<'_>,
    answer: Result<Option<bool>, SdkError<E, HttpResponse>>,
) -> Result<(), NotTaken> {
    let said = match answer {
        Ok(Some(true)) => return Ok(()),
        Ok(Some(false)) => "EC2 answers that it did not do it",
        Ok(None) => "the answer lacks whether it was done",
        Err(error) => {
            return Err(NotTaken {
                may_have_acted: may_have_acted(&error),
                error: classify(call, image.arn(), &error),
            });
        }
    };
    // Whether it is true shows when the image is looked at again.
    Err(NotTaken {
        error: Error::Unavailable {
            call,
            resource: image.arn(),
            message: said.into(),
        },
        may_have_acted: true,
    })
}
