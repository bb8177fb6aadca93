//! Counts allocated memory, because the product's child process may take at most 96 MiB.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Most memory that a child process may take, in bytes.
const MOST: usize = 96 * 1024 * 1024;

static TAKEN: AtomicUsize = AtomicUsize::new(0);
/// Allocated bytes above which the place of the allocation is recorded, once.
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);
static TOO_MUCH: Mutex<Option<String>> = Mutex::new(None);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is passed unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn take(bytes: usize) {
    let taken = TAKEN.fetch_add(bytes, Relaxed) + bytes;
    if taken > LIMIT.load(Relaxed) {
        // Recording allocates memory, too.
        LIMIT.store(usize::MAX, Relaxed);
        let backtrace = Backtrace::force_capture().to_string();
        let mut places = backtrace.lines().map(str::trim);
        let place =
            places.find(|line| line.contains("/registry/src/") || line.contains("/disk/src/"));
        *TOO_MUCH.lock().expect("no panic") = Some(place.unwrap_or_default().to_owned());
    }
}

/// The result of `work`, and the place where it took more memory than a child process may, if it did.
pub(crate) fn measured<T>(work: impl FnOnce() -> T) -> (T, Option<String>) {
    LIMIT.store(TAKEN.load(Relaxed) + MOST, Relaxed);
    let result = work();
    LIMIT.store(usize::MAX, Relaxed);
    (result, TOO_MUCH.lock().expect("no panic").take())
}
