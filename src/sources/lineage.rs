//! Where an image comes from. The root snapshot leads to its volume, and the volume to the instance whose root volume
//! it was at the time. It may also lead to another image on the same snapshot, or to the image that the volume was made
//! from.
//!
//! Each step is looked up in EC2. It must belong to the account, or to a publisher that EC2 vouches for. A description
//! proves nothing by itself. A witness that is billed as plain Linux proves nothing either, because an image that lost
//! its billing code is billed as plain Linux too.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use super::batch::Lookups;
use super::observed::Observed;
use crate::aws::{Aws, ImagesBy, SLOW, lacking, no_answer_in};
use crate::billing::{BilledAs, Billing, By, Licence, Os, Platform, Platforms};
use crate::ec2::{Attachment, Image, Instance, PUBLISHERS, Snapshot, Volume, is_same_device};
use crate::error::Error;
use crate::escape::quoted;
use crate::event::Registration;
use crate::expectation::{Evidence, Origin, Says, Source};

/// Time limit for a walk. Its calls follow one another, and each usually takes well below a second.
const WALK: Duration = Duration::from_secs(10);

/// Time limit for comparing product codes, which yields only a remark.
const REMARK: Duration = Duration::from_secs(5);

/// How long after a registration EC2 may still change its answer ("eventual consistency", EC2 API reference). Usually
/// that takes seconds.
const EVENTUALLY: TimeDelta = TimeDelta::minutes(30);

/// Subject of the lineage's statement if there is nothing else to report.
pub(crate) const ORIGIN: &str = "origin of the root snapshot";

/// The billing that a registration asked for through billing products. `None` if it named no billing products.
pub(crate) fn requested(registration: &Registration) -> Option<Evidence> {
    let codes: Vec<&str> = registration
        .billing_products
        .iter()
        .map(String::as_str)
        .collect();
    if codes.is_empty() {
        return None;
    }
    let mut detail = format!("the registration asked for {}", codes.join(", "));
    let (billing, unknown) = Billing::of_products(codes);
    if !unknown.is_empty() {
        let unknown = unknown.join(", ");
        detail.push_str(&format!("; not known to this version: {unknown}"));
    }
    let says = match billing {
        Some(billing) if unknown.is_empty() => Says::Platforms(billing.into()),
        // An unknown code may stand for something more.
        Some(billing) => Says::Platforms(Platforms::at_least(billing)),
        None if unknown.is_empty() => {
            detail.push_str(", a combination without a known meaning");
            Says::Silent
        }
        None => Says::Silent,
    };
    Some(statement(says, detail))
}

/// Follows the lineage from the root snapshot. Makes each call once.
pub(crate) async fn walk(
    lookups: &Lookups,
    registration: &Registration,
    image: &Image,
    snapshot: &Snapshot,
) -> Observed {
    let place = Walk {
        lookups,
        account: registration.account.as_str(),
        region: &registration.region,
        image,
        snapshot,
        until: Instant::now() + WALK,
        is_transient: AtomicBool::new(false),
    };
    if snapshot.owner.as_deref() != Some(place.account) {
        let owner = snapshot.owner.as_deref().unwrap_or("an unknown account");
        let detail = format!("{} belongs to {owner}, not to this account", snapshot.id);
        return Observed::single(Source::Lineage, Says::Silent, detail);
    }
    let trail = match &snapshot.volume {
        Some(volume) => place.by_volume(volume).await,
        None => place.by_copy().await,
    };
    // Long after the event, EC2's data is unlikely to change. The event is then no longer retried for it, unless a
    // discard is due.
    if trail.is_odd && lookups.aws.clock().now() - registration.time < EVENTUALLY {
        place.is_transient.store(true, Ordering::Relaxed);
    }
    let mut observed = trail.observed();
    if !image.product_codes.is_empty() {
        observed.evidence.iter_mut().for_each(sold);
    }
    observed.is_transient = place.is_transient.into_inner();
    observed
}

/// Extends a statement on an image that has a product code. The AWS Marketplace bills Red Hat Enterprise Linux without
/// AWS's licence, and Ubuntu Pro, by a product code instead of a billing code. The statement then accepts that too.
fn sold(statement: &mut Evidence) {
    let pro = Billing {
        licence: Licence::Included,
        ..Billing::PLAIN_LINUX
    };
    let red_hat = Billing {
        os: Os::RedHat,
        licence: Licence::Byol,
        ..Billing::PLAIN_LINUX
    };
    if let Says::Platforms(platforms) = &mut statement.says
        && [pro, red_hat]
            .iter()
            .any(|sold| platforms.names_first(sold))
    {
        let by_product_code = Platform::WithProductCode(Billing::PLAIN_LINUX);
        *platforms = platforms.clone().or(by_product_code);
    }
}

/// What a walk came across.
#[derive(Debug, Default)]
struct Trail {
    /// What the witnesses are billed as, each with how it was found.
    found: Vec<(Platforms, String)>,
    /// What was seen and proves nothing.
    seen: Vec<String>,
    /// Look-ups that failed, and why.
    failed: Vec<String>,
    origin: Option<Origin>,
    /// Why the search among the publishers' images has no result, if a retry may succeed. The search may take long, so
    /// the event is retried for it only if a discard is due.
    late: Option<String>,
    /// Whether a witness has platform details that this version does not know.
    unrecognised: bool,
    /// Whether EC2's data about a witness contradicts itself, or lacks what decides. Such data holds a discard.
    is_odd: bool,
}

impl Trail {
    /// Turns the trail into statements. Failed look-ups come first, because every finding after them is from a weaker
    /// witness.
    fn observed(mut self) -> Observed {
        let seen = match self.seen.is_empty() {
            true => ORIGIN.to_owned(),
            false => self.seen.join("; "),
        };
        // A publisher's image would be the weakest witness, so it comes last.
        let late = self.late.as_ref().map(|why| {
            statement(
                Says::Failed(why.clone()),
                "images of Amazon and of the AWS Marketplace",
            )
        });
        let mut evidence = Vec::new();
        if !self.failed.is_empty() {
            let more = self.failed.len().saturating_sub(MENTIONED);
            self.failed.truncate(MENTIONED);
            if more > 0 {
                self.failed.push(format!("and {more} more like these"));
            }
            evidence.push(statement(Says::Failed(self.failed.join("; ")), seen));
        } else if self.found.is_empty() && late.is_none() {
            evidence.push(statement(Says::Silent, seen));
        }
        for (platforms, detail) in self.found {
            let says = Says::Platforms(platforms);
            if !evidence.iter().any(|earlier| earlier.says == says) {
                evidence.push(statement(says, detail));
            }
        }
        evidence.extend(late);
        Observed {
            evidence,
            origin: self.origin,
            is_transient: false,
            is_late: self.late.is_some() || self.is_odd,
            unrecognised: self.unrecognised,
        }
    }

    /// Notes an instance whose root volume the snapshot was taken of. The image is expected to be billed as the
    /// instance is.
    fn met_instance(&mut self, what: &str, instance: &Instance) {
        match proven(instance.billed_as()) {
            Ok((billing, by)) => {
                let detail = format!("{what} is billed as `{billing}`");
                let detail = self.by(by, detail, instance.platform_details.as_deref());
                self.found.push((Platforms::from(billing), detail));
                self.origin = Some(Origin {
                    instance: instance.id.clone(),
                    bills: billing,
                });
            }
            Err(unproven) => self.met(what, unproven),
        }
    }

    /// Notes something that proves nothing, or that cannot be judged by EC2's current data.
    fn met(&mut self, what: &str, unproven: Unproven) {
        match unproven {
            Unproven::Silent(why) => self.seen.push(format!("{what} {why}")),
            Unproven::Contradiction => {
                self.is_odd = true;
                self.failed
                    .push(format!("{what} has contradictory billing fields"));
            }
        }
    }

    /// Notes that EC2's answer about `id` lacks `what`. Whether it is a witness depends on that.
    fn met_in_part(&mut self, call: &'static str, id: &str, what: &str) {
        self.is_odd = true;
        self.failed.push(lacking(call, id, what).to_string());
    }

    /// The detail of a finding. Adds platform details that this version does not know.
    fn by(&mut self, by: By, detail: String, details: Option<&str>) -> String {
        if by != By::Operation {
            return detail;
        }
        self.unrecognised = true;
        let details = quoted(details.unwrap_or_default());
        format!(
            "{detail} by its usage operation, because this version does not know its platform details {details}"
        )
    }

    /// Notes another image. It does not prove who supplies the licence. Between it and this one there may be an
    /// instance whose licence was converted.
    fn met_image(&mut self, what: &str, image: &Image) {
        match proven(image.billed_as()) {
            Ok((billing, by)) => {
                let platforms = Platforms::with_either_licence(billing);
                let detail = format!("{what} is billed as `{billing}`");
                let detail = self.by(by, detail, image.platform_details.as_deref());
                self.found.push((platforms, detail));
            }
            Err(unproven) => self.met(what, unproven),
        }
    }
}

/// Why EC2's data about an image or an instance proves nothing.
enum Unproven {
    /// It contains no proof. The text says why.
    Silent(&'static str),
    /// Its two fields contradict each other, or one of them is absent. The next answer may be a different one.
    Contradiction,
}

/// Start of a walk, and what the walk needs.
struct Walk<'a> {
    lookups: &'a Lookups,
    account: &'a str,
    region: &'a str,
    image: &'a Image,
    snapshot: &'a Snapshot,
    until: Instant,
    is_transient: AtomicBool,
}

impl Walk<'_> {
    /// Makes a call within the walk's time limit. A late answer counts as none, and does not invalidate earlier
    /// findings.
    async fn in_time<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
        // Boxed because the SDK's futures are large.
        match tokio::time::timeout_at(self.until, Box::pin(call)).await {
            Ok(answer) => answer.map_err(|error| {
                if !error.needs_a_person() {
                    self.is_transient.store(true, Ordering::Relaxed);
                }
                error.to_string()
            }),
            Err(_) => {
                self.is_transient.store(true, Ordering::Relaxed);
                Err(format!("no answer within {} seconds", WALK.as_secs()))
            }
        }
    }

    /// Follows the volume that the snapshot was taken of.
    async fn by_volume(&self, id: &str) -> Trail {
        let mut trail = Trail::default();
        let volume = match self.in_time(self.whole_volume(id)).await {
            Err(_) if self.lookups.waits() => return trail,
            Ok(Some(volume)) => volume,
            Ok(None) => {
                trail.seen.push(format!("{id} no longer exists"));
                Volume::default()
            }
            Err(why) => {
                trail.failed.push(why);
                Volume::default()
            }
        };
        let mut launched_from = Vec::new();
        self.by_attachments(
            &volume,
            self.snapshot.started,
            &mut trail,
            &mut launched_from,
        )
        .await;
        // A copied volume names its source volume, and no snapshot.
        let mut made_from = volume.snapshot.clone();
        if let (Some(original), true) = (&volume.copied_from, trail.found.is_empty())
            && !self.lookups.waits()
        {
            match self.in_time(self.whole_volume(original)).await {
                Err(_) if self.lookups.waits() => return trail,
                Ok(Some(original)) => {
                    self.by_attachments(&original, volume.created, &mut trail, &mut launched_from)
                        .await;
                    made_from = made_from.or(original.snapshot);
                }
                Ok(None) => trail.seen.push(format!("{original} no longer exists")),
                Err(why) => trail.failed.push(why),
            }
        }
        if trail.found.is_empty() && !self.lookups.waits() {
            let made_from = made_from.as_deref().filter(|id| *id != self.snapshot.id);
            self.by_images(made_from, &launched_from, &mut trail).await;
        }
        trail
    }

    /// The volume, unless EC2's answer lacks what decides.
    async fn whole_volume(&self, id: &str) -> Result<Option<Volume>, Error> {
        let volume = self.lookups.volume(id).await?;
        match volume.as_ref().and_then(|volume| volume.lacks) {
            None => Ok(volume),
            Some(what) => Err(lacking("ec2:DescribeVolumes", id, what)),
        }
    }

    /// Follows the instances that a volume was attached to at a time, when a snapshot or a copy of it was made. Adds
    /// the images that those instances were launched from to `launched_from`.
    async fn by_attachments(
        &self,
        volume: &Volume,
        at: Option<DateTime<Utc>>,
        trail: &mut Trail,
        launched_from: &mut Vec<String>,
    ) {
        let id = &volume.id;
        // A time that is not known does not count as earlier.
        let attached_then = |attachment: &&Attachment| {
            attachment
                .since
                .zip(at)
                .is_some_and(|(since, at)| since <= at)
        };
        let (then, since): (Vec<_>, Vec<_>) = volume.attachments.iter().partition(attached_then);
        for attachment in since {
            trail.seen.push(format!(
                "{id} was not yet attached to {} when the snapshot was taken",
                attachment.instance
            ));
        }
        if then.is_empty() {
            return;
        }
        let ids: Vec<&str> = then
            .iter()
            .map(|attachment| attachment.instance.as_str())
            .collect();
        let instances = self.lookups.instances(&ids);
        let instances = match self.in_time(instances).await {
            Ok(instances) => instances,
            Err(why) => return trail.failed.push(why),
        };
        launched_from.extend(
            instances
                .iter()
                .filter_map(|instance| instance.image.clone()),
        );
        for attachment in then {
            let id = &attachment.instance;
            let Some(instance) = instances.iter().find(|instance| instance.id == *id) else {
                trail.seen.push(format!("{id} no longer exists"));
                continue;
            };
            let volume = &volume.id;
            if let Some(why) = self.unfit(instance, attachment, at) {
                trail.seen.push(format!("{volume} {why}"));
                continue;
            }
            if let Some(lacks) = instance.lacks {
                trail.met_in_part("ec2:DescribeInstances", id, lacks);
                continue;
            }
            let what = format!("{volume} is the root volume of {id}, which");
            trail.met_instance(&what, instance);
        }
    }

    /// Why an instance does not determine the platform of what was made from its volume at a time. Data that EC2's
    /// answer lacks is not a reason.
    fn unfit(
        &self,
        instance: &Instance,
        attachment: &Attachment,
        at: Option<DateTime<Utc>>,
    ) -> Option<String> {
        let id = &instance.id;
        let device = &attachment.device;
        let owner = instance.owner.as_deref();
        if owner.is_some_and(|owner| owner != self.account) {
            return Some(format!(
                "is attached to {id}, which belongs to another account"
            ));
        }
        if let Some(state @ ("shutting-down" | "terminated")) = instance.state.as_deref() {
            return Some(format!("was attached to {id}, which is {state}"));
        }
        // A volume that is not the root volume says nothing about the instance's platform, and the instance nothing
        // about the volume's. Packer's ebssurrogate builds on such a volume.
        if let Some(root) = instance.root_device.as_deref()
            && !is_same_device(root, device)
        {
            return Some(format!("is {device} of {id}, not its root volume ({root})"));
        }
        match (instance.usage_operation_updated, at) {
            (Some(updated), Some(at)) if updated > at => Some(format!(
                "is the root volume of {id}, whose billing changed after the snapshot was taken"
            )),
            _ => None,
        }
    }

    /// Follows other images: the account's own images on the same root snapshot, and images on the snapshot that the
    /// volume was `made_from`.
    ///
    /// The parent is one of the account's images, otherwise one that an instance was `launched_from`, otherwise one of
    /// the publishers'. The publishers' images are searched separately, because that may take long.
    async fn by_images(
        &self,
        made_from: Option<&str>,
        launched_from: &[String],
        trail: &mut Trail,
    ) -> Vec<Image> {
        let mut snapshots = vec![self.snapshot.id.as_str()];
        snapshots.extend(made_from);
        let own = match self
            .in_time(self.lookups.images(ImagesBy::OwnOn, &snapshots))
            .await
        {
            Ok(images) => images,
            Err(_) if self.lookups.waits() => return Vec::new(),
            Err(why) => {
                trail.failed.push(why);
                return Vec::new();
            }
        };
        let on = |images: &[Image], snapshot: &str, trail: &mut Trail| -> Vec<Image> {
            let others = images.iter().filter(|other| other.id != self.image.id);
            let rooted = others.filter(|other| other.may_be_on(snapshot));
            self.vouched_for(rooted.cloned().collect(), trail)
        };
        let twins = on(&own, &self.snapshot.id, trail);
        let seen_before = trail.seen.len();
        for twin in &twins {
            let what = format!("{}, on the same root snapshot,", twin.id);
            trail.met_image(&what, twin);
        }
        let mut parents = Vec::new();
        if let (Some(made_from), true) = (made_from, trail.found.is_empty()) {
            parents = on(&own, made_from, trail);
            if parents.is_empty() && !launched_from.is_empty() {
                let ids: BTreeSet<&str> = launched_from.iter().map(String::as_str).collect();
                let ids: Vec<&str> = ids.into_iter().collect();
                match self.in_time(self.lookups.images(ImagesBy::Id, &ids)).await {
                    Ok(images) => parents = on(&images, made_from, trail),
                    Err(_) if self.lookups.waits() => return twins,
                    Err(why) => trail.failed.push(why),
                }
            }
            if parents.is_empty() {
                let made_from_it = [made_from];
                let search = self.lookups.images(ImagesBy::PublishedOn, &made_from_it);
                match tokio::time::timeout(SLOW, Box::pin(search)).await {
                    Ok(Ok(images)) => parents = on(&images, made_from, trail),
                    Ok(Err(_)) if self.lookups.waits() => return twins,
                    Ok(Err(error)) if error.needs_a_person() => {
                        trail.failed.push(error.to_string())
                    }
                    Ok(Err(error)) => trail.late = Some(error.to_string()),
                    Err(_) => {
                        let late = no_answer_in("ec2:DescribeImages", "*", SLOW);
                        trail.late = Some(late.to_string());
                    }
                }
            }
            for parent in &parents {
                let what = format!(
                    "{}, whose root snapshot the volume was made from,",
                    parent.id
                );
                trail.met_image(&what, parent);
            }
        }
        let of_images = trail.seen.len() - seen_before;
        if of_images > MENTIONED {
            trail.seen.truncate(seen_before + MENTIONED);
            // It comes before the images that are named, because an alert may cut off the end.
            let all = self.all_images_on(&snapshots, of_images);
            trail.seen.insert(seen_before, all);
        }
        if twins.is_empty() && parents.is_empty() {
            trail
                .seen
                .push("no other known image uses that snapshot".to_owned());
        }
        twins
    }

    /// The number of images on these snapshots that prove nothing, and the command that lists them all.
    fn all_images_on(&self, snapshots: &[&str], number: usize) -> String {
        let (region, on, values) = (self.region, snapshots.join(" or "), snapshots.join(","));
        format!(
            "{number} images on {on} prove nothing, and {MENTIONED} of them are named here; `aws ec2 describe-images \
             --region {region} --filters Name=block-device-mapping.snapshot-id,Values={values}` lists all"
        )
    }

    /// Follows the image that the snapshot was copied from. EC2 names it for an image that CopyImage made. That may be
    /// this image, or another one on the same snapshot. The snapshot's description proves nothing, because anyone can
    /// write it.
    async fn by_copy(&self) -> Trail {
        let mut trail = Trail::default();
        let twins = self.by_images(None, &[], &mut trail).await;
        if !trail.found.is_empty() {
            return trail;
        }
        let copies = std::iter::once(self.image).chain(&twins);
        let sources: BTreeSet<&str> = copies
            .filter(|copy| {
                let region = copy.source_image_region.as_deref();
                region.is_none_or(|region| region == self.region)
            })
            .filter_map(|copy| copy.source_image.as_deref())
            .collect();
        if sources.is_empty() {
            return trail;
        }
        let ids: Vec<&str> = sources.into_iter().collect();
        match self.in_time(self.lookups.images(ImagesBy::Id, &ids)).await {
            Ok(images) => {
                let images = self.vouched_for(images, &mut trail);
                if images.is_empty() {
                    trail.seen.push(format!(
                        "this account cannot see {}, the source of the copy",
                        ids.join(", ")
                    ));
                }
                for image in &images {
                    trail.met_image(&format!("{}, the source of the copy,", image.id), image);
                }
            }
            Err(why) => trail.failed.push(why),
        }
        trail
    }

    /// The images that may be witnesses: the account's and the publishers'. If EC2's answer on an image lacks what
    /// decides, that is noted in the trail instead.
    fn vouched_for(&self, images: Vec<Image>, trail: &mut Trail) -> Vec<Image> {
        let mut vouched_for = Vec::new();
        for image in images {
            match image.lacks {
                Some(lacks) => trail.met_in_part("ec2:DescribeImages", &image.id, lacks),
                None if self.owns(&image) || is_published(&image) => vouched_for.push(image),
                None => {}
            }
        }
        vouched_for
    }

    fn owns(&self, image: &Image) -> bool {
        image.owner.as_deref() == Some(self.account)
    }
}

/// How the product codes of an image's root snapshot differ from the image's. `None` if they do not, or if the snapshot
/// is not the account's. EC2 copies them when it registers an image (EC2 API reference, "RegisterImage").
pub(crate) async fn product_codes(
    aws: &Aws,
    registration: &Registration,
    image: &Image,
    snapshot: &Snapshot,
) -> Option<String> {
    if snapshot.owner.as_deref() != Some(registration.account.as_str()) {
        return None;
    }
    // This is only a remark. A failure holds no discard, and the event is not retried for it.
    let call = Box::pin(aws.snapshot_product_codes(&snapshot.id));
    let answer = match tokio::time::timeout(REMARK, call).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} seconds", REMARK.as_secs())),
    };
    match answer {
        Ok(codes) if codes == image.product_codes => None,
        Ok(codes) => Some(format!(
            "the snapshot's product codes are {}, and the image's are {}",
            listed(&codes),
            listed(&image.product_codes)
        )),
        Err(why) => Some(format!("could not compare product codes: {why}")),
    }
}

/// Number of images that prove nothing to name.
const MENTIONED: usize = 5;

fn is_published(image: &Image) -> bool {
    let alias = image.owner_alias.as_deref();
    alias.is_some_and(|alias| PUBLISHERS.contains(&alias))
}

/// What billing fields prove, or why they prove nothing.
fn proven(billed_as: BilledAs) -> Result<(Billing, By), Unproven> {
    use Unproven::Silent;
    match billed_as {
        BilledAs::Empty => Err(Silent("has no platform details")),
        BilledAs::Contradiction => Err(Unproven::Contradiction),
        BilledAs::Unrecognised => Err(Silent(
            "is billed as something that this version does not know",
        )),
        BilledAs::Known {
            billing: Billing::PLAIN_LINUX,
            ..
        } => Err(Silent("is billed as plain Linux, which proves nothing")),
        BilledAs::Known { billing, by } => Ok((billing, by)),
    }
}

fn statement(says: Says, detail: impl Into<String>) -> Evidence {
    Evidence {
        source: Source::Lineage,
        says,
        detail: detail.into(),
    }
}

fn listed(codes: &BTreeSet<String>) -> String {
    if codes.is_empty() {
        return "none".into();
    }
    codes.iter().cloned().collect::<Vec<_>>().join(", ")
}
