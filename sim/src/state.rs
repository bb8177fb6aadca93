//! State that all connections of a running simulator share.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::connection::Connections;
use crate::fault::Log;
use crate::world::World;

/// Minimum time that a request or an answer takes in this process.
const ON_THE_WAY: Duration = Duration::from_millis(1);

/// The shared state. Lock order: the world, then the log.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) world: Mutex<World>,
    pub(crate) log: Mutex<Log>,
    /// Source of the request ids.
    pub(crate) requests: AtomicU64,
    pub(crate) connections: Connections,
    pub(crate) keeps_answers: AtomicBool,
    /// Kept answers, each as action and text.
    pub(crate) answers: Mutex<Vec<(String, String)>>,
    /// Maximum additional time that a request or an answer takes without a socket.
    pub(crate) most_delay: Mutex<Duration>,
}

impl State {
    pub(crate) fn of(mut world: World) -> Arc<State> {
        world.forget_index();
        Arc::new(State {
            world: Mutex::new(world),
            log: Mutex::new(Log::default()),
            requests: AtomicU64::new(1),
            connections: Connections::default(),
            keeps_answers: AtomicBool::new(false),
            answers: Mutex::default(),
            most_delay: Mutex::default(),
        })
    }

    /// Waits for the time that a request or an answer takes. It is never zero.
    pub(crate) async fn on_the_way(&self) {
        let most = *lock(&self.most_delay);
        let delay = ON_THE_WAY + most.mul_f64(fastrand::f64());
        tokio::time::sleep(delay).await;
    }
}

/// Locks a mutex, even if a test panicked while it held the lock, so that other tests do not fail.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
