//! After Lambda has frozen the process: connections that died while they waited, and nobody saw it.

use super::*;

/// The image of this number, which should be Windows, and is billed so or not.
fn numbered(number: usize, details: &str, operation: &str) -> Image {
    let image = Image::new(format!("ami-0a1b2c3d4e5f7{number:04}"));
    let image = tagged(image, "ami-billing-guard:expect", "Windows");
    billing(image, details, operation)
}

fn registration_of(image: &Image) -> Value {
    let mut event = registered();
    event["id"] = json!(format!("of-{}", image.id));
    event["detail"]["responseElements"]["imageId"] = json!(image.id);
    event
}

/// A guard that has dealt with ten images at once, and one image that it has not yet heard of.
async fn after_a_batch_of_ten(last: &Image) -> Harness {
    let mut world = World::default();
    let ten: Vec<Image> = (0..10)
        .map(|number| numbered(number, "Windows", "RunInstances:0002"))
        .collect();
    for image in ten.iter().chain([last]) {
        for snapshot in image.snapshot_ids() {
            world.add_snapshot(Snapshot::new(snapshot));
        }
        world.add_image(image.clone());
    }
    let settings = Settings {
        ledger_table: Some("ami-billing-guard"),
        ..Settings::default()
    };
    let harness = Harness::around(world, settings).await;
    let events: Vec<String> = ten
        .iter()
        .map(|it| registration_of(it).to_string())
        .collect();
    let answer = harness.record(batch(&events)).await;
    assert_eq!(answer["batchItemFailures"], json!([]));
    // Connections that are too many are closed: the other end hears of it.
    tokio::time::sleep(Duration::from_millis(200)).await;
    harness.sim.forget_calls();
    harness.tallies.lock().unwrap().clear();
    harness
}

impl Harness {
    /// How many attempts the SDK made of its calls.
    fn attempts(&self) -> u64 {
        let tallies = self.tallies.lock().unwrap();
        tallies.iter().map(|tally| tally.calls).sum()
    }

    /// How many requests arrived.
    fn arrived(&self) -> u64 {
        self.sim.calls().len() as u64
    }
}

#[tokio::test]
async fn an_event_after_a_thaw_is_judged_although_every_connection_is_dead_and_no_attempt_is_lost()
{
    let last = numbered(10, "Windows", "RunInstances:0002");
    let harness = after_a_batch_of_ten(&last).await;

    let dead = harness.sim.reset_idle_connections();
    // Four of the table's client, whose time limits are others, and four of all other clients.
    assert!((1..=8).contains(&dead), "{dead} connections waited");
    let record = harness.record(registration_of(&last)).await;

    assert_eq!(record["verdict"], "verified");
    assert_eq!(harness.attempts(), harness.arrived());
}

#[tokio::test]
async fn a_discard_after_a_thaw_is_one_as_any_other_and_deregisters_once() {
    let last = numbered(10, "Linux/UNIX", "RunInstances");
    let harness = after_a_batch_of_ten(&last).await;

    assert!(harness.sim.reset_idle_connections() > 0);
    let record = harness.record(registration_of(&last)).await;

    assert_eq!(record["outcome"], "done");
    assert_eq!(harness.attempts(), harness.arrived());
    let calls = harness.calls();
    let acts = calls.iter().filter(|call| *call == "DeregisterImage");
    assert_eq!(acts.count(), 1);
    assert_eq!(harness.told(), ["planned"]);
}

#[tokio::test]
async fn connections_that_die_between_two_calls_of_one_event_cost_no_attempt_either() {
    let last = numbered(10, "Linux/UNIX", "RunInstances");
    let harness = after_a_batch_of_ten(&last).await;

    // While the alert is on its way, the next call is the act.
    let slow = FaultKind::Slow(Duration::from_millis(300));
    harness.inject(Fault::nth("Publish", 1, slow));
    let reset = async {
        while !harness.calls().contains(&"Publish".to_owned()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        harness.sim.reset_idle_connections()
    };
    let (record, dead) = tokio::join!(harness.record(registration_of(&last)), reset);

    assert!(dead > 0);
    assert_eq!(record["outcome"], "done");
    assert_eq!(harness.attempts(), harness.arrived());
}

#[tokio::test]
async fn an_act_whose_answer_is_cut_off_is_sent_again_by_the_procedure_alone() {
    let last = numbered(10, "Linux/UNIX", "RunInstances");
    let harness = after_a_batch_of_ten(&last).await;

    harness.inject(Fault::always("DeregisterImage", FaultKind::ResetBefore));
    let error = harness.give(registration_of(&last)).await.unwrap_err();

    // Each was counted: none went out behind the back of the procedure, which has to know of every one.
    assert_eq!(harness.attempts(), harness.arrived(), "{error}");
    assert!(harness.calls().contains(&"DeregisterImage".to_owned()));
}

#[tokio::test]
async fn a_server_that_ends_every_connection_uses_up_attempts_as_before() {
    let last = numbered(10, "Windows", "RunInstances:0002");
    let harness = after_a_batch_of_ten(&last).await;

    harness.inject(Fault::always("DescribeImages", FaultKind::ResetBefore));
    harness.give(registration_of(&last)).await.unwrap_err();

    // Three attempts, of which those over a connection that had been waiting were sent once more.
    let calls = harness.calls();
    let asked = calls.iter().filter(|call| *call == "DescribeImages");
    let asked = asked.count();
    assert!((3..=6).contains(&asked), "{asked}");
}
