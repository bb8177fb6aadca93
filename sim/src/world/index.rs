//! Who refers to whom, so that a question about hundreds of ids needs no walk through a large world.

use std::collections::{BTreeSet, HashMap};

use super::World;

/// Which resources name which in a [`World`]. Only the server makes an index, and forgets it when anything may
/// have changed. Without one the answers are the same, and take longer.
#[derive(Debug, Clone, Default)]
pub struct Index(Option<HashMap<String, Vec<String>>>);

impl Index {
    /// Images name their snapshots, snapshots their volumes, volumes their snapshots and the instances that they
    /// are attached to, instances their images and volumes.
    pub(crate) fn of(world: &World) -> Index {
        let mut referrers: HashMap<String, Vec<String>> = HashMap::new();
        let mut note = |referrer: &str, referred: &str| {
            let known = referrers.entry(referred.to_owned()).or_default();
            known.push(referrer.to_owned());
        };
        for (id, image) in &world.images {
            image.snapshot_ids().for_each(|snapshot| note(id, snapshot));
        }
        for (id, snapshot) in &world.snapshots {
            note(id, &snapshot.volume_id);
        }
        for (id, volume) in &world.volumes {
            volume.snapshot_id.iter().for_each(|from| note(id, from));
        }
        for (id, instance) in &world.instances {
            note(id, &instance.image_id);
            for attached in &instance.volumes {
                let volume = &attached.volume_id;
                note(id, volume);
                note(volume, id);
                attached
                    .snapshot_id
                    .iter()
                    .for_each(|from| note(volume, from));
            }
        }
        Index(Some(referrers))
    }

    pub(crate) fn is_made(&self) -> bool {
        self.0.is_some()
    }

    /// The ids of all resources that name one of these; `None` if there is no index.
    pub(crate) fn referrers(&self, ids: &BTreeSet<&str>) -> Option<BTreeSet<&str>> {
        let known = self.0.as_ref()?;
        let found = ids.iter().filter_map(|id| known.get(*id)).flatten();
        Some(found.map(String::as_str).collect())
    }
}
