//! The cheapest assignment of things to queries.

/// For each row of `cost` (rows times columns, row by row) its own column, such that the sum of
/// the costs is least: the Hungarian method with potentials (Kuhn, 1955; Jonker and Volgenant,
/// 1987), in O(rows² columns).
///
/// # Panics
///
/// When there are fewer columns than rows.
pub fn assign(cost: &[f32], columns: usize) -> Vec<usize> {
    let rows = cost.len().checked_div(columns).unwrap_or(0);
    assert!(rows <= columns, "{rows} rows share {columns} columns");
    // Column 0 and row 0 are stand-ins; `owner[c]` is the row that holds column c.
    let mut row_potential = vec![0.0_f32; rows + 1];
    let mut column_potential = vec![0.0_f32; columns + 1];
    let mut owner = vec![0_usize; columns + 1];
    for row in 1..=rows {
        owner[0] = row;
        let mut least = vec![f32::INFINITY; columns + 1];
        let mut from = vec![0_usize; columns + 1];
        let mut visited = vec![false; columns + 1];
        let mut at = 0;
        // Grows a tree of tight edges until it reaches a free column.
        while owner[at] != 0 {
            visited[at] = true;
            let current = owner[at];
            let (mut delta, mut next) = (f32::INFINITY, 0);
            for column in 1..=columns {
                if visited[column] {
                    continue;
                }
                let reduced = cost[(current - 1) * columns + column - 1]
                    - row_potential[current]
                    - column_potential[column];
                if reduced < least[column] {
                    (least[column], from[column]) = (reduced, at);
                }
                if least[column] < delta || next == 0 {
                    (delta, next) = (least[column], column);
                }
            }
            for column in 0..=columns {
                if visited[column] {
                    row_potential[owner[column]] += delta;
                    column_potential[column] -= delta;
                } else {
                    least[column] -= delta;
                }
            }
            at = next;
        }
        // Hands the columns of the path on.
        while at != 0 {
            let before = from[at];
            owner[at] = owner[before];
            at = before;
        }
    }
    let mut columns_of = vec![0; rows];
    for (column, row) in owner.iter().enumerate().skip(1) {
        if *row != 0 {
            columns_of[row - 1] = column - 1;
        }
    }
    columns_of
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn price(cost: &[f32], columns: usize, chosen: &[usize]) -> f32 {
        chosen.iter().enumerate().map(|(row, column)| cost[row * columns + column]).sum()
    }

    /// The least price by trying everything.
    fn least(cost: &[f32], columns: usize, row: usize, taken: &mut Vec<usize>) -> f32 {
        if row * columns == cost.len() {
            return price(cost, columns, taken);
        }
        let mut best = f32::INFINITY;
        for column in 0..columns {
            if !taken.contains(&column) {
                taken.push(column);
                best = best.min(least(cost, columns, row + 1, taken));
                taken.pop();
            }
        }
        best
    }

    proptest! {
        #[test]
        fn no_assignment_is_cheaper(
            rows in 0_usize..4,
            costs in prop::collection::vec(-5.0_f32..5.0, 20),
        ) {
            let cost = &costs[..rows * 5];
            let chosen = assign(cost, 5);
            let mut distinct = chosen.clone();
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), rows);
            let best = least(cost, 5, 0, &mut Vec::new());
            prop_assert!((price(cost, 5, &chosen) - best).abs() < 1e-4);
        }
    }
}
