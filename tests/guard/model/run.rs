//! A run: deliveries are made, watched and judged.

use super::*;

pub(super) struct Run<'a> {
    pub(super) bench: &'a Bench,
    pub(super) guard: Arc<Guard>,
    pub(super) model: Model,
    pub(super) seen: Seen,
}

/// How a delivery ended.
#[derive(Clone, PartialEq)]
pub(super) enum End {
    Record(Value),
    Failed(&'static str),
    Crashed,
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Record(record) => f.write_str(&said(record)),
            End::Failed(error) => f.write_str(error),
            End::Crashed => f.write_str("crashed"),
        }
    }
}

/// What matters of a record.
pub(super) fn said(record: &Value) -> String {
    let keys = ["verdict", "action", "outcome", "held_by", "error"];
    let said: Vec<String> = keys
        .iter()
        .map(|key| format!("{key} {}", record[*key]))
        .collect();
    said.join(", ")
}

/// A message that was published.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    /// Where in the log.
    pub(super) at: usize,
    /// The images: one, but for a digest.
    pub(super) images: BTreeSet<usize>,
    pub(super) digest: bool,
    pub(super) thing: Thing,
    pub(super) outcome: Option<String>,
}

/// What the server saw of a delivery.
pub(super) struct Watched {
    pub(super) before: Vec<Facts>,
    pub(super) after: Vec<Facts>,
    pub(super) log: Vec<Call>,
    pub(super) heard: Vec<Heard>,
    pub(super) ends: Vec<End>,
    /// What people did meanwhile: from this place of the log on, it is so.
    pub(super) change: Option<(usize, Deed, Vec<Facts>)>,
    pub(super) disturbed: bool,
}

impl Watched {
    /// What was true of an image when the server got a call.
    pub(super) fn facts_at(&self, call: usize, image: usize) -> &Facts {
        match &self.change {
            Some((from, _, facts)) if call >= *from => &facts[image],
            _ => &self.before[image],
        }
    }

    pub(super) fn of(&self, image: usize) -> Vec<&Heard> {
        let about = |heard: &&Heard| !heard.digest && heard.images.contains(&image);
        self.heard.iter().filter(about).collect()
    }

    /// The call by which the guard took this image away.
    pub(super) fn discard_of(&self, image: usize) -> Option<usize> {
        self.log.iter().enumerate().position(|(at, call)| {
            let stood = self.facts_at(at, image).stands == Stands::Available;
            // Of a call that was disturbed the log does not say whether it was refused.
            let went = call.answer == Answer::Ok || self.after[image].stands != Stands::Available;
            matches!(call.action.as_str(), "DeregisterImage" | "DisableImage")
                && names(call, image)
                && took_effect(call)
                && stood
                && went
        })
    }

    /// Whether people brought this image back meanwhile.
    pub(super) fn brings_back(&self, image: usize) -> bool {
        matches!(&self.change, Some((_, deed, _)) if *deed == Deed::BringBack(image))
    }

    pub(super) fn last(&self, action: &str, image: usize, before: usize) -> Option<usize> {
        let calls = self.log[..before].iter();
        let found = calls
            .rev()
            .position(|call| call.action == action && names(call, image) && took_effect(call));
        found.map(|back| before - 1 - back)
    }
}

pub(super) fn names(call: &Call, image: usize) -> bool {
    let id = image_id(image);
    let keys = ["ImageId", "ImageId.1", "ResourceId.1"];
    keys.iter().any(|key| call.params.get(*key) == Some(&id))
}

pub(super) fn took_effect(call: &Call) -> bool {
    match &call.answer {
        Answer::Ok => true,
        Answer::Refused(_) => false,
        Answer::Fault(kind) => kind.takes_effect(),
    }
}

impl Run<'_> {
    pub(super) async fn step(&mut self, step: &Step) -> Result<(), Broken> {
        match step {
            Step::Register { image, .. } if self.model.images.contains_key(image) => {}
            Step::Register {
                image,
                snapshot,
                bills,
                expect,
                foreign,
            } => {
                self.let_pass(1).await;
                let mut new = Image::new(image_id(*image));
                new.block_devices[0].snapshot_id = Some(snapshot_id(*snapshot));
                new.creation_date = now();
                let operation = match *bills {
                    "Windows" => "RunInstances:0002",
                    "Windows with SQL Server Web" => "RunInstances:0202",
                    "" => "",
                    _ => "RunInstances",
                };
                new = billing(new, bills, operation);
                if *foreign {
                    new.owner = "210987654321".into();
                    new.public = true;
                }
                self.bench.sim.world().add_image(new);
                carry_out(Deed::Expect(*image, expect), &mut self.bench.sim.world());
                let known = Known {
                    snapshot: *snapshot,
                    foreign: *foreign,
                    registered: self.model.now,
                    discarded: None,
                    told: Told::Nothing,
                    heard: Vec::new(),
                    turn_is_taken: false,
                    in_doubt: false,
                    attempted: None,
                    mismatch_told: None,
                    cut_off: false,
                    doubted: false,
                };
                self.model.images.insert(*image, known);
                // What happens next happens later, also for whoever allows for clocks that differ.
                self.let_pass(65).await;
            }
            Step::People(deed) => carry_out(*deed, &mut self.bench.sim.world()),
            Step::Later(seconds) => self.let_pass(*seconds).await,
            Step::Deliver {
                events,
                early,
                troubles,
            } => {
                let known = |event: &&Event| match event {
                    Event::CloudTrail(image) | Event::StateChange(image) => {
                        self.model.images.contains_key(image)
                    }
                    Event::Digest => true,
                };
                let events: Vec<Event> = events.iter().filter(known).copied().collect();
                if events.is_empty() {
                    return Ok(());
                }
                let young = events.iter().filter_map(|event| image_of(*event));
                if !early
                    && young
                        .map(|image| self.model.age(image))
                        .any(|age| age < SETTLED)
                {
                    self.let_pass(SETTLED).await;
                }
                // No hour strikes in the middle of a delivery.
                let left = HOUR - self.model.now % HOUR;
                if left < 2 * MINUTE {
                    self.let_pass(left).await;
                }
                let watched = self.deliver(&events, troubles).await?;
                self.judge(&events, &watched)?;
            }
        }
        Ok(())
    }

    pub(super) async fn let_pass(&mut self, seconds: i64) {
        tokio::time::sleep(Duration::from_secs(seconds.try_into().unwrap())).await;
        // EC2 lists an image that is gone for a short while only, and the simulator counts calls.
        if seconds >= SETTLED {
            for gone in self.bench.sim.world().deregistered.values_mut() {
                gone.lingering.listed_for = 0;
            }
        }
        self.model.look_at_clock();
        let taken = self.turns_taken();
        for (image, known) in &mut self.model.images {
            known.turn_is_taken = taken.contains(image);
        }
    }

    pub(super) fn event(&self, event: Event) -> Value {
        let (region, now) = (&self.bench.region, now());
        let (id, mut value, image) = match event {
            Event::Digest => {
                return json!({
                    "version": "0", "id": "e-digest", "source": "aws.events",
                    "detail-type": "Scheduled Event", "account": ACCOUNT, "region": region,
                    "time": now.to_rfc3339(), "resources": [], "detail": {}
                });
            }
            Event::CloudTrail(image) => (format!("e-{image}-made"), registered_at(now), image),
            Event::StateChange(image) => {
                (format!("e-{image}-there"), became_available_at(now), image)
            }
        };
        let time = now - TimeDelta::seconds(self.model.age(image));
        value["id"] = id.into();
        value["time"] = time.to_rfc3339().into();
        value["region"] = region.as_str().into();
        match event {
            Event::StateChange(_) => value["detail"]["ImageId"] = image_id(image).into(),
            _ => {
                value["detail"]["awsRegion"] = region.as_str().into();
                value["detail"]["responseElements"]["imageId"] = image_id(image).into();
            }
        }
        value
    }

    /// Gives events to the guard, all at once, and watches.
    pub(super) async fn deliver(
        &mut self,
        events: &[Event],
        troubles: &[Trouble],
    ) -> Result<Watched, Broken> {
        let sim = &self.bench.sim;
        sim.forget_calls();
        let mut deed = None;
        for trouble in troubles {
            sim.inject(not_of_copies(match trouble {
                Trouble::Fault(action, n, kind, Once) => Fault::nth(*action, *n, kind.clone()),
                Trouble::Fault(action, n, kind, ForGood) => {
                    Fault::from_nth(*action, *n, kind.clone())
                }
                Trouble::Crash(action, n) => Fault::nth(*action, *n, CRASH),
                Trouble::Meanwhile(action, n, meant) => {
                    deed = Some(*meant);
                    Fault::nth(*action, *n, MEANWHILE)
                }
            }));
        }
        let before = all_facts(&sim.world());
        let messages = sim.world().messages.len();
        let mut deliveries: Vec<JoinHandle<End>> = Vec::new();
        for event in events {
            let (guard, event) = (Arc::clone(&self.guard), self.event(*event));
            deliveries.push(tokio::spawn(async move {
                match guard.handle(event, in_a_minute()).await {
                    Ok(answer) => End::Record(json!(answer)),
                    Err(error) => End::Failed(error.error_type()),
                }
            }));
        }
        let mut change = None;
        let mut crashed = false;
        let watches = troubles.iter().any(|it| !matches!(it, Trouble::Fault(..)));
        while watches && !deliveries.iter().all(JoinHandle::is_finished) {
            let is = |kind: &FaultKind| {
                let answer = Answer::Fault(kind.clone());
                sim.was_called(|call| call.answer == answer)
            };
            if !crashed && is(&CRASH) {
                crashed = true;
                deliveries.iter().for_each(JoinHandle::abort);
            }
            if is(&MEANWHILE)
                && let Some(deed) = deed.take()
            {
                let mut world = sim.world();
                carry_out(deed, &mut world);
                change = Some((sim.calls().len(), deed, all_facts(&world)));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let mut ends = Vec::new();
        for delivery in deliveries {
            ends.push(match delivery.await {
                Ok(end) => end,
                Err(error) if error.is_cancelled() => End::Crashed,
                Err(panic) => return Err(Broken::Never(format!("it panics: {panic}"))),
            });
        }
        if crashed {
            // What was sent before the end arrives all the same.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        sim.heal();
        self.model.look_at_clock();
        let log = sim.calls();
        self.bench.write_down(&log);
        let world = sim.world();
        let published = log.iter().enumerate();
        let published = published.filter(|(_, call)| call.action == "Publish" && took_effect(call));
        let heard = world.messages[messages..].iter().zip(published);
        let heard = heard.map(|(message, (at, _))| Heard::read(at, &message.body("sqs")));
        Ok(Watched {
            before,
            after: all_facts(&world),
            heard: heard.collect(),
            ends,
            change,
            disturbed: crashed
                || log.iter().any(|call| match &call.answer {
                    Answer::Fault(FaultKind::Slow(_)) | Answer::Ok | Answer::Refused(_) => false,
                    Answer::Fault(_) => true,
                }),
            log,
        })
    }

    pub(super) fn judge(&mut self, events: &[Event], watched: &Watched) -> Result<(), Broken> {
        self.seen.faults += u64::from(watched.disturbed);
        self.seen.crashes += u64::from(watched.ends.contains(&End::Crashed));
        self.seen.changes += u64::from(watched.change.is_some());
        let alone = events.len() == 1;
        // What EC2 shows of an image that is gone is as good as a disturbance.
        let mut images = events.iter().filter_map(|event| image_of(*event));
        let lingers = images.any(|image| watched.before[image].lingers);
        let clean = alone && !watched.disturbed && watched.change.is_none() && !lingers;
        let dues: Vec<_> = events
            .iter()
            .map(|event| self.due(*event, watched))
            .collect();
        self.check_what_must_never_be(events, watched)?;
        self.remember_what_was_heard(watched);
        if clean {
            match events[0] {
                Event::Digest => self.check_digest(watched)?,
                Event::CloudTrail(image) | Event::StateChange(image) => {
                    let due = dues[0].clone().unwrap();
                    self.check_clean_delivery(image, due, watched)?;
                }
            }
        } else {
            for ((event, end), due) in events.iter().zip(&watched.ends).zip(&dues) {
                match image_of(*event) {
                    None => self.after_disturbed_digest(watched),
                    Some(image) => self.check_no_silence(image, end, watched)?,
                }
                let undisturbed = !watched.disturbed && watched.change.is_none() && !lingers;
                let due = due.as_ref().filter(|_| undisturbed);
                if let (Some(Due::Again(why)), End::Failed(error)) = (due, end) {
                    // Without a turn, a state change is not held by what is in doubt: it may then wait for the other event.
                    let awaits = matches!(event, Event::StateChange(_))
                        && (*why, *error) == ("Busy", "IdentityMayCome");
                    always!(
                        error == why || *error == "Busy" || awaits,
                        "{event:?} is due to {why}: {error}"
                    );
                }
            }
            self.check_two_discards(events, &dues, watched)?;
        }
        self.learn_from_ledger(clean)
    }

    pub(super) fn due(&self, event: Event, watched: &Watched) -> Option<Due> {
        let image = image_of(event)?;
        let known = &self.model.images[&image];
        // Where it can not be known, what the guard did is right, whichever it was.
        let may_be_held = known.in_doubt || self.sibling_in_doubt(image);
        let held = watched.ends.iter().any(|end| match end {
            End::Record(record) => Thing::of(record).held_by.contains("discarded-before"),
            // Found before it asked for the turn that another one has.
            End::Failed("Busy") => known.turn_is_taken,
            End::Failed(error) => *error == "NotVisibleYet",
            End::Crashed => false,
        });
        let facts = &watched.before[image];
        let due = self.model.due(event, image, facts, may_be_held && held);
        // The ledger may not have learnt of a refusal.
        let says_so =
            |end: &End| matches!(end, End::Record(record) if record["outcome"] == "refused");
        // What people heard since, when the ledger could not be reached, it does not have.
        let mut heard = known.heard.iter();
        let was_refused = heard.any(|(at, thing, outcome)| {
            outcome.as_deref() == Some("refused")
                && self.model.now - at < REFUSED
                && (&thing.bills, &thing.expect) == (&facts.bills, &facts.expect)
        });
        let silent = watched.of(image).is_empty();
        match matches!(due, Due::Discard | Due::OverLimit(_)) {
            true if was_refused && silent && watched.ends.iter().any(says_so) => Some(Due::Refused),
            _ => Some(due),
        }
    }

    /// What holds whatever happens.
    pub(super) fn check_what_must_never_be(
        &mut self,
        events: &[Event],
        watched: &Watched,
    ) -> Result<(), Broken> {
        let snapshots = self.bench.sim.world().snapshots.len();
        never!(snapshots == SNAPSHOTS, "a snapshot is gone");
        for call in &watched.log {
            let asked = call.params.get("DeleteAssociatedSnapshots");
            let kept = asked.is_none_or(|asked| asked == "false");
            never!(kept, "a snapshot would have been deleted: {call:?}");
        }
        for heard in watched
            .heard
            .iter()
            .filter(|it| it.thing.held_by.contains("discarded-before"))
        {
            let gone = |image: &usize| {
                let [before, after] = [&watched.before, &watched.after].map(|facts| &facts[*image]);
                // What EC2 still lists nobody can know to be gone.
                before.stands == Stands::Gone && !before.lingers && after.stands == Stands::Gone
            };
            let known = heard.images.iter().any(gone);
            never!(
                !known,
                "people were told that somebody brought back what is gone: {heard:?}"
            );
        }
        let done = |heard: &&Heard| heard.outcome.as_deref() == Some("done");
        for heard in watched.heard.iter().filter(done) {
            let gone = |image: &usize| match watched.after[*image].stands {
                Stands::Available => watched.brings_back(*image),
                Stands::Disabled => heard.thing.action == "disable",
                Stands::Gone => true,
            };
            let gone = heard.images.iter().all(gone);
            never!(gone, "people were told that it is gone: {heard:?}");
        }
        let images: Vec<usize> = self.model.images.keys().copied().collect();
        for image in images {
            if let Some(at) = watched.discard_of(image) {
                self.check_discard(events, image, at, watched)?;
            } else {
                let by_people = match &watched.change {
                    Some((_, Deed::Deregister(its) | Deed::Disable(its), _)) => *its == image,
                    _ => watched.brings_back(image),
                };
                let same = watched.before[image].stands == watched.after[image].stands;
                never!(
                    same || by_people,
                    "image {image} went, and nobody knows how"
                );
            }
        }
        if !watched.disturbed {
            for (n, one) in watched.heard.iter().enumerate() {
                let twice = watched.heard[..n].iter().any(|other| {
                    (&one.images, &one.thing, &one.outcome)
                        == (&other.images, &other.thing, &other.outcome)
                });
                always!(!twice, "people were told twice in one step: {one:?}");
            }
        }
        Ok(())
    }

    pub(super) fn check_discard(
        &mut self,
        events: &[Event],
        image: usize,
        at: usize,
        watched: &Watched,
    ) -> Result<(), Broken> {
        let model = &self.model;
        let known = &model.images[&image];
        never!(
            known.discarded.is_none(),
            "image {image} was brought back, and discarded again"
        );
        never!(
            !model.registered_again(image),
            "image {image} was registered again, and discarded"
        );
        never!(
            model.rules.mode == Mode::Enforce,
            "image {image} was discarded by an observer"
        );
        never!(
            events.contains(&Event::CloudTrail(image)),
            "image {image} was discarded, and nobody knows who registered it"
        );
        never!(!known.foreign, "image {image} is somebody else's");
        never!(model.age(image) <= DAY, "image {image} was too old");
        let action = if model.rules.disable {
            "DisableImage"
        } else {
            "DeregisterImage"
        };
        never!(
            watched.log[at].action == action,
            "{:?} is not what was asked",
            watched.log[at]
        );

        // What people do after the last look nobody can know. A look after the announcement is another delivery's.
        let announced = watched
            .of(image)
            .into_iter()
            .filter(|heard| heard.at < at && heard.outcome.as_deref() == Some("planned"))
            .map(|heard| heard.at)
            .max();
        let Some(announced) = announced else {
            return Err(Broken::Never(format!(
                "image {image} went, and nobody had been told"
            )));
        };
        let (Some(look), Some(references), Some(marked)) = (
            watched.last("DescribeImages", image, announced),
            watched.last("DescribeImageReferences", image, announced),
            watched.last("CreateTags", image, announced),
        ) else {
            return Err(Broken::Never(format!(
                "image {image} went without a look or a mark"
            )));
        };
        never!(
            marked < look && marked < references,
            "image {image} was not looked at again"
        );
        let facts = watched.facts_at(look, image);
        never!(
            facts.stands == Stands::Available,
            "image {image} was not there: {facts:?}"
        );
        never!(
            facts.billing() == Billing::Wrong,
            "image {image} was right: {facts:?}"
        );
        never!(!facts.protected, "image {image} was protected: {facts:?}");
        never!(
            !watched.facts_at(references, image).used,
            "image {image} was in use"
        );
        never!(
            !facts.nobody_listens,
            "nobody listened when image {image} went"
        );
        if !model.rules.disable {
            let binned = self
                .bench
                .sim
                .world()
                .recycle_bin
                .contains_key(&image_id(image));
            never!(
                binned || watched.brings_back(image),
                "image {image} can not be brought back"
            );
        }
        self.seen.discards += 1;
        let now = self.model.now;
        self.known(image).discarded = Some(now);
        self.known(image).attempted = Some(now);
        self.known(image).cut_off = watched.disturbed;
        let this_hour = self
            .model
            .images
            .values()
            .filter(|known| known.discarded.is_some_and(|at| at / HOUR == now / HOUR));
        let this_hour = this_hour.count();
        never!(
            this_hour <= self.model.rules.most as usize,
            "{this_hour} images were discarded in one hour"
        );
        Ok(())
    }

    pub(super) fn remember_what_was_heard(&mut self, watched: &Watched) {
        for heard in &watched.heard {
            for image in &heard.images {
                let now = self.model.now;
                let known = self.model.images.get_mut(image).unwrap();
                let mut thing = heard.thing.clone();
                if heard.digest {
                    thing = limit(&watched.before[*image]);
                }
                known.heard.push((now, thing, heard.outcome.clone()));
            }
        }
    }

    /// Whether people heard this of an image within a day.
    pub(super) fn heard_lately(&self, image: usize, thing: &Thing) -> Option<i64> {
        let heard = self.model.images[&image].heard.iter().rev();
        let mut heard = heard.filter(|(at, its, _)| its == thing && self.model.now - at < DAY);
        heard.next().map(|(at, ..)| *at)
    }

    /// A delivery that nothing disturbed.
    pub(super) fn check_clean_delivery(
        &mut self,
        image: usize,
        due: Due,
        watched: &Watched,
    ) -> Result<(), Broken> {
        let end = &watched.ends[0];
        let heard = watched.of(image);
        let discarded = watched.discard_of(image).is_some();
        let context = || {
            format!(
                "image {image} ({:?}), {due:?}: {end:?}",
                watched.before[image]
            )
        };
        always!(
            discarded == (due == Due::Discard),
            "a discard, or none: {}",
            context()
        );
        let record = match (&due, end) {
            (Due::Again(why), End::Failed(error)) => {
                always!(why == error, "another error: {}", context());
                always!(heard.is_empty(), "told of what comes again: {}", context());
                return Ok(());
            }
            (Due::Again(_), _) | (_, End::Failed(_) | End::Crashed) => {
                return Err(Broken::Always(format!(
                    "it should have ended otherwise: {}",
                    context()
                )));
            }
            (_, End::Record(record)) => record,
        };
        let now = self.model.now;
        let brought_back = self.model.images[&image].discarded.is_some();
        match &due {
            Due::Again(_) | Due::Refused => {}
            Due::IsKnown => {
                let thing = Thing::of(record);
                let unknown = thing.held_by == BTreeSet::from(["identity-unknown".to_owned()]);
                always!(unknown, "for other reasons: {}", context());
                always!(heard.is_empty(), "told again: {}", context());
            }
            Due::Nothing => {
                self.check_right_or_gone(image, watched)?;
                self.known(image).cut_off = false;
                self.model.waiting.remove(&image);
                self.known(image).told = Told::Nothing;
            }
            Due::Discard => {
                always!(
                    heard.len() == 1,
                    "told {} times: {}",
                    heard.len(),
                    context()
                );
                always!(
                    record["outcome"] == "done",
                    "it does not say so: {}",
                    context()
                );
                self.model.places.insert(image);
                self.model.waiting.remove(&image);
                self.known(image).told = Told::Nothing;
            }
            Due::Tell(thing) | Due::OverLimit(thing) => {
                always!(
                    Thing::of(record) == *thing,
                    "for other reasons: {}",
                    context()
                );
                if thing.held_by.contains("discarded-before") {
                    self.seen.brought_back += u64::from(brought_back);
                    self.seen.registered_again += u64::from(self.model.registered_again(image));
                }
                let over = matches!(due, Due::OverLimit(_));
                self.seen.over_limit += u64::from(over);
                let told = self.known(image).told.clone();
                let before = self.heard_lately(image, thing).filter(|_| heard.is_empty());
                let knows = match &told {
                    Told::This(its, at) => its == thing && now - at < DAY,
                    Told::Nothing | Told::Unknown => false,
                };
                let times = match heard.as_slice() {
                    [] => 0,
                    [one] if one.thing == *thing => 1,
                    _ => 2,
                };
                let first = self.model.first_over.is_none_or(|first| first == image);
                let expected = match (knows, over, first) {
                    (true, _, _) | (_, true, false) => 0,
                    _ => 1,
                };
                if told == Told::Unknown {
                    let waits = over && (!first || self.is_left_to_digest(image));
                    let is_known = thing.held_by.contains("identity-unknown")
                        && (!self.model.images[&image].heard.is_empty()
                            || self.model.waiting.contains_key(&image));
                    let hears = before.is_some() || waits || is_known;
                    always!(
                        times == 1 || (times == 0 && hears),
                        "told {times} times: {}",
                        context()
                    );
                } else {
                    always!(
                        times == expected,
                        "told {times} times after {told:?}: {}",
                        context()
                    );
                }
                self.seen.told_once += u64::from(knows);
                if over {
                    if times == 1 {
                        self.model.first_over = Some(image);
                    }
                    if times == 0 && !knows {
                        // Who heard of it in a digest may have heard of it as it was then.
                        let waits = before.map_or(Waiting::Surely, |_| Waiting::Perhaps);
                        self.model.waiting.insert(image, waits);
                    }
                } else {
                    self.model.waiting.remove(&image);
                }
                let told_before = told.clone();
                let at = match (knows, times, told) {
                    (true, _, Told::This(_, at)) => at,
                    (_, 0, _) => before.unwrap_or(now),
                    _ => now,
                };
                // Of what people know already nothing new is remembered.
                if told_before != Told::Unknown || times == 1 || before.is_some() || over {
                    self.known(image).told = Told::This(thing.clone(), at);
                }
            }
        }
        Ok(())
    }

    pub(super) fn known(&mut self, image: usize) -> &mut Known {
        self.model.images.get_mut(&image).unwrap()
    }

    /// Of an image that is right, or gone, there is nothing to tell, but that a discard succeeded of which
    /// people heard that it may not have.
    pub(super) fn check_right_or_gone(
        &self,
        image: usize,
        watched: &Watched,
    ) -> Result<(), Broken> {
        let known = &self.model.images[&image];
        let heard = watched.of(image);
        let number = known.heard.len() - heard.len();
        let failed =
            |outcome: &Option<String>| matches!(outcome.as_deref(), Some("failed" | "refused"));
        let doubted = number > 0 && failed(&known.heard[number - 1].2);
        let done = heard.len() == 1 && heard[0].outcome.as_deref() == Some("done");
        always!(
            heard.is_empty() || (done && (doubted || known.in_doubt || known.cut_off)),
            "told without need of image {image}: {heard:?}"
        );
        let facts = &watched.before[image];
        // What the ledger could not note, as it was away or the guard was cut off, nobody corrects.
        if facts.stands != Stands::Available && known.discarded.is_some() && known.doubted {
            let last = known.heard.last();
            always!(
                last.is_none_or(|(_, _, outcome)| !failed(outcome)),
                "image {image} is gone, and the last that people heard is that it is not: {last:?}"
            );
        }
        Ok(())
    }

    /// The digest names those that wait for it, and nobody else.
    pub(super) fn check_digest(&mut self, watched: &Watched) -> Result<(), Broken> {
        let ended = matches!(watched.ends[0], End::Record(_));
        always!(ended, "the digest ended otherwise: {:?}", watched.ends);
        let named: BTreeSet<usize> = watched
            .heard
            .iter()
            .flat_map(|heard| heard.images.clone())
            .collect();
        let waiting = &self.model.waiting;
        let surely = waiting
            .iter()
            .filter(|(_, waits)| **waits == Waiting::Surely);
        for (image, _) in surely {
            always!(
                named.contains(image),
                "nobody hears of image {image} in the digest: {named:?}"
            );
        }
        for image in &named {
            always!(
                waiting.contains_key(image),
                "the digest tells of image {image}: {waiting:?}"
            );
        }
        self.seen.digested += named.len() as u64;
        self.model.waiting.clear();
        Ok(())
    }

    pub(super) fn after_disturbed_digest(&mut self, watched: &Watched) {
        for image in watched.heard.iter().flat_map(|heard| &heard.images) {
            // They were told, and may be told again.
            if let Some(waits) = self.model.waiting.get_mut(image) {
                *waits = Waiting::Perhaps;
            }
        }
    }

    /// What was disturbed and says that it is dealt with must have been: nobody brings the event again.
    pub(super) fn check_no_silence(
        &mut self,
        image: usize,
        end: &End,
        watched: &Watched,
    ) -> Result<(), Broken> {
        self.known(image).told = Told::Unknown;
        let wrong =
            |facts: &Facts| facts.stands == Stands::Available && facts.billing() == Billing::Wrong;
        let still_wrong = wrong(&watched.before[image]) && wrong(&watched.after[image]);
        let record = match end {
            End::Record(record) if still_wrong => record,
            _ => {
                // Put right after it was judged, and left to the digest as it was judged.
                if self.is_left_to_digest(image) {
                    self.model.waiting.insert(image, Waiting::Perhaps);
                } else if let Some(waits) = self.model.waiting.get_mut(&image) {
                    *waits = Waiting::Perhaps;
                }
                return Ok(());
            }
        };
        if watched.brings_back(image) && record["outcome"] == "done" {
            return Ok(());
        }
        never!(
            record["outcome"] != "done",
            "image {image} stands, and is said to be gone: {}",
            said(record)
        );
        let thing = Thing::of(record);
        let told = !watched.of(image).is_empty() || self.heard_lately(image, &thing).is_some();
        let held_by_limit = thing.held_by == BTreeSet::from(["limit".to_owned()]);
        let known = &self.model.images[&image];
        let is_known = thing.held_by == BTreeSet::from(["identity-unknown".to_owned()])
            && (known.mismatch_told.is_some()
                || !known.heard.is_empty()
                || self.model.waiting.contains_key(&image));
        if !told && held_by_limit {
            self.model.waiting.insert(image, Waiting::Surely);
        } else {
            never!(
                told || is_known,
                "image {image} stands, and nobody hears of it: {}",
                said(record)
            );
            if let Some(waits) = self.model.waiting.get_mut(&image) {
                *waits = Waiting::Perhaps;
            }
        }
        Ok(())
    }

    /// Two images whose discards are due at the same time are both discarded.
    pub(super) fn check_two_discards(
        &self,
        events: &[Event],
        dues: &[Option<Due>],
        watched: &Watched,
    ) -> Result<(), Broken> {
        let images: BTreeSet<usize> = events.iter().filter_map(|it| image_of(*it)).collect();
        let due = dues.iter().all(|due| *due == Some(Due::Discard));
        let more = images.difference(&self.model.places).count();
        let room = self.model.places.len() + more <= self.model.rules.most as usize;
        if images.len() == 2 && due && room && !watched.disturbed && self.model.rules.lingers == 0 {
            for image in images {
                let gone = watched.discard_of(image).is_some();
                always!(gone, "image {image} stands: {:?}", watched.ends);
            }
        }
        Ok(())
    }

    // What the ledger has is looked at to know what a disturbance left behind, and to find that nothing
    // is left behind without one.

    pub(super) fn item(&self, id: &str) -> Option<sim::Item> {
        let world = self.bench.sim.world();
        world.tables[TABLE].items.get(id).cloned()
    }

    pub(super) fn item_of(&self, image: usize) -> sim::Item {
        let id = format!("{ACCOUNT}#{}#{}", self.bench.region, image_id(image));
        self.item(&id).unwrap_or_default()
    }

    pub(super) fn turns_taken(&self) -> BTreeSet<usize> {
        let now = now().timestamp_millis();
        let taken = |image: &usize| {
            let item = self.item_of(*image);
            let until = item
                .get("turn_until_ms")
                .and_then(|until| until["N"].as_str());
            until.is_some_and(|until| until.parse::<i64>().unwrap() > now)
        };
        self.model.images.keys().copied().filter(taken).collect()
    }

    /// Whether the ledger has a note of another image from the same snapshot, that was not discarded.
    pub(super) fn sibling_in_doubt(&self, image: usize) -> bool {
        let snapshot = snapshot_id(self.model.images[&image].snapshot);
        let id = format!("{ACCOUNT}#{}#{snapshot}", self.bench.region);
        let note = self.item(&id).unwrap_or_default();
        let discards = note
            .get("discards")
            .and_then(|discards| discards["SS"].as_array());
        discards.into_iter().flatten().any(|discard| {
            discard
                .as_str()
                .is_some_and(|discard| !discard.ends_with(&image_id(image)))
        })
    }

    pub(super) fn is_left_to_digest(&self, image: usize) -> bool {
        let held = self.item(&format!("held#{ACCOUNT}#{}", self.bench.region));
        let held = held.and_then(|item| item.get("held")?["SS"].as_array().cloned());
        let mut held = held.into_iter().flatten();
        held.any(|note| {
            note.as_str()
                .is_some_and(|note| note.starts_with(&image_id(image)))
        })
    }

    pub(super) fn learn_from_ledger(&mut self, clean: bool) -> Result<(), Broken> {
        let hour = now().format("%Y-%m-%dT%H").to_string();
        let of_hour = |of: &str| {
            let item = self.item(&format!("{of}#{ACCOUNT}#{}#{hour}", self.bench.region));
            item.unwrap_or_default()
        };
        let (alerts, of_hour) = (of_hour("alerts"), of_hour("hour"));
        let begun = of_hour.get("begun").and_then(|begun| begun["N"].as_str());
        let begun: usize = begun.map_or(0, |begun| begun.parse().unwrap());
        let first = alerts
            .get("first_over")
            .and_then(|first| first["S"].as_str());
        let first_over = (0..IMAGES).find(|image| Some(image_id(*image).as_str()) == first);
        let images: Vec<usize> = self.model.images.keys().copied().collect();
        let taken = self.turns_taken();
        let mut places = BTreeSet::new();
        let now = self.model.now;
        for image in images {
            let item = self.item_of(image);
            if item
                .get("place")
                .is_some_and(|place| place["S"] == hour.as_str())
            {
                places.insert(image);
            }
            let known = self.known(image);
            let in_doubt = item.contains_key("attempted_at_ms") && known.discarded.is_none();
            let is_taken = taken.contains(&image);
            if clean {
                always!(
                    !in_doubt || known.in_doubt,
                    "image {image} is in doubt: {item:?}"
                );
                always!(
                    !is_taken || known.turn_is_taken,
                    "the turn of {image} goes on: {item:?}"
                );
            }
            if known.discarded.is_none() {
                known.attempted = known.attempted.or(Some(now)).filter(|_| in_doubt);
            }
            known.in_doubt = in_doubt;
            known.turn_is_taken = is_taken;
            let gist = item.get("told").and_then(|told| {
                let gist: Value = serde_json::from_str(told["S"].as_str()?).unwrap();
                (gist[0] == "mismatch" && gist[1] != "extra").then_some(gist)
            });
            let told_at = item
                .get("told_at_ms")
                .map(|at| at["N"].as_str().unwrap().parse::<i64>().unwrap());
            known.mismatch_told = gist.zip(told_at).map(|(gist, at)| {
                let bills = gist[3]["platform_details"].as_str().map(str::to_owned);
                (now - (super::now().timestamp_millis() - at) / 1000, bills)
            });
            known.doubted = item.contains_key("doubted");
        }
        never!(
            begun == places.len(),
            "{begun} discards are counted, of the images {places:?}"
        );
        never!(
            begun <= self.model.rules.most as usize,
            "{begun} discards were begun"
        );
        if clean {
            let model = &self.model;
            always!(
                model.places == places,
                "counted are {places:?}, not {:?}",
                model.places
            );
            always!(
                model.first_over == first_over,
                "the first over the limit is {first_over:?}, not {:?}",
                model.first_over
            );
        }
        self.model.places = places;
        self.model.first_over = first_over;
        Ok(())
    }
}

impl Heard {
    pub(super) fn read(at: usize, body: &str) -> Heard {
        let body: Value = serde_json::from_str(body).unwrap();
        let number = |id: &Value| (0..IMAGES).find(|image| *id == image_id(*image).as_str());
        let digest = body.get("digest").is_some();
        let images = match body["images"].as_array() {
            Some(images) => images
                .iter()
                .filter_map(|it| number(&it["image_id"]))
                .collect(),
            None => number(&body["image_id"]).into_iter().collect(),
        };
        Heard {
            at,
            images,
            digest,
            thing: Thing::of(&body),
            outcome: body["outcome"].as_str().map(str::to_owned),
        }
    }
}

/// What a digest says of an image.
pub(super) fn limit(facts: &Facts) -> Thing {
    Thing {
        action: "hold".to_owned(),
        bills: facts.bills.clone(),
        expect: facts.expect.clone(),
        held_by: BTreeSet::from(["limit".to_owned()]),
    }
}

pub(super) fn image_of(event: Event) -> Option<usize> {
    match event {
        Event::CloudTrail(image) | Event::StateChange(image) => Some(image),
        Event::Digest => None,
    }
}
