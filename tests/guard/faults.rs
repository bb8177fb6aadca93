//! Whichever call to AWS fails, and however it does: nothing is discarded that should stand, nothing without
//! an alert before it, and once the fault has passed, the same event completes what is due.
//!
//! The matrix follows the code by itself: a run without a fault says which calls there are, and then each of
//! them is disturbed in each way, in a world of its own.

use std::collections::BTreeMap;

use ami_billing_guard::policy::DiscardAction;
use sim::{AttachedVolume, Call, Calls, RecycleBinRule, Service};

use super::*;

#[tokio::test(crate = "crate::virtual_time")]
async fn an_answer_that_does_not_end_is_given_up_and_says_nothing() {
    let harness = Harness::of(billing(
        expecting("Windows"),
        "Windows",
        "RunInstances:0002",
    ))
    .await;
    harness.inject(Fault::nth("DescribeImages", 1, FaultKind::Padded(1 << 20)));
    assert_eq!(harness.record(registered()).await["verdict"], "verified");
    harness.inject(Fault::always("DescribeImages", FaultKind::Padded(33 << 20)));
    let error = harness.give(registered()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("longer than 32 MiB"), "{error}");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_batch_of_more_messages_than_sqs_gives_is_refused_and_says_how_many_are_accepted() {
    let harness = Harness::of(image()).await;
    let messages = vec![json!({ "messageId": "m", "body": "{}" }); 10_001];
    let error = harness
        .give(json!({ "Records": messages }))
        .await
        .unwrap_err();
    assert_eq!(error.error_type(), "MalformedEvent");
    assert!(
        error.to_string().contains("Accepted: up to 10000"),
        "{error}"
    );
}

const LEDGER: &str = "ami-billing-guard";
const VOLUME: &str = "vol-0a1b2c3d4e5f60001";

/// The deadline of an invocation in which answers are slow. A discard is begun only with 15 seconds left. The
/// guard answers 2 seconds before the deadline, and so before the SDK gives up a call to EC2 or SNS, which it
/// does after 15.
const SHORT: Duration = Duration::from_millis(16_800);

/// An answer that comes when the invocation is long over.
const SLOW: FaultKind = FaultKind::Slow(Duration::from_secs(120));

/// An answer that ends early, and HTTP does not know it. So much of it says nothing yet.
const CUT_SHORT: FaultKind = FaultKind::CutShort(80);

/// What happens once, or lasts.
const FAULTS: [FaultKind; 6] = [
    FaultKind::Throttle,
    FaultKind::InternalError,
    FaultKind::ResetBefore,
    FaultKind::ResetAfter,
    FaultKind::CutBody,
    FaultKind::AccessDenied,
];

/// What becomes of an image in the end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// It is discarded, as it should be.
    Discarded,
    /// It should be discarded and stands: whether that was done before, and it was brought back, can not be
    /// told any more.
    LeftToPeople,
    /// It stands, as an interlock holds it.
    Held,
    /// It stands, as nothing is wrong with it.
    Verified,
}

impl End {
    /// What people may hear, in both deliveries together; first what they hear if nothing fails.
    fn alerts(self) -> &'static [&'static [&'static str]] {
        match self {
            End::Discarded => &[
                // This one is needed.
                &["planned"],
                // One more than needed: something could not be found out, or the ledger not be reached, and
                // people were told that the discard is held.
                &["held", "planned"],
                // All are needed: the discard failed, people were told so, and it is announced anew.
                &["planned", "failed", "planned"],
                &["planned", "refused", "planned"],
                // All are needed: the discard may have failed, and later it showed that it had not.
                &["planned", "failed", "done"],
            ],
            // All are needed.
            End::LeftToPeople => &[&["planned", "failed", "held"]],
            // One is needed. One more told that something could not be found out, too.
            End::Held => &[&["held"], &["held", "held"]],
            End::Verified => &[&[]],
        }
    }

    fn is_discard_due(self) -> bool {
        matches!(self, End::Discarded | End::LeftToPeople)
    }
}

/// One kind of run, and how it ends whatever fails in it, but for the combinations that are named below.
struct Scenario {
    name: &'static str,
    mode: Mode,
    action: DiscardAction,
    world: fn() -> World,
    end: End,
}

static SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "enforce, deregister",
        mode: Mode::Enforce,
        action: DiscardAction::Deregister,
        world: wrong,
        end: End::Discarded,
    },
    Scenario {
        name: "enforce, disable",
        mode: Mode::Enforce,
        action: DiscardAction::Disable,
        world: wrong,
        end: End::Discarded,
    },
    Scenario {
        name: "observe, deregister",
        mode: Mode::Observe,
        action: DiscardAction::Deregister,
        world: wrong,
        end: End::Held,
    },
    Scenario {
        name: "observe, disable",
        mode: Mode::Observe,
        action: DiscardAction::Disable,
        world: wrong,
        end: End::Held,
    },
    Scenario {
        name: "enforce, deregister, an image in use",
        mode: Mode::Enforce,
        action: DiscardAction::Deregister,
        world: wrong_but_in_use,
        end: End::Held,
    },
    Scenario {
        name: "enforce, deregister, an image that bills what it should",
        mode: Mode::Enforce,
        action: DiscardAction::Deregister,
        world: right,
        end: End::Verified,
    },
];

/// An image that bills as Linux, made from the root volume of an instance that bills as Windows.
fn wrong() -> World {
    world_of(expecting("Windows"))
}

fn wrong_but_in_use() -> World {
    let mut world = wrong();
    world.add_instance(Instance::new("i-0123456789abcdef1", AMI));
    world
}

fn right() -> World {
    world_of(billing(
        expecting("Windows"),
        "Windows",
        "RunInstances:0002",
    ))
}

pub(super) fn world_of(image: Image) -> World {
    let mut world = World::default();
    let mut builder = Instance::new("i-0123456789abcdef0", "ami-0a1b2c3d4e5f60002");
    builder.platform_details = Some("Windows".into());
    builder.usage_operation = Some("RunInstances:0002".into());
    let mut volume = AttachedVolume::new("/dev/xvda", VOLUME);
    volume.attach_time = now() - TimeDelta::hours(2);
    builder.volumes = vec![volume];
    world.add_instance(builder);
    for id in image.snapshot_ids() {
        let mut snapshot = Snapshot::new(id);
        snapshot.volume_id = VOLUME.into();
        world.add_snapshot(snapshot);
    }
    world.add_image(image);
    world
}

/// So old that an image that is not there is gone, and not on its way: the retry then sees what became of
/// the discard.
fn event() -> Value {
    registered_at(now() - TimeDelta::minutes(11))
}

impl Scenario {
    async fn harness(&self) -> Harness {
        let settings = Settings {
            mode: self.mode,
            policy: Policy {
                action: self.action,
                ..Policy::default()
            },
            // Enough for the pause after a denial that passes.
            wait: Duration::from_millis(500),
            // So that nobody waits until an image that stands after its discard counts as brought back.
            settle: Duration::ZERO,
            ledger_table: Some(LEDGER),
            recycle_bin_rule: Some(RecycleBinRule::ID),
            ..Settings::default()
        };
        Harness::around((self.world)(), settings).await
    }

    /// The calls of a run without a fault.
    async fn steps(&self) -> Vec<Step> {
        let harness = self.harness().await;
        harness.record(event()).await;
        let mut seen: BTreeMap<(String, bool), usize> = BTreeMap::new();
        let calls = harness.sim.calls();
        let steps = calls.into_iter().map(|call| {
            let nth = seen
                .entry((call.action.clone(), is_of_copies(&call)))
                .or_default();
            *nth += 1;
            Step { nth: *nth, call }
        });
        steps.collect()
    }
}

/// One call of a run without a fault.
struct Step {
    call: Call,
    /// Which one of its action, from 1.
    nth: usize,
}

impl Step {
    fn once(&self, kind: &FaultKind) -> Fault {
        self.fault(Calls::Nth(self.nth), kind)
    }

    fn for_good(&self, kind: &FaultKind) -> Fault {
        self.fault(Calls::From(self.nth), kind)
    }

    fn fault(&self, calls: Calls, kind: &FaultKind) -> Fault {
        let (name, value) = OF_COPIES;
        let of_copies = is_of_copies(&self.call);
        Fault {
            action: self.call.action.clone(),
            of: of_copies.then(|| (name.into(), value.into(), true)),
            calls,
            kind: kind.clone(),
        }
    }

    /// Whether it notes in the ledger that the image is about to be discarded.
    fn is_the_note(&self) -> bool {
        let names = &self.call.body()["ExpressionAttributeNames"];
        self.call.action == "UpdateItem" && names["#attempted_at_ms"].is_string()
    }

    fn is_the_deed(&self) -> bool {
        is_deed(&self.call)
    }
}

fn is_deed(call: &Call) -> bool {
    matches!(call.action.as_str(), "DeregisterImage" | "DisableImage")
}

/// One run: what fails in it, and how it ends when that is over.
struct Combination {
    scenario: &'static Scenario,
    faults: Vec<Fault>,
    end: End,
    /// Whether nobody is to notice, as the SDK or the guard asks again at once.
    overcome: bool,
}

/// Each call with each fault.
fn single_faults(scenario: &'static Scenario, steps: &[Step]) -> Vec<Combination> {
    let mut combinations = Vec::new();
    for step in steps {
        let mut kinds = FAULTS.to_vec();
        // DynamoDB lets a read pass.
        if matches!(
            step.call.action.as_str(),
            "UpdateItem" | "TransactWriteItems"
        ) {
            kinds.push(FaultKind::TransactionConflict);
        }
        let once = kinds.iter().map(|kind| step.once(kind));
        let lasting = kinds.iter().chain([&CUT_SHORT, &SLOW]);
        let for_good = lasting.map(|kind| step.for_good(kind));
        combinations.extend(once.chain(for_good).map(|fault| Combination {
            scenario,
            end: match is_note_without_an_answer(step, &fault) || is_deed_in_doubt(step, &fault) {
                true => End::LeftToPeople,
                false => scenario.end,
            },
            overcome: is_overcome(step, &fault),
            faults: vec![fault],
        }));
    }
    combinations
}

/// EC2 did not do it, and did not say so either: an image that EC2 lists may be one that it lists yet, and when the
/// event comes again, one that was brought back.
fn is_deed_in_doubt(step: &Step, fault: &Fault) -> bool {
    let undone = [FaultKind::InternalError, FaultKind::ResetBefore];
    let for_good = matches!(fault.calls, Calls::From(_));
    step.is_the_deed() && for_good && undone.contains(&fault.kind)
}

/// Of the other single faults, these alone keep an image that should be discarded: the note that it is about to be
/// is written, and as no answer says so and none comes to any write after it, the guard neither acts nor
/// takes the note back. An image that has the note and stands may have been brought back.
fn is_note_without_an_answer(step: &Step, fault: &Fault) -> bool {
    let unanswered = [FaultKind::ResetAfter, FaultKind::CutBody, CUT_SHORT, SLOW];
    let for_good = matches!(fault.calls, Calls::From(_));
    step.is_the_note() && for_good && unanswered.contains(&fault.kind)
}

/// Nobody asks again after a denial, as it does not pass as a rule, nor after an answer of EC2's that is cut.
fn is_overcome(step: &Step, fault: &Fault) -> bool {
    let is_final = match fault.kind {
        FaultKind::AccessDenied => true,
        FaultKind::CutBody => step.call.service == Service::Ec2,
        _ => false,
    };
    matches!(fault.calls, Calls::Nth(_)) && !is_final
}

/// A discard that does not get through together with a look at the image that does not either: nothing says
/// what became of it. What was done all the same is completed. What was not can not be told from a discard
/// that somebody took back.
fn blind_discards(scenario: &'static Scenario, steps: &[Step]) -> Vec<Combination> {
    let Some(at) = steps.iter().position(Step::is_the_deed) else {
        return Vec::new();
    };
    let (deed, mut later) = (&steps[at], steps[at..].iter());
    let look = later
        .find(|step| step.call.action == "DescribeImages")
        .unwrap();
    let mut combinations = Vec::new();
    for of_deed in &FAULTS {
        for of_look in [
            FaultKind::Throttle,
            FaultKind::ResetAfter,
            FaultKind::AccessDenied,
        ] {
            combinations.push(Combination {
                scenario,
                end: match of_deed {
                    FaultKind::InternalError | FaultKind::ResetBefore => End::LeftToPeople,
                    // Done, or known not to be.
                    _ => End::Discarded,
                },
                overcome: false,
                faults: vec![deed.for_good(of_deed), look.for_good(&of_look)],
            });
        }
    }
    combinations
}

/// What may hold an image that should be discarded without the queue bringing its event back: people are told
/// that it is theirs to send it again.
const DONE_WITH: [&str; 5] = [
    "in-use",
    "no-way-back",
    "nobody-listening",
    "uncaptured",
    "untaggable",
];

impl Combination {
    fn has_slow_answers(&self) -> bool {
        self.faults.iter().any(|fault| fault.kind == SLOW)
    }

    fn name(&self) -> String {
        let faults: Vec<String> = self
            .faults
            .iter()
            .map(|fault| format!("{} {:?} {:?}", fault.action, fault.calls, fault.kind))
            .collect();
        format!("{}: {}", self.scenario.name, faults.join(" and "))
    }

    /// Delivers the event with the fault, and again without it, and says what must not be.
    async fn run(&self) -> Result<(), String> {
        let harness = self.scenario.harness().await;
        let snapshots = snapshots(&harness);
        for fault in &self.faults {
            harness.inject(fault.clone());
        }
        let deadline = match self.has_slow_answers() {
            true => Deadline::now() + SHORT,
            false => in_a_minute(),
        };
        let (first, mut calls) = deliver(&harness, deadline).await?;
        let is_disturbed = |call: &Call| matches!(call.answer, Answer::Fault(_));
        ensure(calls.iter().any(is_disturbed), || "not reached".into())?;
        self.check_delivery(&harness, &calls)?;
        self.check_answer(&harness, &first, &calls)?;

        harness.sim.heal();
        let refused = matches!(&first, Ok(record) if record["outcome"] == "refused");
        // The queue brings the event again after six minutes, when every turn is over. A discard that was refused is over
        // with; whoever mends that and sends the event again does so after more than ten minutes.
        let minutes = if refused { 11 } else { 6 };
        tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
        let heard = harness.alerts().len();
        let (second, later) = deliver(&harness, in_a_minute()).await?;
        self.check_delivery(&harness, &later)?;
        if let Err(error) = second {
            return Err(format!("the retry fails: {error}"));
        }
        calls.extend(later);
        self.check_alerts(&calls)?;
        self.check_end(&harness, heard)?;
        let after = self::snapshots(&harness);
        ensure(after == snapshots, || format!("the snapshots are {after}"))
    }

    /// What must hold after every delivery, whatever failed in it.
    fn check_delivery(&self, harness: &Harness, calls: &[Call]) -> Result<(), String> {
        let due = self.scenario.end.is_discard_due();
        let mut announced = false;
        for call in calls {
            let action = call.action.as_str();
            if is_deed(call) {
                ensure(announced, || format!("{action} without an alert"))?;
                let deletes = call.params.get("DeleteAssociatedSnapshots");
                ensure(deletes.is_none_or(|deletes| deletes == "false"), || {
                    format!("DeleteAssociatedSnapshots={deletes:?}")
                })?;
            }
            match action {
                "Publish" => announced |= took_effect(call) && word(call) == "planned",
                // An alert takes one of the hour's alerts.
                "TransactWriteItems" if !call.body().to_string().contains("hour#") => {}
                "DeregisterImage" | "DisableImage" | "CreateTags" | "TransactWriteItems" => {
                    ensure(due, || format!("{action}, and no discard is due"))?;
                }
                _ => ensure(looks(action) || action == "UpdateItem", || {
                    format!("{action} is called")
                })?,
            }
        }
        ensure(due || harness.image_stands(), || {
            "an image that should stand is gone".into()
        })?;
        let acted = calls.iter().any(is_deed);
        ensure(
            !acted || !harness.journal.lock().unwrap().is_empty(),
            || "there is no record of an act".into(),
        )
    }

    /// An event is done with only if the discard that is due is, or if people know why it is not.
    fn check_answer(
        &self,
        harness: &Harness,
        answer: &Result<Value, Error>,
        calls: &[Call],
    ) -> Result<(), String> {
        let stands = self.scenario.end.is_discard_due() && harness.image_stands();
        ensure(!self.overcome || (answer.is_ok() && !stands), || {
            format!("one fault alone is not overcome: {answer:?}")
        })?;
        let Ok(record) = answer else {
            return Ok(());
        };
        if !stands {
            return Ok(());
        }
        let held = DONE_WITH.map(|interlock| json!([interlock]));
        let known = held.contains(&record["held_by"]) || record["outcome"] == "refused";
        ensure(known, || format!("the event does not come back: {record}"))?;
        let last = heard(calls).pop();
        ensure(last.is_some_and(|word| word != "planned"), || {
            format!("nobody is told that the image stands: {record}")
        })
    }

    /// People hear no more than they need, or one alert more. A message whose answer is lost may not have
    /// been published, and so it is published again: these come on top, and are as many as the attempts of
    /// the SDK.
    fn check_alerts(&self, calls: &[Call]) -> Result<(), String> {
        let heard = heard(calls);
        let mut allowed = self.end.alerts().iter();
        let allowed = match self.overcome {
            true => allowed.next().is_some_and(|words| heard == *words),
            false => allowed.any(|words| heard == *words),
        };
        ensure(allowed, || format!("people hear {heard:?}"))?;
        let lost = calls
            .iter()
            .filter(|call| call.action == "Publish" && took_effect(call))
            .filter(|call| call.answer != Answer::Ok)
            .count();
        let attempts = match self.faults[0].calls {
            Calls::Nth(_) => 1,
            Calls::From(_) => 3,
        };
        ensure(lost <= attempts, || format!("{lost} times the same"))
    }

    /// `heard`: how many alerts there were before the retry.
    fn check_end(&self, harness: &Harness, heard: usize) -> Result<(), String> {
        let alerts = harness.alerts();
        let world = harness.sim.world();
        let state = world.images.get(AMI).map(|image| image.state.as_str());
        match (self.end, self.scenario.action) {
            (End::Discarded, DiscardAction::Disable) => {
                ensure(state == Some("disabled"), || format!("it is {state:?}"))?;
            }
            (End::Discarded, _) => {
                ensure(state.is_none(), || format!("it is {state:?}"))?;
                ensure(world.recycle_bin.contains_key(AMI), || {
                    "it is not in the Recycle Bin".into()
                })?;
            }
            _ => ensure(state == Some("available"), || format!("it is {state:?}"))?,
        }
        if self.end == End::LeftToPeople {
            ensure(alerts.len() == heard + 1, || "nobody is told of it".into())?;
            let held_by = &alerts[heard]["held_by"];
            ensure(*held_by == json!(["discarded-before"]), || {
                format!("it is held by {held_by}")
            })?;
        }
        for (id, item) in &world.tables[LEDGER].items {
            if self.end == End::Discarded && id.ends_with(AMI) {
                ensure(item.contains_key("completed"), || {
                    format!("the ledger does not know that it is discarded: {item:?}")
                })?;
            }
            if id.starts_with("hour#") {
                ensure(item["begun"] == json!({ "N": "1" }), || {
                    format!("an hour counts its discard more than once: {item:?}")
                })?;
            }
        }
        Ok(())
    }
}

/// Delivers the event, and gives the answer with the calls that led to it.
async fn deliver(
    harness: &Harness,
    deadline: Deadline,
) -> Result<(Result<Value, Error>, Vec<Call>), String> {
    harness.sim.forget_calls();
    let guard = Arc::clone(&harness.guard);
    let delivery = tokio::spawn(async move { guard.handle(event(), deadline).await });
    let answer = delivery.await.map_err(|panic| panic.to_string())?;
    Ok((answer.map(|answer| json!(answer)), harness.sim.calls()))
}

/// The alerts that were published as far as the guard knows, each in a word.
fn heard(calls: &[Call]) -> Vec<String> {
    calls
        .iter()
        .filter(|call| call.action == "Publish" && call.answer == Answer::Ok)
        .map(word)
        .collect()
}

/// What a call of Publish says of the image.
fn word(publish: &Call) -> String {
    let bodies: Value = serde_json::from_str(&publish.params["Message"]).unwrap();
    let record: Value = serde_json::from_str(bodies["sqs"].as_str().unwrap()).unwrap();
    assert_eq!(record["image_id"], AMI);
    let held = record["action"] == "hold";
    match record["outcome"].as_str() {
        None if held => "held".to_owned(),
        outcome => outcome.unwrap_or("another").to_owned(),
    }
}

fn took_effect(call: &Call) -> bool {
    match &call.answer {
        Answer::Ok => true,
        Answer::Refused(_) => false,
        Answer::Fault(kind) => kind.takes_effect(),
    }
}

fn snapshots(harness: &Harness) -> String {
    format!("{:?}", harness.sim.world().snapshots)
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    match holds {
        true => Ok(()),
        false => Err(otherwise()),
    }
}

#[test]
fn whatever_fails_nothing_is_discarded_wrongly_or_silently_and_a_retry_completes_what_is_due() {
    let scenarios: Vec<&'static Scenario> = SCENARIOS.iter().collect();
    let of_scenario = virtual_time::each(&scenarios, async |scenario| {
        let steps = scenario.steps().await;
        let mut combinations = single_faults(scenario, &steps);
        combinations.extend(blind_discards(scenario, &steps));
        combinations
    });
    let combinations: Vec<Combination> = of_scenario.into_iter().flatten().collect();
    let results = virtual_time::each(&combinations, Combination::run);
    let findings = results.into_iter().zip(&combinations);
    let findings: Vec<String> = findings
        .filter_map(|(result, it)| Some(format!("{}: {}", it.name(), result.err()?)))
        .collect();
    let count = combinations.len();
    println!("fault matrix: {count} combinations");
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    assert!(count >= 300, "{count} combinations");
}
