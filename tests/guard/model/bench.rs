//! The bench: a server, and a guard.

use super::*;

pub(super) struct Bench {
    pub(super) sim: Sim,
    /// Every call of a sequence, and when it was made, in words.
    pub(super) log: Mutex<String>,
    pub(super) region: String,
    pub(super) rules: Rules,
    pub(super) guard: Arc<Guard>,
}

impl Bench {
    pub(super) async fn open(rules: Rules) -> Bench {
        let sim = Sim::in_process(World::default());
        // The SDK counts retries by Region, over all clients of the process: none may use up another's.
        static OPENED: AtomicUsize = AtomicUsize::new(0);
        let region = format!("model-{:08}", OPENED.fetch_add(1, Ordering::Relaxed));
        let aws = Aws::in_process(sim.client(), &region, CLOCK).await;
        let action = if rules.disable {
            "disable"
        } else {
            "deregister"
        };
        let policy = format!(
            "[discard]\naction = \"{action}\"\nmax_per_hour = {}",
            rules.most
        );
        let config = Config {
            mode: rules.mode,
            alert_topic: Some(TOPIC.into()),
            scope: Scope {
                account: Some(ACCOUNT.parse().unwrap()),
                region: Some(region.clone()),
            },
            wait: Duration::from_millis(rules.wait),
            settle: Duration::from_secs(300),
            ledger_table: Some(TABLE.into()),
            ledger_days: 365,
            recycle_bin_rule: None,
            queue_url: None,
            runbook_url: None,
            chat_topic: None,
            policy_path: None,
        };
        let policy = Settings::policy(&policy).policy;
        let guard = Guard::new(config, policy, aws.clone(), Reader::Here, |_, _| {});
        Bench {
            sim,
            log: Mutex::default(),
            region,
            rules,
            guard: Arc::new(guard),
        }
    }

    /// Runs a sequence, and then what a quiet day would do: every event comes once more, and a digest.
    pub(super) async fn run(&self, steps: &[Step]) -> Result<Seen, Violation> {
        let mut world = World {
            region: self.region.clone(),
            ..World::default()
        };
        for snapshot in 0..SNAPSHOTS {
            world.add_snapshot(Snapshot::new(snapshot_id(snapshot)));
        }
        world.after_deregistration = Lingering {
            listed_for: self.rules.lingers,
            empty_for: None,
        };
        *self.sim.world() = world;
        let mut run = Run {
            bench: self,
            guard: Arc::clone(&self.guard),
            model: Model::new(self.rules),
            seen: Seen::default(),
        };
        let quiet = [
            // Who waits for the digest hears of it, whatever comes again or not.
            clean(Event::Digest),
            Step::People(Deed::Listen(true)),
            Step::Later(2 * SETTLED),
            clean(Event::CloudTrail(0)),
            clean(Event::CloudTrail(1)),
            clean(Event::CloudTrail(2)),
            clean(Event::Digest),
        ];
        for (at, step) in steps.iter().chain(&quiet).enumerate() {
            run.step(step).await.map_err(|broken| Violation {
                at,
                step: step.clone(),
                broken,
            })?;
        }
        Ok(run.seen)
    }
}

impl Bench {
    /// What was called. The SDK leaves it to chance in which order DynamoDB's documents and SNS's attributes are written.
    pub(super) fn write_down(&self, calls: &[Call]) {
        const ATTRIBUTES: &str = "MessageAttributes.entry.";
        let mut log = self.log.lock().unwrap();
        for call in calls {
            let of_attributes = |key: &str| key.starts_with(ATTRIBUTES);
            let mut params = call.params.clone();
            let attributes = params.extract_if(.., |key, _| of_attributes(key));
            let mut attributes: Vec<String> = attributes.map(|(_, value)| value).collect();
            attributes.sort();
            let (action, body, answer) = (&call.action, call.body(), &call.answer);
            params.remove("Body");
            let line = format!(
                "{} {action} {params:?} {attributes:?} {body} {answer:?}\n",
                now()
            );
            log.push_str(&without_region(&line));
        }
    }
}

/// Without the names of Regions, of which every world has another, also where a message cuts one short.
pub(super) fn without_region(text: &str) -> String {
    let mut parts = text.split("model-");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + "REGION" + part.trim_start_matches(|sign: char| sign.is_ascii_digit())
    })
}

/// A promise that was broken, and where.
pub(super) struct Violation {
    pub(super) at: usize,
    pub(super) step: Step,
    pub(super) broken: Broken,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Broken::Never(what) | Broken::Always(what)) = &self.broken;
        write!(f, "step {}, {:?}: {what}", self.at, self.step)
    }
}

/// What was broken.
pub(super) enum Broken {
    /// What the guard must never do, whatever happens around it.
    Never(String),
    /// What it must do if nothing disturbs it.
    Always(String),
}

macro_rules! never {
    ($holds:expr, $($what:tt)*) => {
        if !$holds {
            return Err(Broken::Never(format!($($what)*)));
        }
    };
}

macro_rules! always {
    ($holds:expr, $($what:tt)*) => {
        if !$holds {
            return Err(Broken::Always(format!($($what)*)));
        }
    };
}

/// What sequences came upon: without these they would prove little.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) discards: u64,
    pub(super) faults: u64,
    pub(super) crashes: u64,
    pub(super) changes: u64,
    pub(super) brought_back: u64,
    pub(super) registered_again: u64,
    pub(super) over_limit: u64,
    pub(super) digested: u64,
    pub(super) told_once: u64,
}

impl Seen {
    pub(super) fn add(&mut self, other: Seen) {
        self.discards += other.discards;
        self.faults += other.faults;
        self.crashes += other.crashes;
        self.changes += other.changes;
        self.brought_back += other.brought_back;
        self.registered_again += other.registered_again;
        self.over_limit += other.over_limit;
        self.digested += other.digested;
        self.told_once += other.told_once;
    }
}

pub(super) fn image_id(image: usize) -> String {
    format!("ami-0a1b2c3d4e5f6000{}", image + 1)
}

pub(super) fn snapshot_id(snapshot: usize) -> String {
    format!("snap-0a1b2c3d4e5f6000{}", snapshot + 1)
}

pub(super) fn clean(event: Event) -> Step {
    Step::Deliver {
        events: vec![event],
        early: false,
        troubles: Vec::new(),
    }
}
