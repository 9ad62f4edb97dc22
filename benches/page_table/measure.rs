//! Time, chance and order statistics.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time this thread has spent on a processor.
pub(crate) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Nanoseconds of this thread's processor time for each of `count` things that `work` does.
pub(crate) fn time_each(count: u64, work: impl FnOnce()) -> f64 {
    let start = thread_time();
    work();
    (thread_time() - start).as_secs_f64() * 1e9 / count as f64
}

/// What was measured: for each workload and contender one number a round.
#[derive(Default)]
pub(crate) struct Samples(BTreeMap<(&'static str, &'static str), Vec<f64>>);

impl Samples {
    pub(crate) fn add(&mut self, workload: &'static str, contender: &'static str, value: f64) {
        self.0.entry((workload, contender)).or_default().push(value);
    }

    pub(crate) fn of(&self, workload: &'static str, contender: &'static str) -> &[f64] {
        self.0.get(&(workload, contender)).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn workloads(&self) -> Vec<&'static str> {
        let mut workloads: Vec<_> = self.0.keys().map(|key| key.0).collect();
        workloads.dedup();
        workloads
    }

    pub(crate) fn contenders(&self, workload: &'static str) -> Vec<&'static str> {
        self.0.keys().filter(|key| key.0 == workload).map(|key| key.1).collect()
    }

    /// Round by round, how many times as long `theirs` takes as `ours`.
    pub(crate) fn ratios(
        &self,
        workload: &'static str,
        theirs: &'static str,
        ours: &'static str,
    ) -> Vec<f64> {
        let pairs = self.of(workload, theirs).iter().zip(self.of(workload, ours));
        pairs.map(|(theirs, ours)| theirs / ours).collect()
    }
}

/// The value that the given share of `values` is below.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}

/// A plain generator of numbers that look random, the same each time.
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Between 2 to the power of `low_lg2` and of `high_lg2`, each magnitude as likely.
    pub(crate) fn log_uniform(&mut self, low_lg2: u32, high_lg2: u32) -> u64 {
        let steps = 1 << 20;
        let share = self.below(steps) as f64 / steps as f64;
        let power = f64::from(low_lg2) + share * f64::from(high_lg2 - low_lg2);
        power.exp2() as u64
    }

    pub(crate) fn shuffle<T>(&mut self, values: &mut [T]) {
        for end in (1..values.len()).rev() {
            values.swap(end, self.below(end as u64 + 1) as usize);
        }
    }
}
