//! Whether a deregistered image can be restored: the status of the Recycle Bin rule that keeps it.
//!
//! The first rule of a Region takes up to 30 minutes to become active. An image that no active rule matches is deleted
//! permanently (Amazon EBS User Guide, "Recycle Bin").

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::aws::{Aws, RuleStatus};

/// Why a deregistered image may be lost permanently.
#[derive(Clone, Debug)]
pub(crate) struct Hindrance {
    /// The reason, as a sentence.
    pub(crate) why: String,
    /// Whether the reason is transient.
    pub(crate) passes: bool,
}

/// What this process knows about the rule.
#[derive(Debug, Default)]
pub(crate) struct WayBack {
    /// Whether the rule was available once. It then stays available until it is deleted, which [`WayBack::doubt`] notes.
    available: AtomicBool,
    /// The last negative answer, and when it arrived.
    last: Mutex<Option<(Instant, Hindrance)>>,
}

impl WayBack {
    /// Forgets that the rule was available, because the Recycle Bin does not have an image that it should keep. The next
    /// discard asks again.
    pub(crate) fn doubt(&self) {
        self.available.store(false, Ordering::Relaxed);
    }

    /// Looks up the rule's status, unless it was available before. If several images do so at once, one call is made,
    /// and all use its answer.
    ///
    /// # Errors
    /// [`Hindrance`], unless the rule is available.
    pub(crate) async fn check(&self, aws: &Aws, rule: &str) -> Result<(), Hindrance> {
        if self.available.load(Ordering::Relaxed) {
            return Ok(());
        }
        let since = Instant::now();
        let mut last = self.last.lock().await;
        if self.available.load(Ordering::Relaxed) {
            return Ok(());
        }
        if let Some((at, hindrance)) = &*last
            && *at >= since
        {
            return Err(hindrance.clone());
        }
        let hindrance = match aws.recycle_bin_rule(rule).await {
            Ok(RuleStatus::Available) => {
                self.available.store(true, Ordering::Relaxed);
                return Ok(());
            }
            Ok(RuleStatus::Pending) => Hindrance {
                why: format!(
                    "the Recycle Bin rule {rule} is still pending and does not keep the image yet"
                ),
                passes: true,
            },
            Err(error) => Hindrance {
                why: format!(
                    "the guard could not determine whether the Recycle Bin would keep the image: {error}"
                ),
                passes: !error.needs_a_person(),
            },
        };
        *last = Some((Instant::now(), hindrance.clone()));
        Err(hindrance)
    }
}
