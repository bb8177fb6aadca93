//! The world, as far as it matters to an image.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stands {
    Available,
    Disabled,
    Gone,
}

/// What is true of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) stands: Stands,
    pub(super) bills: Option<String>,
    pub(super) expect: Option<String>,
    /// Whether its tag names no platform.
    pub(super) mistyped: bool,
    pub(super) protected: bool,
    pub(super) used: bool,
    pub(super) nobody_listens: bool,
    /// It is gone, and EC2 lists it yet.
    pub(super) lingers: bool,
}

/// What an image's billing is, by its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Billing {
    /// It should bill something else: it is to be discarded.
    Wrong,
    /// It bills more than it should: people are told.
    TooMuch,
    Right,
    NobodySays,
}

impl Facts {
    pub(super) fn of(world: &World, image: usize) -> Facts {
        let id = image_id(image);
        let seen = world.images.get(&id);
        let tags = seen.map(|seen| match seen.owner == ACCOUNT {
            true => &seen.tags,
            false => &seen.callers_tags,
        });
        let mut instances = world.instances.values();
        Facts {
            stands: match seen.map(|seen| seen.state.as_str()) {
                Some("available") => Stands::Available,
                Some(_) => Stands::Disabled,
                None => Stands::Gone,
            },
            bills: seen.and_then(|seen| seen.platform_details.clone()),
            // What is no platform counts for nothing, but holds and alerts.
            mistyped: tags
                .and_then(|tags| tags.get(EXPECT))
                .is_some_and(|tag| MISTYPED.contains(&tag.as_str())),
            expect: tags
                .and_then(|tags| tags.get(EXPECT).cloned())
                .filter(|tag| !MISTYPED.contains(&tag.as_str())),
            protected: seen.is_some_and(|seen| seen.deregistration_protection.is_some()),
            used: instances.any(|user| user.image_id == id && user.state != "terminated"),
            lingers: world
                .deregistered
                .get(&id)
                .is_some_and(|gone| gone.lingering.listed_for > 0),
            nobody_listens: world.topics.values().all(|topic| topic.confirmed == 0),
        }
    }

    pub(super) fn billing(&self) -> Billing {
        match (self.bills.as_deref(), self.expect.as_deref()) {
            (None, _) => Billing::Wrong,
            (_, None) => Billing::NobodySays,
            (Some("Linux/UNIX"), Some("Linux")) | (Some("Windows"), Some("Windows")) => {
                Billing::Right
            }
            (Some("Windows with SQL Server Web"), Some("SQL")) => Billing::Right,
            (Some("Windows with SQL Server Web"), Some("Windows")) => Billing::TooMuch,
            _ => Billing::Wrong,
        }
    }
}

pub(super) fn all_facts(world: &World) -> Vec<Facts> {
    (0..IMAGES).map(|image| Facts::of(world, image)).collect()
}

/// Carries out what people do; what can not be done is not.
pub(super) fn carry_out(deed: Deed, world: &mut World) {
    let (Deed::Expect(image, _)
    | Deed::Launch(image)
    | Deed::Terminate(image)
    | Deed::Protect(image)
    | Deed::Unprotect(image)
    | Deed::Deregister(image)
    | Deed::Disable(image)
    | Deed::BringBack(image)) = deed
    else {
        let Deed::Listen(listen) = deed else { return };
        for topic in world.topics.values_mut() {
            topic.confirmed = u32::from(listen);
        }
        return;
    };
    let id = image_id(image);
    if deed == Deed::BringBack(image)
        && let Some(binned) = world.recycle_bin.remove(&id)
    {
        world.deregistered.remove(&id);
        world.add_image(binned.image);
        return;
    }
    let Some(seen) = world.images.get_mut(&id) else {
        return;
    };
    let own = seen.owner == ACCOUNT;
    match deed {
        Deed::Expect(_, value) => {
            let tags = match own {
                true => &mut seen.tags,
                false => &mut seen.callers_tags,
            };
            tags.remove(EXPECT);
            if !value.is_empty() {
                tags.insert(EXPECT.into(), value.into());
            }
        }
        Deed::Launch(_) => world.add_instance(Instance::new(format!("i-{image}"), id)),
        Deed::Terminate(_) => {
            if let Some(instance) = world.instances.get_mut(&format!("i-{image}")) {
                instance.state = "terminated".into();
            }
        }
        Deed::Protect(_) if own => {
            seen.deregistration_protection = Some("enabled-without-cooldown".into());
        }
        Deed::Unprotect(_) => seen.deregistration_protection = None,
        Deed::Deregister(_) if own && seen.deregistration_protection.is_none() => {
            let image = seen.clone();
            world.images.remove(&id);
            if image
                .tags
                .get("ami-billing-guard:discard")
                .map(String::as_str)
                == Some("true")
            {
                let binned = sim::BinnedImage {
                    image: image.clone(),
                    entered: now(),
                    exits: now() + TimeDelta::days(30),
                };
                world.recycle_bin.insert(id.clone(), binned);
            }
            let lingering = world.after_deregistration;
            let gone = sim::Deregistered { image, lingering };
            world.deregistered.insert(id, gone);
        }
        Deed::Disable(_) if own => seen.state = "disabled".into(),
        Deed::BringBack(_) if own => seen.state = "available".into(),
        _ => {}
    }
}
