//! What all connections of a running simulator share.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::connection::Connections;
use crate::fault::Log;
use crate::world::World;

/// How long a request or an answer is on its way in this process, at least.
const ON_THE_WAY: Duration = Duration::from_millis(1);

/// Locked in this order: the world, then the log.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) world: Mutex<World>,
    pub(crate) log: Mutex<Log>,
    /// Gives each answer its request id.
    pub(crate) requests: AtomicU64,
    pub(crate) connections: Connections,
    pub(crate) keeps_answers: AtomicBool,
    /// What was answered, by the action.
    pub(crate) answers: Mutex<Vec<(String, String)>>,
    /// How long a request or an answer is on its way at most, without a socket.
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

    /// Waits for what is on its way: no call takes no time at all.
    pub(crate) async fn on_the_way(&self) {
        let most = *lock(&self.most_delay);
        let delay = ON_THE_WAY + most.mul_f64(fastrand::f64());
        tokio::time::sleep(delay).await;
    }
}

/// A test that failed while it held the lock must not make every other one fail.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
