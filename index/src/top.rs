//! The best few of many, found without keeping all.

/// Numbers with the highest scores; of equal scores the lower numbers.
#[derive(Debug)]
pub(crate) struct Top {
    count: usize,
    /// Nothing below this is among the best.
    floor: f32,
    /// Up to twice as many as are wanted.
    kept: Vec<(f32, u64)>,
}

impl Top {
    /// The best `count`, of none so far.
    pub(crate) fn new(count: usize) -> Self {
        Self { count: count.max(1), floor: f32::NEG_INFINITY, kept: Vec::new() }
    }

    /// Scores below this need not be pushed.
    pub(crate) fn floor(&self) -> f32 {
        self.floor
    }

    /// Raises the floor to that of others, where it is below: what those have found decides that
    /// nothing below is among the best of all.
    pub(crate) fn raise(&mut self, floor: f32) {
        self.floor = self.floor.max(floor);
    }

    /// Adds a number; none may come twice.
    pub(crate) fn push(&mut self, score: f32, number: u64) {
        self.kept.push((score, number));
        if self.kept.len() >= self.count.saturating_mul(2) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.kept.len() > self.count {
            let (_, last, _) = self.kept.select_nth_unstable_by(self.count - 1, order);
            self.floor = self.floor.max(last.0);
            self.kept.truncate(self.count);
        }
    }

    /// The best of both.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.kept.extend(other.kept);
        self.cut();
        self
    }

    /// The numbers, in no order.
    pub(crate) fn numbers(mut self) -> Vec<u64> {
        self.cut();
        self.kept.into_iter().map(|(_, number)| number).collect()
    }

    /// Numbers and scores, best first.
    pub(crate) fn sorted(mut self) -> Vec<(f32, u64)> {
        self.cut();
        self.kept.sort_unstable_by(order);
        self.kept
    }
}

/// Best first, equal scores by ascending number.
fn order(a: &(f32, u64), b: &(f32, u64)) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_do_not_depend_on_how_they_are_divided() {
        let scored: Vec<(f32, u64)> = (0..5000_u64).map(|i| ((i * 37 % 101) as f32, i)).collect();
        let of = |parts: usize| {
            let parts = scored.chunks(scored.len() / parts).map(|part| {
                let mut best = Top::new(70);
                for (score, number) in part {
                    if *score >= best.floor() {
                        best.push(*score, *number);
                    }
                }
                best
            });
            parts.reduce(Top::merge).unwrap().sorted()
        };
        let mut expected = scored.clone();
        expected.sort_by(order);
        expected.truncate(70);
        for parts in [1, 7, 50] {
            assert_eq!(of(parts), expected);
        }
        // What one part has found spares the others, also a short one that knows little itself.
        let mut floor = f32::NEG_INFINITY;
        let mut pushed = 0;
        let (head, tail) = scored.split_at(4900);
        let parts = head.chunks(700).chain([tail]).map(|part| {
            let mut best = Top::new(70);
            best.raise(floor);
            pushed = 0;
            for (score, number) in part.iter().filter(|(score, _)| *score >= floor) {
                pushed += 1;
                best.push(*score, *number);
            }
            floor = best.floor();
            best
        });
        let best = parts.reduce(Top::merge).unwrap();
        assert_eq!(best.sorted(), expected);
        assert!(floor > 70.0 && pushed < 50, "{floor} {pushed}");
        let mut few = Top::new(3);
        few.push(1.0, 4);
        assert_eq!(few.numbers(), [4]);
    }
}
