//! Latencies in microseconds, to within a sixty-fourth.

/// Values below this are counted exactly; above, each power of two has half as many steps.
const STEPS: u64 = 128;
const BUCKETS: usize = 64 * 64;

pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, max: 0 }
    }
}

impl Histogram {
    pub(super) fn add(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// Adds what another one counted.
    pub(super) fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// The value that such a share of all values does not exceed.
    pub(super) fn at(&self, share: f64) -> u64 {
        let wanted = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return top(at).min(self.max);
            }
        }
        self.max
    }
}

fn bucket(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let shift = 64 - value.leading_zeros() - STEPS.trailing_zeros();
    let step = (value >> shift) - STEPS / 2;
    (STEPS + u64::from(shift - 1) * (STEPS / 2) + step) as usize
}

/// The largest value of a bucket.
fn top(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let shift = (bucket - STEPS) / (STEPS / 2) + 1;
    let step = (bucket - STEPS) % (STEPS / 2) + STEPS / 2;
    ((step + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_values_and_no_others() {
        for shift in 0..57 {
            for value in [1u64 << shift, (1 << shift) + (1 << shift) / 3, (2 << shift) - 1] {
                let at = bucket(value);
                assert!(value <= top(at), "{value}");
                assert!(at == 0 || value > top(at - 1), "{value}");
                assert!(top(at) - value <= value / 64 + 1, "{value}");
            }
        }
    }

    #[test]
    fn shares() {
        let mut histogram = Histogram::default();
        (1..=100).for_each(|value| histogram.add(value));
        assert_eq!((histogram.at(0.5), histogram.at(0.99), histogram.at(1.0)), (50, 99, 100));
        let mut more = Histogram::default();
        (101..=300).for_each(|value| more.add(value));
        more.merge(&histogram);
        assert_eq!((more.at(0.1), more.at(1.0)), (30, 300));
    }
}
