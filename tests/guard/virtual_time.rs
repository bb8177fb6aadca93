//! What `#[tokio::test(crate = "crate::virtual_time")]` runs a test on: time stands still until everybody waits, and then
//! goes on to the next moment at which somebody wants to be woken. It begins at [`START`] in every test, and chance has a
//! seed, so that the same happens each time, however fast the machine is.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) use tokio::pin;

/// When every test begins: a Monday, at the stroke of an hour.
pub(crate) const START: &str = "2026-11-23T12:00:00Z";

pub(crate) mod runtime {
    use std::io;

    /// As tokio's.
    pub(crate) struct Builder;

    impl Builder {
        pub(crate) fn new_current_thread() -> Builder {
            Builder
        }

        pub(crate) fn enable_all(self) -> Builder {
            self
        }

        pub(crate) fn build(self) -> io::Result<Runtime> {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().start_paused(true).build().map(Runtime)
        }
    }

    pub(crate) struct Runtime(tokio::runtime::Runtime);

    /// However a test ends: the next one on its thread may be one on real time.
    struct End;

    impl Drop for End {
        fn drop(&mut self) {
            sim::clock::reset();
        }
    }

    impl Runtime {
        pub(crate) fn block_on<T>(&self, test: impl Future<Output = T>) -> T {
            let _end = End;
            self.0.block_on(async {
                super::begin(1);
                test.await
            })
        }
    }
}

/// Does the same work with each of these, each in a runtime of its own, which begins anew, so that none depends on another.
/// What came of each, in their order.
pub(crate) fn each<I: Sync, T: Send>(all: &[I], work: impl AsyncFn(&I) -> T + Sync) -> Vec<T> {
    on_threads(all, |one| {
        let runtime = runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(work(one))
    })
}

/// The same, on as many threads as there are processors.
pub(crate) fn on_threads<I: Sync, T: Send>(all: &[I], work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let work_off = || {
        while let Some((at, one)) = take(all, &next) {
            let result = work(one);
            done.lock().unwrap().push((at, result));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work_off);
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

fn take<'a, I>(all: &'a [I], next: &AtomicUsize) -> Option<(usize, &'a I)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    Some((at, all.get(at)?))
}

/// Begins anew on this thread, in a runtime whose time stands still, with this seed.
pub(crate) fn begin(seed: u64) {
    sim::clock::set(START.parse().unwrap());
    fastrand::seed(seed);
}
