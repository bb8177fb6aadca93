//! Look-ups of the snapshots, volumes and instances that an image comes from.

use std::collections::BTreeSet;

use aws_sdk_ec2::error::ProvideErrorMetadata;
use aws_sdk_ec2::types as ec2;

use super::calls::{MOST_IN_A_PAGE, all_pages, by_id};
use super::connect::Aws;
use super::convert::{
    filter, first_of, non_empty, present_list, product_codes, strings, tags, time,
};
use super::errors::{classify, is_one_of, lacking};
use crate::ec2::{Attachment, Instance, Snapshot, Volume};
use crate::error::Error;

impl Aws {
    /// DescribeSnapshots for one id. `None` if EC2 shows no such snapshot.
    ///
    /// # Errors
    /// [`Error`] if there is no answer.
    pub(crate) async fn describe_snapshot(&self, id: &str) -> Result<Option<Snapshot>, Error> {
        let snapshots = self.snapshots(&[id]).await?;
        Ok(snapshots.into_iter().find(|snapshot| snapshot.id == id))
    }

    /// DescribeSnapshots for these ids. Leaves out snapshots that EC2 does not show.
    ///
    /// # Errors
    /// [`Error`] if there is no answer.
    pub(crate) async fn snapshots(&self, ids: &[&str]) -> Result<Vec<Snapshot>, Error> {
        let call = "ec2:DescribeSnapshots";
        let unknown = ["InvalidSnapshot.NotFound"];
        let all = self.ec2.describe_snapshots();
        let all = all.set_snapshot_ids(Some(strings(ids))).send().await;
        let all = all.map(|answer| (answer.snapshots, answer.next_token));
        let own = || async {
            let own = all_pages(call, "*", |token| {
                let request = self.ec2.describe_snapshots().owner_ids("self");
                let request = request.filters(filter("snapshot-id", ids));
                let request = request.max_results(MOST_IN_A_PAGE).set_next_token(token);
                async move {
                    let answer = request.send().await;
                    let answer = answer.map_err(|error| classify(call, "*", &error))?;
                    Ok((answer.snapshots, answer.next_token))
                }
            });
            let mut found = own.await?;
            // Snapshots of other accounts are requested one by one, because a search among the snapshots of all
            // accounts takes minutes (cartography issue 793).
            for id in ids {
                if found.iter().any(|it| it.snapshot_id.as_deref() == Some(id)) {
                    continue;
                }
                match self.ec2.describe_snapshots().snapshot_ids(*id).send().await {
                    Ok(answer) => found.extend(present_list(call, id, answer.snapshots)?),
                    Err(error) if is_one_of(&unknown, error.code()) => {}
                    Err(error) => return Err(classify(call, "*", &error)),
                }
            }
            Ok(found)
        };
        let snapshots = by_id(call, ids, &unknown, all, own).await?;
        if snapshots.iter().any(|it| it.snapshot_id.is_none()) {
            return Err(lacking(call, "*", "the id of a snapshot"));
        }
        let snapshots = snapshots.into_iter();
        Ok(snapshots
            .filter_map(|snapshot| {
                let lacks = [
                    ("its owner", snapshot.owner_id.is_none()),
                    (
                        "its volume",
                        non_empty(snapshot.volume_id.clone()).is_none(),
                    ),
                    ("its start time", snapshot.start_time.is_none()),
                ];
                Some(Snapshot {
                    lacks: first_of(lacks),
                    id: snapshot.snapshot_id?,
                    owner: snapshot.owner_id,
                    // EC2 uses this id if it knows of no volume.
                    volume: non_empty(snapshot.volume_id).filter(|id| id != "vol-ffffffff"),
                    description: non_empty(snapshot.description),
                    started: snapshot.start_time.and_then(time),
                    completed: snapshot.completion_time.and_then(time),
                    archived: snapshot.storage_tier == Some(ec2::StorageTier::Archive),
                    outpost: non_empty(snapshot.outpost_arn),
                    kms_key: non_empty(snapshot.kms_key_id),
                    tags: tags(snapshot.tags),
                })
            })
            .collect())
    }

    /// DescribeSnapshotAttribute: the snapshot's product codes.
    ///
    /// # Errors
    /// [`Error`] if there is no answer.
    pub(crate) async fn snapshot_product_codes(&self, id: &str) -> Result<BTreeSet<String>, Error> {
        let answer = self
            .ec2
            .describe_snapshot_attribute()
            .snapshot_id(id)
            .attribute(ec2::SnapshotAttributeName::ProductCodes)
            .send()
            .await
            .map_err(|error| classify("ec2:DescribeSnapshotAttribute", id, &error))?;
        let codes = present_list("ec2:DescribeSnapshotAttribute", id, answer.product_codes)?;
        Ok(product_codes(Some(codes)))
    }

    /// DescribeSnapshotAttribute: whether the snapshot is public. DescribeSnapshots does not say so.
    ///
    /// # Errors
    /// [`Error`] if there is no answer.
    pub(crate) async fn snapshot_is_public(&self, id: &str) -> Result<bool, Error> {
        let answer = self
            .ec2
            .describe_snapshot_attribute()
            .snapshot_id(id)
            .attribute(ec2::SnapshotAttributeName::CreateVolumePermission)
            .send()
            .await
            .map_err(|error| classify("ec2:DescribeSnapshotAttribute", id, &error))?;
        let mut permissions = answer.create_volume_permissions.into_iter().flatten();
        Ok(permissions.any(|it| it.group == Some(ec2::PermissionGroup::All)))
    }

    /// DescribeVolumes for these ids. Leaves out volumes that do not exist.
    ///
    /// # Errors
    /// [`Error`] if there is no answer.
    pub(crate) async fn volumes(&self, ids: &[&str]) -> Result<Vec<Volume>, Error> {
        let call = "ec2:DescribeVolumes";
        // Includes service-managed volumes, which EC2 leaves out if the account hides them.
        let request = || self.ec2.describe_volumes().include_managed_resources(true);
        let all = request().set_volume_ids(Some(strings(ids))).send().await;
        let all = all.map(|answer| (answer.volumes, answer.next_token));
        let listed = || {
            all_pages(call, "*", |token| {
                let request = request().filters(filter("volume-id", ids));
                let request = request.max_results(MOST_IN_A_PAGE).set_next_token(token);
                async move {
                    let answer = request.send().await;
                    let answer = answer.map_err(|error| classify(call, "*", &error))?;
                    Ok((answer.volumes, answer.next_token))
                }
            })
        };
        let volumes = by_id(call, ids, &["InvalidVolume.NotFound"], all, listed).await?;
        if volumes.iter().any(|it| it.volume_id.is_none()) {
            return Err(lacking(call, "*", "the id of a volume"));
        }
        let volumes = volumes.into_iter();
        Ok(volumes
            .filter_map(|volume| {
                let attached = volume.attachments.iter().flatten();
                let in_part = |it: &ec2::VolumeAttachment| {
                    it.instance_id.is_none() || it.device.is_none() || it.attach_time.is_none()
                };
                let lacks = [
                    ("its attachments", volume.attachments.is_none()),
                    (
                        "details of an attachment",
                        attached.into_iter().any(in_part),
                    ),
                    (
                        "its source",
                        volume.snapshot_id.is_none() && volume.source_volume_id.is_none(),
                    ),
                ];
                let attachments = volume.attachments.into_iter().flatten();
                let attachments = attachments.filter_map(|attachment| {
                    Some(Attachment {
                        instance: attachment.instance_id?,
                        device: attachment.device?,
                        since: attachment.attach_time.and_then(time),
                    })
                });
                Some(Volume {
                    lacks: first_of(lacks),
                    attachments: attachments.collect(),
                    id: volume.volume_id?,
                    snapshot: non_empty(volume.snapshot_id),
                    copied_from: non_empty(volume.source_volume_id),
                    created: volume.create_time.and_then(time),
                })
            })
            .collect())
    }

    /// DescribeInstances for these ids. Leaves out instances that do not exist.
    ///
    /// # Errors
    /// [`Error`] if there is no answer.
    pub(crate) async fn instances(&self, ids: &[&str]) -> Result<Vec<Instance>, Error> {
        let call = "ec2:DescribeInstances";
        // Includes service-managed instances, which EC2 leaves out if the account hides them.
        let request = || {
            self.ec2
                .describe_instances()
                .include_managed_resources(true)
        };
        let all = request().set_instance_ids(Some(strings(ids))).send().await;
        let all = all.map(|answer| (answer.reservations, answer.next_token));
        let listed = || {
            all_pages(call, "*", |token| {
                let request = request().filters(filter("instance-id", ids));
                let request = request.max_results(MOST_IN_A_PAGE).set_next_token(token);
                async move {
                    let answer = request.send().await;
                    let answer = answer.map_err(|error| classify(call, "*", &error))?;
                    Ok((answer.reservations, answer.next_token))
                }
            })
        };
        let unknown = ["InvalidInstanceID.NotFound"];
        let reservations = by_id(call, ids, &unknown, all, listed).await?;
        let whole = |it: &ec2::Reservation| {
            let instances = it.instances.as_ref();
            instances.is_some_and(|all| all.iter().all(|it| it.instance_id.is_some()))
        };
        if !reservations.iter().all(whole) {
            return Err(lacking(call, "*", "an instance, or its id"));
        }
        let reservations = reservations.into_iter();
        Ok(reservations
            .flat_map(|reservation| {
                let owner = reservation.owner_id;
                let instances = reservation.instances.into_iter().flatten();
                instances.filter_map(move |instance| {
                    let lacks = [
                        ("its owner", owner.is_none()),
                        ("its state", instance.state.is_none()),
                        ("its root device", instance.root_device_name.is_none()),
                        (
                            "its billing fields",
                            instance.platform_details.is_none()
                                || instance.usage_operation.is_none(),
                        ),
                    ];
                    Some(Instance {
                        lacks: first_of(lacks),
                        id: instance.instance_id?,
                        owner: owner.clone(),
                        image: non_empty(instance.image_id),
                        state: instance
                            .state
                            .and_then(|state| state.name)
                            .map(|name| name.as_str().to_owned()),
                        root_device: instance.root_device_name,
                        platform_details: instance.platform_details,
                        usage_operation: instance.usage_operation,
                        usage_operation_updated: instance
                            .usage_operation_update_time
                            .and_then(time),
                    })
                })
            })
            .collect())
    }
}
