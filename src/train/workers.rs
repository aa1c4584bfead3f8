//! Shards of a batch side by side, one thread each.

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::Result;

/// Threads that work on shards.
///
/// Each shard runs in a pool of a single thread, so what it computes with rayon stays on that
/// thread: at the sizes of small models two shards on a thread each are faster than one shard on
/// two.
#[derive(Debug)]
pub struct Workers {
    pools: Vec<ThreadPool>,
}

impl Workers {
    /// As many threads as there are cores, but no more than `shards`; none where there is one
    /// shard, which then has all cores.
    pub fn new(shards: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if shards <= 1 { 0 } else { shards.min(cores) };
        let pool = |_| ThreadPoolBuilder::new().num_threads(1).build().ok();
        Self { pools: (0..threads).filter_map(pool).collect() }
    }

    /// What `work` gives for each shard of `0..shards`, in order.
    ///
    /// # Errors
    ///
    /// The first error by the order of the shards.
    pub fn run<T: Send>(
        &self,
        shards: usize,
        work: impl Fn(usize) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        if self.pools.is_empty() {
            return (0..shards).map(work).collect();
        }
        let work = &work;
        let threads = self.pools.len();
        let mut results: Vec<Option<Result<T>>> = std::thread::scope(|scope| {
            let handles: Vec<_> = self
                .pools
                .iter()
                .enumerate()
                .map(|(first, pool)| {
                    scope.spawn(move || {
                        let own = (first..shards).step_by(threads);
                        pool.install(|| own.map(|shard| (shard, work(shard))).collect::<Vec<_>>())
                    })
                })
                .collect();
            let mut results: Vec<Option<Result<T>>> = (0..shards).map(|_| None).collect();
            for handle in handles {
                match handle.join() {
                    Ok(done) => {
                        for (shard, result) in done {
                            results[shard] = Some(result);
                        }
                    }
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            results
        });
        results.iter_mut().filter_map(Option::take).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::TrainError;

    #[test]
    fn results_come_in_the_order_of_the_shards() {
        for shards in [1, 2, 5] {
            let done = Workers::new(shards).run(shards, |i| Ok(i * i)).unwrap();
            assert_eq!(done, (0..shards).map(|i| i * i).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_error_is_the_answer() {
        let failed = Workers::new(4).run(4, |i| {
            if i < 2 { Ok(()) } else { Err(candle_core::Error::msg(format!("shard {i}")).into()) }
        });
        let Err(TrainError::Tensor(error)) = failed else { panic!("no error") };
        assert!(error.to_string().contains("shard 2"), "{error}");
    }
}
