//! Where the time of a network goes: the operations that have a kernel, timed and counted when asked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

static ACTIVE: AtomicBool = AtomicBool::new(false);
static TABLE: Mutex<BTreeMap<&'static str, Usage>> = Mutex::new(BTreeMap::new());

#[derive(Clone, Copy, Default)]
struct Usage {
    calls: u64,
    time: Duration,
    flops: f64,
}

/// What one kind of operation did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OperationProfile {
    /// Its name.
    pub operation: &'static str,
    /// How often it ran.
    pub calls: u64,
    /// Seconds it took, summed over the threads that called it.
    pub seconds: f64,
    /// Floating-point operations of the plain algorithm (a multiplication and an addition are two); 0 where memory sets the pace.
    pub flops: f64,
}

/// Runs `f`, and returns what the CPU kernels did in the meantime, in this and every other thread, the longest first.
///
/// What no kernel serves (burn's own operations, copies, the sampler's arithmetic) is not in the list: it is the difference to the
/// whole time.
pub fn profile<R>(f: impl FnOnce() -> R) -> (R, Vec<OperationProfile>) {
    let table = || std::mem::take(&mut *TABLE.lock().unwrap_or_else(PoisonError::into_inner));
    table();
    ACTIVE.store(true, Ordering::Relaxed);
    let result = f();
    ACTIVE.store(false, Ordering::Relaxed);
    let mut list: Vec<OperationProfile> = table()
        .into_iter()
        .map(|(operation, Usage { calls, time, flops })| OperationProfile { operation, calls, seconds: time.as_secs_f64(), flops })
        .collect();
    list.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    (result, list)
}

/// Times an operation from its making to its end.
pub(crate) struct Timer(Option<(&'static str, f64, Instant)>);

impl Timer {
    pub(crate) fn start(operation: &'static str, flops: f64) -> Self {
        Self(ACTIVE.load(Ordering::Relaxed).then(|| (operation, flops, Instant::now())))
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some((operation, flops, start)) = self.0 {
            let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
            let usage = table.entry(operation).or_default();
            usage.calls += 1;
            usage.time += start.elapsed();
            usage.flops += flops;
        }
    }
}
