//! Exact shares: the largest-remainder method (Hamilton) and rounding half up, in integers.

/// Splits `total` in proportion to `weights`, exactly: each share is its quota rounded down, and the units that remain go to
/// the largest remainders, the earlier of equal ones first. No share exceeds its weight while `total` does not exceed their
/// sum. Needs `0 <= total`, weights of at least 0, and a positive weight when `total` is positive.
pub fn split(total: i64, weights: &[i64]) -> Vec<i64> {
    let sum: i128 = weights.iter().map(|weight| i128::from(*weight)).sum();
    if total == 0 || sum == 0 {
        return vec![0; weights.len()];
    }
    let quotas = weights.iter().map(|weight| {
        let product = i128::from(total) * i128::from(*weight);
        ((product / sum) as i64, product % sum)
    });
    let (mut shares, remainders): (Vec<i64>, Vec<i128>) = quotas.unzip();
    let rest = (total - shares.iter().sum::<i64>()) as usize;
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|index| std::cmp::Reverse(remainders[*index]));
    for index in by_remainder.into_iter().take(rest) {
        shares[index] += 1;
    }
    shares
}

/// `value * part / whole`, a half rounded up. Needs `0 <= part <= whole`, `0 < whole` and `0 <= value`, so the result never
/// exceeds `value`.
pub fn part_of(value: i64, part: i64, whole: i64) -> i64 {
    let (value, part, whole) = (i128::from(value), i128::from(part), i128::from(whole));
    ((2 * value * part + whole) / (2 * whole)) as i64
}
